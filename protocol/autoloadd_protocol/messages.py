"""Messages: what one payload means, and the bytes of one.

A message has the shape of MessagePack-RPC
(https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md): a request is
`[0, id, method, params]`, an answer `[1, id, error, result]`, a notification `[2, method, params]`.

Decoding bounds what it allocates before it allocates it. msgpack makes room for an array when it
reads the array's header, so 3 kB of nested headers can ask for 500 MB: small payloads are decoded
at once under a limit that makes this harmless, larger ones array by array.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

import msgpack  # type: ignore[import-untyped]

from .encoding import NIL, encode_uint
from .errors import BAD_REQUEST, FrameError, RequestError, too_large
from .limits import FRAME_BYTES, NAMES, NESTING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REQUEST: Final = 0
ANSWER: Final = 1
NOTIFICATION: Final = 2

MAX_ID: Final = 0xFFFFFFFF


pack: Callable[[object], bytes] = msgpack.packb
"""MessagePack's shortest form of None, bool, int, str, bytes, and lists and maps of them."""


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
    return pack([REQUEST, request_id, method, list(params)])


def encode_notification(method: str, params: Sequence[object]) -> bytes:
    """Return a notification's payload."""
    return pack([NOTIFICATION, method, list(params)])


def encode_answer(request_id: int, result: object) -> bytes:
    """Return the payload of a successful answer, `result` in MessagePack's types."""
    return answer_head(request_id) + pack(result)


def encode_error(
    request_id: int | None, code: str, message: str, detail: dict[str, object] | None = None
) -> bytes:
    """Return the payload of a refusal."""
    return pack([ANSWER, request_id, [code, message, detail], None])


def answer_head(request_id: int) -> bytes:
    """Return what stands before the result in a successful answer."""
    return b"\x94\x01" + encode_uint(request_id) + NIL


def decode_request(payload: bytes | bytearray) -> Request | Notification:
    """Return what a client sent in one payload.

    Raises FrameError where the payload is not one complete value of the allowed types and depth:
    answer with `bad_frame` and close. Raises InvalidMessageError where it is a value but no
    message: answer it (or count it, if it was a notification), the connection stays usable.
    Parameters are not searched for what no method reads: see `refuse_unusual`.
    """
    value = _decode_small(payload) if len(payload) <= _SMALL_BYTES else _decode_large(payload)
    match value:
        case (kind, int(request_id), str(method), tuple(params)) if _is_kind(
            kind, REQUEST
        ) and _is_id(request_id):
            return Request(request_id, method, params)
        case (kind, str(method), tuple(params)) if _is_kind(kind, NOTIFICATION):
            return Notification(method, params)
        case _:
            refuse_unusual(value, level=1, request_id=_id_of(value))
            expected = "expected [0, id, method, params] or [2, method, params]"
            raise InvalidMessageError(expected, value)


def decode_answer(payload: bytes | bytearray | memoryview) -> Answer | Notification:
    """Return what a server sent in one payload. Raises FrameError for anything else: close."""
    try:
        value = _unpack_answer(payload)
    except (ValueError, _MapKeyError) as exc:
        raise FrameError(f"the server sent no message of this protocol: {exc}") from exc
    match value:
        case (kind, request_id, None | (str(), str(), None | dict()), _) if _is_kind(
            kind, ANSWER
        ) and (request_id is None or _is_id(request_id)):
            return Answer(*value[1:])
        case (kind, str(method), tuple(params)) if _is_kind(kind, NOTIFICATION):
            return Notification(method, params)
        case _:
            raise FrameError("the server sent no message of this protocol")


class InvalidMessageError(RequestError):
    """A payload is a MessagePack value but no message; the connection stays usable.

    `head` is as much of the value as could be read. `request_id` is None where it has none.
    `is_notification` tells that nobody waits for an answer: count the refusal for `flush` instead.
    `is_hello` tells that it would have named a producer: there is none from now on.
    """

    def __init__(self, message: str, head: object) -> None:
        super().__init__(BAD_REQUEST, message)
        self.request_id = _id_of(head)
        self.is_notification = _is_notification(head)
        self.is_hello = _is_hello(head)


class OversizedMessageError(InvalidMessageError):
    """A request names more than the limit: `too_large`, the connection stays usable."""

    def __init__(self, error: RequestError, head: object) -> None:
        super().__init__(error.message, head)
        self.code = error.code
        self.detail = error.detail


_ITEMS: Final = 16
"""Items of every array and map but those that a parameter holds: real ones have at most 4."""

_NAMES_LEVEL: Final = 3
"""Where `names` and entries lie: the frame's array is level 1, `params` is level 2."""


def refuse_unusual(value: object, *, level: int = 2, request_id: int | None = None) -> None:
    """Raise FrameError if decoded parameters hold a float, or are nested too deep or too wide.

    Checking every value of every request would cost as much as serving it. It is enough to look
    where something is wrong anyway, or where a request may hold what nobody reads: the shape of
    everything else is checked by those who use it. `level` is the nesting level of `value`;
    the error carries `request_id`.
    """
    items: list[object] = [value]
    while items:
        inner: list[object] = []
        for item in items:
            if isinstance(item, float):
                raise FrameError("floats are not used in this protocol", request_id)
            if isinstance(item, tuple):
                inner.extend(item)
            elif isinstance(item, dict):
                inner.extend(item.keys())
                inner.extend(item.values())
            else:
                continue
            if level > NESTING:
                raise FrameError(f"nested deeper than {NESTING} levels", request_id)
            if level != _NAMES_LEVEL and len(item) > _ITEMS:
                raise FrameError(_too_wide(len(item)), request_id)
        items = inner
        level += 1


def _too_wide(count: int) -> str:
    return f"{count:,} items in an array or map that may have {_ITEMS}"


def _is_kind(value: object, kind: int) -> bool:
    # False and 0.0 equal 0, but are not what the protocol calls 0.
    return type(value) is int and value == kind


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def _id_of(value: object) -> int | None:
    match value:
        case (kind, request_id, *_) if _is_kind(kind, REQUEST) and _is_id(request_id):
            return cast("int", request_id)
        case _:
            return None


def _is_notification(value: object) -> bool:
    match value:
        case (kind, *_):
            return _is_kind(kind, NOTIFICATION)
        case _:
            return False


def _is_hello(value: object) -> bool:
    match value:
        case (kind, _, "hello", *_):
            return _is_kind(kind, REQUEST)
        case _:
            return False


class _MapKeyError(Exception):
    """A map has a key twice, or one that is a map; raised through msgpack's C code."""


def _pairs_to_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    try:
        result = dict(pairs)
    except TypeError as exc:
        raise _MapKeyError("a map has a map as a key") from exc
    if len(result) != len(pairs):
        raise _MapKeyError("a map has a key twice")
    return result


def _refuse_ext(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"ext type {code}")


_SMALL_BYTES = 4096
_SMALL_ITEMS = 512
"""Header bombs end at msgpack's depth of 1,024: 1,024 x 512 items x 8 bytes are 4 MiB."""

_LARGE_COST = 6 * NAMES + 64
"""What the names or entries of a large payload may hold: see `_LargeReader`. 65,536 complete
entries have 6 units each; the rest is for what stands beside them."""

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
    except (ValueError, _MapKeyError):
        # Too many items for this path, or truly wrong: the large path tells which.
        return _decode_large(payload)


def _decode_large(payload: bytes | bytearray) -> object:
    reader = _LargeReader(payload)
    try:
        return reader.read_message()
    except _MapKeyError as exc:
        raise reader.refusal(str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise reader.refusal("a str is not UTF-8") from exc
    except msgpack.OutOfData as exc:
        raise FrameError("the value is not complete", _id_of(reader.head)) from exc
    except ValueError as exc:
        reason = str(exc) or "nested too deep"
        raise FrameError(f"not a value of this protocol: {reason}", _id_of(reader.head)) from exc
    finally:
        reader.release()


class _LargeReader:
    """Reads a payload array by array, so that no header can ask for more than the limits allow.

    At most 65,536 names or entries in all, and what they hold has a cost: 2 units and 1 for each
    item of an array, 7 and 3 for each pair of a map; a unit is about 40 bytes of memory. So no
    payload's value takes more than that of the largest useful request, whatever its shape.
    """

    def __init__(self, payload: bytes | bytearray) -> None:
        self.head: list[object] = []
        self._payload = payload
        self._cost = 0
        self._names = 0
        # An Unpacker is used for one payload and dropped: using one again after an error is
        # what crashed msgpack before 1.2.1.
        self._unpacker = msgpack.Unpacker(
            **_TYPES,
            list_hook=self._count_array,
            object_pairs_hook=self._count_map,
            max_array_len=_ITEMS,
            max_map_len=_ITEMS,
            max_buffer_size=max(len(payload), 1),
        )
        self._unpacker.feed(payload)

    def release(self) -> None:
        """Give the memory up at once: reader and unpacker refer to each other.

        Left to the garbage collector, twice the payload stayed behind each large request.
        """
        del self._unpacker

    def refusal(self, message: str) -> InvalidMessageError:
        """Return the error for a message that is refused, addressed by what was read of it."""
        return InvalidMessageError(message, self.head)

    def read_message(self) -> object:
        """Return the payload's value; `head` holds the items of its array that were read."""
        if self._next_kind() == "array":
            for _ in range(self._check_count(self._unpacker.read_array_header(), 1)):
                self.head.append(self._read(2))
            value: object = tuple(self.head)
        else:
            value = self._unpacker.unpack()
        if self._unpacker.tell() != len(self._payload):
            raise FrameError("bytes after the value", _id_of(self.head))
        return value

    def _read(self, level: int) -> object:
        """Return the value that stands here, at level 2 or 3."""
        kind = self._next_kind()
        if kind == "array":
            count = self._check_count(self._unpacker.read_array_header(), level)
            return tuple(self._read_items(count, level))
        if kind == "map":
            count = self._check_count(self._unpacker.read_map_header(), level)
            items = self._read_items(2 * count, level)
            return _pairs_to_map(list(zip(items[::2], items[1::2], strict=True)))
        return self._unpacker.unpack()

    def _read_items(self, count: int, level: int) -> list[object]:
        if level < _NAMES_LEVEL:
            return [self._read(level + 1) for _ in range(count)]
        unpack = self._unpacker.unpack
        return [unpack() for _ in range(count)]

    def _check_count(self, count: int, level: int) -> int:
        if count > len(self._payload):
            raise ValueError(f"{count:,} items in a payload of {len(self._payload):,} bytes")
        if level != _NAMES_LEVEL:
            if count > _ITEMS:
                raise ValueError(_too_wide(count))
            return count
        self._names += count
        if self._names > NAMES:
            raise OversizedMessageError(too_large("names", NAMES, self._names), self.head)
        return count

    def _next_kind(self) -> str:
        at = self._unpacker.tell()
        first = self._payload[at] if at < len(self._payload) else 0xC1
        if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
            return "array"
        if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
            return "map"
        return "other"

    def _count_array(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        self._add_cost(2 + len(items))
        return items

    def _count_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._add_cost(7 + 3 * len(pairs))
        return _pairs_to_map(pairs)

    def _add_cost(self, units: int) -> None:
        self._cost += units
        if self._cost > _LARGE_COST:
            raise ValueError("more arrays, maps and items than any request has")
