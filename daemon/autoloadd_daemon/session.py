"""One client's conversation: bytes in, bytes out. It has no socket and never waits.

Requests are answered in order. A read waits until all earlier writes of its own connection are
done; consecutive writes go to the writer together.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from autoloadd_protocol import messages
from autoloadd_protocol.connection import Connection
from autoloadd_protocol.errors import (
    BAD_FRAME,
    BAD_REQUEST,
    INTERNAL,
    UNKNOWN_METHOD,
    FrameError,
    RequestError,
)
from autoloadd_protocol.limits import UNSENT_BYTES
from autoloadd_protocol.messages import InvalidMessageError, Notification, Request

from .methods import LARGE, NOTIFIABLE, READS, WAITS, WRITES
from .methods.context import NotYetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_protocol.producer import Producer

    from .methods.context import Context, OpenBulk
    from .methods.steps import ResultT, Steps

_logger = logging.getLogger(__name__)

_Message = Request | Notification | FrameError | InvalidMessageError
"""What comes out of the connection; errors too are answered in their turn."""

_READ_AHEAD_BYTES = 256 * 1024
_NS_PER_TURN = 1_000_000
"""A client's share of a turn: the others wait for it, however much it sends at once."""


_BEHIND_A_WAIT_BYTES = 4096
"""More requests than this are not kept behind one that waits: many clients could hold as much."""


def _tell_nobody() -> None:
    return


class Session:
    """What one connection has said and is owed.

    The server feeds `receive` or `end_input`, calls `advance`, and sends what is in `output`.
    `on_answer` is called when a write was answered outside of `advance`. `has_more` tells that
    `advance` stopped only because the turn's share was used up, `took_frames` that it ran any.
    """

    def __init__(self, context: Context, on_answer: Callable[[], None]) -> None:
        self.output: list[bytes | memoryview] = []
        self.output_bytes = 0
        self.is_closing = False
        self.producer: Producer | None = None
        self.shard_id: str | None = None
        self.refused = 0
        self.first_error: str | None = None
        self.bulk: OpenBulk | None = None
        self.passing: list[int] = []
        """Descriptors that are to go with the output, until they are sent."""
        self.passing_at = 0
        """The byte of the output that they go with."""
        self._context = context
        self._on_answer = on_answer
        self._connection: Connection[Request | Notification] = Connection(messages.decode_request)
        self._buffered_bytes = 0
        """Of the connection; asked for several times a turn."""
        self._stalled: _Message | None = None
        self._stalled_bytes = 0
        self._steps: Steps[Any] | None = None
        self._share_ends_ns = 0
        self.waits_for_room = False
        self._pending_writes = 0
        self._is_blocked = False
        """Nothing passes a shutdown, nor a lease that is waited for."""
        self.input_ended = False
        self.took_frames = False
        self.has_more = False

    @property
    def is_owed(self) -> bool:
        """Tell whether the client is not answered yet, or makes an entry that others wait for."""
        return self._pending_writes > 0 or self._context.writer.leases.is_held_by(self)

    @property
    def is_held(self) -> bool:
        """Tell whether a write waits only for room in the writer's queue."""
        return self._stalled is not None and not self._pending_writes

    @property
    def is_stalled(self) -> bool:
        """Tell whether a request that came whole is run as soon as there is room."""
        return self._stalled is not None and not self._is_blocked

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that are not run yet."""
        return self._buffered_bytes + self._stalled_bytes

    @property
    def wanted_bytes(self) -> int:
        """How many bytes are still to come of a frame that was begun."""
        return self._connection.wanted_bytes

    @property
    def wants_rest(self) -> bool:
        """Tell whether the server waits for the rest of a frame that was begun."""
        is_read = not (self._stalled or self.has_more or self._is_blocked)
        return is_read and self._buffered_bytes > 0

    @property
    def wants_bytes(self) -> bool:
        """Tell whether to read on: not while a heap of requests waits for its turn."""
        if self.is_closing or self.input_ended or self._is_blocked:
            return False
        return self.wants_rest or self._buffered_bytes < _READ_AHEAD_BYTES

    @property
    def may_wait(self) -> bool:
        """Tell whether the request that is run may be answered later: little stands behind it."""
        return self._connection.buffered_bytes <= _BEHIND_A_WAIT_BYTES

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do but to send the output and close."""
        return not self._pending_writes and (
            self.is_closing or (self.input_ended and not self._stalled and not self.has_more)
        )

    @property
    def is_quiet(self) -> bool:
        """Tell whether nothing is under way: what comes next is run at once, and answered first."""
        return not (
            self._buffered_bytes
            or self._pending_writes
            or self._stalled
            or self._is_blocked
            or self.output
            or self.is_closing
            or self.input_ended
        )

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        if not self.is_closing:
            self._connection.receive_data(data)
            self._buffered_bytes = self._connection.buffered_bytes

    def end_input(self) -> None:
        """Note that the client sends nothing more. What came whole is still run."""
        self.input_ended = True

    def advance(self) -> None:
        """Run the requests that are complete, as far as order, output and fairness allow."""
        self.has_more = self.took_frames = False
        self._share_ends_ns = time.monotonic_ns() + _NS_PER_TURN
        try:
            self._run_share()
        finally:
            self._buffered_bytes = self._connection.buffered_bytes

    def _run_share(self) -> None:
        while not self.took_frames or time.monotonic_ns() < self._share_ends_ns:
            if self.is_closing or self._must_wait():
                return
            message = self._stalled or self._next()
            if message is None:
                return
            if not self._run(message):
                self._stalled = message
                self._stalled_bytes = self._connection.payload_bytes
                self.has_more = self._steps is not None
                return
            if self._stalled is not None:
                self._stalled = None
                self._stalled_bytes = 0
                self.waits_for_room = False
            self.took_frames = True
        self.has_more = True

    def take_output(self) -> list[bytes | memoryview]:
        """Return what is to be sent, and forget it."""
        output, self.output = self.output, []
        self.output_bytes = 0
        return output

    def pass_descriptors(self, descriptors: tuple[int, ...]) -> None:
        """Have copies of descriptors go with the answer that comes next. Raises OSError.

        Only when those before are sent: a client that takes none must not use up what there is.
        """
        assert not self.passing, "one answer's descriptors at a time"
        self.passing_at = self.output_bytes
        try:
            for descriptor in descriptors:
                self.passing.append(os.dup(descriptor))
        except OSError:
            self.close_passing()
            raise

    def close_passing(self) -> None:
        """Close the copies: they are sent, or nobody gets them."""
        passing, self.passing = self.passing, []
        for descriptor in passing:
            os.close(descriptor)

    def abandon(self) -> None:
        """Give up what belongs to the connection: its bulk, and its memory.

        Nobody is told of answers any more. Peer and session referred to each other by that: what
        a closed connection had received or was owed stayed until the garbage collector came.
        """
        self._on_answer = _tell_nobody
        self._context.sharing.detach(self)
        self._context.writer.leases.forget(self, time.monotonic_ns())
        self.close_passing()
        self._steps = None
        if self.bulk is not None:
            self._context.discard_bulk(self)

    def _must_wait(self) -> bool:
        if self._stalled is not None and (self._pending_writes or self._context.writer.is_full):
            return True
        if self.output_bytes >= self._context.room.output_per_turn:
            # At the bound nothing is run until the client took some; below it the turn is over.
            self.has_more = self.output_bytes < UNSENT_BYTES
            return True
        return False

    def _next(self) -> _Message | None:
        try:
            return self._connection.next_message()
        except (FrameError, InvalidMessageError) as exc:
            # Its history leads to the request's bytes and, by the frames of this turn, back to it:
            # all of that stayed until the garbage collector came.
            exc.__traceback__ = exc.__cause__ = exc.__context__ = None
            return exc

    def _run(self, message: _Message) -> bool:
        """Run one message; tell whether it was run, or has to wait for earlier writes."""
        if isinstance(message, FrameError | InvalidMessageError):
            if self._pending_writes:
                return False
            self._refuse_message(message)
            return True
        if self._is_blocked:
            return False
        request_id = message.id if isinstance(message, Request) else None
        write = WRITES.get(message.method)
        if self._context.writer.is_full if write is not None else self._pending_writes:
            return False
        if (
            self._context.room.is_short_for_answers
            and message.method in LARGE
            and self._steps is None
        ):
            self.waits_for_room = True
            return False
        try:
            if write is not None and (request_id is not None or message.method in NOTIFIABLE):
                self._begin_write(write, message.params, request_id)
            else:
                self._read(message, request_id)
        except NotYetError:
            return False
        except FrameError as exc:
            self._close_with(FrameError(str(exc), request_id))
        except RequestError as exc:
            if self._pending_writes:
                return False
            self._refuse(message, exc, request_id)
        except MemoryError:
            # What was half done is not known: the process ends.
            raise
        except Exception:
            # The boundary: a bug in one request must not end the other connections.
            _logger.exception("request %s %s failed", request_id, message.method)
            error = RequestError(INTERNAL, "a bug in the daemon; its log has the request's id")
            self._refuse(message, error, request_id)
        return self._steps is None

    def _go_on(self, steps: Steps[ResultT]) -> ResultT | None:
        """Return a long request's result; None, and `_steps`, when the turn's share is over."""
        self._steps = None
        try:
            next(steps)
            while time.monotonic_ns() < self._share_ends_ns:
                next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        self._steps = steps
        return None

    def _read(self, message: Request | Notification, request_id: int | None) -> None:
        if request_id is None:
            raise RequestError(BAD_REQUEST, f"{message.method!r:.80} is no notification")
        read = READS.get(message.method)
        if read is None:
            self._read_or_wait(message, request_id)
            return
        found = self._steps or read(self._context, self, message.params)
        parts = found if isinstance(found, list) else self._go_on(found)
        if parts is None:
            return
        self._answer(request_id, parts)

    def _read_or_wait(self, message: Request | Notification, request_id: int) -> None:
        wait = WAITS.get(message.method)
        if wait is None:
            raise RequestError(UNKNOWN_METHOD, f"there is no method {message.method!r:.80}")

        def done(parts: list[bytes | memoryview]) -> None:
            self._pending_writes -= 1
            self._is_blocked = False
            self._answer(request_id, parts)
            self._on_answer()

        parts = wait(self._context, self, message.params, done)
        if parts is None:
            self._pending_writes += 1
            self._is_blocked = True
        else:
            self._answer(request_id, parts)

    def _answer(self, request_id: int, parts: list[bytes | memoryview]) -> None:
        head = messages.answer_head(request_id)
        size = len(head) + sum(map(len, parts))
        self.output.append(size.to_bytes(4, "big") + head)
        self.output += parts
        self.output_bytes += 4 + size

    def _begin_write(
        self,
        write: Callable[..., Steps[None] | None],
        params: tuple[object, ...],
        request_id: int | None,
    ) -> None:
        def done(outcome: object) -> None:
            self.owe_no_more()
            self.answer_write(request_id, outcome)

        steps = self._steps or write(self._context, self, params, done)
        if steps is not None:
            self._go_on(steps)
            if self._steps is not None:
                return
        self.owe()
        # Nothing passes a shutdown: its answer comes when everything else is over.
        self._is_blocked = write is WRITES["shutdown"]

    def owe(self) -> None:
        """Note that a write is with the writer: reads wait for its end."""
        self._pending_writes += 1

    def owe_no_more(self) -> None:
        """Note the end of a write; its answer is what follows."""
        self._pending_writes -= 1

    def answer_write(self, request_id: int | None, outcome: object) -> None:
        """Answer a write with its result or refusal; a notification's refusal is counted."""
        if isinstance(outcome, RequestError):
            self._answer_error(outcome, request_id)
        elif request_id is not None:
            self._send(messages.encode_answer(request_id, outcome))
        self.announce_output()

    def announce_output(self) -> None:
        """Have the server go on with this connection: there is something to send, or to run."""
        self._on_answer()

    def _refuse(
        self, message: Request | Notification, error: RequestError, request_id: int | None
    ) -> None:
        try:
            messages.refuse_unusual(message.params, request_id=request_id)
        except FrameError as exc:
            self._close_with(exc)
            return
        self._answer_error(error, request_id)

    def _refuse_message(self, error: FrameError | InvalidMessageError) -> None:
        if isinstance(error, FrameError):
            self._close_with(error)
        elif error.is_notification:
            self._count_refusal(error)
        else:
            if error.is_hello:
                self.producer = self.shard_id = None
            self._send(
                messages.encode_error(error.request_id, error.code, error.message, error.detail)
            )

    def _answer_error(self, error: RequestError, request_id: int | None) -> None:
        self._context.metrics.count("refused_requests")
        if request_id is None:
            self._count_refusal(error)
        else:
            self._send(messages.encode_error(request_id, error.code, error.message, error.detail))

    def _count_refusal(self, error: RequestError) -> None:
        self.refused += 1
        self._context.metrics.count("refused_notifications")
        if self.first_error is None:
            self.first_error = f"{error.code}: {error.message}"

    def _close_with(self, error: FrameError) -> None:
        self._context.metrics.count("bad_frames")
        self._send(messages.encode_error(error.request_id, BAD_FRAME, str(error)))
        self.is_closing = True

    def _send(self, payload: bytes) -> None:
        self.output.append(len(payload).to_bytes(4, "big") + payload)
        self.output_bytes += 4 + len(payload)
