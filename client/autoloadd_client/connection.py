"""One blocking connection to the daemon: one exchange at a time, each over by its deadline.

A deadline is a time of `time.monotonic()`. It covers waiting for other threads, connecting, the
`hello`, sending, receiving, and the one new try after the daemon was restarted. Whatever breaks an
exchange off (deadline, error, KeyboardInterrupt) closes the connection: a half-done exchange is
never continued, so a late answer cannot be taken for the next one.

A connection belongs to the process that made it: see `process`.
"""

from __future__ import annotations

import _socket
import _thread
import os
from itertools import count
from time import monotonic

from autoloadd_protocol import __version__
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.limits import FRAME_BYTES
from autoloadd_protocol.requests import (
    FIRST_ID,
    LAST_ID,
    answer_id,
    hello_request,
    is_success,
    request_frame,
)

from .errors import CacheError, ConnectionLostError, DeadlineError, ForgedError
from .reaching import HOW_TO_START, connect, find_socket, time_left

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from autoloadd_protocol.producer import Producer

    Space = TypeVar("Space", int, memoryview)
    Received = TypeVar("Received", bytes, int)

_RECEIVE_BYTES = 32 * 1024
"""One read takes a usual answer (3 kB, rarely more than 16) at once."""

_DESCRIPTOR_BYTES = 4
_MOST_DESCRIPTORS = 4
"""Two are expected; what a server sends beyond these is closed by the kernel."""

# A process that set SIGPIPE to its default must not die of a daemon that was restarted.
_SEND_FLAGS = getattr(_socket, "MSG_NOSIGNAL", 0)


class Connection:
    """Connects at the first exchange, and again after it was closed.

    Any number of threads may call it; each waits for its turn.
    """

    def __init__(
        self, path: str | None, producer: Producer | None, *, first_id: int = FIRST_ID
    ) -> None:
        self._given_path = path
        self._producer = producer
        self._lock = _thread.allocate_lock()
        self._ids = count(first_id - FIRST_ID)
        self._socket: _socket.socket | None = None
        self._path = ""
        self._began = 0.0
        self._open_hello = b""
        self._received = b""
        self._unflushed = 0
        self._unconfirmed = 0
        self._notified = 0
        self._settled = 0
        self._descriptors: list[int] | None = None
        self.hello_answer = b""
        self.life = object()
        """Another one after each close: what came over the connection belongs to one life of it."""
        self.on_close: Callable[[], None] | None = None
        """Called when a life ends, by whoever ended it."""

    def next_id(self) -> int:
        """Return an id for the next request: from 0x10000 up, and round again."""
        return FIRST_ID + next(self._ids) % (LAST_ID - FIRST_ID + 1)

    def exchange(self, request: bytes, deadline: float, *, again: bool = True) -> bytes:
        """Send a request's frame and return the frame of its successful answer.

        `again`: connect and send once more when the connection turns out to be closed.
        Raises CacheError; after a RefusedError the connection is still usable.
        """
        self._take_turn(deadline)
        try:
            answer = self._ask_again(request, deadline) if again else self._ask(request, deadline)
        finally:
            self._lock.release()
        return self._require_success(answer, request, deadline)

    def notify(self, notification: bytes, deadline: float) -> None:
        """Send a frame that gets no answer. What becomes of it is told by `flush`."""
        self._take_turn(deadline)
        try:
            # Counted first: one that fails may have been sent all the same.
            self._notified += 1
            try:
                self._send(notification, deadline)
            except ConnectionLostError:
                self._send(notification, deadline)
            self._unflushed += 1
        finally:
            self._lock.release()

    def flush(self, deadline: float) -> tuple[bytes, int]:
        """Return the frame of `flush`'s answer, and the number of unconfirmed notifications.

        Those are the ones whose connection ended before a flush was answered.
        """
        request = request_frame(self.next_id(), b"flush")
        self._take_turn(deadline)
        try:
            answer = self._ask_again(request, deadline)
            unconfirmed = self._unconfirmed
            if is_success(answer, request):
                self._unconfirmed = self._unflushed = 0
        finally:
            self._lock.release()
        return self._require_success(answer, request, deadline), unconfirmed

    def exchange_for_descriptors(self, request: bytes, deadline: float) -> tuple[bytes, list[int]]:
        """Return a successful answer's frame with the descriptors that came with it: the caller's.

        Raises CacheError. Not tried again on another connection: what is asked for belongs to this.
        """
        self._take_turn(deadline)
        descriptors = self._descriptors = []
        try:
            answer = self._ask(request, deadline)
        except BaseException:
            _close_all(descriptors)
            raise
        finally:
            self._descriptors = None
            self._lock.release()
        try:
            return self._require_success(answer, request, deadline), descriptors
        except CacheError:
            _close_all(descriptors)
            raise

    @property
    def is_settled(self) -> bool:
        """Tell whether the daemon has carried out every notification that was sent."""
        return self._settled == self._notified

    def has_unflushed(self) -> bool:
        """Tell whether notifications were sent that no flush has confirmed."""
        return self._unflushed > 0

    def close(self, deadline: float) -> None:
        """Close the socket; the next exchange connects again."""
        if self._lock.acquire(timeout=max(0.0, deadline - monotonic())):
            self._drop()
            self._lock.release()
        elif (busy := self._socket) is not None:
            # Whoever has the turn (perhaps this thread, below a signal handler) sees the end of
            # the stream. Closing here would let another file take the descriptor's number.
            _shut_down(busy)

    def abandon(self) -> None:
        """Close this process's copy of the descriptor after a fork.

        The lock is not touched: a thread that the child does not have may hold it for ever.
        """
        if self._socket is not None:
            _close(self._socket)

    def _take_turn(self, deadline: float) -> None:
        began = monotonic()
        if not self._lock.acquire(timeout=max(0.0, deadline - began)):
            raise DeadlineError("the connection was in use by other threads until the deadline")
        self._began = began

    def _ask_again(self, request: bytes, deadline: float) -> bytes:
        try:
            return self._ask(request, deadline)
        except ConnectionLostError:
            # The daemon was restarted, or let an idle client go. Every request may be sent twice.
            return self._ask_last(request, deadline)

    def _ask_last(self, request: bytes, deadline: float) -> bytes:
        try:
            return self._ask(request, deadline)
        except ConnectionLostError:
            # A daemon that is being ended accepts to the last: see whether it is there at all.
            self._send(b"", deadline)
            self._drop()
            raise

    def _ask(self, request: bytes, deadline: float) -> bytes:
        self._send(request, deadline)
        try:
            if self._open_hello:
                self._receive_hello(deadline)
            answer = self._receive_frame(deadline)
            self._check_answer(answer, request)
        except BaseException:
            self._drop()
            raise
        # One connection is answered in order: what was sent before the request is carried out.
        self._settled = self._notified
        return answer

    def _require_success(self, answer: bytes, request: bytes, deadline: float) -> bytes:
        if is_success(answer, request):
            return answer
        error = _refusal(answer, request)
        if isinstance(error, ForgedError):
            self.close(deadline)
        raise error

    def _receive_hello(self, deadline: float) -> None:
        answer = self._receive_frame(deadline)
        if not is_success(answer, self._open_hello):
            error = _refusal(answer, self._open_hello)
            raise self._not_ours(str(error)) if isinstance(error, ForgedError) else error
        self.hello_answer = answer
        self._open_hello = b""

    def _check_answer(self, answer: bytes, request: bytes) -> None:
        if not answer.startswith(answer_id(request), LENGTH_BYTES):
            raise _refusal(answer, request)
        if self._received:
            raise ForgedError("the daemon sent more than was asked for")

    def _send(self, request: bytes, deadline: float) -> None:
        try:
            sock = self._socket
            if sock is None:
                sock = self._connect(deadline)
                request = self._open_hello + request
            sock.settimeout(time_left(deadline))
            sock.sendall(request, _SEND_FLAGS)
        except TimeoutError as exc:
            late = self._late()
            self._drop()
            raise late from exc
        except OSError as exc:
            self._drop()
            raise _lost(exc) from exc
        except BaseException:
            self._drop()
            raise

    def _receive_frame(self, deadline: float) -> bytes:
        data = self._received or self._receive(deadline)
        while len(data) < LENGTH_BYTES:
            data += self._receive(deadline)
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        if not LENGTH_BYTES < end <= LENGTH_BYTES + FRAME_BYTES:
            raise self._not_ours(f"it sends a frame of {end - LENGTH_BYTES:,} bytes")
        if len(data) < end:
            data = self._receive_rest(data, end, deadline)
        self._received = data[end:]
        return data if len(data) == end else data[:end]

    def _receive_rest(self, data: bytes, end: int, deadline: float) -> bytes:
        frame = bytearray(end)
        frame[: len(data)] = data
        filled = len(data)
        with memoryview(frame) as view:
            while filled < end:
                receive_into = _socket.socket.recv_into
                filled += self._wait_for(receive_into, view[filled:], deadline)
        return bytes(frame)

    def _receive(self, deadline: float) -> bytes:
        receive = _socket.socket.recv if self._descriptors is None else self._receive_descriptors
        return self._wait_for(receive, _RECEIVE_BYTES, deadline)

    def _receive_descriptors(self, sock: _socket.socket, size: int) -> bytes:
        assert self._descriptors is not None
        room = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR_BYTES)
        data, passed, *_ = sock.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, numbers in passed:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                whole = len(numbers) - len(numbers) % _DESCRIPTOR_BYTES
                self._descriptors += memoryview(numbers)[:whole].cast("i").tolist()
        return data

    def _wait_for(
        self,
        receive: Callable[[_socket.socket, Space], Received],
        space: Space,
        deadline: float,
    ) -> Received:
        sock = self._socket
        assert sock is not None, "only who has the turn opens and closes it"
        try:
            sock.settimeout(time_left(deadline))
            received = receive(sock, space)
        except TimeoutError as exc:
            raise self._late() from exc
        except OSError as exc:
            raise _lost(exc) from exc
        if not received:
            raise _lost(None)
        return received

    def _connect(self, deadline: float) -> _socket.socket:
        self._path = find_socket(self._given_path)
        usual = self._given_path is None and not os.environ.get("AUTOLOADD_SOCKET")
        # systemd's unit, and a plain `autoloadd`, listen at the usual place only.
        how = HOW_TO_START if usual else f"start it with `autoloadd --socket {self._path} &`"
        sock = self._socket = connect(self._path, deadline, how_to_start=how)
        self._open_hello = hello_request(
            self.next_id(), self._producer, version=__version__, pid=os.getpid()
        )
        return sock

    def _late(self) -> DeadlineError:
        waited = f"{round(monotonic() - self._began, 2):g} s"
        if self._open_hello:
            silent = f"what listens at {self._path} did not greet within {waited}"
            return DeadlineError(f"{silent}: the daemon hangs, or it is not autoloadd")
        return DeadlineError(f"the daemon at {self._path} did not answer within {waited}")

    def _not_ours(self, reason: str) -> ForgedError:
        return ForgedError(f"what listens at {self._path} is not autoloadd: {reason}")

    def _drop(self) -> None:
        if self._socket is not None:
            _close(self._socket)
        self._socket = None
        self.life = object()
        if self.on_close is not None:
            self.on_close()
        self._open_hello = self._received = b""
        self._unconfirmed += self._unflushed
        self._unflushed = 0


def _lost(cause: OSError | None) -> ConnectionLostError:
    reason = "end of the stream" if cause is None else cause.strerror or str(cause)
    return ConnectionLostError(f"the daemon closed the connection: {reason}")


def _refusal(answer: bytes, request: bytes) -> CacheError:
    # Refusals are rare: only they cost the import of msgpack.
    from .calls import read_refusal  # noqa: PLC0415

    return read_refusal(answer, request)


def _close(sock: _socket.socket) -> None:
    try:
        sock.close()
    except OSError:
        return  # someone has closed the descriptor: programs that become daemons close them all


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _shut_down(sock: _socket.socket) -> None:
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError:
        return  # closed in the meantime
