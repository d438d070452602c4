"""No client waits for another's heap of requests, and none is forgotten in its own."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from ..running import Daemon, private_directory, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_client import Cache

    from ..running import RawClient

SECONDS = 20.0


def test_reads_behind_a_write_that_is_synced_are_all_answered(client: RawClient) -> None:
    requests = [client.request_bytes("put", "a", b"1", None, None, "fsync")]
    requests += [client.request_bytes("get", "a") for _ in range(300)]
    client.send(b"".join(requests))
    answers = [client.receive() for _ in requests]
    assert all(answer is not None and answer.error is None for answer in answers)


def test_nothing_passes_a_shutdown(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.hello()
        first, second = client.request_bytes("shutdown"), client.request_bytes("put", "a", b"1")
        client.send(first + second)
        answer = client.receive()
        assert answer is not None
        assert answer.error is None
        assert answer.result is None
        assert client.receive() is None
    assert daemon.wait() == 0


def test_a_client_that_never_stops_asking_keeps_nobody_waiting(
    daemon: Daemon, cache: Cache
) -> None:
    stop = threading.Event()

    def ask_on() -> None:
        with daemon.connect() as client:
            client.hello()
            heap = b"".join(client.request_bytes("put", f"n{i}", bytes(100)) for i in range(2000))
            try:
                while not stop.is_set():
                    client.send(heap)
                    for _ in range(2000):
                        client.receive()
            except (BrokenPipeError, ConnectionResetError):
                return

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        wait_until(lambda: cache.count() == 2000, SECONDS, "the heap")
        assert daemon.stop() == 0
    finally:
        stop.set()
        thread.join()


def test_what_is_staged_before_a_drop_never_meets_what_is_staged_after(daemon: Daemon) -> None:
    with daemon.connect() as first, daemon.connect() as second:
        first.hello()
        first.ok("put", "c", b"before")
        token = first.ok("bulk_begin", "merge")
        first.ok("bulk_add", token, {"a": [b"first"]})
        (shard,) = first.ok("shards")
        first.ok("drop_shard", shard["id"])
        second.hello()
        other = second.ok("bulk_begin", "merge")
        second.ok("bulk_add", other, {"b": [b"second"]})
        refused = first.call("bulk_commit", token, "fsync").error
        assert refused is not None
        assert refused[0] == "not_durable"
        second.ok("bulk_add", other, {"c": [b"third"]})
        second.ok("bulk_commit", other, "fsync")
    daemon.kill()
    with daemon.start().cache() as cache:
        assert cache.get_many(["a", "b", "c"]) == {"b": b"second", "c": b"third"}
        assert cache.status()["storage"]["set_aside"] == ()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be undone, also where a test fails in the middle."""
    with ExitStack() as stack:
        yield stack


def in_a_directory_of_its_own(home: Path, stack: ExitStack) -> Daemon:
    """Return a daemon whose socket's directory can be removed without anything else."""
    daemon = Daemon(home / "run", options=["--cache-dir", str(home / "cache")])
    daemon.directory.mkdir(mode=0o700)
    stack.callback(daemon.end)
    return daemon.start()


def test_a_socket_directory_that_is_removed_comes_back(home: Path, stack: ExitStack) -> None:
    daemon = in_a_directory_of_its_own(home, stack)
    with daemon.cache() as cache:
        cache.put("a", b"1")
        log = daemon.log_path.open("rb")
        os.rename(daemon.directory, home / "gone")
        wait_until((daemon.directory / "socket").exists, SECONDS, "the socket")
        cache.close()
        assert cache.get("a") == b"1"
    assert daemon.stop() == 0
    with log:
        assert b"bound again" in log.read()


def test_a_daemon_whose_socket_directory_is_another_ones_now_stops(
    home: Path, stack: ExitStack
) -> None:
    daemon = in_a_directory_of_its_own(home, stack)
    os.rename(daemon.directory, home / "gone")
    # The daemon may have been quicker, and made it itself.
    daemon.directory.mkdir(mode=0o700, exist_ok=True)
    with private_directory() as directory:
        successor = Daemon(daemon.directory, options=["--cache-dir", str(directory / "cache")])
        successor.process = successor.spawn()
        both = (daemon, successor)
        wait_until(lambda: any(map(has_ended, both)), SECONDS, "one of them to give way")
        if has_ended(successor):
            # The first one noticed earlier and has the new directory.
            assert successor.wait() == 3
            assert daemon.status()["pid"] == daemon.pid
            assert daemon.stop() == 0
        else:
            stack.callback(successor.end)
            assert daemon.wait() == 0
            wait_until((daemon.directory / "socket").exists, SECONDS, "the socket")
            assert successor.status()["pid"] == successor.pid
            assert successor.stop() == 0


def has_ended(daemon: Daemon) -> bool:
    """Tell whether its process is over; it is still to be waited for."""
    return daemon.process is None or daemon.process.poll() is not None
