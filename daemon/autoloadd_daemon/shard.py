"""A shard in memory: an image, and the changes since. Plain code, no waiting.

Reads look at the changes, then at the image. While an image is being built the changes are in two
layers: those it will hold, and those made since.
"""

from __future__ import annotations

import math
from collections import ChainMap
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from autoloadd_protocol.image import MAX_INDEX_BYTES

from .storage.image_file import ImageFile
from .storage.images import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from autoloadd_protocol.page import Page
    from autoloadd_protocol.producer import Producer
    from autoloadd_protocol.record import Record

    from .storage.images import SealedImage
    from .storage.recovery import Recovered

_BUILD_BYTES = 1024 * 1024
_BUILD_FRACTION = 8


class Frozen(NamedTuple):
    """What a shard held at one moment. Images and records never change."""

    changes: Mapping[bytes, Record | None]
    image: SealedImage | ImageFile | None

    def look_up(self, name: bytes) -> Record | None:
        """Return what was stored under a name."""
        if name in self.changes:
            return self.changes[name]
        return None if self.image is None else self.image.look_up(name)

    def records_older_than(self, binary_mtime_ns: int) -> Iterator[bool]:
        """Yield for each record whether it is older than a time, in ns; those of an image that
        holds no older one are left out.
        """
        for record in self.changes.values():
            if record is not None:
                yield record.binary_mtime_ns < binary_mtime_ns
        image = self.image
        assert not isinstance(image, ImageFile), "the image is not checked yet"
        if image is None or image.header.oldest_mtime_ns >= binary_mtime_ns:
            return
        for name, found in image.entries():
            if name not in self.changes:
                yield found.binary_mtime_ns < binary_mtime_ns


class Shard:
    """All entries of one producer.

    Only the writer calls what changes anything. `generation` grows with every write, also with
    one that the files refused: a number is never used twice.
    """

    def __init__(self, producer: Producer, *, epoch: int, built_at_ns: int) -> None:
        self.producer = producer
        self.id = producer.shard_id()
        self.epoch = epoch
        self.generation = 0
        self.built_at_ns = built_at_ns
        self.image: SealedImage | ImageFile | None = None
        self.page: Page | None = None
        """What clients that map the image are told, once somebody does."""
        self.is_image_wanted = False
        self.entries = 0
        self.blob_bytes = 0
        self.hits = 0
        self.misses = 0
        self.evicted = 0
        self.last_used_ns = 0
        self._floor = 0
        self._changes: dict[bytes, Record | None] = {}
        self._building: dict[bytes, Record | None] = {}
        self._change_bytes = 0
        self._building_bytes = 0
        self._announce: Callable[[Page], None] | None = None

    def take_over(self, recovered: Recovered) -> None:
        """Go on where recovery found the shard."""
        self.generation = recovered.generation
        self.image = recovered.image
        self._floor = recovered.floor
        self._changes = recovered.changes
        self._change_bytes = _stored_bytes(recovered.changes.values())
        self._count_again()

    def take_loaded(self, image: SealedImage) -> None:
        """Go on with the image in memory, once all of its file was checked."""
        self.image = image
        self._count_again()

    # Reading

    def look_up(self, name: bytes) -> Record | None:
        """Return what is stored under a name."""
        if name in self._changes:
            return self._changes[name]
        if name in self._building:
            return self._building[name]
        image = self.image
        # As `visible_image` says, which takes longer to ask.
        if image is None or image.header.generation < self._floor:
            return None
        return image.look_up(name)

    def frozen(self) -> Frozen:
        """Return what is stored now, for whoever reads it in steps while the shard changes."""
        return Frozen({**self._building, **self._changes}, self.visible_image)

    @property
    def visible_image(self) -> SealedImage | ImageFile | None:
        """The image, unless a clear or a replace hides it."""
        if self.image is None or self.image.header.generation < self._floor:
            return None
        return self.image

    @property
    def _whole_image(self) -> SealedImage | None:
        """The same, for what goes through all of it: such requests wait until it is checked."""
        image = self.visible_image
        assert not isinstance(image, ImageFile), "the image is not checked yet"
        return image

    @property
    def image_bytes(self) -> int:
        """Length of the image, also of a hidden one."""
        return 0 if self.image is None else self.image.header.total_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes that the shard takes: the image (also a hidden one) and the changes.

        Those with their places in the index of the next image, which is about what Python takes.
        """
        index_bytes = (len(self._changes) + len(self._building)) * MAX_INDEX_BYTES
        return self.image_bytes + self._change_bytes + self._building_bytes + index_bytes

    @property
    def lasting_bytes(self) -> int:
        """The same without an image that is hidden: the next one takes its place."""
        hidden = self.image_bytes if self.visible_image is None else 0
        return self.stored_bytes - hidden

    def list_names(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        """Return up to `limit` (name, record), sorted by name, strictly after `after`."""
        changes = self._all_changes()
        chosen = sorted(name for name in changes if name.startswith(prefix) and name > after)
        changed = ((name, changes[name]) for name in chosen)
        unchanged = (entry for entry in self._image_from(prefix, after) if entry[0] not in changes)
        both: Iterator[tuple[bytes, Record | None]] = merge(changed, unchanged, key=_name_of)
        present = ((name, record) for name, record in both if record is not None)
        return list(islice(present, limit))

    def _all_changes(self) -> Mapping[bytes, Record | None]:
        if not self._building:
            return self._changes
        return ChainMap(self._changes, self._building)

    def _image_from(self, prefix: bytes, after: bytes) -> Iterator[tuple[bytes, Record]]:
        image = self._whole_image
        if image is None:
            return
        # A name that equals the prefix counts; one that equals `after` does not.
        first = image.first_after(after) if after >= prefix else image.first_from(prefix)
        for index in range(first, len(image)):
            entry = image.entry_at(index)
            if not entry[0].startswith(prefix):
                return
            yield entry

    # Changing: for the writer only

    # Behind `begin_changes`: nobody may see a change while the page vouches for what was before.

    def put(self, records: Iterable[tuple[bytes, Record]]) -> None:
        """Store entries."""
        for name, record in records:
            self._set(name, record)

    def delete(self, names: Sequence[bytes]) -> int:
        """Remove entries; return how many there were."""
        before = self.entries
        for name in names:
            if self.look_up(name) is not None:
                self._set(name, None)
        return before - self.entries

    def clear(self, generation: int) -> int:
        """Remove all entries; return how many there were."""
        count = self.entries
        self._floor = generation
        self._changes, self._building = {}, {}
        self._change_bytes = self._building_bytes = 0
        self.entries = self.blob_bytes = 0
        return count

    def begin_changes(self, announce: Callable[[Page], None]) -> None:
        """Have `announce` tell the page of changes that go to the journal now.

        A page that is made before they are ended is told too: after a crash in between, a successor
        may serve them.
        """
        self._announce = announce
        if self.page is not None:
            announce(self.page)

    def end_changes(self) -> None:
        """Note that the changes begun are made, or refused."""
        self._announce = None

    def show_on(self, page: Page) -> None:
        """Keep a page up to date from now on."""
        for name in self._all_changes():
            page.touch(name, self.generation)
        if self._announce is not None:
            self._announce(page)
        self.page = page

    def _set(self, name: bytes, record: Record | None) -> None:
        # Taken out first: the order of the dict is the order of generations, which a build keeps.
        if name in self._changes:
            old = self._changes.pop(name)
            if old is not None:
                self._change_bytes -= old.stored_bytes
        else:
            old = self.look_up(name)
        if old is not None:
            self.entries -= 1
            self.blob_bytes -= old.blob_bytes
        self._changes[name] = record
        if record is not None:
            self.entries += 1
            self.blob_bytes += record.blob_bytes
            self._change_bytes += record.stored_bytes

    # Building images

    def build_pressure(self, journal_bytes: int) -> float:
        """Return how much a new image is wanted: above 1 it is due.

        It is the size of the changes in relation to max(1 MiB, 1/8 of the image).
        """
        image_bytes = self.image_bytes
        if self.visible_image is None and (image_bytes or self.is_image_wanted):
            return math.inf
        due_at = max(_BUILD_BYTES, image_bytes // _BUILD_FRACTION)
        return max(self._change_bytes, journal_bytes) / due_at

    def begin_build(self, keep_bytes: int | None) -> Snapshot:
        """Return what an image of this moment is built from. One build at a time."""
        assert not self._building, "a build is under way"
        self._building, self._changes = self._changes, {}
        self._building_bytes, self._change_bytes = self._change_bytes, 0
        return Snapshot(
            self.producer,
            self.epoch,
            self.generation,
            self.built_at_ns,
            self._whole_image,
            self._building,
            keep_bytes,
        )

    def finish_build(self, image: SealedImage, evicted: int) -> None:
        """Take a built image; one that a clear overtook stays hidden by it."""
        if self.page is not None:
            if evicted:
                # Who has an older image would still find what is gone.
                self.page.touch_all(image.header.generation)
            self.page.offer_image(image.header.generation)
        self.image = image
        self.is_image_wanted = False
        self._building = {}
        self._building_bytes = 0
        self.evicted += evicted
        if evicted:
            self._count_again()

    def abandon_build(self) -> None:
        """Go on without the image that could not be built."""
        newer, self._changes = self._changes, self._building
        self._building = {}
        for name in newer:
            self._changes.pop(name, None)
        self._changes.update(newer)
        self._building_bytes = 0
        self._change_bytes = _stored_bytes(self._changes.values())

    def _count_again(self) -> None:
        image = self.visible_image
        self.entries = 0 if image is None else len(image)
        self.blob_bytes = 0 if image is None else image.header.blob_bytes
        for name, record in self._changes.items():
            old = None if image is None else image.look_up(name)
            if old is not None:
                self.entries -= 1
                self.blob_bytes -= old.blob_bytes
            if record is not None:
                self.entries += 1
                self.blob_bytes += record.blob_bytes


def _stored_bytes(records: Iterable[Record | None]) -> int:
    return sum(record.stored_bytes for record in records if record is not None)


def _name_of(entry: tuple[bytes, Record | None]) -> bytes:
    return entry[0]
