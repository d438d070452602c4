"""The form of `put` that every client of ours sends, read without decoding MessagePack in general.

    00 00 LL LL   94 00 ce ID ID ID ID   a3 70 75 74 95   a0+length NAME   c4|c5|c6 BLOB   ...

A name of at most 31 bytes of ASCII, an id of five bytes (`requests.FIRST_ID` tells why), and behind
the blob all three of time, fingerprint and sync. Its record is made of the frame's own bytes: that
takes 3 us; by `messages.decode_request`, the checks of each parameter and `encode_record`, 12.
"""

from __future__ import annotations

from functools import lru_cache
from struct import error as StructError  # noqa: N812  # it is a class

from .encoding import encode_int, encode_optional_bin, encode_uint
from .errors import FrameError, RequestError
from .framing import LENGTH_BYTES
from .limits import BLOB_BYTES
from .messages import decode_request
from .parameters import read_fingerprint, read_sync, read_time
from .plain_frame import KIND, NAME_AT, NAME_END, answer_head, unpack_head
from .record import Record, join_record

_METHOD = b"\xa3put\x95"
_NAME_HEAD_AT = NAME_AT - 1
_LONGEST_NAME_END = NAME_AT + 31
_SIZE_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_MOST_REST_BYTES = 256
_RESTS = 256
"""A client sends the same time and sync with every put: those of its shell's binary and its own."""


def read_plain_put(data: bytes, now_ns: int) -> tuple[bytes, bytes, Record, str] | None:
    """Return (id, name, record, sync) if the bytes are one whole frame of this form; else None.

    The id is four bytes, as they stand there. What the general way refuses is not of this form.
    """
    try:
        payload_size, kind, request_id, method, name_head = unpack_head(data)
        name_end = NAME_END + name_head
        blob_at = name_end + 1 + _SIZE_BYTES[data[name_end]]
    except (StructError, IndexError, KeyError):
        return None
    name = data[NAME_AT:name_end]
    blob_end = blob_at + int.from_bytes(data[name_end + 1 : blob_at], "big")
    if (
        payload_size != len(data) - LENGTH_BYTES
        or kind != KIND
        or method != _METHOD
        or not NAME_AT < name_end <= _LONGEST_NAME_END
        or not name.isascii()
        or not blob_end < len(data) <= blob_end + _MOST_REST_BYTES
        or blob_end - blob_at > BLOB_BYTES
    ):
        return None
    rest = _read_rest(data[blob_end:])
    if rest is None:
        return None
    mtime_ns, tail, sync = rest
    record = join_record(
        data[_NAME_HEAD_AT:name_end], data[blob_at:blob_end], tail, mtime_ns, now_ns
    )
    return request_id, name, record, sync


def answer_to_put(request_id: bytes, generation: int) -> bytes:
    """Return the whole frame of the answer; the id is four bytes."""
    result = encode_uint(generation)
    return answer_head(request_id, len(result)) + result


@lru_cache(maxsize=_RESTS)
def _read_rest(rest: bytes) -> tuple[int, bytes, str] | None:
    """Return (binary_mtime_ns, fingerprint and it as a record has them, sync) of a put's end."""
    try:
        _, _, mtime, fingerprint, sync = decode_request(_BEFORE_REST + rest).params
        mtime_ns = read_time(mtime) or 0
        stored = encode_optional_bin(read_fingerprint(fingerprint)) + encode_int(mtime_ns)
        return mtime_ns, stored, read_sync(sync)
    except (FrameError, RequestError):
        return None


_BEFORE_REST = b"\x94\x00\x00" + _METHOD + b"\xa0\xc4\x00"
