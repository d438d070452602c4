"""Killed at any system call of its start, while it puts right what an earlier kill left behind.

The next start finds what a start that nobody disturbed finds: nothing more is lost or set aside,
and nothing temporary is left.
"""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from ..running import START_SECONDS, wait_until
from .expectation import read_contents
from .injecting import arguments, calls_in, choose, left_over, paths_of_shard, require_strace
from .left_behind import (
    damage_the_first_journal,
    damage_the_image,
    has_ended_or_serves,
    leave_much_behind,
    nothing_more,
    put_back,
    shard_directory,
    traced_start,
)

if TYPE_CHECKING:
    from ..running import Daemon
    from .expectation import Contents
    from .injecting import Call
    from .left_behind import Spoil
    from .report import FaultCase


PARTS = 3
"""Each of them ends in time on a slow machine, also where every call is tried."""
KILLS_PER_PART = 2


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("spoil", [nothing_more, damage_the_image, damage_the_first_journal])
def test_killed_at_each_system_call_of_a_start(
    spoil: Spoil, part: int, idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    case.unit = "kills"
    require_strace(case)
    daemon, template = idle_daemon, idle_daemon.directory / "template"
    acknowledged = leave_much_behind(daemon)
    shard = shard_directory(daemon)
    spoil(shard)
    shutil.copytree(daemon.cache_dir, template)
    log = daemon.directory / "calls"
    expected = traced_start(daemon, arguments(paths_of_shard(shard), log))
    assert (expected == acknowledged) == (spoil is nothing_more)
    points = calls_in(log)
    assert {"openat", "unlink"} <= {point.name for point in points}
    for call in choose(points[part::PARTS], effort, KILLS_PER_PART):
        put_back(daemon, template)
        start_and_be_killed(daemon, call)
        case.explored += 1
        found = next_start(daemon, case, is_damaged=spoil is not nothing_more)
        case.lost += sum(name not in found for name in expected)
        case.wrong += sum(expected.get(name) != blob for name, blob in found.items())
        assert found == expected, f"killed at {call}"
    assert (case.lost, case.wrong) == (0, 0)


def start_and_be_killed(daemon: Daemon, call: Call) -> None:
    """Start a daemon that is killed at a call, or when it answers."""
    paths, log = paths_of_shard(shard_directory(daemon)), daemon.directory / "calls"
    # Other calls need not stop: it starts five times as fast.
    daemon.prefix = [*arguments(paths, log, call.killed()), "-D", "--seccomp-bpf"]
    daemon.process = daemon.spawn()
    daemon.prefix = ()
    wait_until(lambda: has_ended_or_serves(daemon), START_SECONDS, "the daemon to serve or to end")
    daemon.process.kill()
    assert daemon.wait() == -signal.SIGKILL, daemon.log


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
