"""Writing to a file descriptor until everything is written, and what comes of it."""

from __future__ import annotations

import os

from .statuses import BROKEN_PIPE, USAGE

STDOUT = 1
STDERR = 2


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however little each write takes. Raises OSError.

    Python's own stdout is not used for blobs: under PYTHONUNBUFFERED its short writes are silent.
    """
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            try:
                written += os.write(descriptor, rest[written:])
            except BlockingIOError:
                _wait_for_room(descriptor)


def deliver(data: bytes, status: int) -> int:
    """Write to stdout; return the status, or that of a write that failed."""
    try:
        write_all(STDOUT, data)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as exc:
        return tell(USAGE, f"stdout: {exc.strerror}")
    return status


def tell(status: int, message: object) -> int:
    """Write an error's line to stderr; return the status."""
    from .conventions import error_line  # noqa: PLC0415  not for what is found or missed

    try:
        write_all(STDERR, os.fsencode(error_line(message)))
    except OSError:
        return status  # there is no one to tell
    return status


def _wait_for_room(descriptor: int) -> None:
    # A pipe that whoever started us made non-blocking.
    import select  # noqa: PLC0415  rarely needed

    select.select([], [descriptor], [])
