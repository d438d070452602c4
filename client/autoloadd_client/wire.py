"""A connected socket: bytes out, frames in, each by its deadline, with few system calls.

An exchange is one `sendto`, one `poll` and one `recvfrom`; the `poll` is spared where the answer
comes at once. CPython polls before every call on a socket that has a timeout, and setting one is a
system call. So what never waits goes through a second object on the same descriptor, and a timeout
stays until one has to be shorter.
A timeout of the kernel's (SO_RCVTIMEO) would spare the poll too, but each signal begins it anew.
"""

from __future__ import annotations

import _socket
from time import monotonic

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.limits import FRAME_BYTES

from .reaching import time_left

_RECEIVE_BYTES = 32 * 1024
"""One read takes a usual answer (3 kB, rarely more than 16) at once."""

_LOOKS = 24
"""How often a read looks before it goes to sleep: some 20 us. A daemon that is awake, and one that
answered just now is, has answered by then; to be woken up takes 30 us more where processors sleep.
"""
_MOST_IN_VAIN = 6
"""Where looking is in vain (a busy machine, a write that waits for the disk), twice as many reads
as the last time do without: at most 64."""
_SHORT_LIFE = 8
"""The first reads do without: a shell asks little, and its daemon is asleep."""

_DESCRIPTOR_BYTES = 4
_MOST_DESCRIPTORS = 4
"""Two are expected; what a server sends beyond these is closed by the kernel."""

_PATIENCE = 0.9
"""The part of what is left that a socket's timeout gets: so the next call may use it again."""

# A process that set SIGPIPE to its default must not die of a daemon that was restarted.
_SEND_FLAGS = getattr(_socket, "MSG_NOSIGNAL", 0)


class Wire:
    """Owns a connected socket. Used by one thread at a time; `shut_down` by any.

    Both directions raise TimeoutError, OSError, EOFError at the end of the stream, and FrameError
    for a length that no frame has: close it after any of them.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock
        # This order: O_NONBLOCK belongs to both, and has to be set.
        self._at_once = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, sock.fileno())
        self._at_once.setblocking(False)
        self._patience = float("inf")
        self._asleep_for = _SHORT_LIFE
        """How many reads are still to go to sleep at once."""
        self._in_vain = 0
        self.rest = b""
        """What came behind the frames that were received: of the next one, if one is asked for."""
        self.descriptors: list[int] | None = None
        """Where descriptors are put that come with a frame; None: they are not taken."""

    def __del__(self) -> None:
        """Leave the descriptor to one of the two objects: closed twice, it could be another's."""
        self._at_once.detach()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        try:
            sent = self._at_once.send(data, _SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._set_patience(time_left(deadline))
            self._socket.sendall(memoryview(data)[sent:], _SEND_FLAGS)

    def receive_frame(self, deadline: float) -> bytes:
        """Return the next frame, its length included."""
        data = self.rest or self._receive(deadline)
        while len(data) < LENGTH_BYTES:
            data += self._receive(deadline)
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        if len(data) == end > LENGTH_BYTES:
            self.rest = b""
            return data
        if not LENGTH_BYTES < end <= LENGTH_BYTES + FRAME_BYTES:
            raise FrameError(f"it sends a frame of {end - LENGTH_BYTES:,} bytes")
        if len(data) < end:
            data = self._receive_rest(data, end, deadline)
        self.rest = data[end:]
        return data[:end]

    def shut_down(self) -> None:
        """End a call of another thread: it sees the end of the stream.

        Closing here would let another file take the descriptor's number.
        """
        try:
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError:
            return  # closed in the meantime

    def close(self) -> None:
        """Close this process's copy of the descriptor."""
        self._at_once.detach()
        try:
            self._socket.close()
        except OSError:
            return  # someone has closed it: programs that become daemons close them all

    def _receive_rest(self, data: bytes, end: int, deadline: float) -> bytes:
        parts, filled = [data], len(data)
        while filled < end:
            parts.append(self._receive(deadline, end - filled))
            filled += len(parts[-1])
        return b"".join(parts)

    def _receive(self, deadline: float, size: int = _RECEIVE_BYTES) -> bytes:
        data = None
        if self._asleep_for:
            self._asleep_for -= 1
        elif self.descriptors is None and monotonic() < deadline:
            data = self._look(size)
        if data is None:
            data = self._wait(deadline, size)
        if not data:
            raise EOFError
        return data

    def _look(self, size: int) -> bytes | None:
        """Return what comes soon, without going to sleep; None: nothing did."""
        for _ in range(_LOOKS):
            try:
                data = self._at_once.recv(size)
            except BlockingIOError:
                continue
            self._in_vain = 0
            return data
        self._in_vain = min(self._in_vain + 1, _MOST_IN_VAIN)
        self._asleep_for = 1 << self._in_vain
        return None

    def _wait(self, deadline: float, size: int) -> bytes:
        if deadline - monotonic() < self._patience:
            self._set_patience(time_left(deadline) * _PATIENCE)
        while True:
            try:
                take = self._socket.recv if self.descriptors is None else self._take_descriptors
                return take(size)
            except TimeoutError:
                self._set_patience(time_left(deadline))

    def _take_descriptors(self, size: int) -> bytes:
        assert self.descriptors is not None
        room = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR_BYTES)
        data, passed, *_ = self._socket.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        for numbers in [numbers for level, kind, numbers in passed if (level, kind) == rights]:
            whole = len(numbers) - len(numbers) % _DESCRIPTOR_BYTES
            self.descriptors += memoryview(numbers)[:whole].cast("i").tolist()
        return data

    def _set_patience(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        self._patience = seconds
