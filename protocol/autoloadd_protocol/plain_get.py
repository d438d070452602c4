"""The form of `get` that a shell's hot path sends, read without decoding MessagePack in general.

    00 00 00 LL   94 00 ce ID ID ID ID   a3 67 65 74   9N   a0+length NAME   ...

A name of at most 31 bytes, an id of five bytes (`requests.FIRST_ID` tells why), and behind the name
nothing, a time, or nils in its place and the fingerprint's. Reading that takes 0.4 us; by
`messages.decode_request` and the checks behind it, 4.
"""

from __future__ import annotations

from functools import lru_cache
from struct import error as StructError  # noqa: N812  # it is a class

from .decoding import decode_int
from .encoding import NIL
from .framing import LENGTH_BYTES
from .plain_frame import KIND, NAME_AT, NAME_END, unpack_head

ANY_TIME = -(2**63)
"""No entry is older."""

_NEWEST_TIME = 2**63 - 1

_MOST_REST_BYTES = 10
"""A time of 9 bytes and a nil."""

_RESTS = 256
"""A client sends the same time with every get: that of its shell's binary."""


def read_plain_get(data: bytes) -> tuple[bytes, bytes, int] | None:
    """Return (id, name, oldest_ns) if the bytes are one whole frame of this form; None for others.

    The id is four bytes, as they stand there. Entries before `oldest_ns` are stale. The name need
    not be UTF-8: only one that is stored is known to be a name.
    """
    try:
        payload_size, kind, request_id, method, name_head = unpack_head(data)
    except StructError:
        return None
    size = len(data)
    end = NAME_END + name_head
    if (
        payload_size != size - LENGTH_BYTES
        or kind != KIND
        or not NAME_AT < end <= size <= end + _MOST_REST_BYTES
    ):
        return None
    expected, oldest = _read_rest(data[end:])
    if method != expected:
        return None
    return request_id, data[NAME_AT:end], oldest


@lru_cache(maxsize=_RESTS)
def _read_rest(rest: bytes) -> tuple[bytes, int]:
    """Return how a get's method stands there that ends so, and the oldest time it takes.

    No method stands like `_NOT_PLAIN`.
    """
    if not rest:
        return b"\xa3get\x91", ANY_TIME
    oldest, end = ANY_TIME, 1
    if rest[:1] != NIL:
        try:
            oldest, end = decode_int(rest, 0)
        except ValueError:
            return _NOT_PLAIN
    if oldest > _NEWEST_TIME or end > len(rest):
        return _NOT_PLAIN
    return _ENDS.get(rest[end:], b""), oldest


_NOT_PLAIN = (b"", ANY_TIME)
_ENDS = {b"": b"\xa3get\x92", NIL: b"\xa3get\x93"}
