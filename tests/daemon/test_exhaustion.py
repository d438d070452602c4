"""A process that gets no memory ends at once; any other error goes its way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio

from autoloadd_daemon.exhaustion import EXIT_STATUS, end_without_memory, run_or_end

SECONDS = 20.0

IN_A_TASK = """
import trio
from autoloadd_daemon.exhaustion import run_or_end

async def fail(what):
    async with trio.open_nursery():
        raise what

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_or_end, fail, MemoryError())

try:
    trio.run(main)
finally:
    print("tidied up")
"""


class EndedError(Exception):
    """In place of the process's end."""


def test_the_process_ends_without_tidying_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_TASK], capture_output=True, check=False, timeout=SECONDS
    )
    assert done.returncode == EXIT_STATUS
    assert done.stdout == b""
    assert done.stderr == b"autoloadd: no memory is left: ending at once, as if killed\n"


def test_alone_or_in_a_group(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    for error in (MemoryError(), ExceptionGroup("", [ValueError(), MemoryError()])):
        with pytest.raises((EndedError, ExceptionGroup)), end_without_memory():
            raise error
        assert statuses.pop() == EXIT_STATUS
        assert "no memory is left" in capfd.readouterr().err


def test_other_errors_go_their_way() -> None:
    with pytest.raises(ZeroDivisionError), end_without_memory():
        raise ZeroDivisionError
    with end_without_memory():
        pass


async def test_a_task_is_run_with_its_arguments() -> None:
    seen: list[object] = []

    async def task(first: int, second: str) -> None:
        await trio.lowlevel.checkpoint()
        seen.extend([first, second])

    await run_or_end(task, 1, "two")
    assert seen == [1, "two"]
