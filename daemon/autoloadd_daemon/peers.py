"""A client's socket, and what every way of serving does with one."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from autoloadd_protocol.limits import (
    FRAME_SECONDS,
    UNSENT_PROGRESS_BYTES,
    UNSENT_SECONDS,
)

from .methods.steps import merged
from .room import READ_BYTES
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .methods.context import Context

_RECEIVED = memoryview(bytearray(READ_BYTES))
"""Where they are received, for all clients: a new one for each read would cost system calls."""

_NS = 1_000_000_000
_JOINED_BYTES = 256 * 1024
_PARTS_PER_SEND = 64


class Peer:
    """A connected client. Deadlines are CLOCK_MONOTONIC ns; 0: none is running."""

    def __init__(
        self, connection: socket.socket, context: Context, on_answer: Callable[[Peer], None]
    ) -> None:
        self.socket = connection
        self.descriptor = connection.fileno()
        self.session = Session(context, lambda: on_answer(self))
        self.waits_for_rest_since_ns = 0
        self.blocked_since_ns = 0
        self.last_active_ns = context.now_ns
        self.interest = 0
        self.is_mute = False
        self._unsent: list[bytes | memoryview] = []
        self._passing_at: int | None = None
        self.unsent_bytes = 0
        self.copied_bytes = 0
        self.noted_received = 0
        self.noted_owed = 0
        self._taken_bytes = 0

    def read(self, at_most: int = READ_BYTES) -> bool:
        """Take what the client sent; tell whether the connection may go on."""
        try:
            count = self.socket.recv_into(_RECEIVED, at_most)
            data = bytes(_RECEIVED[:count])
        except BlockingIOError:
            return True
        except OSError:
            # The client is gone; what it sent before is still run.
            self.is_mute = True
            data = b""
        if data:
            self.session.receive(data)
        else:
            self.session.end_input()
        return bool(data)

    def send_at_once(self, data: bytes) -> bool:
        """Send what is the whole of what the client is owed; tell whether it took all of it."""
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.is_mute = True
            return False
        if sent == len(data):
            return True
        self._unsent = [memoryview(data)[sent:]]
        self.unsent_bytes = self.copied_bytes = len(data) - sent
        return False

    def send(self) -> None:
        """Send as much of the output as the client takes."""
        session = self.session
        added: list[bytes | memoryview] = []
        if session.output:
            if session.passing and self._passing_at is None:
                self._passing_at = self.unsent_bytes + session.passing_at
            self.unsent_bytes += session.output_bytes
            added = session.take_output()
            self._unsent += merged(added) if self._unsent else added
        try:
            while self._unsent and not self.is_mute:
                if not self._send_some():
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.is_mute = True
        if self.is_mute:
            self._unsent = []
            self.unsent_bytes = 0
        if self.unsent_bytes or self.copied_bytes:
            self._count_copies(added)

    def _count_copies(self, added: list[bytes | memoryview]) -> None:
        """Count what was made for this client alone; views of a shard's records are not."""
        copied = sum(len(part) for part in added if not isinstance(part, memoryview))
        self.copied_bytes = min(self.copied_bytes + copied, self.unsent_bytes)

    def _send_some(self) -> bool:
        """Send once; tell whether all of it was taken."""
        if self._passing_at is not None:
            return self._send_descriptors(self._passing_at)
        if self.unsent_bytes <= _JOINED_BYTES:
            data = b"".join(self._unsent) if len(self._unsent) > 1 else self._unsent[0]
            sent = self.socket.send(data)
            self.unsent_bytes -= sent
            self._unsent = [] if sent == len(data) else [memoryview(data)[sent:]]
            return not self._unsent
        sent = self.socket.sendmsg(self._unsent[:_PARTS_PER_SEND])
        self.unsent_bytes -= sent
        done = 0
        while sent and sent >= len(self._unsent[done]):
            sent -= len(self._unsent[done])
            done += 1
        del self._unsent[:done]
        if sent:
            self._unsent[0] = memoryview(self._unsent[0])[sent:]
        return not sent

    def _send_descriptors(self, before: int) -> bool:
        """Send up to the byte that descriptors go with, or them from that byte on."""
        data = memoryview(b"".join(self._unsent))
        if before:
            sent = self.socket.send(data[:before])
            self._passing_at = before - sent
        else:
            sent = socket.send_fds(self.socket, [data], self.session.passing)
            self.session.close_passing()
            self._passing_at = None
        self.unsent_bytes -= sent
        self._unsent = [data[sent:]] if self.unsent_bytes else []
        return sent == (before or len(data))

    def note_deadlines(self, now_ns: int, unsent_before: int, *, is_read: bool = True) -> None:
        """Start, go on with or end what the client has limited time for.

        `unsent_before` is what the client was owed before the last `send`; `is_read`: the server
        takes what it sends now.
        """
        if not self.session.wants_rest or not is_read:
            self.waits_for_rest_since_ns = 0
        elif not self.waits_for_rest_since_ns or self.session.took_frames:
            self.waits_for_rest_since_ns = now_ns
        if not self.unsent_bytes:
            self.blocked_since_ns = self._taken_bytes = 0
            return
        self._taken_bytes += unsent_before - self.unsent_bytes
        if not self.blocked_since_ns or self._taken_bytes >= UNSENT_PROGRESS_BYTES:
            self.blocked_since_ns = now_ns
            self._taken_bytes = 0

    def is_overdue(self, now_ns: int) -> bool:
        """Tell whether the client has used up its time."""
        rest, blocked = self.waits_for_rest_since_ns, self.blocked_since_ns
        return bool(
            (rest and now_ns - rest > FRAME_SECONDS * _NS)
            or (blocked and now_ns - blocked > UNSENT_SECONDS * _NS)
        )

    def close(self) -> None:
        """Close the connection and give up its bulk."""
        self.session.abandon()
        self.session.is_closing = True
        self.socket.close()


def longest_idle(peers: Iterable[Peer]) -> Peer:
    """Return the client to let go where there are too many: one that is owed nothing, if any."""
    return min(peers, key=lambda peer: (peer.session.is_owed, peer.last_active_ns))


def is_our_user(connection: socket.socket) -> bool:
    """Tell whether the process at the other end runs under our uid (fixed when it connected)."""
    if hasattr(socket, "SO_PEERCRED"):
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid: int = struct.unpack("3i", found)[1]
        return uid == os.geteuid()
    # macOS, the BSDs: struct xucred { version, uid, ... } of LOCAL_PEERCRED, at SOL_LOCAL (0).
    found = connection.getsockopt(0, 1, 76)
    return bool(struct.unpack_from("2I", found)[1] == os.geteuid())
