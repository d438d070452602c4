"""The frames of a shell's hot path, put together and taken apart without the msgpack package.

A shell that asks for one entry must not pay for imports. This module, with what it imports, loads
no msgpack, typing or dataclasses. Frames are whole here: the length comes first.

Ids run from FIRST_ID to LAST_ID, so that each takes five bytes, and the head of the expected answer
is one byte string: eight bytes that a client compares with one `startswith`.
"""

from __future__ import annotations

from .decoding import bin_span, decode_int
from .encoding import (
    FALSE,
    NIL,
    TRUE,
    array_header,
    bin_header,
    encode_optional_bin,
    encode_optional_int,
    encode_str,
    encode_uint,
    map_header,
)
from .errors import FrameError
from .framing import LENGTH_BYTES, encode_frame
from .limits import PROTOCOL_MAJOR, PROTOCOL_MINOR

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from .producer import Producer

FIRST_ID = 0x10000
LAST_ID = 0xFFFFFFFF

RESULT_AT = LENGTH_BYTES + 8
"""Where the result of a successful answer begins in its frame."""

FILL = encode_str(b"fill")
"""The answer to `lease` that gives it."""

_ID = slice(LENGTH_BYTES + 2, LENGTH_BYTES + 7)
_ERROR_AT = LENGTH_BYTES + 7
_GET_BYTES = 12
"""What a `get` has in front of its parameters."""

_ENTRY = 0x95
"""How an array of five begins."""


def request_frame(request_id: int | None, method: bytes, *params: bytes) -> bytes:
    """Return a request's frame, its parameters encoded already; a notification's without an id."""
    kind = b"\x93\x02" if request_id is None else b"\x94\x00" + encode_uint(request_id)
    head = (kind, encode_str(method), array_header(len(params)))
    return encode_frame(b"".join((*head, *params)))


def hello_request(request_id: int, producer: Producer | None, *, version: str, pid: int) -> bytes:
    """Return the frame that opens a connection. Send the first request behind it in the same write.

    Without a producer only control requests can follow.
    """
    protocol = array_header(2) + encode_uint(PROTOCOL_MAJOR) + encode_uint(PROTOCOL_MINOR)
    client = b"".join(
        (
            map_header(3),
            encode_str(b"name") + encode_str(b"autoloadd-python"),
            encode_str(b"version") + encode_str(version.encode()),
            encode_str(b"pid") + encode_uint(pid),
        )
    )
    return request_frame(request_id, b"hello", protocol, encode_producer(producer), client)


def encode_producer(producer: Producer | None) -> bytes:
    """Return the wire form of a producer, or nil."""
    if producer is None:
        return NIL
    pairs = [
        encode_str(b"name") + encode_str(producer.name.encode()),
        encode_str(b"version") + encode_str(producer.version.encode()),
        encode_str(b"pointer_width") + encode_uint(producer.pointer_width),
    ]
    if producer.build is not None:
        pairs.append(encode_str(b"build") + encode_str(producer.build.encode()))
    return map_header(len(pairs)) + b"".join(pairs)


def encode_freshness(binary_mtime_ns: int | None, fingerprint: bytes | None = None) -> bytes:
    """Return what a fresh entry is compared with, as it stands behind the name in a `get`."""
    return encode_optional_int(binary_mtime_ns) + encode_optional_bin(fingerprint)


def get_request(
    request_id: int,
    name: bytes,
    *,
    binary_mtime_ns: int | None = None,
    fingerprint: bytes | None = None,
) -> bytes:
    """Return the frame that asks for one entry. `name` is UTF-8, FIRST_ID the least id."""
    freshness = encode_freshness(binary_mtime_ns, fingerprint)
    return join_get_request(request_id, encode_str(name), freshness)


def join_get_request(request_id: int, wanted: bytes, freshness: bytes) -> bytes:
    """Return what `get_request` does: `wanted` is the name by `encode_str`."""
    rest = wanted + freshness
    return b"%b\x94\x00\xce%b\xa3get\x93%b" % (
        (len(rest) + _GET_BYTES).to_bytes(LENGTH_BYTES, "big"),
        request_id.to_bytes(4, "big"),
        rest,
    )


def lease_request(
    request_id: int,
    name: bytes,
    *,
    binary_mtime_ns: int | None = None,
    fingerprint: bytes | None = None,
    wait_ms: int = 0,
    hold_ms: int | None = None,
    stale_ok: bool = False,
) -> bytes:
    """Return the frame that asks for one entry, or for the task of making it."""
    return request_frame(
        request_id,
        b"lease",
        encode_str(name),
        encode_optional_int(binary_mtime_ns),
        encode_optional_bin(fingerprint),
        encode_uint(wait_ms),
        encode_optional_int(hold_ms),
        TRUE if stale_ok else FALSE,
    )


def put_request(
    request_id: int | None,
    name: bytes,
    blob: bytes,
    *,
    binary_mtime_ns: int | None = None,
    fingerprint: bytes | None = None,
    sync: str = "write",
) -> bytes:
    """Return the frame that stores one entry; without an id it is a notification: no answer."""
    return request_frame(
        request_id,
        b"put",
        encode_str(name),
        bin_header(len(blob)) + blob,
        encode_optional_int(binary_mtime_ns),
        encode_optional_bin(fingerprint),
        encode_str(sync.encode()),
    )


def answer_id(request: bytes) -> bytes:
    """Return what the payload of the answer to this request frame begins with: its kind and id."""
    return b"\x94\x01" + request[_ID]


def is_success(answer: bytes, request: bytes) -> bool:
    """Tell whether an answer's frame is the result of this request's frame.

    Anything else is a refusal (`messages.decode_answer` reads it), or is not ours: close.
    """
    return answer.startswith(answer_id(request) + NIL, LENGTH_BYTES)


def is_result(answer: bytes) -> bool:
    """Tell whether an answer's frame, whose id was compared already, holds a result."""
    return answer.startswith(NIL, _ERROR_AT)


def is_fill(answer: bytes) -> bool:
    """Tell whether a successful answer to `lease` says that the asker makes the entry.

    Otherwise it is what a `get` is answered with: `parse_get_answer`.
    """
    return answer[RESULT_AT:] == FILL


def parse_get_answer(answer: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the blob begins and ends in a successful answer's frame; None: a miss.

    Raises FrameError when it is no entry of that name, as when two processes read each other's
    answers: close the connection and use nothing of it.
    """
    return find_blob(answer, encode_str(name))


def find_blob(answer: bytes, wanted: bytes) -> tuple[int, int] | None:
    """Return what `parse_get_answer` does; `wanted` is the name by `encode_str`."""
    if answer.startswith(wanted, RESULT_AT + 1) and answer[RESULT_AT] == _ENTRY:
        blob_at = RESULT_AT + 1 + len(wanted)
        if blob_at < len(answer):
            start, size = bin_span(answer, blob_at)
            if 0 <= size < len(answer) - start:
                return start, start + size
    elif len(answer) == RESULT_AT + 1 and answer.endswith(NIL):
        return None
    raise FrameError("the answer to a get is no entry of the name that was asked for")


def parse_get_times(answer: bytes, blob_end: int) -> tuple[bytes | None, int, int]:
    """Return (fingerprint, binary_mtime_ns, cached_at_ns), which stand behind the blob.

    Raises FrameError when they are not there.
    """
    try:
        start, size = bin_span(answer, blob_end)
        mtime_at = blob_end + 1 if size < 0 else start + size
        binary_mtime_ns, cached_at = decode_int(answer, mtime_at)
        fingerprint = None if size < 0 else answer[start:mtime_at]
        return fingerprint, binary_mtime_ns, decode_int(answer, cached_at)[0]
    except (ValueError, IndexError) as exc:
        raise FrameError(f"the answer to a get ends badly: {exc}") from exc


def parse_uint_answer(answer: bytes) -> int:
    """Return the number that a successful answer holds: a generation or a count.

    Raises FrameError when it holds something else.
    """
    try:
        value, end = decode_int(answer, RESULT_AT)
    except (ValueError, IndexError) as exc:
        raise FrameError(f"expected a number: {exc}") from exc
    if value < 0 or end != len(answer):
        raise FrameError("expected a number of at least 0, and nothing after it")
    return value
