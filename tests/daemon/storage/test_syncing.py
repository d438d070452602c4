"""The thread that waits for the disk: in order, one outcome for each job, and an end."""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.errors import DamageError, StorageError
from autoloadd_daemon.storage.syncing import SyncThread

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0


class Loop:
    """What the loop does: runs the callbacks that the thread hands over."""

    def __init__(self) -> None:
        self._callbacks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.thread = SyncThread(self._callbacks.put)

    def run_one(self) -> None:
        self._callbacks.get(timeout=SECONDS)()


def test_jobs_run_in_order_and_each_is_answered_on_the_loop() -> None:
    loop = Loop()
    threads: list[str] = []
    outcomes: list[tuple[int, StorageError | None, str]] = []
    for number in range(3):
        loop.thread.submit(
            lambda: threads.append(threading.current_thread().name),
            lambda error, number=number: outcomes.append(  # type: ignore[misc]
                (number, error, threading.current_thread().name)
            ),
        )
    for _ in range(3):
        loop.run_one()
    assert threads == ["sync"] * 3
    assert outcomes == [(number, None, threading.current_thread().name) for number in range(3)]
    assert loop.thread.stop(SECONDS)


class Held:
    """What a job holds: in a build an image."""


def test_nothing_of_a_job_stays_when_it_is_through() -> None:
    loop = Loop()
    held = Held()
    gone = threading.Event()
    weakref.finalize(held, gone.set)
    loop.thread.submit(lambda held=held: None, lambda _error, held=held: None)  # type: ignore[misc]
    del held
    loop.run_one()
    assert gone.wait(SECONDS)
    assert loop.thread.stop(SECONDS)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (DamageError("bad bytes"), "bad bytes"),
        (OSError(5, "Input/output error", "/f"), "[Errno 5] Input/output error: '/f'"),
    ],
)
def test_a_storage_error_is_the_outcome(raised: Exception, expected: str) -> None:
    loop = Loop()
    outcomes: list[StorageError | None] = []

    def job() -> None:
        raise raised

    loop.thread.submit(job, outcomes.append)
    loop.thread.submit(lambda: None, outcomes.append)
    loop.run_one()
    loop.run_one()
    assert isinstance(outcomes[0], StorageError)
    assert str(outcomes[0]) == expected
    assert outcomes[1] is None
    assert loop.thread.stop(SECONDS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_job_reaches_the_loop() -> None:
    loop = Loop()

    def job() -> None:
        raise ZeroDivisionError

    loop.thread.submit(job, lambda _error: None)
    with pytest.raises(ZeroDivisionError):
        loop.run_one()
    assert loop.thread.stop(SECONDS)


def test_a_disk_that_does_not_answer_does_not_keep_us() -> None:
    loop = Loop()
    answer = threading.Event()

    def job() -> None:
        answer.wait(SECONDS)

    loop.thread.submit(job, lambda _error: None)
    assert not loop.thread.stop(0.01)
    answer.set()
    assert loop.thread.stop(SECONDS)
