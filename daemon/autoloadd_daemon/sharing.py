"""Memory that clients read by themselves (Linux): who has which image, the pages, the lease.

A client that is attached looks names up in the sealed image and trusts it as far as the shard's
page says (`autoloadd_protocol.page`). The page is a lease: after a crash a client may go on for
LEASE_NS without noticing. So a successor acknowledges no write before that is over, if a mark says
that anybody may have been attached. There is one in the cache directory and one beside the socket:
who removes a cache and kills its daemon, or has another cache served in its place, leaves the
other. A clean end retires the pages first, then takes the marks away; not while a page of this
daemon's own predecessor may still be trusted.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from autoloadd_protocol.errors import BUSY, RequestError
from autoloadd_protocol.image import VERSION as IMAGE_VERSION
from autoloadd_protocol.page import IS_SUPPORTED, LEASE_NS, PAGE_BYTES, Page
from autoloadd_protocol.page import VERSION as PAGE_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .session import Session
    from .shard import Shard
    from .storage.files import Files

_MARK = ".shared"
_F_SEAL_FUTURE_WRITE = 0x0010
_IMAGES_PER_SHARD = 3
"""Images of one shard that clients may hold at once: 50 clients through 50 builds hold no more."""


class _Held(NamedTuple):
    """What a client has mapped."""

    shard: Shard
    generation: int
    image_bytes: int


class SharedPage:
    """A shard's page in a memfd that only this process can write to. Raises OSError."""

    def __init__(self, *, epoch: int, image_generation: int) -> None:
        self.descriptor = os.memfd_create("autoloadd-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, PAGE_BYTES)
            self._map = mmap.mmap(self.descriptor, PAGE_BYTES)
            # After the map: it stays writable. Before Linux 5.1 there is no such seal: EINVAL.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals | _F_SEAL_FUTURE_WRITE)
        except OSError:
            os.close(self.descriptor)
            raise
        words = memoryview(self._map).cast("Q")
        self.page = Page(words, epoch=epoch, image_generation=image_generation)

    def retire(self) -> None:
        """End the page for everyone who has it, and close the descriptor."""
        self.page.retire()
        os.close(self.descriptor)


class Sharing:
    """The pages of a daemon, and the clients that are attached."""

    def __init__(self, files: Files, directories: Sequence[str]) -> None:
        self._files = files
        self._marks = [f"{directory}/{_MARK}" for directory in directories]
        self._is_marked = any(map(os.path.lexists, self._marks))
        self._held: dict[Session, _Held] = {}
        self._pages: dict[Shard, SharedPage] = {}
        self._are_set = self._is_over = False
        self.trusted_until_ns = time.monotonic_ns() + LEASE_NS if self._is_marked else 0
        """Until then (CLOCK_MONOTONIC) a client may trust a page of a daemon that was killed."""

    @property
    def features(self) -> list[str]:
        """What `hello` says of it."""
        return ["attach"] if IS_SUPPORTED and hasattr(os, "memfd_create") else []

    @property
    def pinned(self) -> list[int]:
        """Lengths in bytes of the images that clients hold and that no shard has any more."""
        held = {(h.shard, h.generation): h.image_bytes for h in self._held.values()}
        return [
            size
            for (shard, generation), size in held.items()
            if shard.image is None or shard.image.header.generation != generation
        ]

    def attach(self, session: Session, shard: Shard) -> tuple[dict[str, int], tuple[int, int]]:
        """Return the answer, and the descriptors of image and page: still ours.

        Raises RequestError `busy` where that is not possible now.
        """
        if self._is_over:
            raise RequestError(BUSY, "this daemon shares nothing any more")
        image = shard.visible_image
        if image is None or image.descriptor is None or not IS_SUPPORTED:
            raise RequestError(BUSY, "there is no image to share yet")
        generation = image.header.generation
        others = {h.generation for s, h in self._held.items() if h.shard is shard and s != session}
        if len(others | {generation}) > _IMAGES_PER_SHARD:
            raise RequestError(BUSY, f"clients hold {len(others)} older images of this shard")
        page = self._page_of(shard)
        image_bytes = image.header.total_bytes
        self._held[session] = _Held(shard, generation, image_bytes)
        page.page.beat(time.monotonic_ns())
        answer = {
            "image_version": IMAGE_VERSION,
            "page_version": PAGE_VERSION,
            "epoch": shard.epoch,
            "generation": generation,
            "image_bytes": image_bytes,
            "page_bytes": PAGE_BYTES,
        }
        return answer, (image.descriptor, page.descriptor)

    def detach(self, session: Session) -> None:
        """Note that a client is gone, or has another producer: it unmaps what it had."""
        self._held.pop(session, None)

    def beat(self, now_ns: int) -> None:
        """Vouch for the pages of all shards that someone is attached to."""
        for shard in {held.shard for held in self._held.values()}:
            shard.last_used_ns = now_ns
            self._pages[shard].page.beat(now_ns)

    def drop(self, shard: Shard) -> None:
        """End the page of a shard that goes: before anyone can see that it is gone."""
        page = self._pages.pop(shard, None)
        if page is not None:
            self._held = {s: held for s, held in self._held.items() if held.shard is not shard}
            shard.page = None
            page.retire()

    def end(self) -> None:
        """End all pages, and share nothing any more. The mark stays."""
        self._is_over = True
        for shard in list(self._pages):
            self.drop(shard)

    def take_marks_away(self) -> None:
        """Tell a successor that it need not wait. After `end`, in directories that are ours."""
        assert self._is_over, "pages may be trusted"
        if self._is_marked and time.monotonic_ns() >= self.trusted_until_ns:
            for mark in self._marks:
                with suppress(OSError):
                    # Where it stays, a successor waits for nothing: that is slow, not wrong.
                    self._files.remove(mark)

    def _page_of(self, shard: Shard) -> SharedPage:
        if shard not in self._pages:
            self._set_marks()
            assert shard.image is not None
            generation = shard.image.header.generation
            try:
                page = SharedPage(epoch=shard.epoch, image_generation=generation)
            except OSError as exc:
                raise RequestError(BUSY, f"no memory can be shared: {exc.strerror}") from exc
            shard.show_on(page.page)
            self._pages[shard] = page
        return self._pages[shard]

    def _set_marks(self) -> None:
        """Make sure that a successor knows. No sync: after a power loss no client is left."""
        if self._are_set:
            return
        for mark in self._marks:
            try:
                if not os.path.lexists(mark):
                    os.close(self._files.create(mark))
            except OSError as exc:
                raise RequestError(BUSY, f"{mark}: {exc.strerror}") from exc
            self._is_marked = True
        self._are_set = True
