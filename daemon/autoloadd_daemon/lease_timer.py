"""The clock of the leases: a task that sleeps until the next one, or the next wait, is over.

The daemon's tick is too coarse: who waits for 50 ms stands before a prompt.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .leases import Leases


async def end_leases_in_time(leases: Leases, settle: Callable[[], None]) -> None:
    """End leases and waits when their time is over, for ever; `settle` brings the answers out."""
    deadlines = leases.deadlines
    while True:
        nearer = trio.Event()
        deadlines.on_nearer = nearer.set
        due_ns = deadlines.next_ns
        left = math.inf if due_ns is None else max(due_ns - time.monotonic_ns(), 0) / 1e9
        with trio.move_on_after(left):
            await nearer.wait()
        if leases.expire(time.monotonic_ns()):
            settle()
