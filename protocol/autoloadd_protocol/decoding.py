"""The few forms of MessagePack that hot paths read where they lie, without the msgpack package.

Nothing is checked that a checksum, or the peer's whole answer, vouches for already: what does not
begin as expected raises ValueError, what ends too early IndexError or a short value.
"""

from __future__ import annotations

_STR_SIZES = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BIN_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_INT_SIZES = {
    0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False),
    0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True),
}  # fmt: skip


def str_span(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return where the bytes of the str at `at` begin, and how many there are; -1: it is no str."""
    if 0xA0 <= buffer[at] < 0xC0:
        return at + 1, buffer[at] - 0xA0
    return _span(buffer, at, _STR_SIZES)


def bin_span(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return where the bytes of the bin at `at` begin, and how many there are; -1: it is no bin."""
    return _span(buffer, at, _BIN_SIZES)


def decode_int(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the integer at `at`, and where it ends. Raises ValueError where there is none."""
    first = buffer[at]
    if first < 0x80:
        return first, at + 1
    if first >= 0xE0:
        return first - 0x100, at + 1
    if first not in _INT_SIZES:
        raise ValueError(f"0x{first:02x} begins no integer")
    width, signed = _INT_SIZES[first]
    end = at + 1 + width
    return int.from_bytes(buffer[at + 1 : end], "big", signed=signed), end


def _span(buffer: bytes | memoryview, at: int, sizes: dict[int, int]) -> tuple[int, int]:
    width = sizes.get(buffer[at])
    if width is None:
        return at, -1
    start = at + 1 + width
    return start, int.from_bytes(buffer[at + 1 : start], "big")
