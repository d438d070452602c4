"""A disk that fails at any call, once or until it is well again: nothing acknowledged is lost.

Every n-th call of every method fails in a run of its own. When the disk is well again the daemon
heals by itself, shows just what it acknowledged, and a crash after that, or at any moment before,
leaves what it must. A sync that failed is never tried again on that file.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from .disk_model import SyncFile
from .engine import running_engine
from .exploring import Explorer, Promises
from .recording import METHODS, OPENING, RecordingFiles
from .test_crash_states import schedules
from .workloads import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .disk_model import Operation
    from .engine import Engine
    from .report import FaultCase
    from .turnstile import Schedule
    from .workloads import Workload

FAULTS = 24
"""Of each workload, times the effort; all that there are from an effort of about 20 on."""

HEALING_ATTEMPTS = 4


@dataclass(frozen=True)
class Fault:
    """Call number `skip` of a method fails, counted from 0; with `stays` all from there on."""

    method: str
    skip: int
    number: int
    stays: bool

    def __str__(self) -> str:
        name = errno.errorcode[self.number]
        return f"{name} from {self.method}, call {self.skip}{' and on' if self.stays else ''}"


async def faults_of(workload: Workload, root: Path, schedule: Schedule) -> list[Fault]:
    """Return every fault that a workload can meet, in the order of the methods' calls."""
    files = RecordingFiles()
    files.make_root(str(root))
    async with running_engine(files, str(root), schedule) as engine:
        files.calls.clear()
        await workload(engine)
    faults = []
    for method in METHODS:
        opens = (*OPENING, "sync_directory")
        numbers = [errno.ENOSPC, errno.EIO, *([errno.EMFILE] if method in opens else [])]
        for skip in range(files.calls[method]):
            faults += [Fault(method, skip, n, stays) for n in numbers for stays in (False, True)]
    return faults


async def run(workload: Workload, fault: Fault, root: Path, schedule: Schedule) -> Engine:
    """Run a workload with a fault in it, then let the disk be well; return the engine at its end.

    Asserts that it healed and shows what it acknowledged.
    """
    files = RecordingFiles()
    files.make_root(str(root))
    async with running_engine(files, str(root), schedule) as engine:
        files.fail(fault.method, fault.number, until_healed=fault.stays, skip=fault.skip)
        await workload(engine)
        files.heal()
        await heal(engine)
        assert await engine.put({"healed": b"yes"}, "fsync"), engine.metrics.health.error
        assert not engine.metrics.health.is_degraded, engine.metrics.health.error
        engine.check_contents()
    return engine


async def heal(engine: Engine) -> None:
    """Do what the daemon does from time to time, until storage is healthy."""
    for _ in range(HEALING_ATTEMPTS):
        if not engine.metrics.health.is_degraded and engine.catalog.failure is None:
            return
        await engine.try_to_heal()


def check_no_sync_is_repeated(log: Sequence[Operation]) -> None:
    """Assert that no file was synced after one of its syncs had failed."""
    failed: set[int] = set()
    for operation in log:
        if isinstance(operation, SyncFile):
            assert operation.inode not in failed, f"file {operation.inode} is synced again"
            if operation.failed:
                failed.add(operation.inode)


@pytest.mark.parametrize("workload", PLAIN)
async def test_errors_at_each_call(
    workload: Workload, tmp_path: Path, case: FaultCase, effort: int
) -> None:
    case.name = "errors at every call, simulated"
    generator = random.Random(workload.__name__)
    all_schedules = schedules(effort=1)
    possible = await faults_of(workload, tmp_path / "well", all_schedules[0])
    chosen = generator.sample(possible, min(len(possible), FAULTS * effort))
    for number, fault in enumerate(chosen):
        schedule = all_schedules[number % len(all_schedules)]
        where = f"{workload.__name__}, {schedule}, {fault}"
        root = tmp_path / f"cache-{number}"
        try:
            engine = await run(workload, fault, root, schedule)
        except BaseException as exc:
            exc.add_note(where)
            raise
        check_no_sync_is_repeated(engine.files.log)
        explorer = Explorer(case, root, tmp_path / "scratch", number)
        promises = Promises(engine.histories)
        explorer.explore(engine.files.log, promises, where, every=0.01, states=1)
        explorer.crash(promises, f"{where}, at the end", states=1)
    assert case.lost == case.wrong == 0
