"""Any system call of a start fails: it does not start and says why, or it serves all there is.

A start that failed has taken nothing away: the next one finds everything. Only where the disk
cannot read a file (EIO) it may be set aside, and that is reported.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from .expectation import read_contents
from .injecting import choose, require_strace
from .left_behind import STORED, damage_the_image, nothing_more, remains_of, start_under

if TYPE_CHECKING:
    from ..running import Daemon
    from .expectation import Contents
    from .left_behind import Spoil
    from .report import FaultCase

PARTS = 2
"""Each of them ends in time on a slow machine, also where every call fails."""
TRIALS_PER_PART = 1
NO_FAILURE = {"close", "lseek", "ioctl", "fcntl", "flock"}
"""Calls that fail otherwise, or not at all."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("spoil", [nothing_more, damage_the_image])
def test_a_call_of_a_start_fails(
    spoil: Spoil,
    error: int,
    part: int,
    idle_daemon: Daemon,
    case: FaultCase,
    effort: int,
) -> None:
    require_strace(case)
    daemon, remains = idle_daemon, remains_of(spoil)
    calls = [call for call in remains.calls if call.name not in NO_FAILURE]
    for call in choose(calls[part::PARTS], effort, TRIALS_PER_PART):
        remains.put_back(daemon)
        case.explored += 1
        first = start_with_an_error(daemon, call.failing(errno.errorcode[error], lasts=False))
        daemon.start()
        found, is_reported = what_is_found(daemon)
        for contents in (found, remains.found if first is None else first):
            case.lost += contents != remains.found and not is_reported
            case.wrong += len(contents.items() - STORED)
            assert contents == remains.found or is_reported, call
    assert (case.lost, case.wrong) == (0, 0)


def start_with_an_error(daemon: Daemon, fault: str) -> Contents | None:
    """Return what a daemon found that started all the same; None where it says why it did not."""
    said = len(daemon.log) if daemon.log_path.exists() else 0
    status = start_under(daemon, fault)
    if status is None:
        return what_is_found(daemon)[0]
    daemon.wait()
    error = getattr(errno, fault.partition("error=")[2].partition(":")[0])
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
