"""The pace of a thread that works beside the loop, so that nobody who asks notices it.

Threads share the interpreter's lock. The loop gives it away with each system call and, where a
thread computes, gets it back only after the switch interval: 5 ms, three times for each get. A
thread that stops by itself after 50 us gives it back then.
"""

from __future__ import annotations

import select
import time
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ItemT = TypeVar("ItemT")

_WORK_SECONDS = 50e-6
"""With 400 us where others use the processors too, gets' p99 rose from 3 to 5 times idle; with 25 a
build took twice as long for the same p99."""
_FIRST_WORK_SECONDS = 2e-3
"""An image of 1 MB is then done at once: clients wait for one after a clear or a replace."""
_REST_PER_WORK = 4
"""A fifth of a core at most, whatever else runs."""
_REST_SECONDS = 10e-3
"""Also after a system call that took long: a build must come to an end."""
_ITEMS = 8
"""Between two looks at the clock, which is a system call of 0.3 us. One takes some 2 us, and 4
more where it touches a page for the first time."""


class Pace:
    """How one build takes turns with the loop: 50 us of work, then four times as long a rest."""

    def __init__(self) -> None:
        self.is_hurried = False
        self._may_work = _FIRST_WORK_SECONDS
        self._rested_at: float | None = None

    def hurry(self) -> None:
        """Rest no more: somebody waits for the end. From any thread."""
        self.is_hurried = True

    def rest(self) -> None:
        """Rest, if enough was done since the last time; begins with the first. From one thread."""
        if self.is_hurried:
            return
        # Not the time that passed: while the thread waits for the loop it works on nothing.
        now = time.thread_time()
        if self._rested_at is None:
            self._rested_at = now
        worked = now - self._rested_at
        if worked >= self._may_work:
            # Not `time.sleep`, which waits for a moment of a clock: where a library sets the clocks
            # of one process, as the tests' does, that moment never came.
            select.select((), (), (), min(worked * _REST_PER_WORK, _REST_SECONDS))
            self._may_work = _WORK_SECONDS
            self._rested_at = time.thread_time()

    def over(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """Yield items, and rest between them. Of their batches some are taken ahead."""
        remaining = iter(items)
        while batch := tuple(islice(remaining, _ITEMS)):
            yield from batch
            self.rest()


def at_once() -> Pace:
    """Return the pace of a build that nobody is served beside."""
    pace = Pace()
    pace.hurry()
    return pace
