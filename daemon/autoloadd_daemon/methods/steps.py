"""Requests on many names are done in steps: others wait for one step, not for the request.

A request that may be long is a generator that yields after each step and returns its result. It
reads from a shard as it was at one moment (`Shard.frozen`), so its answer is of that moment.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STEP = 512
"""Names or entries in a step: less than a millisecond."""

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

Steps = Generator[None, None, ResultT]


def done_at_once(steps: Steps[ResultT], count: int) -> ResultT | Steps[ResultT]:
    """Return the result of steps on `count` items if they are few, else the steps."""
    if count > STEP:
        return steps
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def in_steps(items: Sequence[Any], read: Callable[[Any], ItemT]) -> Steps[list[ItemT]]:
    """Return what `read` makes of each item."""
    found: list[ItemT] = []
    for start in range(0, len(items), STEP):
        found += [read(item) for item in items[start : start + STEP]]
        yield
    return found


def merged(parts: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return parts of an answer with those joined that are no views: each takes some memory."""
    result: list[bytes | memoryview] = []
    run: list[bytes] = []
    for part in parts:
        if not isinstance(part, memoryview):
            run.append(part)
            continue
        if run:
            result.append(b"".join(run))
            run = []
        result.append(part)
    if run:
        result.append(b"".join(run))
    return result
