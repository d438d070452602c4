"""The general path: any method, its parameters and result by way of the msgpack package.

Loaded when it is first needed: `get`, `get_entry` and `put` do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from autoloadd_protocol.encoding import encode_uint
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import LENGTH_BYTES, encode_frame
from autoloadd_protocol.messages import Answer, decode_answer, encode_notification, encode_request
from autoloadd_protocol.requests import answer_id

from .errors import CacheError, ForgedError, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Connection


class Flushed(NamedTuple):
    """What `flush` found.

    `generation` is on stable storage. `refused` counts the `wait=False` writes that the daemon
    refused on this connection, `first_error` says why the first of them was. `unconfirmed` counts
    those whose connection ended before a flush: they may or may not be there.
    """

    generation: int
    refused: int
    first_error: str | None
    unconfirmed: int


def call(
    connection: Connection,
    method: str,
    params: Sequence[object],
    deadline: float,
    *,
    again: bool = True,
) -> Any:
    """Return the result of a method. `again` as in `Connection.exchange`. Raises CacheError."""
    request = encode_frame(encode_request(connection.next_id(), method, params))
    answer = connection.exchange(request, deadline, again=again)
    return decode_result(connection, answer, deadline)


def notify(connection: Connection, method: str, params: Sequence[object], deadline: float) -> None:
    """Send a notification. Raises CacheError when it could not be sent."""
    connection.notify(encode_frame(encode_notification(method, params)), deadline)


def decode_result(connection: Connection, answer: bytes, deadline: float) -> Any:
    """Return the result in a successful answer's frame. Raises ForgedError, having closed."""
    try:
        message = decode_answer(memoryview(answer)[LENGTH_BYTES:])
    except FrameError as exc:
        connection.close(deadline)
        raise ForgedError(str(exc)) from exc
    return message.result if isinstance(message, Answer) else None


def read_refusal(answer: bytes, request: bytes) -> CacheError:
    """Return the error that an answer's frame stands for, which is no result of the request's.

    An error without an id is meant for the connection: also ours. An error for another request, or
    anything else, gives a ForgedError.
    """
    try:
        message = decode_answer(answer[LENGTH_BYTES:])
    except FrameError as exc:
        return ForgedError(str(exc))
    match message:
        case Answer(None, (code, text, detail)):
            return refusal(code, text, detail)
        case Answer(int(found), (code, text, detail)) if _is_for(found, request):
            return refusal(code, text, detail)
        case _:
            return ForgedError("the daemon answered what was not asked")


def _is_for(found_id: int, request: bytes) -> bool:
    return answer_id(request).endswith(encode_uint(found_id))


def require_map(result: object) -> dict[str, Any]:
    """Return a result that has to be a map. Raises ForgedError."""
    if not isinstance(result, dict):
        raise ForgedError(f"expected a map, got {type(result).__name__}")
    return result


def require_items(result: object, count: int | None = None) -> tuple[Any, ...]:
    """Return a result that has to be an array (of `count` items). Raises ForgedError."""
    if not isinstance(result, tuple) or count not in (None, len(result)):
        raise ForgedError(f"expected an array of {count or 'some'} items, got {result!r:.80}")
    return result


def require_int(result: object) -> int:
    """Return a result that has to be an integer. Raises ForgedError."""
    if type(result) is not int:
        raise ForgedError(f"expected an integer, got {type(result).__name__}")
    return result


def require_flushed(result: object, unconfirmed: int) -> Flushed:
    """Return the answer to `flush` as a value. Raises ForgedError."""
    match result:
        case (int(generation), int(refused), None | str() as first_error):
            return Flushed(generation, refused, first_error, unconfirmed)
        case _:
            raise ForgedError(f"expected [generation, refused, first error], got {result!r:.80}")
