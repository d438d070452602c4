"""After a crash at any moment nothing acknowledged is lost, and nothing half-done is seen.

Every operation of a workload is a crash point; from each, the states that the disk may be in are
enumerated and given to the real recovery. Each workload runs under several schedules of loop, sync
thread and build thread.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.storage import journal

from .engine import Histories, running_engine
from .exploring import Explorer, Promises
from .recording import RecordingFiles
from .turnstile import ORDERS, Chance
from .workloads import OTHERS, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

    from .disk_model import Operation
    from .report import FaultCase
    from .turnstile import Schedule
    from .workloads import Workload

CHANCES = 2
ROOM_BYTES = 2 * journal.PAGE_BYTES


def schedules(effort: int) -> list[Schedule]:
    """Return every order of the three, and some by chance."""
    seeds = range(CHANCES * effort)
    return [*ORDERS, *(Chance(random.Random(seed), f"chance {seed}") for seed in seeds)]


async def record(
    workload: Workload, cache_dir: Path, schedule: Schedule
) -> tuple[list[Operation], Histories]:
    """Run a workload on a new disk; return its log, and what it stored."""
    files = RecordingFiles()
    files.make_root(str(cache_dir))
    async with running_engine(files, str(cache_dir), schedule) as engine:
        await workload(engine)
        engine.check_contents()
    return files.log, engine.histories


async def explore(workload: Workload, tmp_path: Path, case: FaultCase, effort: int) -> None:
    for number, schedule in enumerate(schedules(effort)):
        cache_dir = tmp_path / f"cache-{number}"
        log, histories = await record(workload, cache_dir, schedule)
        explorer = Explorer(case, cache_dir, tmp_path / "scratch", number)
        where = f"{workload.__name__}, {schedule}"
        every = min(1.0, 0.05 * effort)
        explorer.explore(log, Promises(histories), where, every=every, states=2 * min(effort, 5))
    assert case.lost == case.wrong == 0


@pytest.mark.parametrize("workload", [*PLAIN, *OTHERS])
async def test_crash_states(
    workload: Workload, tmp_path: Path, case: FaultCase, effort: int
) -> None:
    case.name = "crash states of a simulated disk"
    await explore(workload, tmp_path, case, effort)


@pytest.mark.parametrize("workload", [*PLAIN, *OTHERS])
async def test_crash_states_of_journals_with_room(
    workload: Workload,
    tmp_path: Path,
    case: FaultCase,
    effort: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Journals that are long get room ahead; here each does, with its first sync."""
    case.name = "crash states of a simulated disk, with room ahead of journals"
    monkeypatch.setattr(journal, "room_bytes", lambda _end: ROOM_BYTES)
    await explore(workload, tmp_path, case, effort)
