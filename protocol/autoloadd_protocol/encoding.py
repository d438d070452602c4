"""MessagePack's shortest forms of the few types that the hot paths write.

Requests, answers and stored records are put together from these, without the msgpack package: a
shell's client must not import it for one `get` (4 ms), and the daemon must not encode a blob twice.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

NIL = b"\xc0"
TRUE = b"\xc3"
FALSE = b"\xc2"


def encode_uint(value: int) -> bytes:
    """Return the shortest form of a number from 0 to 2**64 - 1."""
    if value < 0x80:
        return value.to_bytes(1, "big")
    if value < 0x100:
        return b"\xcc" + value.to_bytes(1, "big")
    if value < 0x10000:
        return b"\xcd" + value.to_bytes(2, "big")
    if value < 0x100000000:
        return b"\xce" + value.to_bytes(4, "big")
    return b"\xcf" + value.to_bytes(8, "big")


def encode_int(value: int) -> bytes:
    """Return the shortest form of a number from -2**63 to 2**64 - 1."""
    if value >= 0:
        return encode_uint(value)
    if value >= -0x20:
        return value.to_bytes(1, "big", signed=True)
    if value >= -0x80:
        return b"\xd0" + value.to_bytes(1, "big", signed=True)
    if value >= -0x8000:
        return b"\xd1" + value.to_bytes(2, "big", signed=True)
    if value >= -0x80000000:
        return b"\xd2" + value.to_bytes(4, "big", signed=True)
    return b"\xd3" + value.to_bytes(8, "big", signed=True)


def str_header(size: int) -> bytes:
    """Return what stands before the UTF-8 bytes of a str of `size` bytes."""
    if size < 32:
        return (0xA0 | size).to_bytes(1, "big")
    if size < 0x100:
        return b"\xd9" + size.to_bytes(1, "big")
    if size < 0x10000:
        return b"\xda" + size.to_bytes(2, "big")
    return b"\xdb" + size.to_bytes(4, "big")


def bin_header(size: int) -> bytes:
    """Return what stands before the bytes of a bin of `size` bytes."""
    if size < 0x100:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 0x10000:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def array_header(count: int) -> bytes:
    """Return what stands before the items of an array."""
    if count < 16:
        return (0x90 | count).to_bytes(1, "big")
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def map_header(count: int) -> bytes:
    """Return what stands before the pairs of a map."""
    if count < 16:
        return (0x80 | count).to_bytes(1, "big")
    if count < 0x10000:
        return b"\xde" + count.to_bytes(2, "big")
    return b"\xdf" + count.to_bytes(4, "big")


def encode_str(text: bytes) -> bytes:
    """Return a str, given as its UTF-8 bytes."""
    return str_header(len(text)) + text


def encode_optional_bin(value: bytes | None) -> bytes:
    """Return a bin, or nil for None: the form of a fingerprint."""
    return NIL if value is None else bin_header(len(value)) + value


def encode_optional_int(value: int | None) -> bytes:
    """Return an integer, or nil for None: the form of a time that may be left out."""
    return NIL if value is None else encode_int(value)
