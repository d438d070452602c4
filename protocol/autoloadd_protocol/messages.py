"""Messages: what one payload means, and the bytes of one.

A message has the shape of MessagePack-RPC (https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md):
requests `[0, id, method, params]`, answers `[1, id, error, result]`, notifications `[2, method, params]`.

Decoding bounds what it allocates before it allocates it. msgpack makes room for an array when it
reads the array's header, so 3 kB of nested headers can ask for 500 MB: small payloads are decoded
at once under a limit that makes this harmless, larger ones array by array.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

import msgpack

from .encoding import NIL, array_header, encode_str, encode_uint
from .errors import BAD_REQUEST, FrameError, RequestError, too_large
from .limits import FRAME_BYTES, NAMES, NESTING

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST: Final = 0
ANSWER: Final = 1
NOTIFICATION: Final = 2

MAX_ID: Final = 0xFFFFFFFF


class Request(NamedTuple):
    """`[0, id, method, params]`: one answer with the same id is due. `id` is a u32."""

    id: int
    method: str
    params: tuple[Any, ...]


class Notification(NamedTuple):
    """`[2, method, params]`: no answer. What is refused is counted and reported by `flush`."""

    method: str
    params: tuple[Any, ...]


class Answer(NamedTuple):
    """`[1, id, error, result]`: `error` is None or `(code, message, detail)`."""

    id: int | None
    error: tuple[str, str, dict[str, Any] | None] | None
    result: Any


Message = Request | Notification | Answer


def encode_request(request_id: int, method: str, params: Sequence[object]) -> bytes:
    """Return a request's payload. `params` hold None, int, str, bytes, lists and maps of them."""
    return msgpack.packb([REQUEST, request_id, method, list(params)])


def encode_notification(method: str, params: Sequence[object]) -> bytes:
    """Return a notification's payload."""
    return msgpack.packb([NOTIFICATION, method, list(params)])


def encode_answer(request_id: int, result: object) -> bytes:
    """Return the payload of a successful answer, `result` in MessagePack's types."""
    return answer_head(request_id) + msgpack.packb(result)


def encode_error(
    request_id: int | None, code: str, message: str, detail: dict[str, object] | None = None
) -> bytes:
    """Return the payload of a refusal."""
    return msgpack.packb([ANSWER, request_id, [code, message, detail], None])


def answer_head(request_id: int) -> bytes:
    """Return what stands before the result in a successful answer."""
    return b"\x94\x01" + encode_uint(request_id) + NIL


def request_head(request_id: int, method: bytes, arity: int) -> bytes:
    """Return what stands before the parameters in a request."""
    return b"\x94\x00" + encode_uint(request_id) + encode_str(method) + array_header(arity)


def decode_request(payload: bytes | bytearray) -> Request | Notification:
    """Return what a client sent in one payload.

    Raises FrameError where the payload is not one complete value of the allowed types and depth:
    answer with `bad_frame` and close. Raises InvalidMessageError where it is a value but no
    message: answer with `bad_request`, the connection stays usable.
    """
    value = _decode_small(payload) if len(payload) <= _SMALL_BYTES else _decode_large(payload)
    match value:
        case (kind, int(request_id), str(method), tuple(params)) if (
            kind == REQUEST and type(kind) is int and _is_id(request_id)
        ):
            return Request(request_id, method, params)
        case (kind, str(method), tuple(params)) if kind == NOTIFICATION and type(kind) is int:
            return Notification(method, params)
        case _:
            refuse_unusual(value)
            raise InvalidMessageError(
                "expected [0, id, method, params] or [2, method, params]", _id_of(value)
            )


def decode_answer(payload: bytes | bytearray) -> Answer | Notification:
    """Return what a server sent in one payload. Raises FrameError for anything else: close."""
    try:
        value = _unpack_answer(payload)
    except (ValueError, TypeError, msgpack.ExtraData, _DuplicateKeyError) as exc:
        raise FrameError(f"the server sent no message of this protocol: {exc}") from exc
    match value:
        case (1, None | int(), None | (str(), str(), None | dict()), _):
            return Answer(*value[1:])
        case (2, str(method), tuple(params)):
            return Notification(method, params)
        case _:
            raise FrameError("the server sent no message of this protocol")


class InvalidMessageError(RequestError):
    """A payload is a MessagePack value but no message. `request_id` is None where it has none."""

    def __init__(self, message: str, request_id: int | None) -> None:
        super().__init__(BAD_REQUEST, message)
        self.request_id = request_id


def refuse_unusual(value: object) -> None:
    """Raise FrameError if a decoded payload holds a float, or is nested too deeply.

    Checking every value of every request would cost as much as serving it. It is enough to look
    where something is wrong anyway, or where a request may hold what nobody reads: the shape of
    everything else is checked by those who use it.
    """
    level: list[object] = [value]
    for _depth in range(NESTING + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, float):
                raise FrameError("floats are not used in this protocol", _id_of(value))
            if isinstance(item, tuple):
                inner.extend(item)
            elif isinstance(item, dict):
                inner.extend(item.keys())
                inner.extend(item.values())
        if not inner:
            return
        level = inner
    raise FrameError(f"nested deeper than {NESTING} levels", _id_of(value))


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def _id_of(value: object) -> int | None:
    if isinstance(value, tuple) and len(value) > 1 and value[0] == REQUEST and _is_id(value[1]):
        return cast("int", value[1])
    return None


class _DuplicateKeyError(Exception):
    """A map has a key twice; raised through msgpack's C code, mapped in `_unpack_errors`."""


def _pairs_to_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _refuse_ext(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"ext type {code}")


_SMALL_BYTES = 4096
_SMALL_ITEMS = 512
"""Header bombs end at msgpack's depth of 1,024: 1,024 x 512 items x 8 bytes are 4 MiB."""

_LARGE_ITEMS = 16
"""Items of an array or map within `names` or `entries`: real ones have at most 4."""

_LARGE_CONTAINERS = 2 * NAMES
"""Arrays and maps in one large payload: real ones have at most one for each name."""

_TYPES = {
    "use_list": False,
    "strict_map_key": False,
    "max_str_len": FRAME_BYTES,
    "max_bin_len": FRAME_BYTES,
    "max_ext_len": 0,
    "ext_hook": _refuse_ext,
}
_unpack_small = partial(
    msgpack.unpackb,
    **_TYPES,
    object_pairs_hook=_pairs_to_map,
    max_array_len=_SMALL_ITEMS,
    max_map_len=_SMALL_ITEMS,
)


_unpack_answer = partial(
    msgpack.unpackb,
    **_TYPES,
    object_pairs_hook=_pairs_to_map,
    max_array_len=NAMES,
    max_map_len=NAMES,
)


def _decode_small(payload: bytes | bytearray) -> object:
    try:
        return _unpack_small(payload)
    except msgpack.ExtraData as exc:
        raise FrameError("bytes after the value") from exc
    except (ValueError, TypeError, _DuplicateKeyError):
        # Too many items for this path, or truly wrong: the large path tells which.
        return _decode_large(payload)


def _decode_large(payload: bytes | bytearray) -> object:
    reader = _LargeReader(payload)
    try:
        return reader.read_message()
    except _DuplicateKeyError as exc:
        raise InvalidMessageError("a map has a key twice", reader.request_id) from exc
    except UnicodeDecodeError as exc:
        raise InvalidMessageError("a str is not UTF-8", reader.request_id) from exc
    except msgpack.OutOfData as exc:
        raise FrameError("the value is not complete", reader.request_id) from exc
    except (ValueError, TypeError) as exc:
        raise FrameError(f"not a value of this protocol: {exc}", reader.request_id) from exc


class _LargeReader:
    """Reads a payload array by array, so that no header can ask for more than the limits allow."""

    def __init__(self, payload: bytes | bytearray) -> None:
        self.request_id: int | None = None
        self._payload = payload
        self._containers = 0
        # An Unpacker is used for one payload and dropped: using one again after an error is
        # what crashed msgpack before 1.2.1.
        self._unpacker = msgpack.Unpacker(
            **_TYPES,
            list_hook=self._count_array,
            object_pairs_hook=self._count_map,
            max_array_len=_LARGE_ITEMS,
            max_map_len=_LARGE_ITEMS,
            max_buffer_size=max(len(payload), 1),
        )
        self._unpacker.feed(payload)

    def read_message(self) -> object:
        if self._next_kind() != "array":
            value = self._unpacker.unpack()
            self._refuse_rest()
            return value
        count = self._unpacker.read_array_header()
        head: list[object] = []
        for position in range(count):
            last = position == count - 1
            head.append(self._read_params() if last and position > 1 else self._unpacker.unpack())
            if position == 1 and head[0] == REQUEST and _is_id(head[1]):
                self.request_id = cast("int", head[1])
        self._refuse_rest()
        return tuple(head)

    def _read_params(self) -> object:
        if self._next_kind() != "array":
            return self._unpacker.unpack()
        count = self._unpacker.read_array_header()
        if count > _LARGE_ITEMS:
            raise ValueError(f"{count:,} parameters")
        return tuple(self._read_param() for _ in range(count))

    def _read_param(self) -> object:
        match self._next_kind():
            case "array":
                count = self._count_names(self._unpacker.read_array_header())
                return tuple(self._unpacker.unpack() for _ in range(count))
            case "map":
                count = self._count_names(self._unpacker.read_map_header())
                unpack = self._unpacker.unpack
                return _pairs_to_map([(unpack(), unpack()) for _ in range(count)])
            case _:
                return self._unpacker.unpack()

    def _count_names(self, count: int) -> int:
        if count > len(self._payload):
            raise ValueError(f"{count:,} items in a payload of {len(self._payload):,} bytes")
        if count > NAMES:
            error = too_large("names", NAMES, count)
            raise OversizedMessageError(error, self.request_id)
        return count

    def _next_kind(self) -> str:
        at = self._unpacker.tell()
        first = self._payload[at] if at < len(self._payload) else 0xC1
        if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
            return "array"
        if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
            return "map"
        return "scalar"

    def _refuse_rest(self) -> None:
        if self._unpacker.tell() != len(self._payload):
            raise FrameError("bytes after the value", self.request_id)

    def _count_array(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count_container()
        return items

    def _count_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count_container()
        return _pairs_to_map(pairs)

    def _count_container(self) -> None:
        self._containers += 1
        if self._containers > _LARGE_CONTAINERS:
            raise ValueError(f"more than {_LARGE_CONTAINERS:,} arrays and maps")


class OversizedMessageError(InvalidMessageError):
    """A request names more than the limit: refused with `too_large`, the connection stays usable."""

    def __init__(self, error: RequestError, request_id: int | None) -> None:
        super().__init__(error.message, request_id)
        self.code = error.code
        self.detail = error.detail
