"""Any system call of a start fails: it does not start and says why, or it serves all there is.

A start that failed has taken nothing away: the next one finds everything. Only where the disk
cannot read a file (EIO) it may be set aside, and that is reported.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from ..running import START_SECONDS, wait_until
from .expectation import read_contents
from .injecting import arguments, calls_in, choose, paths_of_shard, require_strace
from .left_behind import (
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
    from .left_behind import Spoil
    from .report import FaultCase

TRIALS_PER_CASE = 1
NO_FAILURE = {"close", "lseek", "ioctl", "fcntl", "flock", "read"}
"""Calls that fail otherwise or not at all; what cannot be read is damage."""


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("spoil", [nothing_more, damage_the_image])
def test_a_call_of_a_start_fails(
    spoil: Spoil, error: int, idle_daemon: Daemon, case: FaultCase, effort: int
) -> None:
    require_strace(case)
    daemon, template = idle_daemon, idle_daemon.directory / "template"
    leave_much_behind(daemon)
    paths = paths_of_shard(shard_directory(daemon))
    spoil(shard_directory(daemon))
    shutil.copytree(daemon.cache_dir, template)
    log = daemon.directory / "calls"
    expected = traced_start(daemon, arguments(paths, log))
    points = [call for call in calls_in(log) if call.name not in NO_FAILURE]
    for call in choose(points, effort, TRIALS_PER_CASE):
        put_back(daemon, template)
        fault = call.failing(errno.errorcode[error], lasts=False)
        case.explored += 1
        first = start_under_a_fault(daemon, [*arguments(paths, log, fault), "-D"], error)
        daemon.start()
        found, is_reported = what_is_found(daemon)
        for contents in (found, expected if first is None else first):
            case.lost += contents != expected and not is_reported
            case.wrong += sum(expected.get(name) != blob for name, blob in contents.items())
            assert contents == expected or is_reported, call
    assert (case.lost, case.wrong) == (0, 0)


def start_under_a_fault(daemon: Daemon, tracer: list[str], error: int) -> Contents | None:
    """Return what a daemon found that started all the same; None where it says why it did not."""
    daemon.prefix = [*tracer, "--seccomp-bpf"]
    said = len(daemon.log)
    daemon.process = daemon.spawn()
    daemon.prefix = ()
    wait_until(lambda: has_ended_or_serves(daemon), START_SECONDS, "the daemon to serve or to end")
    status = daemon.process.poll()
    if status is None:
        return what_is_found(daemon)[0]
    daemon.wait()
    assert status == 1, daemon.log
    assert os.strerror(error) in daemon.log[said:]
    assert "Traceback" not in daemon.log[said:]
    return None


def what_is_found(daemon: Daemon) -> tuple[Contents, bool]:
    """Return what there is, and whether something is reported as set aside; kill the daemon."""
    with daemon.cache() as cache:
        contents = read_contents(cache)
    is_reported = bool(daemon.status()["storage"]["set_aside"])
    daemon.kill()
    return contents, is_reported
