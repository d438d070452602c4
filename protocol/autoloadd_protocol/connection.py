"""The sans-IO connection: bytes in, messages out, the same for server and client.

    connection = Connection(decode_request)   # a server; a client's is Connection(decode_answer)
    connection.receive_data(bytes_from_the_socket)
    while (message := connection.next_message()) is not None:
        ...

It never reads, sends or waits. Its owner moves the bytes, and closes the socket after a FrameError
(the server sends one `bad_frame` answer first).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .framing import FrameDecoder
from .limits import FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

MessageT = TypeVar("MessageT")


class Connection(Generic[MessageT]):
    """What one peer sends, as messages. `decode` gives the meaning of one payload."""

    def __init__(
        self, decode: Callable[[bytes | bytearray], MessageT], max_frame_bytes: int = FRAME_BYTES
    ) -> None:
        self._decode = decode
        self._frames = FrameDecoder(max_frame_bytes)

    @property
    def buffered_bytes(self) -> int:
        """Bytes received that no message has used yet."""
        return self._frames.buffered_bytes

    @property
    def wanted_bytes(self) -> int:
        """How many bytes are still to come of a frame that was begun; 0 where that is not known."""
        return self._frames.wanted_bytes

    @property
    def payload_bytes(self) -> int:
        """Size of the frame that the last message came in."""
        return self._frames.payload_bytes

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._frames.receive_data(data)

    def next_message(self) -> MessageT | None:
        """Return the next message, or None when more bytes are needed.

        Raises FrameError when the stream cannot be followed any further: close the connection.
        Raises InvalidMessageError for one message that is refused: go on with the next.
        """
        payload = self._frames.next_payload()
        return None if payload is None else self._decode(payload)
