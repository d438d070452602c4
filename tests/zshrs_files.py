"""zshrs's file once more, written naively from docs/zshrs.md: what our own reader is held against.

It follows pointers and computes hashes byte by byte, checks nothing, and shares no code with the
client. What Python makes of an impossible file (IndexError, a wrong slice) is up to the caller.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data" / "zshrs"
FIXTURES: dict[str, dict[str, Any]] = json.loads((DATA / "fixtures.json").read_text())

_ALL = 2**64


@dataclass(frozen=True)
class NaiveFile:
    """What a file says. `slots` are (name, mtime, cached_at, blob) in the order of the file."""

    version: bytes
    pointer_width: int
    built_at: int
    displacements: list[int]
    slots: list[tuple[bytes, int, int, bytes]]

    def look_up(self, name: bytes) -> tuple[int, int, bytes] | None:
        """Return what zshrs would find under a name."""
        if not self.slots:
            return None
        value = self.displacements[naive_hash(name) % len(self.slots)]
        if value == 0xFFFFFFFF:
            return None
        slot = naive_hash(name, value) % len(self.slots) if value >= 0x80000000 else value
        found, mtime, cached_at, blob = self.slots[slot]
        return (mtime, cached_at, blob) if found == name else None


@cache
def naive_hash(name: bytes, seed: int | None = None) -> int:
    """Return SeaHash of a name, behind a seed where there is one."""
    data = (b"" if seed is None else seed.to_bytes(4, "little")) + name + b"\xff"
    lanes = [0x08576FB6170B5F5F, 0x587775EEB84A7E46, 0xAC701115428EE569, 0x910FEB91B92BB1CD]
    for number in range(0, len(data), 8):
        word = int.from_bytes(data[number : number + 8], "little")
        lanes[number // 8 % 4] = _diffuse(lanes[number // 8 % 4] ^ word)
    return _diffuse(lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ len(data))


def _diffuse(value: int) -> int:
    value = value * 0x6EED0E9DA4D94A4F % _ALL
    return (value ^ ((value >> 32) >> (value >> 60))) * 0x6EED0E9DA4D94A4F % _ALL


def read_naively(data: bytes, layout: str) -> NaiveFile:
    """Return what a file says, whatever that is."""
    root = len(data) - 48
    if layout == "1.95":
        version_at, built_at, width_at = root, root + 8, root + 24
        key_at, mtime_at, cached_at, blob_at = 0, 8, 16, 24
    else:
        version_at, built_at, width_at = root + 8, root + 24, root + 16
        key_at, mtime_at, cached_at, blob_at = 24, 0, 8, 16
    count = _number(data, "<I", root + 32)
    displacements = root + 36 + _number(data, "<i", root + 36)
    entries = root + 40 + _number(data, "<i", root + 40)
    slots = []
    for entry in range(entries, entries + 32 * count, 32):
        start = entry + blob_at + _number(data, "<i", entry + blob_at)
        blob = data[start : start + _number(data, "<I", entry + blob_at + 4)]
        name = _text(data, entry + key_at)
        mtime = _number(data, "<q", entry + mtime_at)
        slots.append((name, mtime, _number(data, "<q", entry + cached_at), blob))
    return NaiveFile(
        _text(data, version_at),
        _number(data, "<I", width_at),
        _number(data, "<Q", built_at),
        [_number(data, "<I", displacements + 4 * bucket) for bucket in range(count)],
        slots,
    )


def _number(data: bytes, form: str, at: int) -> int:
    value: int = struct.unpack_from(form, data, at)[0]
    return value


def _text(data: bytes, at: int) -> bytes:
    if data[at + 7] < 0x80:
        return data[at : at + data[at + 7]]
    start = at + _number(data, "<i", at + 4)
    return data[start : start + _number(data, "<I", at)]


# What the lanes 1 and 2 start from, XORed: exchanging two words, each XORed with it, exchanges what
# the lanes hold, and their XOR stays.
_EXCHANGE = (0x587775EEB84A7E46 ^ 0xAC701115428EE569).to_bytes(8, "little")


def exchanged(word: bytes) -> bytes:
    return bytes(mine ^ other for mine, other in zip(word, _EXCHANGE, strict=True))


def is_begun_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return exc.reason == "unexpected end of data"
    return True


def words_of_utf8_both_ways(shuffled: list[int], word: bytes = b"") -> Iterator[bytes]:
    """Yield words of 8 bytes that are UTF-8, and exchanged are too."""
    other = bytes(mine ^ theirs for mine, theirs in zip(word, _EXCHANGE, strict=False))
    if not (is_begun_utf8(word) and is_begun_utf8(other)):
        return
    if len(word) < 8:
        for byte in shuffled:
            yield from words_of_utf8_both_ways(shuffled, word + bytes([byte]))
    elif all(each.decode(errors="ignore").encode() == each for each in (word, other)):
        yield word


def make_unseparable_pairs() -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of names, valid UTF-8, whose hashes are equal for every seed."""
    shuffled = Random(7).sample(range(1, 256), 255)
    words = words_of_utf8_both_ways(shuffled)
    while True:
        first, second = next(words), next(words)
        yield b"_fn_" + first + second, b"_fn_" + exchanged(second) + exchanged(first)


def unseparable_pair(*, same_bucket: bool, count: int = 2) -> tuple[bytes, bytes]:
    """Return such a pair, in one bucket of a file of `count` entries, or in two."""
    return next(
        (one, other)
        for one, other in make_unseparable_pairs()
        if (naive_hash(one) % count == naive_hash(other) % count) == same_bucket
    )
