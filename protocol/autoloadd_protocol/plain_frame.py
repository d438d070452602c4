"""What the plain forms of `get` and `put` have in common: the head of a request, and of its answer.

    00 00 LL LL   94 00 ce ID ID ID ID   a3 METHOD 9N   a0+length NAME   ...

An id of five bytes (`requests.FIRST_ID` tells why), a method of three letters, and a name of at
most 31 bytes: then everything stands at one place, and one `unpack_from` reads it.
"""

from __future__ import annotations

from struct import Struct

from .framing import LENGTH_BYTES

_HEAD = Struct(">I3s4s5sB")
"""Length, kind and mark of the id, id, method with the parameters' header, header of the name."""

unpack_head = _HEAD.unpack_from

KIND = b"\x94\x00\xce"
NAME_AT = _HEAD.size
NAME_END = NAME_AT - 0xA0
"""With the header of the name: the end of the name."""

_ANSWER_HEAD = Struct(">I3s4sB")
_ANSWER_KIND = b"\x94\x01\xce"
_BEFORE_RESULT = _ANSWER_HEAD.size - LENGTH_BYTES
_NIL = 0xC0


def answer_head(request_id: bytes, result_bytes: int) -> bytes:
    """Return what stands before the result in the answer's frame; the id is four bytes."""
    return _ANSWER_HEAD.pack(_BEFORE_RESULT + result_bytes, _ANSWER_KIND, request_id, _NIL)
