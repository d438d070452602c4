"""SeaHash, 64 bits, as zshrs's file uses it: fixed lanes, over a name and one byte 0xFF.

The words of the hashed bytes go to four lanes in turn; a lane is `diffuse(lane ^ word)`, the hash
`diffuse(lane0 ^ lane1 ^ lane2 ^ lane3 ^ length)`. (SeaHash: https://ticki.github.io/blog/seahash-explained.)
A seed stands in front of the name as four bytes. It reaches the first lane only: of a name, the
other lanes and the length are one number, made once however many seeds are tried.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import NamedTuple

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_PRIME = 0x6EED_0E9D_A4D9_4A4F
_LANES = (
    0x0857_6FB6_170B_5F5F,
    0x5877_75EE_B84A_7E46,
    0xAC70_1115_428E_E569,
    0x910F_EB91_B92B_B1CD,
)
_FIRST_LANE = _LANES[0]
_SEED_BYTES = 4
_END = b"\xff"


class SeededName(NamedTuple):
    """What the seeded hash of a name depends on, apart from the seed.

    Names with equal values have equal hashes for every seed.
    """

    head: int
    """The first lane's first word, its half behind the seed."""
    words: tuple[int, ...]
    """The first lane's other words."""
    rest: int
    """The other lanes and the length, XORed."""


def bucket_hash(name: bytes) -> int:
    """Return the hash of a name without a seed, which chooses its bucket."""
    hashed = name + _END
    lanes = list(_LANES)
    for index, word in enumerate(_words(hashed)):
        lanes[index & 3] = _diffuse(lanes[index & 3] ^ word)
    return _diffuse(lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ len(hashed))


def seeded_name(name: bytes) -> SeededName:
    """Return what is common to a name's hashes with every seed."""
    hashed = bytes(_SEED_BYTES) + name + _END
    words = _words(hashed)
    lanes = list(_LANES)
    for index, word in enumerate(words):
        if index & 3:
            lanes[index & 3] = _diffuse(lanes[index & 3] ^ word)
    return SeededName(words[0], words[4::4], lanes[1] ^ lanes[2] ^ lanes[3] ^ len(hashed))


def seeded_hash(seed: int, name: SeededName) -> int:
    """Return the hash of a name with a seed (u32)."""
    head, words, rest = name
    lane = _diffuse(_FIRST_LANE ^ head ^ seed)
    for word in words:
        lane = _diffuse(lane ^ word)
    return _diffuse(lane ^ rest)


def _words(hashed: bytes) -> tuple[int, ...]:
    count = (len(hashed) + 7) >> 3
    # Zeros at the end change nothing else: the length is in the hash.
    words: tuple[int, ...] = _words_of(count).unpack(hashed.ljust(count << 3, b"\0"))
    return words


@cache
def _words_of(count: int) -> Struct:
    return Struct(f"<{count}Q")


def _diffuse(value: int) -> int:
    value = value * _PRIME & _MASK
    value ^= (value >> 32) >> (value >> 60)
    return value * _PRIME & _MASK
