"""Real file systems whose power is lost under the daemon, or whose disk cannot be written."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest

from ..running import Daemon, wait_until
from .disks import NoDiskError, fill
from .loop_devices import LOSSES, NOTHING_FLUSHED, SHUTDOWN, SIZES, loop_file_system
from .written import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_client import Cache

    from .loop_devices import LoopFileSystem
    from .report import FaultCase

WRITERS = 3
KEYS = 40
KIB = 1024
ENOUGH = 50
TRIALS = 3
PATIENCE_SECONDS = 60.0
LOST_SECONDS = 1.0
"""At `write`, a power loss takes at most the last second."""


@contextmanager
def disk_of(case: FaultCase, daemon: Daemon, kind: str) -> Iterator[LoopFileSystem]:
    """The daemon's cache directory on a file system of its own."""
    try:
        with loop_file_system(kind, daemon.cache_dir, daemon.directory / "backing") as disk:
            try:
                yield disk
            finally:
                if daemon.process is not None:
                    daemon.kill()
    except NoDiskError as exc:
        case.cannot_run(f"{exc}; needs loop devices and {kind}")


class Writers:
    """Threads that write until they are stopped, each with a client and names of its own.

    While they are `hurried` some writes are at fsync, and there are flushes. With `small` ones no
    image is due: it would bring to the disk what nobody synced.
    """

    def __init__(self, daemon: Daemon, seed: str, *, small: bool = False) -> None:
        self.written = [Written(f"{seed}/{number}/") for number in range(WRITERS)]
        self.hurried = True
        self._small = small
        self._daemon = daemon
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(w,)) for w in self.written]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_writes(self, seconds: float) -> None:
        """Return when there was enough to lose, after at least this long."""
        began, before = time.monotonic(), [written.acknowledged for written in self.written]
        wait_until(
            lambda: (
                time.monotonic() > began + seconds
                and sum(written.acknowledged for written in self.written) > sum(before) + ENOUGH
            ),
            PATIENCE_SECONDS,
            "writes",
        )

    def wait_for_refusals(self) -> None:
        """Return when every client was told that a write is not stored."""
        before = [written.refused for written in self.written]
        wait_until(
            lambda: all(w.refused > b for w, b in zip(self.written, before, strict=True)),
            PATIENCE_SECONDS,
            "every client to be refused",
        )

    def _write(self, written: Written) -> None:
        generator = random.Random(written.prefix)
        with self._daemon.cache() as cache:
            while not self._stopped.is_set():
                self._write_something(written, cache, generator)
                # As fast as shells write, not as fast as it goes.
                time.sleep(generator.random() / 100)

    def _write_something(self, written: Written, cache: Cache, generator: random.Random) -> None:
        keys = {f"n{generator.randrange(KEYS)}" for _ in range(3)}
        sync = generator.choice(("write", "write", "write", "fsync" if self.hurried else "write"))
        match generator.randrange(12):
            case 0 if self.hurried:
                written.flush(cache)
            case 0 | 1 if not self._small:
                written.merge(cache, keys, size=200 * KIB, sync=sync)
            case 2 | 3:
                written.delete(cache, *keys, sync=sync)
            case 4 | 5 if not self._small:
                written.put(cache, *keys, size=20 * KIB, sync=sync)
            case _:
                written.put(cache, min(keys), size=generator.randrange(30, 500), sync=sync)


def start_and_measure(case: FaultCase, daemon: Daemon) -> None:
    began = time.monotonic()
    daemon.start()
    case.recovered(time.monotonic() - began)


# Power


@pytest.mark.parametrize("kind", list(SIZES))
def test_power_loss(case: FaultCase, idle_daemon: Daemon, effort: int, kind: str) -> None:
    """What is on stable storage is there when the machine is on again, on a real file system."""
    case.name, case.unit = f"power loss on {kind}", "power losses"
    with disk_of(case, idle_daemon, kind) as disk:
        for number in range(effort):
            for how, flags in LOSSES.items():
                lose_power(case, disk, idle_daemon, f"{number}/{how}", flags)
                assert (case.lost, case.wrong) == (0, 0), f"{how}\n{idle_daemon.log}"


@pytest.mark.parametrize("kind", list(SIZES))
def test_power_loss_takes_a_second(
    case: FaultCase, idle_daemon: Daemon, effort: int, kind: str
) -> None:
    """Of what nobody synced, at most the last second is lost. A busy machine only adds time."""
    case.name, case.unit = f"power loss on {kind}, no client syncs", "power losses"
    with disk_of(case, idle_daemon, kind) as disk:
        for number in range(effort):
            ages: list[float] = []
            while min(ages, default=PATIENCE_SECONDS) > LOST_SECONDS and len(ages) < TRIALS:
                seed = f"{number}/{len(ages)}"
                ages.append(
                    lose_power(case, disk, idle_daemon, seed, NOTHING_FLUSHED, hurried=False)
                )
            assert (case.lost, case.wrong) == (0, 0), idle_daemon.log
            assert min(ages) <= LOST_SECONDS, f"a write {min(ages):.2f} s old is lost"
            case.measured("oldest lost write, s", min(ages))


def lose_power(
    case: FaultCase,
    disk: LoopFileSystem,
    daemon: Daemon,
    seed: str,
    flags: int,
    *,
    hurried: bool = True,
) -> float:
    """Write, lose power, start again and look; return how old the oldest lost write was, in s."""
    daemon.start()
    with Writers(daemon, seed, small=not hurried) as writers:
        writers.wait_for_writes(0.0)
        writers.hurried = hurried
        writers.wait_for_writes(random.Random(seed).uniform(0.2, 0.6) + (not hurried))
        lost_at = time.monotonic()
        disk.lose_power(flags)
        writers.wait_for_refusals()
    daemon.kill()
    disk.mount_again()
    start_and_measure(case, daemon)
    case.explored += 1
    with daemon.cache() as cache:
        oldest = max(w.check_after_power_loss(cache, case, lost_at) for w in writers.written)
        cache.clear()
    # Its image is empty: the disk has room for another time.
    assert daemon.stop() == 0, daemon.log
    return oldest


# Errors


@pytest.mark.parametrize("kind", list(SIZES))
def test_a_disk_that_cannot_be_written(
    case: FaultCase, idle_daemon: Daemon, effort: int, kind: str
) -> None:
    """The file system takes writes, the disk below does not: a sync fails, and drops the pages."""
    case.name = f"a disk below {kind} that cannot be written"
    for number in range(effort):
        # A new one each time: blocks that were written once have their place below.
        with disk_of(case, idle_daemon, kind) as disk:
            break_disk(case, disk, idle_daemon, str(number))
            assert (case.lost, case.wrong) == (0, 0), idle_daemon.log


def break_disk(case: FaultCase, disk: LoopFileSystem, daemon: Daemon, seed: str) -> None:
    """Let the disk fail under load, then work again; what was acknowledged is there in the end.

    Where the file system's own log could not be written it stays read-only until it is mounted
    again: then what was synced is there.
    """
    daemon.start()
    with Writers(daemon, seed, small=True) as writers:
        writers.wait_for_writes(0.2)
        # Several pages are dropped at once by the sync that fails, with writes that were answered.
        writers.hurried = False
        # The file system's own file is sparse: what it writes now has no place.
        filler = fill(disk.backing)
        writers.wait_for_refusals()
        wait_until(lambda: degraded_seconds(daemon) > 0.5, PATIENCE_SECONDS, "it to stay broken")
    with daemon.cache() as cache:
        check_reads(case, cache, writers)
        filler.unlink()
        has_healed = disk.takes_writes()
        if has_healed:
            assert "sync failed" in daemon.log
            began = time.monotonic()
            wait_until(lambda: not degraded_seconds(daemon), PATIENCE_SECONDS, "it to heal")
            case.measured("disk works to healthy, s", time.monotonic() - began)
            assert all(written.flush(cache) for written in writers.written)
        else:
            check_reads(case, cache, writers)
    daemon.kill()
    disk.mount_again()
    start_and_measure(case, daemon)
    case.explored += 1
    with daemon.cache() as cache:
        for written in writers.written:
            if has_healed:
                written.check(cache, case)
            else:
                written.check_after_power_loss(cache, case, 0.0)
    daemon.kill()


def check_reads(case: FaultCase, cache: Cache, writers: Writers) -> None:
    """See that what was acknowledged can be read, and nothing that was refused."""
    for written in writers.written:
        # Should it be answered all the same, what was written must be there in the end.
        written.flush(cache)
        written.check(cache, case, crashed=False)


def degraded_seconds(daemon: Daemon) -> float:
    """Return for how long storage has refused writes; 0.0 when it takes them."""
    since: int | None = daemon.status()["storage"]["since_ns_ago"]
    return 0.0 if since is None else since / 1e9


def test_the_ioctl_is_the_kernels() -> None:
    """_IOR('X', 125, __u32), as strace names it for any number."""
    assert SHUTDOWN == 0x8004587D
