"""The compiled load generator: what it counts, and that it sees every wrong answer."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from bench.load import Load, finish, parse_report, read_dump
from bench.peers.client import PREFIX
from bench.peers.own import count_gets, open_cache
from bench.verdicts import PeerFailedError
from bench.workload import make_workload

from ..running import wait_until
from .conftest import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.daemons import Server

    MakeLoad = Callable[..., Load]
    Reply = Callable[[str], bytes]

WORKLOAD = make_workload(ENTRIES)
NUMBERS = {name: number for number, name in enumerate(WORKLOAD.names)}


@pytest.mark.parametrize("connections", [1, 3])
def test_gets_are_counted_for_each_connection(
    filled: Server, make_load: MakeLoad, connections: int
) -> None:
    report = make_load(filled.socket_path, connections=connections).run()
    assert report.operations > 0
    assert report.seconds >= 0.1
    assert 0 < report.p50_ns <= report.p99_ns <= report.max_ns
    assert len(report.connections) == connections


@pytest.mark.parametrize("sync", ["write", "fsync"])
def test_puts_are_stored_as_new_versions(filled: Server, make_load: MakeLoad, sync: str) -> None:
    with open_cache(filled.socket_path) as cache:
        before = cache.stats()["generation"]
        report = make_load(filled.socket_path, operation="put", sync=sync, connections=2).run()
        assert cache.stats()["generation"] - before >= report.operations > 0
        blobs = cache.get_many(WORKLOAD.names)
    for name, number in NUMBERS.items():
        WORKLOAD.check(number, blobs[name])
    assert any(blobs[name] != WORKLOAD.blob(number) for name, number in NUMBERS.items())


def test_dump_has_every_request(filled: Server, make_load: MakeLoad, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    load = make_load(filled.socket_path)
    report = finish(load.start("--dump", str(dump)), load.seconds)
    samples = read_dump(dump)
    assert len(samples) == report.operations
    assert all(sent < answered for sent, answered in samples)
    assert max(answered - sent for sent, answered in samples) == report.max_ns


def test_a_run_that_is_ended_early_reports_what_it_measured(
    filled: Server, make_load: MakeLoad, tmp_path: Path
) -> None:
    dump = tmp_path / "dump"
    process = make_load(filled.socket_path, seconds=600.0).start("--dump", str(dump))
    before = count_gets(filled.socket_path)
    # More than the warm-up can have asked.
    wait_until(lambda: count_gets(filled.socket_path) > before + 20_000, 60, "gets to be answered")
    process.terminate()
    assert finish(process, 0).operations == len(read_dump(dump)) > 0


@pytest.mark.parametrize("bad", ["cut", "flipped", "another's"])
def test_wrong_bytes_end_the_run(filled: Server, make_load: MakeLoad, bad: str) -> None:
    with open_cache(filled.socket_path) as cache:
        for number, name in enumerate(WORKLOAD.names):
            cache.put(name, spoil(number, bad))
    with pytest.raises(PeerFailedError, match="wrong bytes for"):
        make_load(filled.socket_path).run()


def test_a_miss_ends_the_run(filled: Server, make_load: MakeLoad) -> None:
    with open_cache(filled.socket_path) as cache:
        cache.clear()
    with pytest.raises(PeerFailedError, match="a miss for"):
        make_load(filled.socket_path).run()


def test_redis_answers_are_taken(home: Path, make_load: MakeLoad) -> None:
    with resp_server(home, lambda name: value(WORKLOAD.blob(NUMBERS[name], 3))) as path:
        report = make_load(path, protocol="resp", connections=2).run()
    assert report.operations > 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda name: value(spoil(NUMBERS[name], "cut")), "wrong bytes for"),
        (lambda name: value(spoil(NUMBERS[name], "flipped")), "wrong bytes for"),
        (lambda name: value(spoil(NUMBERS[name], "another's")), "wrong bytes for"),
        (lambda _: b"$-1\r\n", "not a value"),
        (lambda _: b"-ERR no\r\n", "not a value"),
        (lambda _: b"$3\r\nabc\r\n", "stale or torn"),
        (lambda name: b"$%d\r\n" % (WORKLOAD.sizes[NUMBERS[name]] + 8)
         + bytes(8) + WORKLOAD.blob(NUMBERS[name]) + b"\r\n", "stale or torn"),
        (lambda name: value(WORKLOAD.blob(NUMBERS[name])) * 2, "more than was asked for"),
        (lambda _: b"", "closed a connection"),
    ],
    ids=[
        "cut", "flipped", "another's", "a miss", "an error", "too short", "stale", "twice", "closed"
    ],
)  # fmt: skip
def test_wrong_redis_answers_end_the_run(
    home: Path, make_load: MakeLoad, reply: Reply, said: str
) -> None:
    with (
        resp_server(home, reply) as path,
        pytest.raises(PeerFailedError, match=said),
    ):
        make_load(path, protocol="resp").run()


def test_a_server_that_is_not_there_ends_the_run(home: Path, make_load: MakeLoad) -> None:
    with pytest.raises(PeerFailedError, match="No such file"):
        make_load(str(home / "nobody")).run()


def test_a_connection_without_an_answer_is_no_measurement() -> None:
    times = {"operations": 2, "p50_ns": 1, "p99_ns": 2, "max_ns": 3}
    silent = {"operations": 0, "p50_ns": 0, "p99_ns": 0, "max_ns": 0}
    report = {"seconds": 0.5, **times, "connections": [times]}
    assert parse_report(json.dumps(report)).per_second == 4.0
    assert parse_report(json.dumps(report)).unfairness == 2.0
    with pytest.raises(PeerFailedError, match="no answer"):
        parse_report(json.dumps({**report, "connections": [times, silent]}))


def spoil(number: int, how: str) -> bytes:
    """Return bytes that are not this entry's."""
    blob = WORKLOAD.blob(number)
    if how == "cut":
        return blob[:-1]
    if how == "flipped":
        return blob[:-1] + bytes([blob[-1] ^ 1])
    # Another entry's number, at the size of this one.
    return WORKLOAD.blob((number + 1) % len(WORKLOAD))[:8] + blob[8:]


def value(blob: bytes) -> bytes:
    """Return RESP's form of a stored mtime and blob."""
    return b"$%d\r\n%s%s\r\n" % (len(PREFIX + blob), PREFIX, blob)


@contextmanager
def resp_server(directory: Path, reply: Reply) -> Iterator[str]:
    """Answer each `GET name` with what `reply` returns; no bytes: close."""
    path = str(directory / "resp")
    listener = socket.create_server(path, family=socket.AF_UNIX)
    threads = []

    def serve(connection: socket.socket) -> None:
        # A generator that has seen enough closes with answers unread: a reset is its good right.
        with connection, suppress(ConnectionError):
            while data := connection.recv(65_536):
                answer = reply(data.split(b"\r\n")[4].decode())
                if not answer:
                    return
                connection.sendall(answer)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()
