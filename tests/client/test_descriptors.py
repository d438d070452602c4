"""Writing to descriptors that take a part at a time, or nothing for a while."""

from __future__ import annotations

import os
import threading

import pytest

from autoloadd_client.cli.descriptors import write_all

_FAR_MORE_THAN_A_PIPE_HOLDS = os.urandom(8 << 20)


@pytest.mark.parametrize("blocking", [True, False])
def test_everything_arrives_through_a_pipe(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    parts: list[bytes] = []

    def read() -> None:
        while part := os.read(reader, 4096):
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        write_all(writer, _FAR_MORE_THAN_A_PIPE_HOLDS)
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    assert b"".join(parts) == _FAR_MORE_THAN_A_PIPE_HOLDS


def test_a_full_pipe_that_nobody_reads_any_more_is_an_error() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            write_all(writer, b"blob")
    finally:
        os.close(writer)
