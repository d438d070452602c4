"""The one thread that waits for the disk: a sync must never stop the loop."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.exhaustion import end_without_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = tuple[Callable[[], None], Callable[[StorageError | None], None]]


class SyncThread:
    """Runs jobs one after another, and hands each outcome to `deliver` (called in this thread)."""

    def __init__(
        self, deliver: Callable[[Callable[[], None]], None], *, name: str = "sync"
    ) -> None:
        """Start the thread. `deliver(callback)` must bring the callback to the loop and run it."""
        self._deliver = deliver
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], done: Callable[[StorageError | None], None]) -> None:
        """Run `job` in the thread, then `done(its StorageError or None)` on the loop."""
        self._jobs.put((job, done))

    def stop(self, timeout: float) -> bool:
        """End the thread after its jobs; tell whether it ended within `timeout` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @end_without_memory()
    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            outcome: StorageError | None = None
            try:
                job()
            except StorageError as exc:
                outcome = exc
            except OSError as exc:
                outcome = StorageError(str(exc))
            except BaseException as exc:
                # A bug: without this thread every write would wait for ever. End the daemon.
                self._deliver(_raiser(exc))
                raise
            self._deliver(lambda done=done, outcome=outcome: done(outcome))  # type: ignore[misc]
            # What a job holds, an image of 49 MB, would stay until the next one comes.
            del item, job, done, outcome


def _raiser(error: BaseException) -> Callable[[], None]:
    def raise_error() -> None:
        raise error

    return raise_error
