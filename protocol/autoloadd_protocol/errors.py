"""Errors of the protocol, and what a caller does about each.

ProtocolError
├── FrameError               the byte stream cannot be followed any further: close the connection
├── RequestError             one request is refused; the connection stays usable
├── ImageError               these bytes are no usable image: serve nothing from them
├── PageError                these words are no usable page: ask over the socket
├── PortableError            these bytes are no whole portable file: take nothing from them
└── RendezvousError          no usable path for a socket: tell the user which and why
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import Final

BAD_REQUEST: Final = "bad_request"
BAD_FRAME: Final = "bad_frame"
UNKNOWN_METHOD: Final = "unknown_method"
UNSUPPORTED_PROTOCOL: Final = "unsupported_protocol"
NO_PRODUCER: Final = "no_producer"
TOO_LARGE: Final = "too_large"
NOT_DURABLE: Final = "not_durable"
BUSY: Final = "busy"
SHUTTING_DOWN: Final = "shutting_down"
INTERNAL: Final = "internal"


class ProtocolError(Exception):
    """Base of everything this package raises on purpose."""


class FrameError(ProtocolError):
    """The peer sent what is no frame of this protocol. Answer once with `bad_frame`, then close."""

    code: Final = BAD_FRAME

    def __init__(self, message: str, request_id: int | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class RequestError(ProtocolError):
    """One request is refused with a code of `docs/protocol.md`. Nothing was changed."""

    def __init__(self, code: str, message: str, detail: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


class ImageError(ProtocolError):
    """A buffer is not an image of this format, or its checksums do not match."""


class PageError(ProtocolError):
    """What was mapped is not a page of this format, or not of this shard's present life."""


class PortableError(ProtocolError):
    """A portable file is cut off, damaged, or of another version, as seen at byte `position`."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at byte {position:,}: {reason}")
        self.position = position
        self.reason = reason


class RendezvousError(ProtocolError):
    """A socket path or its directory cannot be used. The message names the path and the reason."""


def too_large(limit: str, maximum: int, got: int) -> RequestError:
    """Return the error for a value that passes one of the limits of `limits.py`."""
    detail: dict[str, object] = {"limit": limit, "max": maximum, "got": got}
    return RequestError(TOO_LARGE, f"{limit}: {got:,} is more than {maximum:,}", detail)
