"""Writing to a file descriptor until everything is written."""

from __future__ import annotations

import os

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


def _wait_for_room(descriptor: int) -> None:
    # A pipe that whoever started us made non-blocking.
    import select  # noqa: PLC0415  rarely needed

    select.select([], [descriptor], [])
