"""Values and bytes as JSON holds them, for the modules that make the vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

Case = dict[str, Any]
Piece = bytes | tuple[bytes, int] | str
"""Bytes as they are, bytes and how often they are repeated, or the name of a placeholder."""

ID = 0x10000
TIME = 1_753_000_000_123_456_789
LATER = TIME + 1
CACHED_AT = 1_754_000_000_000_000_000
FINGERPRINT = b"/usr/bin/flask\x00214\x001835021\x001753000000123456789\x00"
ENTRY = [b"\x00compiled\xff", FINGERPRINT, TIME, CACHED_AT]
PRODUCER = {"name": "zsh", "version": "5.9", "pointer_width": 8}
CLIENT = {"name": "vectors", "version": "1", "pid": 4242}
IDS = (0, 127, 128, 255, 256, 65535, 65536, 0xFFFFFFFF)
_RUN = 48
"""A byte that stands this often in a row is written as a repetition."""


def pack(value: object) -> bytes:
    """Return MessagePack's shortest form."""
    packed: bytes = msgpack.packb(value)
    return packed


def hexed(*pieces: Piece) -> str | list[Any]:
    """Return bytes as hex; as a list where something is repeated, or only known when it runs."""
    found: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str):
            found.append({"placeholder": piece})
        elif isinstance(piece, tuple):
            found.append({"repeat": piece[0].hex(), "times": piece[1]})
        else:
            found.extend(_runs(piece))
    merged: list[Any] = []
    for part in found:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return "".join(merged) if all(isinstance(part, str) for part in merged) else merged


def _runs(data: bytes) -> Iterator[Any]:
    start = 0
    while start < len(data):
        end = start + 1
        while end < len(data) and data[end] == data[start]:
            end += 1
        many = end - start > _RUN
        once = data[start : start + 1].hex()
        yield {"repeat": once, "times": end - start} if many else data[start:end].hex()
        start = end


def frame(*pieces: Piece) -> str | list[Any]:
    """Return a frame as hex: the payload's length, then its pieces."""
    return hexed(length(*pieces), *pieces)


def length(*pieces: Piece) -> bytes:
    """Return the four bytes in front of a payload. A placeholder has five bytes."""
    sizes = (
        5
        if isinstance(piece, str)
        else len(piece[0]) * piece[1]
        if isinstance(piece, tuple)
        else len(piece)
        for piece in pieces
    )
    return sum(sizes).to_bytes(4, "big")


def typed(value: object) -> object:
    """Return a value so that JSON keeps its type: see README.md."""
    match value:
        case bytes():
            return {"bin": hexed(value)}
        case str() if len(value.encode()) > 64:
            return {"str": hexed(value.encode())}
        case int() if abs(value) >= 2**53:
            return {"int": str(value)}
        case list():
            return [typed(item) for item in value]
        case dict():
            return {"map": [[typed(key), typed(item)] for key, item in value.items()]}
        case _:
            return value


def request(method: str, *params: object, request_id: int = ID) -> bytes:
    """Return a request's payload."""
    return pack([0, request_id, method, list(params)])


def notify(method: str, *params: object) -> bytes:
    """Return a notification's payload."""
    return pack([2, method, list(params)])


def answer(result: object, request_id: int = ID) -> bytes:
    """Return a successful answer's payload."""
    return pack([1, request_id, None, result])


def answer_frame(result: object, request_id: int = ID) -> str | list[Any]:
    """Return a successful answer's frame as hex."""
    return frame(answer(result, request_id))


def token_frame(method: str, *params: object) -> str | list[Any]:
    """Return a request whose first parameter is the token, always as `ce` and four bytes."""
    head = b"\x94\x00" + pack(ID) + pack(method) + (0x91 + len(params)).to_bytes(1, "big")
    return frame(head, "token", b"".join(pack(param) for param in params))


def joined(payloads: list[bytes]) -> bytes:
    """Return frames, one behind the other."""
    return b"".join(length(payload) + payload for payload in payloads)
