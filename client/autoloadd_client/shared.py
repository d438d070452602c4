"""Reads out of memory that the daemon shares: no system call, no lock (Linux).

The daemon hands out a shard's image, sealed, and its page, which says what of the image is still
true (`autoloadd_protocol.page`). A name is looked up in the mapped image itself; whatever is
doubtful is asked over the socket: the same answer, only slower.

A mapping belongs to the connection that it came over. It stays valid for as long as anyone uses it,
whatever the daemon does; after the daemon's end it is trusted for one lease at most.
"""

from __future__ import annotations

import fcntl
import mmap
import os
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
    ImageHeader,
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
from .reading import DOUBT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connection import Connection
    from .reading import SharedReads

_F_GET_SEALS = 1034
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_WRITE, _SEAL_FUTURE_WRITE = 1, 2, 4, 8, 16
_IMAGE_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_WRITE
_PAGE_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_FUTURE_WRITE


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

    `read(name)` returns the blob, None for a miss, or DOUBT. It never raises; a name that is none
    is doubtful. It does not ask whether the cache is switched off: that is seen when a lease ends.
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
        self.read = _make_read(image, self._words, header, binary_mtime_ns)

    @property
    def is_outdated(self) -> bool:
        """Tell whether the daemon has a newer image, or has ended this page."""
        return self._words[IMAGE_AT] != self.generation or self._words[STATE_AT] != LIVE


def _make_read(
    image: mmap.mmap,
    words: memoryview,
    header: ImageHeader,
    binary_mtime_ns: int | None,
) -> Callable[[str], bytes | None]:
    # A closure: attributes of an object would cost a third more.
    buckets = words[BUCKETS_AT:]
    generation = header.generation
    mask = (header.slots - 1) * SLOT_BYTES
    oldest = -(2**63) if binary_mtime_ns is None else binary_mtime_ns
    unpack, now = SLOT.unpack_from, monotonic_ns
    trusted_until = 0

    def read(name: str) -> bytes | None:
        nonlocal trusted_until
        if now() >= trusted_until:
            trusted_until = 0 if is_switched_off(os.environ) else words[HEARTBEAT_AT] + LEASE_NS
            # A heartbeat to come is of another clock: that of another time namespace.
            if not trusted_until - LEASE_NS <= now() < trusted_until:
                trusted_until = 0
                return DOUBT
        try:
            key = name.encode()
        except (AttributeError, UnicodeEncodeError):
            return DOUBT
        checksum = crc32(key)
        # After the lease: a page that died in between has all its buckets at the top.
        if buckets[checksum & BUCKET_MASK] > generation:
            return DOUBT
        at = checksum & mask
        stored, mtime, start, end = unpack(image, HEADER_BYTES + at)
        while stored != key:
            if not start:
                # A slot holds a name that is longer in another form.
                return DOUBT if len(key) > SLOT_NAME_BYTES else None
            at = (at + SLOT_BYTES) & mask
            stored, mtime, start, end = unpack(image, HEADER_BYTES + at)
        if mtime >= oldest and start:
            return image[start:end]
        # An empty name equals an empty slot.
        return None if start else DOUBT

    return read


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
