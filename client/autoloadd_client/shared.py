"""Reads out of memory that the daemon shares: no system call, no lock (Linux).

The daemon hands out a shard's image, sealed, and its page, which says what of the image is still
true (`autoloadd_protocol.page`). A name is looked up in the mapped image itself; whatever is
doubtful is asked over the socket: the same answer, only slower (`reading.make_reader`).

A mapping belongs to the connection that it came over. It stays valid for as long as anyone uses it,
whatever the daemon does; after the daemon's end it is trusted for one lease at most.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from functools import partial
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING
from weakref import WeakSet
from zlib import crc32

from autoloadd_protocol.errors import ImageError, PageError
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.image import (
    HEADER_BYTES,
    SLOT,
    SLOT_BYTES,
    SLOT_NAME_BYTES,
    parse_header,
)
from autoloadd_protocol.image import VERSION as IMAGE_VERSION
from autoloadd_protocol.messages import encode_request
from autoloadd_protocol.page import (
    BUCKET_MASK,
    BUCKETS_AT,
    HEARTBEAT_AT,
    IMAGE_AT,
    LEASE_NS,
    LIVE,
    PAGE_BYTES,
    STATE_AT,
    check_page,
)
from autoloadd_protocol.page import VERSION as PAGE_VERSION
from autoloadd_protocol.rendezvous import is_switched_off

from .calls import decode_result, require_map
from .errors import ForgedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Connection
    from .reading import Lookup, SharedReads, Unpack

_F_GET_SEALS = 1034
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_WRITE, _SEAL_FUTURE_WRITE = 1, 2, 4, 8, 16
_IMAGE_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_WRITE
_PAGE_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE

_UNPACK_SLOT = Struct(f"<{HEADER_BYTES}x{SLOT.format[1:]}").unpack_from
"""A slot by its place in the table. Skipping the header is free here, an addition is not."""

_UNPACK_FRESH: Unpack = Struct(f"<{HEADER_BYTES}x{SLOT.format[1:].replace('q', '8x')}").unpack_from
"""The same without the time, which need not be read where every entry of the image is fresh: that
saves 45 ns of 630. Where one is not, comparing costs 100."""

_attached: WeakSet[SharedReads] = WeakSet()


def _detach_in_child() -> None:
    # A mapping belongs to its connection, and that to the parent.
    for reads in list(_attached):
        reads.begin_anew()


os.register_at_fork(after_in_child=_detach_in_child)


def attach(
    reads: SharedReads, connection: Connection, binary_mtime_ns: int | None, deadline: float
) -> Attachment:
    """Ask for the newest image of the connection's shard, and map it. Raises CacheError.

    `reads` lets go of it if this process forks.
    """
    request = encode_frame(
        encode_request(connection.next_id(), "attach", [[IMAGE_VERSION], [PAGE_VERSION]])
    )
    answer, descriptors = connection.exchange_for_descriptors(request, deadline)
    try:
        image, page = map_descriptors(descriptors)
        result = require_map(decode_result(connection, answer, deadline))
        attachment = Attachment(image, page, epoch=result["epoch"], binary_mtime_ns=binary_mtime_ns)
    except (ImageError, PageError, KeyError, OSError) as exc:
        raise ForgedError(f"the daemon shares what cannot be used: {exc}") from exc
    _attached.add(reads)
    return attachment


class Attachment:
    """One mapped image with its page. Raises ImageError or PageError where it cannot be trusted.

    `lookup` and `view_lookup` are for readers that return bytes and memoryviews.
    """

    def __init__(
        self,
        image: mmap.mmap,
        page: mmap.mmap,
        *,
        epoch: int,
        binary_mtime_ns: int | None,
    ) -> None:
        header = parse_header(image[:HEADER_BYTES])
        if header.total_bytes != len(image) or header.epoch != epoch:
            raise ImageError("the image is not the one that the daemon announced")
        self._words = memoryview(page).cast("Q")
        check_page(self._words, epoch=epoch)
        self.generation = header.generation
        self._mask = (header.slots - 1) * SLOT_BYTES
        self._unpack: Unpack = _UNPACK_FRESH
        if binary_mtime_ns is not None and header.oldest_mtime_ns < binary_mtime_ns:
            self._unpack = partial(_unpack_compared, binary_mtime_ns)
        self.lookup = self._make_lookup(image)
        self.view_lookup = self._make_lookup(memoryview(image))

    @property
    def is_outdated(self) -> bool:
        """Tell whether the daemon has a newer image, or has ended this page."""
        return self._words[IMAGE_AT] != self.generation or self._words[STATE_AT] != LIVE

    def _make_lookup(self, image: mmap.mmap | memoryview) -> Lookup:
        trust = partial(_trusted_until, self._words)
        tools = trust, crc32, BUCKET_MASK, SLOT_BYTES, SLOT_NAME_BYTES
        buckets = self._words[BUCKETS_AT:]
        return buckets, self.generation, self._mask, self._unpack, image, tools


def _unpack_compared(oldest: int, image: mmap.mmap | memoryview, at: int) -> tuple[bytes, int, int]:
    stored, mtime, start, end = _UNPACK_SLOT(image, at)
    return stored, -1 if start and mtime < oldest else start, end


def _trusted_until(words: memoryview) -> int:
    """Return until when (ns) a page may be trusted; 0: not at all.

    Also not while the cache is switched off: gets ask then, and that is refused.
    """
    heartbeat = words[HEARTBEAT_AT]
    # One to come is of another clock: that of another time namespace.
    if heartbeat > monotonic_ns() or is_switched_off(os.environ):
        return 0
    return heartbeat + LEASE_NS


def map_descriptors(descriptors: Sequence[int]) -> tuple[mmap.mmap, mmap.mmap]:
    """Return image and page, mapped to be read. Closes the descriptors.

    Raises ImageError or PageError for what could change or shrink under the reader, OSError where
    there is no room to map it.
    """
    try:
        if len(descriptors) != 2:
            raise PageError(f"expected 2 descriptors, got {len(descriptors)}")
        image, page = descriptors
        if _seals_of(image) & _IMAGE_SEALS != _IMAGE_SEALS:
            raise ImageError("the image is not sealed")
        if _seals_of(page) & _PAGE_SEALS != _PAGE_SEALS or os.fstat(page).st_size != PAGE_BYTES:
            raise PageError("the page is not sealed, or of another size")
        if os.fstat(image).st_size < HEADER_BYTES:
            raise ImageError("the image has no header")
        return (
            mmap.mmap(image, 0, prot=mmap.PROT_READ),
            mmap.mmap(page, PAGE_BYTES, prot=mmap.PROT_READ),
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _seals_of(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        return 0  # no memfd
