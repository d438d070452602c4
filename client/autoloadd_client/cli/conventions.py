"""What every command keeps to: deadlines, and the words for what went wrong."""

from __future__ import annotations

from autoloadd_client.errors import CacheError, DeadlineError, RefusedError, SwitchedOffError

from .statuses import MISS, REFUSED, UNREACHABLE

PROGRAM = "autoloadctl"

READ_SECONDS = 1.0
"""A read is answered from memory: after this long the daemon hangs."""

WRITE_SECONDS = 15.0
"""A write may wait for a disk that is busy."""

BULK_SECONDS = 60.0
"""Everything that takes as long as there are entries."""


class UsageError(Exception):
    """What the user asked for cannot be done as asked. The message says what to do instead."""


class FailedError(Exception):
    """A command that ends with `status` (one of the exit codes) and a message for the user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def describe_failure(error: CacheError) -> tuple[int, str]:
    """Return the exit code for an error of the client library, and what the user reads."""
    if isinstance(error, RefusedError):
        return REFUSED, refusal_message(error.code, error.message)
    if isinstance(error, DeadlineError):
        return UNREACHABLE, f"{error}; --timeout SECONDS waits longer"
    # Who switched the cache off wants a shell to go on as if nothing had been cached.
    return MISS if isinstance(error, SwitchedOffError) else UNREACHABLE, str(error)


def refusal_message(code: str, message: str) -> str:
    """Return what the user reads when the daemon refused, with one of the protocol's codes."""
    return f"the daemon refused: {code}: {message}"


def error_line(message: object) -> str:
    """Return the line on stderr for an error."""
    return f"{PROGRAM}: {escape_bytes(str(message))}\n"


def escape_bytes(text: str) -> str:
    r"""Return text in which bytes of a path that are no UTF-8 have become \xNN."""
    return text.translate(_ESCAPED_BYTES)


_ESCAPED_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""What os.fsdecode makes of such bytes, by code point."""
