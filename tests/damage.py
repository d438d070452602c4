"""Files that something happened to: bits flipped, cut, grown, parts exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


def damage(data: bytes, random: Random) -> bytes:
    """Return the data with some damage of one kind; it may happen to be as before."""
    damaged = bytearray(data)
    do = random.choice(KINDS)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        if damaged:
            do(damaged, random)
    return bytes(damaged)


def _place(data: bytearray, random: Random) -> int:
    """Return a position; as often as not one near the end, where these files have their index."""
    size = len(data)
    return random.randrange(max(0, size - 176) if random.random() < 0.5 else 0, size)


def _flip_a_bit(data: bytearray, random: Random) -> None:
    data[_place(data, random)] ^= 1 << random.randrange(8)


def _set_a_byte(data: bytearray, random: Random) -> None:
    data[_place(data, random)] = random.choice(
        (0, 1, 7, 8, 0x7F, 0x80, 0xFF, random.randrange(256))
    )


def _shift_a_number(data: bytearray, random: Random) -> None:
    at = _place(data, random) & ~3
    number = int.from_bytes(data[at : at + 4], "little")
    number += random.choice((-32, -8, -4, -1, 1, 4, 8, 32))
    data[at : at + 4] = (number % 2**32).to_bytes(4, "little")[: len(data) - at]


def _cut_the_end(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _cut_the_beginning(data: bytearray, random: Random) -> None:
    del data[: random.choice((1, 4, 8, 16))]


def _take_out(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.choice((1, 4, 8, 32))]


def _put_in(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.randbytes(random.choice((1, 4, 8, 32)))


def _repeat(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    size = random.choice((4, 8, 32))
    data[at:at] = data[at : at + size]


def _exchange(data: bytearray, random: Random) -> None:
    one, other = (_place(data, random) & ~7 for _ in range(2))
    first, second = data[one : one + 8], data[other : other + 8]
    if len(first) == len(second):
        data[one : one + 8], data[other : other + 8] = second, first


def _blank(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    size = min(random.choice((8, 64, 512)), len(data) - at)
    data[at : at + size] = bytes(size)


KINDS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_a_bit,
    _set_a_byte,
    _shift_a_number,
    _cut_the_end,
    _cut_the_beginning,
    _take_out,
    _put_in,
    _repeat,
    _exchange,
    _blank,
)
