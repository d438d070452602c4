"""Killed with a cache of the size that people have, the daemon answers again soon."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..running import Daemon
    from .report import FaultCase

ENTRIES = 16_000
BLOB_BYTES = 3_000


@pytest.mark.parametrize("built", [True, False], ids=["in an image", "in journals"])
def test_ready_again_with_16000_entries(idle_daemon: Daemon, case: FaultCase, built: bool) -> None:
    """The image or the journals are read back, and every entry is there. Reported, not timed."""
    case.unit = "entries"
    blob = os.urandom(BLOB_BYTES)
    daemon = idle_daemon.start()
    with daemon.cache() as cache:
        names = [f"function-{number}" for number in range(ENTRIES)]
        if built:
            cache.merge((name, name.encode() + blob) for name in names)
            assert daemon.restart().status()["counters"].get("builds", 0) == 0
        else:
            for start in range(0, ENTRIES, 100):
                cache.put_many({n: n.encode() + blob for n in names[start : start + 100]})
        daemon.kill()
        before = time.monotonic()
        daemon.start()
        case.recovered(time.monotonic() - before)
        for start in range(0, ENTRIES, 1000):
            part = names[start : start + 1000]
            found = cache.get_many(part)
            case.explored += len(part)
            case.lost += len(part) - len(found)
            case.wrong += sum(found[name] != name.encode() + blob for name in found)
    assert (case.lost, case.wrong) == (0, 0)
