"""Killed at any system call of its start, while it puts right what an earlier kill left behind.

The next start finds what a start that nobody disturbed finds: nothing more is lost or set aside,
and nothing temporary is left.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from .expectation import read_contents
from .injecting import choose, left_over, require_strace
from .left_behind import (
    damage_the_first_journal,
    damage_the_image,
    nothing_more,
    remains_of,
    start_under,
)

if TYPE_CHECKING:
    from ..running import Daemon
    from .expectation import Contents
    from .left_behind import Spoil
    from .report import FaultCase

PARTS = 3
"""Each of them ends in time on a slow machine, also where every call is tried."""
KILLS_PER_PART = 1


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("spoil", [nothing_more, damage_the_image, damage_the_first_journal])
def test_killed_at_each_system_call_of_a_start(
    spoil: Spoil,
    part: int,
    idle_daemon: Daemon,
    case: FaultCase,
    effort: int,
) -> None:
    case.unit = "kills"
    require_strace(case)
    daemon, remains = idle_daemon, remains_of(spoil)
    assert {"openat", "unlink"} <= {call.name for call in remains.calls}
    for call in choose(remains.calls[part::PARTS], effort, KILLS_PER_PART):
        remains.put_back(daemon)
        status = start_under(daemon, call.killed())
        assert status in (None, -signal.SIGKILL), daemon.log
        daemon.kill()
        case.explored += 1
        found = next_start(daemon, case, is_damaged=spoil is not nothing_more)
        case.lost += sum(name not in found for name in remains.found)
        case.wrong += sum(remains.found.get(name) != blob for name, blob in found.items())
        assert found == remains.found, f"killed at {call}"
    assert (case.lost, case.wrong) == (0, 0)


def next_start(daemon: Daemon, case: FaultCase, *, is_damaged: bool) -> Contents:
    """Start without a disturbance; return what is found."""
    before = time.monotonic()
    daemon.start()
    case.recovered(time.monotonic() - before)
    assert bool(daemon.status()["storage"]["set_aside"]) == is_damaged
    assert left_over(daemon.cache_dir) == []
    with daemon.cache() as cache:
        contents = read_contents(cache)
    daemon.kill()
    return contents
