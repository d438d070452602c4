"""One blocking connection to the daemon: one exchange at a time, each over by its deadline.

A deadline is a time of `time.monotonic()`. It covers waiting for other threads, connecting, the
`hello`, sending, receiving, and the one new try after the daemon was restarted. Whatever breaks an
exchange off (deadline, error, KeyboardInterrupt) closes the connection: a half-done exchange is
never continued, so a late answer cannot be taken for the next one.

A connection belongs to the process that made it: see `process`.
"""

from __future__ import annotations

import _thread
import os
from itertools import count
from time import monotonic

from autoloadd_protocol import __version__
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import LENGTH_BYTES
from autoloadd_protocol.requests import (
    FIRST_ID,
    LAST_ID,
    answer_id,
    hello_request,
    is_result,
    is_success,
    request_frame,
)

from .errors import CacheError, ConnectionLostError, DeadlineError, ForgedError
from .reaching import HOW_TO_START, connect, find_socket
from .wire import Wire

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_protocol.producer import Producer


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
        self._wire: Wire | None = None
        self._path = ""
        self._began = 0.0
        self._open_hello = b""
        self._unflushed = 0
        self._unconfirmed = 0
        self._notified = 0
        self._settled = 0
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
        if is_result(answer):
            return answer
        raise self._refused(answer, request, deadline)

    def notify(self, notification: bytes, deadline: float) -> None:
        """Send a frame that gets no answer. What becomes of it is told by `flush`."""
        self._take_turn(deadline)
        try:
            # Counted first: one that fails may have been sent all the same.
            self._notified += 1
            try:
                self._tell(notification, deadline)
            except ConnectionLostError:
                self._tell(notification, deadline)
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
            if is_result(answer):
                self._unconfirmed = self._unflushed = 0
        finally:
            self._lock.release()
        if is_result(answer):
            return answer, unconfirmed
        raise self._refused(answer, request, deadline)

    def exchange_for_descriptors(self, request: bytes, deadline: float) -> tuple[bytes, list[int]]:
        """Return a successful answer's frame with the descriptors that came with it: the caller's.

        Raises CacheError. Not tried again on another connection: what is asked for belongs to this.
        """
        self._take_turn(deadline)
        descriptors: list[int] = []
        try:
            answer = self._ask(request, deadline, descriptors)
        except BaseException:
            _close_all(descriptors)
            raise
        finally:
            self._lock.release()
        if is_result(answer):
            return answer, descriptors
        _close_all(descriptors)
        raise self._refused(answer, request, deadline)

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
        elif (busy := self._wire) is not None:
            # Whoever has the turn (perhaps this thread, below a signal handler) sees the end of
            # the stream.
            busy.shut_down()

    def abandon(self) -> None:
        """Close this process's copy of the descriptor after a fork.

        The lock is not touched: a thread that the child does not have may hold it for ever.
        """
        if self._wire is not None:
            self._wire.close()

    def _take_turn(self, deadline: float) -> None:
        began = monotonic()
        # At first without a time: with one, a lock that is free costs three times as much.
        if not self._lock.acquire(False) and not self._lock.acquire(
            timeout=max(0.0, deadline - began)
        ):
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
            self._tell(b"", deadline)
            self._drop()
            raise

    def _ask(self, request: bytes, deadline: float, descriptors: list[int] | None = None) -> bytes:
        """Return the frame that answers a request: a result, or a refusal of it.

        `descriptors` gets those that come with it. On any error the connection is closed.
        """
        try:
            wire = self._send(request, deadline)
            wire.descriptors = descriptors
            if self._open_hello:
                self._receive_hello(wire, deadline)
            answer = wire.receive_frame(deadline)
            if wire.rest or not answer.startswith(answer_id(request), LENGTH_BYTES):
                raise _unfit(answer, request)  # noqa: TRY301  # closes like any other error
        except (OSError, EOFError, FrameError) as exc:
            raise self._break_off(exc) from exc
        except BaseException:
            self._drop()
            raise
        # One connection is answered in order: what was sent before the request is carried out.
        self._settled = self._notified
        return answer

    def _tell(self, data: bytes, deadline: float) -> None:
        """Send what gets no answer. On any error the connection is closed."""
        try:
            self._send(data, deadline)
        except (OSError, EOFError, FrameError) as exc:
            raise self._break_off(exc) from exc
        except BaseException:
            self._drop()
            raise

    def _send(self, data: bytes, deadline: float) -> Wire:
        wire = self._wire
        if wire is None:
            wire = self._connect(deadline)
            data = self._open_hello + data
        wire.send(data, deadline)
        return wire

    def _refused(self, answer: bytes, request: bytes, deadline: float) -> CacheError:
        """Return the error that an answer stands for. Closes where it is none of ours."""
        error = _refusal(answer, request)
        if isinstance(error, ForgedError):
            self.close(deadline)
        return error

    def _receive_hello(self, wire: Wire, deadline: float) -> None:
        answer = wire.receive_frame(deadline)
        if not is_success(answer, self._open_hello):
            error = _refusal(answer, self._open_hello)
            raise self._not_ours(str(error)) if isinstance(error, ForgedError) else error
        self.hello_answer = answer
        self._open_hello = b""

    def _connect(self, deadline: float) -> Wire:
        self._path = find_socket(self._given_path)
        usual = self._given_path is None and not os.environ.get("AUTOLOADD_SOCKET")
        # systemd's unit, and a plain `autoloadd`, listen at the usual place only.
        how = HOW_TO_START if usual else f"start it with `autoloadd --socket {self._path} &`"
        wire = self._wire = Wire(connect(self._path, deadline, how_to_start=how))
        self._open_hello = hello_request(
            self.next_id(), self._producer, version=__version__, pid=os.getpid()
        )
        return wire

    def _break_off(self, cause: OSError | EOFError | FrameError) -> CacheError:
        """Close, and return what an exchange ended with that can not be continued."""
        error = self._meaning_of(cause)
        self._drop()
        return error

    def _meaning_of(self, cause: OSError | EOFError | FrameError) -> CacheError:
        match cause:
            case TimeoutError():
                return self._late()
            case FrameError():
                return self._not_ours(str(cause))
            case OSError():
                reason = cause.strerror or str(cause)
            case _:
                reason = "end of the stream"
        return ConnectionLostError(f"the daemon closed the connection: {reason}")

    def _late(self) -> DeadlineError:
        waited = f"{round(monotonic() - self._began, 2):g} s"
        if self._open_hello:
            silent = f"what listens at {self._path} did not greet within {waited}"
            return DeadlineError(f"{silent}: the daemon hangs, or it is not autoloadd")
        return DeadlineError(f"the daemon at {self._path} did not answer within {waited}")

    def _not_ours(self, reason: str) -> ForgedError:
        return ForgedError(f"what listens at {self._path} is not autoloadd: {reason}")

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._wire = None
        self.life = object()
        if self.on_close is not None:
            self.on_close()
        self._open_hello = b""
        self._unconfirmed += self._unflushed
        self._unflushed = 0


def _refusal(answer: bytes, request: bytes) -> CacheError:
    # Refusals are rare: only they cost the import of msgpack.
    from .calls import read_refusal  # noqa: PLC0415

    return read_refusal(answer, request)


def _unfit(answer: bytes, request: bytes) -> CacheError:
    if answer.startswith(answer_id(request), LENGTH_BYTES):
        return ForgedError("the daemon sent more than was asked for")
    return _refusal(answer, request)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
