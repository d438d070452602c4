"""The interleaving is the schedule's, not the machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .disk_model import Write
from .test_crash_states import record, schedules
from .turnstile import ORDERS
from .workloads import OTHERS, PLAIN, a_build_under_way

if TYPE_CHECKING:
    from pathlib import Path

    from .disk_model import Operation
    from .workloads import Workload


def shape(log: list[Operation], root: Path) -> list[str]:
    """Return a log without what is random in it: an epoch, times."""
    return [
        f"write {op.inode} {op.offset} {len(op.data)}"
        if isinstance(op, Write)
        else repr(op).replace(str(root), "")
        for op in log
    ]


@pytest.mark.parametrize("workload", [*PLAIN, *OTHERS])
async def test_a_schedule_gives_one_log(workload: Workload, tmp_path: Path) -> None:
    # Every third: the last one is by chance.
    both = zip(schedules(effort=1)[1::3], schedules(effort=1)[1::3], strict=True)
    for number, (schedule, same) in enumerate(both):
        root, again = tmp_path / f"{number}", tmp_path / f"{number}-again"
        log, _ = await record(workload, root, schedule)
        other, _ = await record(workload, again, same)
        assert shape(log, root) == shape(other, again), f"{workload.__name__}, {schedule}"


async def test_schedules_differ(tmp_path: Path) -> None:
    """A schedule that changed nothing would be no dimension."""
    shapes = set()
    for number, order in enumerate(ORDERS):
        root = tmp_path / str(number)
        log, _ = await record(a_build_under_way, root, order)
        shapes.add(tuple(shape(log, root)))
    assert len(shapes) >= 4
