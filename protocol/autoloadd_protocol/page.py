"""The page: tells a client that maps a shard's image whether it may still answer from it.

A sealed memfd of 36,864 bytes that the daemon stores into and clients map read-only. All words are
8 bytes, aligned, little-endian, each stored and loaded at once. `docs/storage.md` has the table.

    word 0      magic
    word 1      version, in the low half; number of buckets, in the high half
    word 2      the shard's epoch
    word 3      state: 1 live, 2 dead
    word 4      generation of the newest image
    word 5      heartbeat: CLOCK_MONOTONIC, ns
    word 512    4,096 buckets: the generation of the last change of a name with this `crc32(name)`

The page only ever invalidates. An entry of an image may be served when the page is alive and the
name's bucket is not above the image's generation. It is a lease: who has read a heartbeat may rely
on the page for LEASE_NS after it. A page that dies has all its buckets at the top, so that nobody
need look at the state.
"""

from __future__ import annotations

from sys import byteorder
from typing import TYPE_CHECKING
from zlib import crc32

from .errors import PageError

if TYPE_CHECKING:
    from collections.abc import Collection

MAGIC = int.from_bytes(b"ALDPAGE\0", "little")
VERSION = 1
BUCKETS = 4096
BUCKET_MASK = BUCKETS - 1
BUCKETS_AT = 512
PAGE_BYTES = 8 * (BUCKETS_AT + BUCKETS)

HEARTBEAT_NS = 200_000_000
"""How often the daemon stores the time while anyone is attached."""

LEASE_NS = 600_000_000
"""How long a heartbeat is trusted. A successor acknowledges no write before that is over."""

LIVE = 1
DEAD = 2
NEVER = 2**64 - 1
"""A generation above all others."""

MAGIC_AT, VERSION_AT, EPOCH_AT, STATE_AT, IMAGE_AT, HEARTBEAT_AT = range(6)

IS_SUPPORTED = byteorder == "little"


class Page:
    """The daemon's side: what it stores. `words` is the whole page, cast to 8-byte words."""

    def __init__(self, words: memoryview, *, epoch: int, image_generation: int) -> None:
        self._words = words
        words[VERSION_AT] = VERSION | BUCKETS << 32
        words[EPOCH_AT] = epoch
        words[IMAGE_AT] = image_generation
        words[STATE_AT] = LIVE
        words[MAGIC_AT] = MAGIC

    def touch(self, name: bytes, generation: int) -> None:
        """Note a change of a name: before anyone can see it."""
        self._words[BUCKETS_AT + (crc32(name) & BUCKET_MASK)] = generation

    def touch_each(self, names: Collection[bytes], generation: int) -> None:
        """Note changes of names: of all, where that takes less time."""
        if len(names) >= BUCKETS:
            self.touch_all(generation)
            return
        for name in names:
            self.touch(name, generation)

    def touch_all(self, generation: int) -> None:
        """Note a change of any number of names: a clear, a replace, an eviction.

        One by one: a word is never seen half stored. Takes 0.2 ms.
        """
        words = self._words
        for bucket in range(BUCKETS_AT, BUCKETS_AT + BUCKETS):
            if words[bucket] < generation:
                words[bucket] = generation

    def offer_image(self, generation: int) -> None:
        """Say that there is a newer image to attach to."""
        self._words[IMAGE_AT] = generation

    def beat(self, now_ns: int) -> None:
        """Vouch for the page for another LEASE_NS."""
        self._words[HEARTBEAT_AT] = now_ns

    def retire(self) -> None:
        """End the page: nobody trusts it from now on, at once."""
        self._words[STATE_AT] = DEAD
        self._words[HEARTBEAT_AT] = 0
        self.touch_all(NEVER)


def check_page(words: memoryview, *, epoch: int) -> None:
    """Check what a client mapped. Raises PageError: it goes on asking over the socket."""
    if len(words) * 8 != PAGE_BYTES or words[MAGIC_AT] != MAGIC:
        raise PageError("no page: its size or magic does not match")
    if words[VERSION_AT] != VERSION | BUCKETS << 32:
        raise PageError(f"page version {words[VERSION_AT]:#x}, this program knows {VERSION}")
    if words[EPOCH_AT] != epoch:
        raise PageError("the page belongs to another life of the shard")
    if words[STATE_AT] != LIVE:
        raise PageError("the page is dead")
