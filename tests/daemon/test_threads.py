"""A standing thread: results, errors, order, and what nobody waits for any more."""

from __future__ import annotations

import threading

import pytest
import trio

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.threads import StandingThread

SECONDS = 20.0


async def test_jobs_run_one_after_another_in_one_thread_of_that_name() -> None:
    thread = StandingThread("build")
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(thread.run, lambda: found.append(threading.current_thread().name))
    assert found == ["build"] * 3
    assert await thread.run(lambda: 7) == 7


async def test_an_error_of_the_files_is_raised() -> None:
    def fail() -> None:
        raise StorageError("full")

    thread = StandingThread("build")
    with pytest.raises(StorageError, match="full"):
        await thread.run(fail)
    assert await thread.run(lambda: "goes on") == "goes on"


async def test_a_job_may_be_left_to_the_thread() -> None:
    thread = StandingThread("build")
    found: list[str] = []
    thread.submit(lambda: found.append("first"))
    await thread.run(lambda: found.append("second"))
    assert found == ["first", "second"]


def test_a_job_may_end_after_the_loop() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def job() -> None:
        assert may_end.wait(SECONDS)

    async def main() -> StandingThread:
        thread = StandingThread("build")
        with trio.move_on_after(0.05):
            await thread.run(job)
        return thread

    thread = trio.run(main)
    may_end.set()
    thread._thread.submit(ended.set, lambda _error: None)
    assert ended.wait(SECONDS)
