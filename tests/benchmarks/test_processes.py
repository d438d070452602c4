"""Crews, fresh processes, builds on demand and memory, beside the real daemon."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from bench.building import Building
from bench.crew import Crew, Done, get_rate, put_rate
from bench.daemons import Server, count_builds, fill_daemon, is_built, settle
from bench.fresh import time_first_get
from bench.memory import memfd_bytes, memory_bytes
from bench.peers.locked_file_cache import load, with_locked_file
from bench.peers.own import count_gets, open_cache, own, own_over_socket
from bench.verdicts import PeerFailedError, WrongBytesError
from bench.waits import longest_gap, p99
from bench.workload import make_workload

from ..running import Daemon, private_directory
from .conftest import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture(scope="module")
def w() -> Iterator[Server]:
    """A daemon with all of W: a crew asks for any of its names."""
    with private_directory() as directory:
        daemon = Daemon(directory)
        try:
            daemon.start()
            fill_daemon(daemon.socket_path, make_workload())
            yield Server(daemon.socket_path, daemon.pid, directory)
        finally:
            daemon.end()


@pytest.mark.parametrize("job", ["get", "put"])
def test_a_crew_works_round_after_round(w: Server, job: str) -> None:
    with Crew(own(w.socket_path), job, 2) as crew:
        assert crew.measure(0.1) > 0
        assert crew.measure(0.1) > 0


def test_a_crew_of_a_locked_file_reads_back_what_it_put(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    load(path, list(make_workload().entries())[:50])
    with Crew(with_locked_file(path), "put", 2) as crew:
        assert crew.measure(0.1) > 0


def test_a_crew_sees_wrong_bytes(daemon: Daemon) -> None:
    with open_cache(daemon.socket_path) as cache:
        cache.replace((name, b"x" * 100) for name in make_workload().names)
    with (
        Crew(own(daemon.socket_path), "get", 2) as crew,
        pytest.raises(WrongBytesError, match="wrong bytes for"),
    ):
        crew.measure(0.1)


def test_a_crew_sees_a_server_that_is_gone(daemon: Daemon) -> None:
    with Crew(own(daemon.socket_path), "put", 1) as crew:
        daemon.kill()
        with pytest.raises(PeerFailedError, match="autoloadd: "):
            crew.measure(0.1)


def test_a_first_get_is_checked(filled: Server) -> None:
    workload = make_workload(ENTRIES)
    assert time_first_get(own(filled.socket_path), workload.names[3], workload.sizes[3]) > 0
    with pytest.raises(PeerFailedError, match="bytes, not"):
        time_first_get(own(filled.socket_path), workload.names[3], workload.sizes[3] + 1)


def test_gets_over_the_socket_are_counted_by_the_daemon(filled: Server) -> None:
    before = count_gets(filled.socket_path)
    client = own_over_socket(filled.socket_path).open()
    for name in make_workload(ENTRIES).names:
        client.get(name)
    client.close()
    assert count_gets(filled.socket_path) - before == ENTRIES


def test_an_image_is_built_when_it_is_asked_for(filled: Server) -> None:
    building = Building(filled, make_workload(ENTRIES))
    for _ in range(2):
        building.approach()
        builds = count_builds(filled.socket_path)
        began, ended = building.trigger()
        assert began < ended
        assert count_builds(filled.socket_path) == builds + 1
        settle(filled)
    with open_cache(filled.socket_path) as cache:
        for number, name in enumerate(make_workload(ENTRIES).names):
            make_workload(ENTRIES).check(number, cache.get(name))


def test_a_filled_daemon_has_an_image_of_everything(filled: Server) -> None:
    assert is_built(filled.socket_path)
    with open_cache(filled.socket_path) as cache:
        cache.put("more", b"1")
    assert not is_built(filled.socket_path)


def test_a_memfd_counts_once_mapped_or_not() -> None:
    before, memfds = memory_bytes(os.getpid()), memfd_bytes(os.getpid())
    descriptor = os.memfd_create("test")
    os.write(descriptor, bytes(16 * MIB))
    assert memfd_bytes(os.getpid()) - memfds == 16 * MIB
    with mmap.mmap(descriptor, 16 * MIB) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert memory_bytes(os.getpid()) - before == pytest.approx(16 * MIB, abs=4 * MIB)
        os.close(descriptor)
        assert memfd_bytes(os.getpid()) - memfds == 16 * MIB
    assert memfd_bytes(os.getpid()) == memfds


def test_members_that_wait_in_a_line_are_not_faster_than_the_line() -> None:
    line = [Done(1, 0.25 * place) for place in range(1, 9)]
    assert put_rate(line) == 4.0
    assert get_rate([Done(100, 0.5), Done(50, 0.5)]) == 300.0


def test_longest_gap_is_that_of_the_time_looked_at() -> None:
    answered = [0, 10, 20, 120, 130, 430, 440, 1440]
    samples = [(at - 5, at) for at in answered]
    assert longest_gap(samples, 0, 60) == 100
    assert longest_gap(samples, 130, 435) == 300
    assert longest_gap(samples, 440, 440) == 1000
    with pytest.raises(PeerFailedError, match="no answer"):
        longest_gap(samples, 2_000, 3_000)


def test_p99_of_what_was_asked() -> None:
    assert p99((0, time) for time in range(1, 101)) == 100
    assert p99((0, time) for time in range(1, 201)) == 199
    with pytest.raises(PeerFailedError, match="no answer"):
        p99([])
