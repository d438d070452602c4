"""Threads, forks and restarts: never a crossed answer, never a call that does not end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage

from autoloadd_client import (
    Cache,
    CacheError,
    ConnectionLostError,
    DeadlineError,
    UnreachableError,
)

from ..running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..running import Daemon

# A fork beside threads is what is tested here; Python warns of it from 3.12 on.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

NAMES = [f"name{number}" for number in range(100)]


def blob_of(name: str) -> bytes:
    """Return bytes that belong to no other name, of a size of their own."""
    return name.encode() * (1 + sum(name.encode()) * 7 % 997)


@pytest.fixture
def filled(daemon: Daemon) -> Iterator[Cache]:
    with daemon.cache() as cache:
        cache.merge((name, blob_of(name)) for name in NAMES)
        yield cache


def count_wrong(cache: Cache, gets: int, first: int = 0) -> int:
    names = (NAMES[(first + number) % len(NAMES)] for number in range(gets))
    return sum(cache.get(name) != blob_of(name) for name in names)


def in_child(work: Callable[[], int]) -> int:
    """Fork, run `work` in the child, and return the child's pid; its exit status is the result."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = min(work(), 98)
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_eight_threads_share_a_cache(filled: Cache) -> None:
    wrong: list[int] = []

    def read(first: int) -> None:
        wrong.append(count_wrong(filled, 500, first))

    threads = [threading.Thread(target=read, args=(7 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 8


def test_threads_read_and_write_their_own(filled: Cache) -> None:
    failures: list[object] = []

    def work(me: int) -> None:
        for number in range(100):
            name, blob = f"{me}-{number % 5}", os.urandom(1 + number * 37)
            filled.put(name, blob, wait=number % 2 == 0)
            if filled.get(name) != blob:
                failures.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_forked_children_and_their_parent_read_their_own_answers(filled: Cache) -> None:
    assert count_wrong(filled, 1) == 0
    children = [in_child(lambda: count_wrong(filled, 200)) for _ in range(4)]
    assert count_wrong(filled, 400) == 0
    assert [status_of(child) for child in children] == [0] * 4
    assert count_wrong(filled, 10) == 0


def test_a_grandchild_reads_its_own_answers(filled: Cache) -> None:
    count_wrong(filled, 1)

    def fork_again() -> int:
        grandchild = in_child(lambda: count_wrong(filled, 100))
        return count_wrong(filled, 100) + status_of(grandchild)

    child = in_child(fork_again)
    assert count_wrong(filled, 100) == 0
    assert status_of(child) == 0


def test_a_fork_of_a_closed_cache(filled: Cache) -> None:
    filled.close()
    assert status_of(in_child(lambda: count_wrong(filled, 10))) == 0


@pytest.fixture
def unmeasured_threads() -> Iterator[None]:
    """Take no coverage: where a thread holds its lock during a fork, the child waits for ever."""
    measured = Coverage.current()
    if measured is not None:
        measured.stop()
    yield
    if measured is not None:
        measured.start()


@pytest.mark.usefixtures("unmeasured_threads")
def test_a_fork_while_other_threads_hold_the_connection(filled: Cache) -> None:
    stop = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        while not stop.is_set():
            wrong.append(count_wrong(filled, 10))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = [in_child(lambda: count_wrong(filled, 50)) for _ in range(20)]
    statuses = [status_of(child) for child in children]
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 20
    assert set(wrong) == {0}


@pytest.mark.usefixtures("unmeasured_threads")
def test_forks_in_the_middle_of_calls_of_many_threads(filled: Cache) -> None:
    """Each thread forks while the others are at every point of their own calls."""
    wrong: list[int] = []

    def read_and_fork(first: int) -> None:
        for number in range(3):
            wrong.append(count_wrong(filled, 20, first))
            child = in_child(partial(count_wrong, filled, 20, first + number))
            wrong.append(count_wrong(filled, 20, first))
            wrong.append(status_of(child))

    threads = [threading.Thread(target=read_and_fork, args=(5 * each,)) for each in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 6 * 9


def test_a_child_that_executes_a_program_holds_no_connection(daemon: Daemon, filled: Cache) -> None:
    """Its descriptor would keep the connection open when everybody else has closed it."""
    filled.ping()
    with daemon.connect() as watcher:
        assert watcher.ok("status")["connections"] == 2
        child = os.fork()
        if child == 0:
            os.execvp("sleep", ["sleep", "60"])
        try:
            wait_until(
                lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", 20, "the program"
            )
            filled.close()
            wait_until(
                lambda: watcher.ok("status")["connections"] == 1, 20, "the connection to end"
            )
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert count_wrong(filled, 5) == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(filled: Cache, daemon: Daemon, method: str) -> None:
    """A pool that was forked shares the cache; the others make one of their own."""
    context = multiprocessing.get_context(method)
    assert count_wrong(filled, 1) == 0
    WORKERS_CACHES[daemon.socket_path] = filled
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        work = [pool.submit(read_in_worker, daemon.socket_path, first) for first in range(6)]
        assert count_wrong(filled, 100) == 0
        assert [each.result(60) for each in work] == [0] * 6


def read_in_worker(path: str, first: int) -> int:
    """Read with a cache that a fork may have brought along."""
    cache = WORKERS_CACHES.setdefault(path, Cache("zsh/5.9/8", socket_path=path, timeout=20))
    return count_wrong(cache, 50, first)


WORKERS_CACHES: dict[str, Cache] = {}


def test_a_child_closes_its_copy_and_the_parent_goes_on(filled: Cache) -> None:
    def sockets() -> int:
        links = (
            os.readlink(f"/proc/self/fd/{entry}")
            for entry in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{entry}")
        )
        return sum(link.startswith("socket:") for link in links)

    filled.ping()
    before = sockets()

    def use_and_close() -> int:
        filled.ping()
        extra = sockets() - before
        filled.close()
        return extra

    assert status_of(in_child(use_and_close)) == 0
    assert sockets() == before
    assert count_wrong(filled, 10) == 0


def test_a_bulk_is_not_continued_by_a_child(filled: Cache) -> None:
    children: list[int] = []

    def entries() -> Iterator[tuple[str, bytes]]:
        for number in range(8):
            if number == 6:
                children.append(os.fork())
            yield f"bulk{number}", bytes(400_000)

    status = 99
    try:
        try:
            filled.merge(entries())
        except ConnectionLostError:
            status = 42
        if children[0] == 0:
            os._exit(status)
    finally:
        if children and children[0] == 0:
            os._exit(98)
    assert status == 99
    assert status_of(children[0]) == 42
    assert filled.count() == len(NAMES) + 8


def test_the_same_cache_goes_on_after_kill_and_restart(daemon: Daemon, filled: Cache) -> None:
    assert count_wrong(filled, 10) == 0
    daemon.kill()
    with pytest.raises(UnreachableError):
        filled.get("name0")
    daemon.start()
    assert count_wrong(filled, 100) == 0
    assert filled.put("new", b"1")


def test_an_idle_connection_survives_a_kill_that_it_did_not_see(
    daemon: Daemon, filled: Cache
) -> None:
    for call in (
        lambda: filled.get("name0") == blob_of("name0"),
        lambda: filled.put("new", b"1"),
        lambda: filled.put("newer", b"1", wait=False) is None,
        lambda: filled.flush().unconfirmed == 1,
        lambda: filled.count() - len(NAMES) in (1, 2),
        lambda: filled.status()["pid"],
    ):
        daemon.kill()
        daemon.start()
        assert call()


def test_a_bulk_that_loses_its_daemon_applied_nothing(daemon: Daemon, filled: Cache) -> None:
    def entries() -> Iterator[tuple[str, bytes]]:
        for number in range(8):
            if number == 6:
                daemon.kill()
                daemon.start()
            yield f"bulk{number}", bytes(400_000)

    with pytest.raises(ConnectionLostError, match="nothing of the bulk was applied"):
        filled.replace(entries())
    assert count_wrong(filled, 100) == 0
    assert filled.count() == len(NAMES)


def test_a_stopped_daemon_costs_no_more_than_the_deadline(daemon: Daemon, filled: Cache) -> None:
    assert daemon.process is not None
    with daemon.cache(timeout=0.2, bulk_timeout=0.3) as cache:
        cache.ping()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            for call in (
                lambda: cache.get("name0"),
                lambda: cache.get("name0"),
                lambda: cache.put("name", b"1"),
                lambda: cache.put("name", bytes(4 << 20), wait=False),
                lambda: cache.get_many(NAMES),
                lambda: cache.put_many({"name": b"1"}),
                lambda: cache.merge((str(n), bytes(400_000)) for n in range(8)),
                lambda: cache.replace({}),
                lambda: next(cache.names()),
                cache.flush,
                cache.status,
            ):
                started = time.monotonic()
                with pytest.raises(DeadlineError):
                    call()
                # Far more than its deadline, far less than none.
                assert 0.15 < time.monotonic() - started < 15
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    assert count_wrong(filled, 100) == 0


def len_exceeds(items: list[str], count: int) -> bool:
    return len(items) > count


def test_killed_and_restarted_under_threads_no_answer_is_wrong(
    daemon: Daemon, filled: Cache
) -> None:
    stop = threading.Event()
    wrong: list[str] = []
    right: list[str] = []

    def read(first: int) -> None:
        number = first
        while not stop.is_set():
            name = NAMES[number % len(NAMES)]
            number += 1
            try:
                (right if filled.get(name) == blob_of(name) else wrong).append(name)
            except CacheError:
                continue

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        daemon.kill()
        daemon.start()
        enough = len(right) + 100
        wait_until(partial(len_exceeds, right, enough), 20, "answers of the new daemon")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
