"""Values that prove themselves: from its bytes alone anyone can tell whether one is whole.

4 bytes  crc32 of all that follows
8 bytes  the counter: how often this name was written before
the name in UTF-8, a NUL, then filler that name and counter choose
"""

from __future__ import annotations

import zlib
from random import Random

HEAD_BYTES = 12

_FILLER = Random("filler").randbytes(1 << 18)
# Made once: drawing random bytes for each value would cost more than storing it.


class WrongAnswerError(Exception):
    """The cache answered bytes that nobody stored there. The message says which and where."""


def make_value(name: str, counter: int, size: int) -> bytes:
    """Return the value that `name` has after `counter` writes.

    It has `size` bytes, but room for its head, and at most 128 KiB of filler.
    """
    identity = name.encode() + b"\0"
    wanted = min(max(0, size - HEAD_BYTES - len(identity)), len(_FILLER) // 2)
    # It starts elsewhere for each write, so a piece of an older value in its place is seen.
    start = zlib.crc32(identity, counter) % (len(_FILLER) - wanted)
    body = counter.to_bytes(8, "big") + identity + _FILLER[start : start + wanted]
    return zlib.crc32(body).to_bytes(4, "big") + body


def read_counter(name: str, value: bytes) -> int:
    """Return the counter of a value found under `name`.

    Raises WrongAnswerError where the value is torn, mixed up, or belongs to another name.
    """
    if len(value) < HEAD_BYTES or zlib.crc32(value[4:]) != int.from_bytes(value[:4], "big"):
        raise WrongAnswerError(f"{name}: {len(value):,} bytes whose checksum does not match")
    if not value[HEAD_BYTES:].startswith(name.encode() + b"\0"):
        raise WrongAnswerError(f"{name}: got the value of another name: {value[:60]!r}")
    return int.from_bytes(value[4:HEAD_BYTES], "big")
