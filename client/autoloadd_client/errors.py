"""What the client raises, and what a caller does about each.

CacheError                       catch this one: the value has to be made without the cache
├── UnreachableError             no daemon there: start one, or go on without
├── DeadlineError                no answer in time; a write may still be applied
├── ConnectionLostError          the connection ended half-way; sending the same again is safe
├── ForgedError                  what came is no answer to what was asked: nothing of it is used
├── SwitchedOffError             the user switched the cache off by environment: go on without
└── RefusedError                 the daemon said no, with a code of docs/protocol.md
    ├── NotDurableError          storage takes no writes (full, failed, read-only); reads go on
    ├── BusyError                over a limit of things at once: try again
    ├── TooLargeError            over a size limit; `detail` names it; nothing was changed
    ├── ShuttingDownError        the daemon is stopping: try again later
    ├── UnsupportedProtocolError client and daemon have no protocol in common: `detail["fix"]`
    ├── BadRequestError          a value of the wrong type or form: a bug in the caller
    ├── UnknownMethodError       an older daemon: do without
    ├── NoProducerError          the Cache was made without a producer: give it one
    └── InternalError            a bug in the daemon, logged there
"""

from __future__ import annotations

from autoloadd_protocol import errors as codes

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import Any


class CacheError(Exception):
    """Base of everything the client raises on purpose."""


class UnreachableError(CacheError):
    """No daemon can be reached at `path` (None: no path could be found).

    A write may still have been carried out: by a daemon that took it and ended before it answered.
    `fix` is what the user may do, where the reason does not say it.
    """

    def __init__(self, path: str | None, reason: str, fix: str | None = None) -> None:
        where = "" if path is None else f" at {path}"
        super().__init__(f"no daemon{where}: {reason}" + (f"; {fix}" if fix else ""))
        self.path = path
        self.reason = reason


class DeadlineError(CacheError):
    """A call took longer than it may. A write that was sent may still be applied."""


class ConnectionLostError(CacheError):
    """The daemon ended the connection within a call; also again, where that was tried.

    A single write was applied wholly or not at all; sending it again is safe.
    """


class ForgedError(CacheError):
    """The peer is not our daemon, or its answer does not fit the question. Do not trust it."""


class SwitchedOffError(CacheError):
    """AUTOLOADD_CACHE or ZSHRS_CACHE says that this user wants no cache."""


class RefusedError(CacheError):
    """The request was refused: `code`, `message` and `detail` are of docs/protocol.md."""

    def __init__(self, code: str, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle with all three parts."""
        return type(self), (self.code, self.message, self.detail)


class NotDurableError(RefusedError):
    """Storage refuses writes (full, failed, read-only); reads go on."""


class BusyError(RefusedError):
    """A limit of things at once is reached: try again."""


class TooLargeError(RefusedError):
    """A size limit is passed; `detail` has `limit`, `max` and `got`. Nothing was changed."""


class ShuttingDownError(RefusedError):
    """The daemon is stopping: try again later."""


class UnsupportedProtocolError(RefusedError):
    """Client and daemon have no protocol in common; `detail` has `server`, `client` and `fix`."""


class BadRequestError(RefusedError):
    """A value has the wrong type or form: a bug in the caller."""


class UnknownMethodError(RefusedError):
    """The daemon is older than this method: do without."""


class NoProducerError(RefusedError):
    """Entries were asked for without a producer: make the Cache with one."""


class InternalError(RefusedError):
    """A bug in the daemon; its log has it, with the request's id."""


_BY_CODE: dict[str, type[RefusedError]] = {
    codes.NOT_DURABLE: NotDurableError,
    codes.BUSY: BusyError,
    codes.TOO_LARGE: TooLargeError,
    codes.SHUTTING_DOWN: ShuttingDownError,
    codes.UNSUPPORTED_PROTOCOL: UnsupportedProtocolError,
    codes.BAD_REQUEST: BadRequestError,
    codes.BAD_FRAME: BadRequestError,
    codes.UNKNOWN_METHOD: UnknownMethodError,
    codes.NO_PRODUCER: NoProducerError,
    codes.INTERNAL: InternalError,
}


def refusal(code: str, message: str, detail: dict[str, Any] | None = None) -> RefusedError:
    """Return the error for a code; a code of a newer daemon gives a plain RefusedError."""
    return _BY_CODE.get(code, RefusedError)(code, message, detail)
