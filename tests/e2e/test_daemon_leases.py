"""Leases over real sockets: of many that ask at once one makes it, whatever becomes of that one."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_protocol.limits import LEASES, LEASES_PER_CONNECTION

from ..running import (
    ANSWER_SECONDS,
    Daemon,
    own_environment,
    producer_map,
    takes_less_than,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..running import RawClient

SECONDS = 20.0
LONG = (None, None, 10_000)
TERMINALS = 10


@contextmanager
def clients(served: Daemon, producer: str, count: int) -> Iterator[list[RawClient]]:
    """Connections of one producer."""
    with ExitStack() as stack:
        found = [stack.enter_context(served.connect()) for _ in range(count)]
        for client in found:
            assert client.hello(producer_map(producer)).error is None
        yield found


def send(client: RawClient, name: str, *params: object) -> None:
    """Ask for a lease without taking the answer."""
    client.send(client.request_bytes("lease", name, *params))


def result(client: RawClient) -> Any:
    """Return the result of the next answer."""
    answer = client.receive()
    assert answer is not None, "the server closed the connection"
    assert answer.error is None, answer.error
    return answer.result


def wait_for(served: Daemon, *, held: int, waiting: int) -> None:
    """Wait until the daemon says so."""

    def found() -> bool:
        leases = served.status()["leases"]
        return bool((leases["held"], leases["waiting"]) == (held, waiting))

    wait_until(found, SECONDS, f"{held} leases and {waiting} who wait")


# Processes of their own


TERMINAL = """
import json, os, sys, time
from autoloadd_client import Cache, Entry, Lease
path, producer, runs, go = sys.argv[1:]
with Cache(producer, socket_path=path, timeout=20.0) as cache:
    assert cache.get("tool", fingerprint=b"v1") is None
    print("ready", flush=True)
    sys.stdin.readline()
    made = cache.lease("tool", fingerprint=b"v1", wait=10.0)
    if isinstance(made, Lease):
        print(json.dumps("fill"), flush=True)
        with open(runs, "a") as log:
            log.write(f"{os.getpid()}\\n")
        if go == "hangs":
            time.sleep(600)
        time.sleep(0.2)
        made.fill(b"output of the tool")
    print(json.dumps(made.blob.decode() if isinstance(made, Entry) else None), flush=True)
"""


class Terminal:
    """A process that misses an entry and asks for the lease when it is told to."""

    def __init__(self, served: Daemon, producer: str, runs: Path, *, hangs: bool = False) -> None:
        arguments = [served.socket_path, producer, str(runs), "hangs" if hangs else "works"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=own_environment({}),
        )

    def line(self) -> bytes:
        """Return what it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        """Have it ask."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def said(self) -> list[object]:
        """Return what it said until its end."""
        out, _ = self.process.communicate(timeout=ANSWER_SECONDS)
        assert self.process.returncode == 0
        return [json.loads(line) for line in out.splitlines()]

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def terminals(
    served: Daemon, producer: str, runs: Path, *, hanging: int = 0, count: int = TERMINALS
) -> Iterator[list[Terminal]]:
    """Terminals that are ready to ask; the first of them hang when they are asked to make it."""
    found = [
        Terminal(served, producer, runs, hangs=number < hanging)
        for number in range(hanging + count)
    ]
    try:
        assert [terminal.line() for terminal in found] == [b"ready"] * len(found)
        yield found
    finally:
        for terminal in found:
            terminal.end()


def test_ten_terminals_run_the_tool_once(served: Daemon, producer: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with terminals(served, producer, runs) as all_of_them:
        for terminal in all_of_them:
            terminal.go()
        said = [terminal.said() for terminal in all_of_them]
    assert sorted(said, key=len) == [["output of the tool"]] * (TERMINALS - 1) + [["fill", None]]
    assert len(runs.read_text().split()) == 1
    wait_for(served, held=0, waiting=0)


def test_when_its_holder_is_killed_the_next_runs_it(
    served: Daemon, producer: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with terminals(served, producer, runs, hanging=1, count=3) as (first, *others):
        first.go()
        assert first.line() == b'"fill"'
        for terminal in others:
            terminal.go()
        wait_for(served, held=1, waiting=3)
        os.kill(first.process.pid, signal.SIGKILL)
        said = [terminal.said() for terminal in others]
    assert sorted(said, key=len) == [["output of the tool"]] * 2 + [["fill", None]]
    assert len(runs.read_text().split()) == 2


# Time


def test_a_wait_is_over_when_it_is_to_be(served: Daemon, producer: str) -> None:
    """Never before; and, on a machine that has a moment, within 20 ms of it."""
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"

        def ask(wait_ms: int) -> None:
            began = time.monotonic()
            assert other.ok("lease", "a", None, None, wait_ms) is None
            assert time.monotonic() - began >= wait_ms / 1000

        for wait_ms in (0, 1, 30, 100):
            takes_less_than(wait_ms / 1000 + 0.02, lambda wait_ms=wait_ms: ask(wait_ms))  # type: ignore[misc]


def test_a_wait_is_over_in_time_while_others_keep_the_daemon_busy(
    served: Daemon, producer: str
) -> None:
    """The serving task lets the clock's task run, however much there is to serve."""
    with clients(served, producer, 3) as (holder, other, busy):
        assert holder.ok("lease", "a") == "fill"
        count = 3_000
        first = busy._id + 1
        busy.send(b"".join(busy.request_bytes("ping") for _ in range(count)))
        send(other, "a", None, None, 20)
        began = time.monotonic()
        assert result(other) is None
        assert time.monotonic() - began < SECONDS / 2
        assert len(busy.answers(first, count)) == count


def test_a_hold_is_over_when_it_is_to_be(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (holder, other):
        for hold_ms in (1, 80):
            began = time.monotonic()
            assert holder.ok("lease", "a", None, None, 0, hold_ms) == "fill"
            assert other.ok("lease", "a", *LONG) == "fill"
            assert hold_ms / 1000 <= time.monotonic() - began < SECONDS / 4
            # Who was late may store it all the same.
            assert holder.ok("put", "a", b"late") > 0
            assert other.ok("get", "a")[1] == b"late"
            other.ok("delete", ["a"])


# What ends a lease


def test_the_end_of_the_holder_is_noticed_at_once(served: Daemon, producer: str) -> None:
    def pass_it_on() -> None:
        with clients(served, producer, 2) as (holder, other):
            assert holder.ok("lease", "a", None, None, 0, 120_000) == "fill"
            send(other, "a", *LONG)
            wait_for(served, held=1, waiting=1)
            began = time.monotonic()
            holder.socket.close()
            assert result(other) == "fill"
            took.append(time.monotonic() - began)
        wait_for(served, held=0, waiting=0)

    took: list[float] = []
    while not took or min(took) > 0.1:
        assert len(took) < 5, took
        pass_it_on()


def test_a_holder_that_is_cut_off_is_followed_too(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"
        send(other, "a", *LONG)
        wait_for(served, held=1, waiting=1)
        holder.send(bytes(4))
        assert result(other) == "fill"


def test_a_holder_that_stops_half_way_in_a_frame_is_followed(served: Daemon, producer: str) -> None:
    """It is cut off by the daemon's tick, not by anything that it sends."""
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"
        send(other, "a", *LONG)
        wait_for(served, held=1, waiting=1)
        holder.send(b"\0\0\1\0half")
        assert result(other) == "fill"
        assert holder.is_closed()


def test_somebody_else_puts_it(served: Daemon, producer: str) -> None:
    with clients(served, producer, 5) as (holder, *others, stranger):
        assert holder.ok("lease", "a") == "fill"
        for client in others:
            send(client, "a", *LONG)
        wait_for(served, held=1, waiting=3)
        stranger.notify("put_many", {"a": [b"stranger's", None, 7, 8]})
        entry = ("a", b"stranger's", None, 7, 8)
        assert [result(client) for client in others] == [entry] * 3
        wait_for(served, held=0, waiting=0)
        assert holder.ok("unlease", "a") is None
        assert holder.ok("put", "a", b"holder's") == 2


def test_different_versions_are_made_one_after_another(served: Daemon, producer: str) -> None:
    with clients(served, producer, 3) as (first, second, third):
        assert first.ok("lease", "a", None, b"v1") == "fill"
        send(second, "a", None, b"v2", 10_000)
        wait_for(served, held=1, waiting=1)
        send(third, "a", None, b"v2", 10_000)
        wait_for(served, held=1, waiting=2)
        first.ok("put", "a", b"one", None, b"v1")
        assert result(second) == "fill", "never what is stale for it"
        wait_for(served, held=1, waiting=1)
        second.ok("put", "a", b"two", None, b"v2")
        assert result(third)[:3] == ("a", b"two", b"v2")


def test_the_old_one_while_the_new_one_is_made(served: Daemon, producer: str) -> None:
    blob = os.urandom(1 << 20)
    with clients(served, producer, 2) as (holder, other):
        holder.ok("put", "a", blob, None, b"v1")
        wanted = ("a", None, b"v2", 10_000, None, True)
        assert holder.ok("lease", *wanted) == "fill"
        assert other.ok("lease", *wanted)[:3] == ("a", blob, b"v1")
        holder.ok("put", "a", b"new", None, b"v2")
        assert other.ok("lease", *wanted)[:3] == ("a", b"new", b"v2")


# Order


def test_a_pipeline_is_answered_in_order(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"
        first = other._id + 1
        requests: list[tuple[Any, ...]] = [
            ("get", "a"),
            ("put", "b", b"1"),
            ("lease", "a", *LONG),
            ("get", "a"),
            ("put", "c", b"2"),
            ("lease", "c", *LONG),
            ("names",),
        ]
        other.send(b"".join(other.request_bytes(*each) for each in requests))
        before = other.answers(first, 2)
        wait_for(served, held=1, waiting=1)
        assert holder.ok("get", "c") is None
        holder.ok("put", "a", b"made")
        results = [answer.result for answer in before + other.answers(first + 2, 5)]
    assert results[0] is None
    assert [results[2][:2], results[3][:2]] == [("a", b"made")] * 2
    assert results[5][:2] == ("c", b"2")
    assert results[6] == (("a", None), ("b", None), ("c", None))


def test_others_are_served_while_somebody_waits(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"
        send(other, "a", *LONG)
        wait_for(served, held=1, waiting=1)
        other.send(b"".join(other.request_bytes("ping") for _ in range(5_000)))
        takes_less_than(0.05, lambda: holder.ok("ping"))
        holder.ok("put", "a", b"made")
        assert result(other)[1] == b"made"
        assert {result(other) for _ in range(5_000)} == {"pong"}


def test_who_writes_and_closes_its_side_is_answered(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (holder, other):
        assert holder.ok("lease", "a") == "fill"
        send(other, "a", *LONG)
        other.end_input()
        wait_for(served, held=1, waiting=1)
        holder.ok("put", "a", b"made")
        assert result(other)[1] == b"made"
        assert other.is_closed()


def test_who_is_gone_when_its_turn_comes_is_passed_over(served: Daemon, producer: str) -> None:
    with clients(served, producer, 4) as (holder, gone, killed, last):
        assert holder.ok("lease", "a") == "fill"
        for number, client in enumerate((gone, killed, last), 1):
            send(client, "a", *LONG)
            wait_for(served, held=1, waiting=number)
        gone.socket.close()
        killed.end_input()
        holder.ok("unlease", "a")
        assert result(last) == "fill"
        assert result(killed) == "fill"
        assert killed.is_closed()


# Bounds, and those who try them


def test_so_many_for_one_connection(served: Daemon, producer: str) -> None:
    with clients(served, producer, 2) as (greedy, other):
        for number in range(LEASES_PER_CONNECTION):
            assert greedy.ok("lease", f"name {number}") == "fill"
        assert greedy.refusal("lease", "one more") == "busy"
        assert other.ok("lease", "one more") == "fill"
        limits = greedy.hello(producer_map(producer)).result["limits"]
        assert (limits["leases"], limits["leases_per_connection"]) == (LEASES, 64)
        assert "lease" in greedy.hello(producer_map(producer)).result["features"]


def test_so_many_for_all(served: Daemon, producer: str) -> None:
    count = LEASES // LEASES_PER_CONNECTION
    wait_for(served, held=0, waiting=0)
    with clients(served, producer, count) as greedy:
        for at, client in enumerate(greedy):
            names = [f"{at} {number}" for number in range(LEASES_PER_CONNECTION)]
            answers = client.call_all(*[("lease", name) for name in names])
            assert {answer.result for answer in answers} == {"fill"}
        with clients(served, producer, 1) as (other,):
            assert other.refusal("lease", "one more") == "busy"
            assert other.ok("lease", "0 0") is None
            assert other.ok("put", "0 0", b"made") > 0
            assert other.ok("lease", "one more") == "fill"
            assert other.ok("put", "1 1", b"made") > 0
            assert other.ok("lease", "1 1")[1] == b"made"
    wait_for(served, held=0, waiting=0)


def make_one_after_another(crowd: list[RawClient], times: int) -> None:
    """Have so many be given the lease, and end; who came first is the daemon's to say."""
    with selectors.DefaultSelector() as selector:
        for client in crowd:
            selector.register(client.socket, selectors.EVENT_READ, client)
        for _ in range(times):
            ((key, _events),) = selector.select(SECONDS)
            assert result(key.data) == "fill"
            selector.unregister(key.fileobj)
            key.data.socket.close()


@pytest.mark.parametrize("way", ["put", "end"])
def test_a_thousand_who_wait(served: Daemon, producer: str, way: str) -> None:
    """They take little memory, and cost the others nothing; then they are answered."""
    wait_until(lambda: served.status()["connections"] == 1, SECONDS, "earlier clients to go")
    name = "n" * 1024
    with clients(served, producer, 1_002) as (holder, bystander, *crowd):
        before = bystander.ok("status")["memory_bytes"]
        wanted = (name, None, b"f" * 1024, 10_000, None, way == "put")
        assert holder.ok("lease", *wanted) == "fill"
        for client in crowd:
            send(client, *wanted)
        wait_for(served, held=1, waiting=len(crowd))
        assert bystander.ok("status")["memory_bytes"] - before < 16 << 20
        takes_less_than(0.05, lambda: bystander.ok("ping"))
        if way == "put":
            holder.ok("put", name, b"made", None, b"f" * 1024)
            assert {result(client)[1] for client in crowd} == {b"made"}
        else:
            holder.socket.close()
            make_one_after_another(crowd, 20)
            # The others are gone before their turn comes.
            for client in crowd:
                client.socket.close()
        wait_for(served, held=0, waiting=0)


def test_a_stop_lets_nobody_wait(served: Daemon) -> None:
    """Each is told to go on alone, and the end comes no later for it."""
    daemon = Daemon(served.directory / "stops", environment=dict(served.environment))
    daemon.directory.mkdir(mode=0o700)
    daemon.start()
    with clients(daemon, "test/1/8", 3) as (holder, *others):
        assert holder.ok("lease", "a") == "fill"
        for client in others:
            send(client, "a", *LONG)
        wait_for(daemon, held=1, waiting=2)
        assert daemon.process is not None
        daemon.process.terminate()
        assert [result(client) for client in others] == [None, None]
        assert daemon.wait() == 0
        daemon.assert_stopped_in_time()


def test_a_shutdown_is_answered_behind_those_who_wait(served: Daemon) -> None:
    daemon = Daemon(served.directory / "ends", environment=dict(served.environment))
    daemon.directory.mkdir(mode=0o700)
    daemon.start()
    with clients(daemon, "test/1/8", 3) as (holder, other, stops):
        assert holder.ok("lease", "a") == "fill"
        send(other, "a", *LONG)
        wait_for(daemon, held=1, waiting=1)
        assert stops.ok("shutdown") is None
        assert result(other) is None
        assert daemon.wait() == 0
