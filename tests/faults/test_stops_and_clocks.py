"""The daemon is stopped for a while, or its clock is set: clients keep time, nothing changes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from autoloadd_client.errors import CacheError, DeadlineError

from ..running import Daemon, wait_until
from .written import Written

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from .report import FaultCase

PATIENCE_SECONDS = 60.0
MIB = 1024 * 1024
CLIENTS = 4
STOPS = 3
TIMEOUT = 0.25
SLACK_SECONDS = 2.0
"""A busy machine may not let a client run at once when its time is over."""

CLOCKS = {"-20y": -20, "+30y": 30, "-1d": 0}
"""Offsets as libfaketime reads them, and how many years each is, rounded."""

YEAR_NS = 365 * 86_400 * 10**9


# Stopping


class Client:
    """A thread that writes each name once and reads what it wrote, with short deadlines."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        self.written = Written(f"{number}/")
        self.late = 0
        self.slowest = 0.0
        self.wrong = 0
        self.answered = 0
        self._cache = daemon.cache(timeout=TIMEOUT)
        self._generator = random.Random(number)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._cache.close()

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            began = time.monotonic()
            try:
                self._call(f"n{number}")
            except DeadlineError:
                self.late += 1
            except CacheError:
                pass
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _call(self, key: str) -> None:
        names = list(self.written.versions)
        if not names or self._generator.random() < 0.3:
            if not self.written.put(self._cache, key):
                self.late += 1
            return
        name = self._generator.choice(names)
        found = self._cache.get(name)
        (version,) = self.written.versions[name]
        self.wrong += found != version.blob and (found is not None or version.is_acknowledged)
        self.answered += 1


def test_stopped_and_continued_under_load(case: FaultCase, daemon: Daemon, effort: int) -> None:
    case.unit = "stops"
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon, number)) for number in range(CLIENTS)]
        stack.callback(os.kill, daemon.pid, signal.SIGCONT)
        for _ in range(STOPS * effort):
            stop_and_go_on(daemon, clients)
            case.explored += 1
    assert [client.wrong for client in clients] == [0] * CLIENTS
    slowest = max(client.slowest for client in clients)
    case.measured(f"longest call with a deadline of {TIMEOUT * 1000:.0f} ms, ms", slowest * 1000)
    assert slowest < TIMEOUT + SLACK_SECONDS
    for _ in range(2):
        with daemon.cache() as cache:
            for client in clients:
                client.written.check(cache, case)
        assert (case.lost, case.wrong) == (0, 0)
        daemon.kill()
        daemon.start()


def stop_and_go_on(daemon: Daemon, clients: list[Client]) -> None:
    """Stop the daemon until each client has run out of time, and let it go on."""
    late = [client.late for client in clients]
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(
        lambda: all(c.late > before + 2 for c, before in zip(clients, late, strict=True)),
        PATIENCE_SECONDS,
        "each client to give up",
    )
    answered = [client.answered for client in clients]
    os.kill(daemon.pid, signal.SIGCONT)
    wait_until(
        lambda: all(c.answered > before + 20 for c, before in zip(clients, answered, strict=True)),
        PATIENCE_SECONDS,
        "each client to be answered again",
    )


# The clock


def find_library() -> str | None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


class Clock:
    """The wall clock of a daemon that is not started yet. CLOCK_MONOTONIC goes as ever."""

    def __init__(self, case: FaultCase, daemon: Daemon) -> None:
        library = find_library()
        if library is None:
            case.cannot_run("libfaketime; Debian: apt-get install faketime")
        self._file = daemon.directory / "clock"
        self.set("+0")
        daemon.environment.update(
            LD_PRELOAD=library,
            FAKETIME_TIMESTAMP_FILE=str(self._file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_FAKE_STAT="1",
        )

    def set(self, offset: str) -> None:
        """Step the clock to an offset from the real one, as in `-20y`."""
        beside = self._file.with_name("clock.new")
        beside.write_text(offset)
        beside.rename(self._file)


def test_the_clock_steps(case: FaultCase, idle_daemon: Daemon, effort: int) -> None:
    """Back and forward by years, under writes, builds and restarts: nothing changes."""
    case.unit = "steps"
    clock, written = Clock(case, idle_daemon), Written()
    idle_daemon.start()
    with idle_daemon.cache() as cache:
        for number, offset in enumerate([*CLOCKS] * effort):
            clock.set(offset)
            assert_goes_on(idle_daemon, cache, written, offset)
            if number % 3 == 2:
                idle_daemon.kill()
                idle_daemon.start()
            elif number % 3 == 1:
                idle_daemon.restart()
            written.check(cache, case)
            case.explored += 1
    assert (case.lost, case.wrong) == (0, 0)
    status = idle_daemon.status()
    assert status["storage"] == {
        "state": "healthy", "since_ns_ago": None, "error": None, "next_try_ns": None,
        "set_aside": (),
    }  # fmt: skip


def assert_goes_on(daemon: Daemon, cache: Cache, written: Written, offset: str) -> None:
    """Use everything that might look at a clock."""
    builds = daemon.status()["counters"].get("builds", 0)
    assert written.put(cache, "a", "b")
    assert written.put(cache, "a", sync="fsync")
    assert written.delete(cache, "b")
    assert written.merge(cache, [f"n{number}" for number in range(15)], size=MIB // 10)
    assert written.flush(cache)
    wait_until(
        lambda: daemon.status()["counters"].get("builds", 0) > builds, PATIENCE_SECONDS, "a build"
    )
    # That the clock was set at all: it is what an entry is dated with.
    entry = cache.get_entry("a")
    assert entry is not None
    assert entry.cached_at_ns is not None
    assert abs(entry.cached_at_ns - time.time_ns() - CLOCKS[offset] * YEAR_NS) < YEAR_NS
    assert 0 <= daemon.status()["uptime_ns"] < PATIENCE_SECONDS * 10 * 1e9


def test_the_least_recently_used_goes_by_no_clock(case: FaultCase, idle_daemon: Daemon) -> None:
    """What was used last by the order of things stays, whatever the clock said then."""
    clock = Clock(case, idle_daemon)
    idle_daemon.start("--max-bytes", "16 MiB")
    entries = {f"n{number}": os.urandom(MIB // 10) for number in range(60)}
    caches = [idle_daemon.cache(f"shell/{number}/8") for number in range(3)]
    for cache, offset in zip(caches[:2], ("+0", "+30y"), strict=True):
        clock.set(offset)
        cache.merge(entries)
        wait_until(
            lambda: not any(shard["journal_bytes"] for shard in caches[0].shards()),
            PATIENCE_SECONDS,
            "an image",
        )
    clock.set("-20y")
    # Used last, at the earliest time of all.
    assert caches[0].get("n0") == entries["n0"]
    clock.set("+30y")
    caches[2].merge(entries)
    wait_until(lambda: len(caches[2].shards()) == 2, PATIENCE_SECONDS, "a shard to go")
    assert [cache.count() for cache in caches] == [60, 0, 60]
    for cache in caches:
        cache.close()
    case.explored += 1
