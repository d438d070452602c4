"""Signals at every moment of the daemon's life, and stops under every kind of load."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from ..running import wait_until

if TYPE_CHECKING:
    from ..running import Daemon

SECONDS = 20.0
MIB = 1024 * 1024


def traced(daemon: Daemon, *expressions: str) -> Daemon:
    """Have strace watch it from beside (-D): it is our own child."""
    options = [word for each in expressions for word in ("-e", each)]
    daemon.prefix = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", *options)
    return daemon


@pytest.mark.parametrize("call", ["flock", "bind", "listen", "rename"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_cleanly(
    idle_daemon: Daemon, call: str, number: signal.Signals
) -> None:
    """The socket is bound before anybody receives signals."""
    traced(idle_daemon, f"inject={call}:signal={number.value}:when=1")
    process = idle_daemon.spawn()
    assert process.wait(SECONDS) == 0, idle_daemon.log
    assert f"stopping: {number.name}" in idle_daemon.log
    assert "Traceback" not in idle_daemon.log
    assert sorted(os.listdir(idle_daemon.directory)) == ["cache", "log"]


def test_a_reload_while_it_starts_is_done_when_it_serves(idle_daemon: Daemon) -> None:
    traced(idle_daemon, f"inject=listen:signal={signal.SIGHUP.value}:when=1")
    idle_daemon.start()
    said = "the configuration was read again: nothing changes now"
    wait_until(lambda: said in idle_daemon.log, SECONDS, "the reload")
    assert idle_daemon.stop() == 0


def test_a_shortage_of_descriptors_is_logged_once(idle_daemon: Daemon) -> None:
    idle_daemon.prefix = ["prlimit", "--nofile=96:96"]
    idle_daemon.start()
    with idle_daemon.connect() as first:
        clients = [idle_daemon.connect() for _ in range(100)]

        def pauses() -> int:
            return int(first.ok("status")["counters"].get("accept_pauses", 0))

        wait_until(pauses, SECONDS, "a shortage")
        began = first.ok("status")["uptime_ns"]
        # Accepting is tried again four times a second.
        wait_until(
            lambda: first.ok("status")["uptime_ns"] > began + 1_500_000_000, SECONDS, "some tries"
        )
        assert pauses() == 1
        for client in clients:
            client.socket.close()
        over = "new clients are accepted again"
        wait_until(lambda: over in idle_daemon.log, SECONDS, "the end of the shortage")
        with idle_daemon.connect() as late:
            assert late.ok("ping") == "pong"
    assert idle_daemon.stop() == 0
    assert idle_daemon.log.count("no new clients for now: the last descriptors are for") == 1
    assert idle_daemon.log.count(over) == 1


# Stops


def stop_in_time(daemon: Daemon, *, status: int = 0) -> None:
    """Have it stop by SIGTERM, within 5 s of its own clock: strace holds the process itself up."""
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == status, daemon.log
    daemon.assert_stopped_in_time()


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_a_stop_waits_for_no_client(idle_daemon: Daemon, serving: str) -> None:
    """One takes none of its answers, one never ends its frame, one has a bulk staged."""
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    with ExitStack() as stack:
        deaf, slow, stages, last = (stack.enter_context(idle_daemon.connect()) for _ in range(4))
        for client in (deaf, slow, stages, last):
            client.hello()
        deaf.ok("put", "big", bytes(MIB))
        deaf.send(deaf.request_bytes("get", "big") * 20)
        slow.send(slow.request_bytes("put", "never", b"1")[:-1])
        token = stages.ok("bulk_begin", "merge")
        assert stages.ok("bulk_add", token, {f"n{number}": [bytes(1000)] for number in range(500)})
        assert last.ok("put", "last", b"1", None, None, "memory")
        stop_in_time(idle_daemon)
    assert {name.split("/")[1] for name in idle_daemon.files} == {"image"}
    with idle_daemon.start().cache() as cache:
        assert cache.get_many(["last", "never", "n0", "big"]) == {"last": b"1", "big": bytes(MIB)}


def test_a_stop_while_an_image_is_built(idle_daemon: Daemon) -> None:
    """The rename at the build's end takes its time: meanwhile the daemon is told to stop."""
    traced(idle_daemon, "inject=rename:delay_enter=1000000:when=2+")
    idle_daemon.start()
    blobs = {f"n{number}": bytes([number]) * 100_000 for number in range(50)}
    with idle_daemon.cache() as cache:
        cache.put_many(blobs)
        wait_until(
            lambda: any(name.endswith("image.tmp") for name in idle_daemon.files),
            SECONDS,
            "the build",
        )
        cache.put("after", b"1")
        stop_in_time(idle_daemon)
    assert {name.split("/")[1] for name in idle_daemon.files} == {"image"}
    idle_daemon.prefix = ()
    with idle_daemon.start().cache() as cache:
        assert cache.get_many([*blobs, "after"]) == {**blobs, "after": b"1"}


def test_a_stop_with_a_slow_disk_answers_what_was_taken(idle_daemon: Daemon) -> None:
    """Every sync takes 0.3 s; writes that were taken are answered before the connection ends."""
    traced(idle_daemon, "inject=fdatasync,fsync:delay_enter=300000")
    idle_daemon.start()
    with idle_daemon.connect() as client:
        client.hello()
        first = client.request_bytes("put", "first", b"1", None, None, "fsync")
        rest = [
            client.request_bytes("put", f"n{number}", b"1", None, None, "fsync")
            for number in range(50)
        ]
        client.send(first + b"".join(rest))
        answer = client.receive()
        assert answer is not None
        assert answer.error is None
        # The first batch was answered: the next one waits for its sync.
        stop_in_time(idle_daemon)
        answers = [client.receive() for _ in rest]
        codes = {each.error and each.error[0] for each in answers if each is not None}
        assert codes <= {None, "shutting_down"}
        assert None in codes
        assert client.is_closed()
    idle_daemon.prefix = ()
    with idle_daemon.start().cache() as cache:
        for number, each in enumerate(answers):
            if each is not None and each.error is None:
                assert cache.get(f"n{number}") == b"1"
