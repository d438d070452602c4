"""Any system call that touches the cache fails, once or from then on; then it heals, or a crash.

Each write is acknowledged and kept, or refused and not seen; reads go on; `status` says what is
wrong; with the fault gone writes are taken again, and a crash brings nothing back that was refused
before.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from autoloadd_protocol.producer import Producer

from ..running import Daemon, private_directory, wait_until
from .expectation import Expectation
from .injecting import (
    Call,
    Tracer,
    arguments,
    calls_in,
    choose,
    paths_of_shard,
    require_strace,
    synced_again,
)
from .report import FaultCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


HEAL_SECONDS = 60.0
TRIALS_PER_CASE = 1
LARGE = {f"n{i:02d}": bytes([65 + i]) * 100_000 for i in range(12)}
"""More than 1 MiB: an image is built at once."""

ERRORS = {
    "openat": (errno.ENOSPC, errno.EIO, errno.EMFILE),
    "writev": (errno.ENOSPC, errno.EIO),
    "pwrite64": (errno.ENOSPC, errno.EIO),
    "ftruncate": (errno.EIO,),
    "fsync": (errno.ENOSPC, errno.EIO),
    "fdatasync": (errno.ENOSPC, errno.EIO),
    "rename": (errno.ENOSPC, errno.EIO),
    "unlink": (errno.EIO,),
    "mkdir": (errno.ENOSPC, errno.EIO),
    "close": (errno.EIO,),
    "fstat": (errno.EIO,),
    "newfstatat": (errno.EIO,),
    "lstat": (errno.EIO,),
}
"""The calls that are let fail, and how each may."""

REMOVALS = ("unlink", "rename")

EVERY_WRITE = Call("writev", 1)
"""Where it fails from now on, no write is taken, and no attempt to heal succeeds."""


def before_the_fault(shard: Expectation) -> None:
    assert shard.put({"a": b"a1", "b": b"b1"}, sync="fsync")


def under_the_fault(shard: Expectation, case: FaultCase) -> None:
    """Write in every way, and read after each write."""
    writes: list[Callable[[], bool]] = [
        lambda: shard.put({"a": b"a2"}),
        lambda: shard.put({"c": b"c1" * 100, "d": b"d1"}, sync="fsync"),
        lambda: shard.delete("b"),
        lambda: shard.replace({**LARGE, "a": b"a3"}),
        lambda: shard.put({"e": b"e1"}),
        shard.flush,
        lambda: shard.put({"a": b"a4"}, sync="fsync"),
    ]
    for write in writes:
        write()
        shard.check_visible(case)


@dataclass
class Trials:
    """Faults under one daemon after another, each with a shard of its own."""

    daemon: Daemon
    case: FaultCase
    next: int = 1

    @property
    def log(self) -> Path:
        """Where strace writes."""
        return self.daemon.directory / "calls"

    @contextmanager
    def shard(self) -> Iterator[tuple[Expectation, list[str]]]:
        """A new shard, and the paths of its files."""
        producer = Producer("zsh", str(self.next))
        self.next += 1
        with self.daemon.cache(f"zsh/{producer.version}/8") as client:
            yield Expectation(client), paths_of_shard(self.daemon.cache_dir / producer.shard_id())

    def run(self, call: Call, error: int, *, lasts: bool, crashes: bool) -> None:
        """Let a call fail; see what is answered, and what is there after a crash."""
        self.case.explored += 1
        with self.shard() as (shard, paths):
            before_the_fault(shard)
            fault = call.failing(errno.errorcode[error], lasts=lasts)
            with Tracer(self.daemon.pid, arguments(paths, self.log, fault)):
                under_the_fault(shard, self.case)
                if error == errno.EMFILE:
                    # What this process has too many of says nothing of the disk.
                    assert self.daemon.status()["storage"]["state"] == "healthy"
                if lasts and call == EVERY_WRITE:
                    self._check_that_it_says_so(shard, error)
                if crashes:
                    self.daemon.kill()
            if not crashes:
                self._check_that_it_heals(shard)
                self.daemon.kill()
            self.check_next_start(shard)

    def _check_that_it_says_so(self, shard: Expectation, error: int) -> None:
        assert any(os.strerror(error) in message for message in shard.refusals)
        storage = self.daemon.status()["storage"]
        assert storage["state"] == "degraded"
        assert os.strerror(error) in storage["error"]
        assert storage["since_ns_ago"] >= 0 <= storage["next_try_ns"]

    def _check_that_it_heals(self, shard: Expectation) -> None:
        began = time.monotonic()
        wait_until(lambda: shard.put({"healed": b"healed"}, "fsync"), HEAL_SECONDS, "a write")
        wait_until(shard.flush, HEAL_SECONDS, "a flush")
        self.case.measured("seconds until writes are taken again", time.monotonic() - began)
        assert self.daemon.status()["storage"]["state"] == "healthy"
        shard.settle()
        shard.check_visible(self.case)

    def check_next_start(self, shard: Expectation) -> None:
        """Start after a crash; see that what is there may be, and that nothing is damaged."""
        before = time.monotonic()
        self.daemon.start()
        self.case.recovered(time.monotonic() - before)
        storage = self.daemon.status()["storage"]
        assert (storage["state"], list(storage["set_aside"])) == ("healthy", [])
        shard.check_after_crash(self.case)


def wait_for_the_builder(daemon: Daemon) -> None:
    """Wait until an image was built, and what it covers is removed: it may fail there too."""
    wait_until(lambda: daemon.status()["counters"].get("builds"), HEAL_SECONDS, "an image")
    wait_until(lambda: len(list(daemon.cache_dir.glob("*/journal.*"))) < 2, HEAL_SECONDS, "removal")


@cache
def calls_that_may_fail() -> Sequence[Call]:
    """Return the calls that are made where none fails."""
    with private_directory() as directory:
        trials = Trials(Daemon(directory).start(), FaultCase(""))
        with trials.shard() as (shard, paths):
            before_the_fault(shard)
            with Tracer(trials.daemon.pid, arguments(paths, trials.log)):
                under_the_fault(shard, trials.case)
                wait_for_the_builder(trials.daemon)
            assert not shard.refusals
        trials.daemon.kill()
        return [call for call in calls_in(trials.log) if call.name in ERRORS]


@pytest.mark.parametrize("crashes", [True, False], ids=["then a crash", "then it heals"])
@pytest.mark.parametrize("lasts", [True, False], ids=["persistent", "once"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
def test_a_call_fails(
    error: int,
    lasts: bool,
    crashes: bool,
    idle_daemon: Daemon,
    case: FaultCase,
    effort: int,
    request: pytest.FixtureRequest,
) -> None:
    require_strace(case)
    trials = Trials(idle_daemon.start(), case)
    points = [call for call in calls_that_may_fail() if error in ERRORS[call.name]]
    # Another part of them in each case.
    first = crc32(request.node.name.encode()) % len(points)
    for call in choose(points[first:] + points[:first], effort, TRIALS_PER_CASE):
        trials.run(call, error, lasts=lasts, crashes=crashes)
    assert (case.lost, case.wrong) == (0, 0)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_status_says_what_is_wrong_until_it_heals(
    error: int, idle_daemon: Daemon, case: FaultCase
) -> None:
    require_strace(case)
    trials = Trials(idle_daemon.start(), case)
    trials.run(EVERY_WRITE, error, lasts=True, crashes=False)
    assert (case.lost, case.wrong) == (0, 0)


@pytest.mark.parametrize("file", ["journal.00000001", "bulk.00000001", "image.tmp"])
def test_a_file_whose_sync_failed_is_never_synced_again(
    file: str, idle_daemon: Daemon, case: FaultCase
) -> None:
    """The kernel says so once and drops the pages: a second sync would say that all is well."""
    require_strace(case)
    trials = Trials(idle_daemon.start(), case)
    case.explored += 1
    with trials.shard() as (shard, paths):
        (path,) = (path for path in paths if path.endswith(f"/{file}"))
        before_the_fault(shard)
        once = Call("fsync,fdatasync", 1).failing("EIO", lasts=False)
        with Tracer(idle_daemon.pid, arguments([path], trials.log, once, also=REMOVALS)):
            shard.replace({"bulk": b"bulk"}, "fsync")
            under_the_fault(shard, case)
            wait_for_the_builder(idle_daemon)
            wait_until(lambda: shard.put({"x": b"x1"}, "fsync"), HEAL_SECONDS, "a write")
            wait_until(shard.flush, HEAL_SECONDS, "a flush")
        shard.settle()
        shard.check_visible(case)
        assert synced_again(trials.log) == ({path}, set())
        idle_daemon.kill()
        trials.check_next_start(shard)
    assert (case.lost, case.wrong) == (0, 0)
