"""A thread that is there from the beginning, for what the loop waits for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from .storage.syncing import SyncThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import StorageError

ResultT = TypeVar("ResultT")


class StandingThread:
    """Runs one job after another.

    trio begins a thread when it needs one. Where memory is short one was seen that failed before it
    could say that it runs: CPython's `Thread.start` then waits for ever, and with it the loop.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; its ends of jobs come to the loop that calls this."""
        token = trio.lowlevel.current_trio_token()

        def deliver(callback: Callable[[], None]) -> None:
            # The end of a job that nobody waited for any more.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(callback)

        self._thread = SyncThread(deliver, name=name)

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job whose end is of no interest, and that does not fail."""
        self._thread.submit(job, lambda _error: None)

    async def run(self, job: Callable[[], ResultT]) -> ResultT:
        """Return what a job returns. Raises its StorageError; any other error ends the daemon.

        When this is cancelled the job goes on, and its end is of no interest.
        """
        results: list[ResultT] = []
        errors: list[StorageError | None] = []
        ended = trio.Event()

        def note_end(error: StorageError | None) -> None:
            errors.append(error)
            ended.set()

        self._thread.submit(lambda: results.append(job()), note_end)
        await ended.wait()
        if errors[0] is not None:
            raise errors[0]
        return results[0]
