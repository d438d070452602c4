"""What the daemon does when it gets no memory: it ends at once, as if it was killed.

A MemoryError may come between any two steps, also of what would tidy up after it: a daemon was seen
that held its lock and its socket and served nobody, since trio could not even cancel its tasks. A
new one finds everything that was acknowledged at `write`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")

EXIT_STATUS = 1

_STDERR = 2
_MESSAGE = b"autoloadd: no memory is left: ending at once, as if killed\n"


@contextmanager
def end_without_memory() -> Iterator[None]:
    """End the process where a MemoryError comes out, alone or in a group."""
    try:
        yield
    except* MemoryError:
        try:
            os.write(_STDERR, _MESSAGE)
        finally:
            os._exit(EXIT_STATUS)


async def run_or_end(
    function: Callable[[Unpack[Arguments]], Awaitable[None]], *arguments: *Arguments
) -> None:
    """Run a task; a MemoryError ends the process before the task's nursery hears of it."""
    with end_without_memory():
        await function(*arguments)
