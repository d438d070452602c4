"""The disk is full, or a file may not grow: reads go on, writes are refused, and it heals itself.

How long healing took counts from the moment when there is room, at the worst moment there is:
right after the daemon has tried in vain.
"""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoloadd_daemon.storage.scanning import scan_journal

from ..running import Daemon, wait_until
from .disks import NoDiskError, fill, run_for_disk, small_tmpfs
from .left_behind import flip_last_byte, shard_directory
from .written import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autoloadd_client import Cache

    from .report import FaultCase

PROMISED_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
FULL_SECONDS = 2.5
TRIALS = 3
TRY_NS = 100_000_000
KIB = 1024
MIB = 1024 * KIB
BASE_BYTES = 100 * KIB
MAX_JOURNAL_BYTES = 800 * KIB
SHORT_BYTES = 5000
HEADER_BYTES = 512
JOURNAL_BYTES = 1500 * KIB
SHORT_IMAGES = (450 * KIB, 100 * KIB, 511, 300 * KIB, 64 * KIB)
"""Bytes that an image may have, with JOURNAL_BYTES or without them: it would have 2 MB."""


@contextmanager
def small_cache(case: FaultCase, daemon: Daemon, size: str) -> Iterator[Path]:
    """The daemon's cache directory on a disk of its own; what is left of the daemon ends first."""
    try:
        with small_tmpfs(daemon.cache_dir, size) as path:
            try:
                yield path
            finally:
                daemon.end()
    except NoDiskError as exc:
        case.cannot_run(str(exc))


def storage(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["storage"]
    return found


def is_healthy(daemon: Daemon) -> bool:
    return bool(storage(daemon)["state"] == "healthy")


def wait_for_a_try(daemon: Daemon) -> None:
    """Return when the daemon has just tried in vain to heal: the next try is as far as it gets."""
    last = storage(daemon)["next_try_ns"]

    def has_tried() -> bool:
        nonlocal last
        before, last = last, storage(daemon)["next_try_ns"]
        return bool(last > before)

    wait_until(has_tried, PATIENCE_SECONDS, "another try to heal")
    began = last
    # It is in vain by then: its turn in the syncing thread comes a moment later.
    wait_until(
        lambda: storage(daemon)["next_try_ns"] < began - TRY_NS, PATIENCE_SECONDS, "its failure"
    )


def assert_degraded(daemon: Daemon, error: str) -> None:
    found = storage(daemon)
    assert found["state"] == "degraded"
    assert error in found["error"]
    assert found["since_ns_ago"] > 0
    assert found["next_try_ns"] >= 0


def assert_heals(case: FaultCase, daemon: Daemon, trial: Callable[[], float]) -> None:
    """Try until it heals as fast as promised: a busy machine only ever adds time."""
    seconds = []
    for _ in range(TRIALS):
        seconds.append(trial())
        case.explored += 1
        if seconds[-1] <= PROMISED_SECONDS:
            case.measured("room to healthy, s", seconds[-1])
            return
    raise AssertionError(f"healed {min(seconds):.1f} s after there was room:\n{daemon.log}")


def heal_seconds(filler: Path, is_healed: Callable[[], object]) -> float:
    """Make room, and return how long it then takes until it is healed."""
    began = time.monotonic()
    filler.unlink()
    wait_until(is_healed, PATIENCE_SECONDS, "storage to heal")
    return time.monotonic() - began


def check_after_kill(case: FaultCase, daemon: Daemon, written: Written) -> None:
    """Kill it, start it again, and see that everything acknowledged is there."""
    daemon.kill()
    daemon.start()
    with daemon.cache() as cache:
        written.check(cache, case)
    assert (case.lost, case.wrong) == (0, 0)


def wait_until_long_full(daemon: Daemon) -> None:
    """Return when the disk was full for a while, right after a try to heal was in vain."""
    while storage(daemon)["since_ns_ago"] < FULL_SECONDS * 1e9:
        wait_for_a_try(daemon)


# A full disk


def test_a_full_disk_heals_by_itself(case: FaultCase, idle_daemon: Daemon) -> None:
    written = Written()
    with small_cache(case, idle_daemon, "6m") as disk, idle_daemon.start().cache() as cache:

        def trial() -> float:
            assert written.put(cache, "a", "b", sync="fsync")
            filler = fill(disk)
            for sync in ("memory", "write", "fsync"):
                assert not written.put(cache, "a", sync, size=64 * KIB, sync=sync)
            assert not written.merge(cache, ["a", "d"], size=64 * KIB)
            written.check(cache, case, crashed=False)
            assert_degraded(idle_daemon, "No space left on device")
            wait_until_long_full(idle_daemon)
            return heal_seconds(filler, lambda: is_healthy(idle_daemon))

        assert_heals(case, idle_daemon, trial)
        assert written.put(cache, "a", "c", size=64 * KIB)
        written.check(cache, case, crashed=False)
        check_after_kill(case, idle_daemon, written)


def test_a_build_without_room_is_made_up_for(case: FaultCase, idle_daemon: Daemon) -> None:
    """The journal has room, the image has not: writes go on, and the image comes later."""
    written = Written()
    keys = [f"n{number}" for number in range(40)]
    with small_cache(case, idle_daemon, "16m") as disk, idle_daemon.start().cache() as cache:
        # Half of the disk: beside the old image there is no room for a new one.
        assert written.merge(cache, keys, size=100 * KIB)
        wait_until(lambda: not journal_bytes(cache), PATIENCE_SECONDS, "the first image")

        def trial() -> float:
            failures = build_failures(idle_daemon)
            filler = fill(disk, but=3 * MIB)
            for key in keys[:8]:
                assert written.put(cache, key, size=200 * KIB)
            wait_until(
                lambda: build_failures(idle_daemon) > failures, PATIENCE_SECONDS, "a failed build"
            )
            assert written.put(cache, "after")
            written.check(cache, case, crashed=False)
            failures = build_failures(idle_daemon)
            wait_until(
                lambda: build_failures(idle_daemon) > failures, PATIENCE_SECONDS, "another one"
            )
            return heal_seconds(filler, lambda: not journal_bytes(cache))

        assert_heals(case, idle_daemon, trial)
        check_after_kill(case, idle_daemon, written)


def test_started_on_a_full_disk(case: FaultCase, idle_daemon: Daemon) -> None:
    written = Written()
    with small_cache(case, idle_daemon, "6m") as disk, idle_daemon.start().cache() as cache:

        def trial() -> float:
            assert written.put(cache, "a", "b")
            idle_daemon.kill()
            filler = fill(disk)
            idle_daemon.start()
            written.check(cache, case)
            assert not written.put(cache, "a", size=64 * KIB)
            assert_degraded(idle_daemon, "No space left on device")
            wait_for_a_try(idle_daemon)
            return heal_seconds(filler, lambda: is_healthy(idle_daemon))

        assert_heals(case, idle_daemon, trial)
        assert written.put(cache, "a", size=64 * KIB)
        check_after_kill(case, idle_daemon, written)


def test_damage_is_found_on_a_full_disk(case: FaultCase, idle_daemon: Daemon) -> None:
    """What is left is served at once; it is saved, and the damaged file set aside, with room."""
    written = Written()
    with small_cache(case, idle_daemon, "6m") as disk, idle_daemon.start().cache() as cache:

        def trial() -> float:
            assert written.put(cache, "a", "b", size=200 * KIB, sync="fsync")
            idle_daemon.restart()
            assert written.put(cache, "a", "b", sync="fsync")
            # The image holds older versions, which the journal replaces: all it says is there.
            image = shard_directory(idle_daemon) / "image"
            idle_daemon.kill()
            filler = fill(disk)
            flip_last_byte(image)
            idle_daemon.start()
            written.check(cache, case)
            assert not written.put(cache, "a")
            written.check(cache, case)
            assert_degraded(idle_daemon, "nothing can be written")
            assert idle_daemon.status()["storage"]["set_aside"] == ()
            wait_for_a_try(idle_daemon)
            seconds = heal_seconds(filler, lambda: is_healthy(idle_daemon))
            (aside,) = idle_daemon.status()["storage"]["set_aside"]
            assert "checksum" in aside["reason"]
            Path(aside["file"]).unlink()
            return seconds

        assert_heals(case, idle_daemon, trial)
        assert written.put(cache, "a")
        check_after_kill(case, idle_daemon, written)


def test_started_where_nothing_can_be_written(case: FaultCase, idle_daemon: Daemon) -> None:
    """A file system that is mounted read-only: what it holds is served."""
    written = Written()
    with small_cache(case, idle_daemon, "6m") as disk, idle_daemon.start().cache() as cache:

        def trial() -> float:
            assert written.put(cache, "a", "b")
            idle_daemon.kill()
            run_for_disk("mount", "-o", "remount,ro", str(disk))
            idle_daemon.start()
            written.check(cache, case)
            assert not written.put(cache, "a")
            written.check(cache, case)
            assert_degraded(idle_daemon, "Read-only file system")
            run_for_disk("mount", "-o", "remount,rw", str(disk))
            began = time.monotonic()
            wait_until(lambda: is_healthy(idle_daemon), PATIENCE_SECONDS, "storage to heal")
            return time.monotonic() - began

        assert_heals(case, idle_daemon, trial)
        assert written.put(cache, "a")
        check_after_kill(case, idle_daemon, written)


def journal_bytes(cache: Cache) -> int:
    return sum(shard["journal_bytes"] for shard in cache.shards())


def build_failures(daemon: Daemon) -> int:
    failures: int = daemon.status()["counters"].get("build_failures", 0)
    return failures


# A file that may not grow


@contextmanager
def no_file_longer_than(daemon: Daemon, size: int) -> Iterator[None]:
    """The daemon's files may not grow beyond this: a write of more is cut short, then EFBIG."""
    everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        if daemon.process is not None:
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, everything)


def make_journal_longer_than_the_log(daemon: Daemon, cache: Cache, written: Written) -> int:
    """Return where the journal ends: the log may grow, and the journal is not rotated."""
    if journal_bytes(cache) > MAX_JOURNAL_BYTES:
        daemon.restart()
    if journal_bytes(cache) < BASE_BYTES:
        assert written.put(cache, "base", size=BASE_BYTES)
    journal = max(daemon.cache_dir.glob("*/journal.*"))
    # Not the file's size: it may have room for more.
    return scan_journal(str(journal), journal.read_bytes()).good_end


def short_lengths(effort: int) -> list[int]:
    """Return how many bytes of a frame get through: the head and the edges, then some more."""
    step = max(SHORT_BYTES // (15 * effort), 1)
    return [0, 1, 7, 8, 31, 32, 33, 40, 41, *range(64, SHORT_BYTES, step), SHORT_BYTES]


def test_short_writes(case: FaultCase, daemon: Daemon, effort: int) -> None:
    """A frame of which only a part reached the journal counts nowhere, now or after a crash."""
    case.unit = "short writes"
    written = Written()
    with daemon.cache() as cache:
        for number, length in enumerate(short_lengths(effort)):
            end = make_journal_longer_than_the_log(daemon, cache, written)
            with no_file_longer_than(daemon, end + length):
                sync = ("write", "fsync", "memory")[number % 3]
                refusals = daemon.log.count("storage refuses writes")
                assert not written.put(cache, "a", f"n{number}", size=SHORT_BYTES, sync=sync)
                # Not by `status`: an image is shorter than that, and may have healed it by then.
                assert daemon.log.count("storage refuses writes") == refusals + 1
                assert "File too large" in daemon.log
                written.check(cache, case, crashed=False)
                if number % 5 == 4:
                    check_after_kill(case, daemon, written)
            assert written.put(cache, "a", f"n{number}", size=SHORT_BYTES, sync=sync)
            case.explored += 1
        written.check(cache, case, crashed=False)
        check_after_kill(case, daemon, written)


def test_short_journal_headers(case: FaultCase, daemon: Daemon, effort: int) -> None:
    case.unit = "short writes"
    written = Written()
    with daemon.cache() as cache:
        assert written.put(cache, "first")
        for number, length in enumerate(range(0, HEADER_BYTES, max(170 // effort, 1))):
            # The first write after a start begins a journal.
            check_after_kill(case, daemon, written)
            with no_file_longer_than(daemon, length):
                assert not written.put(cache, "a")
                assert_degraded(daemon, "File too large")
                written.check(cache, case, crashed=False)
                if number % 2:
                    check_after_kill(case, daemon, written)
            assert written.put(cache, "a")
            case.explored += 1
        check_after_kill(case, daemon, written)


def test_short_images(case: FaultCase, daemon: Daemon, effort: int) -> None:
    """An image that could not be written whole is no image; what there was stays."""
    case.unit = "short writes"
    written = Written()
    with daemon.cache() as cache:
        for length in SHORT_IMAGES[:effort]:
            cut_images_short(case, daemon, cache, written, length)
            check_after_kill(case, daemon, written)


def cut_images_short(
    case: FaultCase, daemon: Daemon, cache: Cache, written: Written, length: int
) -> None:
    """Have a bulk's file and an image cut short; then there is an image after all."""
    keys = [f"n{number}" for number in range(20)]
    assert written.merge(cache, keys, size=100 * KIB)
    wait_until(lambda: not journal_bytes(cache), PATIENCE_SECONDS, "an image")
    with no_file_longer_than(daemon, length):
        assert not written.merge(cache, keys, size=100 * KIB)
        written.check(cache, case, crashed=False)
    failures = build_failures(daemon)
    with no_file_longer_than(daemon, JOURNAL_BYTES + length):
        for key in keys[:12]:
            assert written.put(cache, key, size=100 * KIB)
        wait_until(lambda: build_failures(daemon) > failures, PATIENCE_SECONDS, "a failed build")
        written.check(cache, case, crashed=False)
    wait_until(lambda: not journal_bytes(cache), PATIENCE_SECONDS, "an image after it")
    case.explored += 2
