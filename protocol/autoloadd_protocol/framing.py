"""Frames: a 4-byte big-endian length, then that many bytes. Bytes in, payloads out; no I/O."""

from __future__ import annotations

from .errors import FrameError
from .limits import FRAME_BYTES

LENGTH_BYTES = 4


def encode_frame(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a byte stream into payloads, however the stream was split on its way.

    Feed it with `receive_data`, then call `next_payload` until it returns None. A length over the
    limit is refused when its four bytes are there, before anything is stored for it. After a
    FrameError the stream cannot be followed: every further call raises the same error.
    """

    def __init__(self, max_frame_bytes: int = FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._error: FrameError | None = None
        self.payload_bytes = 0
        """Size of the payload that was handed out last."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were received and not yet handed out."""
        return len(self._buffer) - self._position

    @property
    def wanted_bytes(self) -> int:
        """How many bytes are still to come of a frame that was begun; 0 where that is not known."""
        start = self._position + LENGTH_BYTES
        if start > len(self._buffer):
            return 0
        size = int.from_bytes(self._buffer[self._position : start], "big")
        return max(start + size - len(self._buffer), 0)

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if not self._buffer:
            # The usual case, a whole frame in one read, is decoded from the read's own bytes.
            self._buffer = data
            return
        self._forget_used()
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    def next_payload(self) -> bytes | bytearray | None:
        """Return the next complete payload, or None when more bytes are needed.

        Raises FrameError for a length of 0 or over the limit.
        """
        if self._error is not None:
            raise self._error
        start = self._position + LENGTH_BYTES
        if start > len(self._buffer):
            self._forget_used()
            return None
        size = int.from_bytes(self._buffer[self._position : start], "big")
        if not 0 < size <= self._max_frame_bytes:
            self._error = FrameError(
                f"a frame of {size:,} bytes; it must have 1 to {self._max_frame_bytes:,}"
            )
            raise self._error
        end = start + size
        if end > len(self._buffer):
            self._forget_used()
            return None
        self.payload_bytes = size
        if end < len(self._buffer):
            self._position = end
            return self._buffer[start:end]
        # Whoever is idle from now on must not keep what it has sent.
        rest, self._buffer, self._position = self._buffer, b"", 0
        if isinstance(rest, bytearray):
            # Up to 8 MiB, which are not copied.
            del rest[:start]
            return rest
        return rest[start:]

    def _forget_used(self) -> None:
        """Give up what was handed out: once for each read, so a burst of frames stays linear."""
        if self._position:
            self._buffer = self._buffer[self._position :]
            self._position = 0
