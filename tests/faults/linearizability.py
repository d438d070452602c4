"""Whether what concurrent clients saw fits one order in which the operations happened one by one.

The search goes through the history in time and keeps every state that some order allows: just-in-
time linearization, after Gavin Lowe, "Testing for linearizability" (2016), which improves on Wing
and Gong (1993). An operation on several names is one operation on the whole state, so a write that
is seen in part fits no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    Configuration = tuple[Hashable, frozenset[int]]


@dataclass(frozen=True)
class Operation:
    """What a client asked for, between two times (ns), and what that does to a state.

    `effect` returns the state after it, or None where the result that was answered cannot be had
    from the state before. One that is not `certain` had no answer: it happened in that time, or
    never. One that is a `read` changes no state.
    """

    what: str
    began: int
    ended: int
    effect: Callable[[Hashable], Hashable | None]
    certain: bool = True
    read: bool = False


def first_misfit(history: Sequence[Operation], initial: Hashable) -> Operation | None:
    """Return the first operation up to which no order fits, None where one fits everything."""
    begins = [(operation.began, 0, number) for number, operation in enumerate(history)]
    ends = [(operation.ended, 1, number) for number, operation in enumerate(history)]
    pending: dict[int, Operation] = {}
    configurations: set[Configuration] = {(initial, frozenset())}
    # At the same instant a begin comes first: the two may have overlapped.
    for _, is_end, number in sorted(begins + ends):
        if not is_end:
            pending[number] = history[number]
            continue
        reached = _reach(configurations, pending)
        if history[number].certain:
            reached = {(state, done) for state, done in reached if number in done}
            if not reached:
                return history[number]
        configurations = {(state, done - {number}) for state, done in reached}
        del pending[number]
    return None


def _reach(configurations: set[Configuration], pending: dict[int, Operation]) -> set[Configuration]:
    """Return what comes of letting any of the pending operations happen now, in any order."""
    reached: set[Configuration] = set()
    waiting = list(configurations)
    while waiting:
        state, done = waiting.pop()
        results = [(n, op.effect(state)) for n, op in pending.items() if n not in done]
        # A read that fits may as well have happened here: less is left to explain.
        done |= {n for n, after in results if pending[n].read and after is not None}
        if (state, done) in reached:
            continue
        reached.add((state, done))
        waiting += [
            (after, done | {n}) for n, after in results if after is not None and not pending[n].read
        ]
    return reached
