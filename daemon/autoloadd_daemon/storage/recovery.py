"""Reading a shard's directory: the image, then what the journals say happened since.

A bad frame ends a journal. Behind the last offset that is known to have been synced it is a torn
tail: unsynced pages reach the disk in any order, and what they held was never promised. Before that
offset it is damage: what lies before it is kept, and the file is set aside and reported.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import DamageError, StorageError, UnreadableError

from .bulks import CommittedBulk, bulk_name, read_bulk
from .files import COPY_SUFFIX
from .image_file import ImageFile, open_image
from .images import IMAGE_NAME, TEMPORARY_NAME, Snapshot, build_image, load_image
from .journal import Journal
from .records import CLEAR, DELETE, HEADER_BYTES, new_epoch
from .scanning import scan_journals
from .set_aside import SetAside, clear_away, set_aside_copy, set_aside_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoloadd_protocol.producer import Producer
    from autoloadd_protocol.record import Record

    from .files import Files
    from .images import SealedImage
    from .records import BulkFile, Frame
    from .scanning import JournalScan, JournalScans

_BULK = re.compile(r"bulk\.\d+")
LEFT_OVER = re.compile(rf"staged\.\d+|(journal|bulk)\.\d+{re.escape(COPY_SUFFIX)}")
_OUTDATED = "a journal behind it is missing: what it holds may be outdated"


class Recovered:
    """A shard as its files have it. `changes` win over `image`, which a `floor` above it hides."""

    def __init__(
        self,
        producer: Producer,
        epoch: int,
        generation: int,
        built_at_ns: int,
        image: SealedImage | ImageFile | None,
    ) -> None:
        self.producer = producer
        self.epoch = epoch
        self.generation = generation
        self.built_at_ns = built_at_ns
        self.image = image
        self.floor = 0
        self.changes: dict[bytes, Record | None] = {}
        self.journals: list[Journal] = []
        self.next_sequence = 1
        self.previous_end = 0
        self.last_bulk = 0
        self.torn_bytes = 0
        self.set_aside: list[SetAside] = []
        self.missing: str | None = None

    def change(self, changes: Mapping[bytes, Record | None]) -> None:
        """Apply puts, and deletes as None."""
        for name in changes:
            # Taken out first: the order of the dict is the order of generations.
            self.changes.pop(name, None)
        self.changes.update(changes)

    def hide_everything(self, generation: int) -> None:
        """Apply a clear: nothing from before `generation` is visible."""
        self.changes = {}
        self.floor = generation

    def has_entries(self) -> bool:
        """Tell whether there is any entry, in what was applied so far."""
        if any(record is not None for record in self.changes.values()):
            return True
        base = self.snapshot().base
        # What is left are deletes: each takes at most one entry of the image.
        return base is not None and any(name not in self.changes for name, _ in base.entries())

    def snapshot(self) -> Snapshot:
        """Return what an image of this shard is built from."""
        base = self.image
        assert not isinstance(base, ImageFile), "what is not checked is not copied"
        if base is not None and base.header.generation < self.floor:
            base = None
        return Snapshot(
            self.producer, self.epoch, self.generation, self.built_at_ns, base, self.changes
        )


class Reading:
    """What a shard's files hold and what is wrong with them. Nothing was changed to find out.

    `shard` is None where the files hold none. `kept` are the journals that it consists of, beside
    the image; `damaged` are (path, reason) of those that are to be set aside.
    """

    def __init__(self, journals: JournalScans, image_problem: str | None) -> None:
        self.journals = journals
        self.image_problem = image_problem
        self.damaged = list(journals.damaged)
        self.shard: Recovered | None = None
        self.kept: list[JournalScan] = []

    @property
    def is_flawed(self) -> bool:
        """Tell whether anything is damaged or missing: what is left must be saved."""
        is_missing = self.shard is not None and self.shard.missing is not None
        return bool(self.damaged) or self.image_problem is not None or is_missing


def read_shard(files: Files, directory: str, later_bytes: int | None = None) -> Reading:
    """Return what the files in a directory hold. Raises OSError when they cannot be read.

    An image larger than `later_bytes` is only opened: its header is good, the rest not looked at.
    """
    # The journals first: an image that a running daemon writes meanwhile can only cover more.
    journals = scan_journals(files, directory)
    image, image_problem = _load_image(directory, later_bytes)
    reading = Reading(journals, image_problem)
    if image is not None or journals.scans:
        reading.shard = _begin(image, journals.scans, image_is_damaged=image_problem is not None)
        _replay(files, directory, reading.shard, reading)
    return reading


def recover_shard(
    files: Files, directory: str, later_bytes: int | None = None
) -> Recovered | list[SetAside]:
    """Return the shard that a directory holds; without one, the files that were set aside.

    Where nothing is wrong so far, an image larger than `later_bytes` is left to be checked later.
    Raises OSError when the directory cannot be read, StorageError when damage cannot be put right.
    """
    cleared = clear_away(files, f"{directory}/{TEMPORARY_NAME}")
    reading = read_shard(files, directory, later_bytes)
    if reading.is_flawed and later_bytes is not None:
        reading = read_shard(files, directory)
    if reading.journals.not_begun is not None:
        files.remove(reading.journals.not_begun)
    shard, image_problem = reading.shard, reading.image_problem
    if shard is None:
        if image_problem is not None:
            reading.damaged.append((f"{directory}/{IMAGE_NAME}", image_problem))
        cleared += _sweep(files, directory, reading)
        return cleared + _set_aside_damaged(files, directory, reading)
    shard.journals = [_inherit(files, directory, scan) for scan in reading.kept]
    numbers = [bulk.number for bulk in _named_bulks(reading.journals.scans)]
    shard.last_bulk = max(numbers, default=0)
    shard.set_aside = cleared + _sweep(files, directory, reading)
    if reading.is_flawed:
        _save_and_set_aside(files, directory, shard, reading)
    return shard


def _load_image(
    directory: str, later_bytes: int | None
) -> tuple[SealedImage | ImageFile | None, str | None]:
    """Return the image and None, or None and what is wrong with the file."""
    path = f"{directory}/{IMAGE_NAME}"
    try:
        if later_bytes is not None:
            image = open_image(path)
            if image is None or image.header.total_bytes > later_bytes:
                return image, None
        return load_image(path), None
    except DamageError as exc:
        return None, str(exc)


def _begin(
    image: SealedImage | ImageFile | None, scans: list[JournalScan], *, image_is_damaged: bool
) -> Recovered:
    if image is not None:
        head = image.header
        return Recovered(head.producer, head.epoch, head.generation, head.built_at_ns, image)
    first = scans[0].header
    # An image is synced before it gets its name: one that is damaged was there, whole, once.
    generation = first.base_generation if image_is_damaged else 0
    return Recovered(first.producer, first.epoch, generation, first.built_at_ns, None)


def _replay(files: Files, directory: str, shard: Recovered, reading: Reading) -> None:
    """Apply the journals in order; note which are kept, and which are to be set aside."""
    scans, damaged = reading.journals.scans, reading.damaged
    before: JournalScan | None = None
    for index, scan in enumerate(scans):
        shard.next_sequence = scan.header.sequence + 1
        if scan.header.epoch != shard.epoch:
            damaged.append((scan.path, "belongs to an earlier life of this shard"))
            continue
        following = scans[index + 1 :]
        if _is_behind_a_gap(scan, before, shard):
            if not any(later.synced for later in (scan, *following)):
                # Power was lost before either was synced, and this one reached the disk by chance.
                damaged += [(later.path, "follows a gap") for later in (scan, *following)]
                shard.next_sequence += len(following)
                break
            # What is missing may have replaced or deleted anything: serve nothing from before it.
            shard.hide_everything(scan.header.base_generation)
            shard.generation = scan.header.base_generation
            shard.missing = f"a journal before {scan.path}"
            if shard.image is not None:
                reading.image_problem = _OUTDATED
        before = scan
        _apply(files, directory, shard, scan)
        shard.previous_end = scan.good_end
        if following and following[0].header.base_generation <= shard.generation:
            # The image covers this journal to its end: it need not even have been synced.
            scan.problem = None
        if scan.problem is not None and (following or scan.good_end < scan.synced):
            damaged.append((scan.path, scan.problem))
            damaged += [(later.path, f"follows {scan.path}") for later in following]
            shard.next_sequence += len(following)
            break
        if scan.problem is not None:
            shard.torn_bytes += len(scan.data) - scan.good_end
        reading.kept.append(scan)


def _inherit(files: Files, directory: str, scan: JournalScan) -> Journal:
    """Return the journal with the bulks that its frames name: they go with it."""
    journal = Journal(files, directory, scan.header, scan.good_end)
    present = files.names(directory)
    for frame in scan.frames:
        # One that is damaged or gone cannot be synced, and nothing is served from it.
        if frame.bulk is not None and frame.end <= scan.good_end:
            name = bulk_name(frame.bulk.number)
            if name in present:
                path = f"{directory}/{name}"
                journal.attach(CommittedBulk(files, path, frame.bulk.size))
    return journal


def _is_behind_a_gap(scan: JournalScan, before: JournalScan | None, shard: Recovered) -> bool:
    """Tell whether a journal between this one and what was applied so far is missing."""
    if before is not None and before.header.sequence + 1 == scan.header.sequence:
        return False
    return scan.header.base_generation > shard.generation


def _apply(files: Files, directory: str, shard: Recovered, scan: JournalScan) -> None:
    """Apply the frames that the image does not hold; stop at a bulk that is not whole."""
    position = HEADER_BYTES
    for frame in scan.frames:
        if frame.generation > shard.generation:
            try:
                _apply_frame(files, directory, shard, frame)
            except DamageError as exc:
                scan.problem, scan.good_end = f"at byte {position:,}: {exc}", position
                if isinstance(exc, UnreadableError):
                    # No torn write: it may be read another time, so all of it is set aside.
                    scan.synced = len(scan.data)
                return
            shard.generation = frame.generation
        position = frame.end


def _apply_frame(files: Files, directory: str, shard: Recovered, frame: Frame) -> None:
    if frame.kind == CLEAR:
        shard.hide_everything(frame.generation)
    elif frame.kind == DELETE:
        shard.change(dict.fromkeys(frame.names))
    elif frame.bulk is None:
        shard.change(dict(frame.records))
    else:
        records = read_bulk(files, directory, frame.bulk)
        if frame.bulk.mode == "replace":
            shard.hide_everything(frame.generation)
        if frame.bulk.built_at_ns is not None and not shard.has_entries():
            shard.built_at_ns = frame.bulk.built_at_ns
        shard.change(records)


def _named_bulks(scans: list[JournalScan]) -> list[BulkFile]:
    return [frame.bulk for scan in scans for frame in scan.frames if frame.bulk is not None]


def _sweep(files: Files, directory: str, reading: Reading) -> list[SetAside]:
    """Remove what was not committed; return what could only be set aside.

    A bulk that no journal names was not, unless the journal that names it is damaged: it stays.
    """
    named = {bulk_name(bulk.number) for bulk in _named_bulks(reading.journals.scans)}
    found: list[SetAside] = []
    for name in files.names(directory):
        is_spare = _BULK.fullmatch(name) and name not in named and not reading.damaged
        if is_spare or LEFT_OVER.fullmatch(name):
            found += clear_away(files, f"{directory}/{name}")
    return found


def _save_and_set_aside(files: Files, directory: str, shard: Recovered, reading: Reading) -> None:
    """Make an image of what is good before the damaged files leave: no crash loses it.

    It begins a new epoch: generations that were lost will be used again.
    """
    copies: list[SetAside] = []
    if reading.image_problem is not None:
        # A second name, since the new image takes the first one.
        path = f"{directory}/{IMAGE_NAME}"
        copies.append(set_aside_copy(files, path, reading.image_problem))
    shard.epoch = new_epoch()
    try:
        shard.image, _ = build_image(files, directory, shard.snapshot())
    except StorageError:
        # It is tried again later, and one second name is enough. What was no file stays aside.
        with suppress(OSError):
            for copy in copies:
                files.remove(copy.file)
        raise
    shard.set_aside += copies
    shard.changes = {}
    shard.floor = 0
    for journal in shard.journals:
        journal.remove()
    shard.journals = []
    shard.set_aside += _set_aside_damaged(files, directory, reading)


def _set_aside_damaged(files: Files, directory: str, reading: Reading) -> list[SetAside]:
    """Set damaged files aside, and bulks that nothing names any more with them."""
    damaged = reading.damaged
    if not damaged:
        return []
    reason = "belongs to a journal that was set aside"
    bulks = [name for name in files.names(directory) if _BULK.fullmatch(name)]
    aside = [set_aside_file(files, f"{directory}/{name}", reason) for name in bulks]
    # The last one first: after a crash in between, none would follow a gap and hide the image.
    return aside + [set_aside_file(files, *found) for found in sorted(damaged, reverse=True)]
