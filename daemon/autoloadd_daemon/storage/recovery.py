"""Reading a shard's directory: the image, then what the journals say happened since.

A bad frame ends a journal. Behind the last offset that is known to have been synced it is a torn
tail: unsynced pages reach the disk in any order, and what they held was never promised. Before that
offset it is damage: what lies before it is kept, and the file is set aside and reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import DamageError

from .bulks import CommittedBulk, bulk_name, read_bulk
from .images import IMAGE_NAME, TEMPORARY_NAME, Snapshot, build_image, load_image
from .journal import journal_name, reopen_journal
from .records import (
    CLEAR,
    DELETE,
    HEADER_BYTES,
    KIND_AT,
    Frame,
    JournalHeader,
    parse_frame,
    parse_journal_header,
)
from .set_aside import SetAside, name_to_set_aside, set_aside_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoloadd_protocol.image import Image
    from autoloadd_protocol.producer import Producer
    from autoloadd_protocol.record import Record

    from .files import Files
    from .journal import Journal

_JOURNAL = re.compile(r"journal\.\d+")
_LEFT_OVER = re.compile(r"staged\.\d+|bulk\.\d+")
_KIND = re.compile(rb"[\1-\4]\0\0\0")


@dataclass(slots=True)
class Recovered:
    """A shard as its files have it. `changes` win over `image`, which a `floor` above it hides."""

    producer: Producer
    epoch: int
    generation: int
    built_at_ns: int
    image: Image | None
    floor: int = 0
    changes: dict[bytes, Record | None] = field(default_factory=dict)
    journals: list[Journal] = field(default_factory=list)
    next_sequence: int = 1
    previous_end: int = 0
    last_bulk: int = 0
    torn_bytes: int = 0
    set_aside: list[SetAside] = field(default_factory=list)

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

    def snapshot(self) -> Snapshot:
        """Return what an image of this shard is built from."""
        hidden = self.image is None or self.image.header.generation < self.floor
        base = None if hidden else self.image
        return Snapshot(
            self.producer, self.epoch, self.generation, self.built_at_ns, base, self.changes
        )


@dataclass(slots=True)
class _Scan:
    """One journal as read: its frames are good up to `good_end`, `problem` says what is next."""

    path: str
    header: JournalHeader
    data: bytes
    frames: list[Frame]
    good_end: int
    synced: int
    problem: str | None


def recover_shard(files: Files, directory: str) -> Recovered | list[SetAside]:
    """Return the shard that a directory holds; without one, the files that were set aside.

    Raises OSError when the directory cannot be read, StorageError when damage cannot be put right.
    """
    files.remove(f"{directory}/{TEMPORARY_NAME}")
    image, image_problem = _load_image(directory)
    scans, damaged = _scan_journals(files, directory)
    if image is None and not scans:
        _sweep(files, directory, [])
        bad_image = [] if image_problem is None else [(f"{directory}/{IMAGE_NAME}", image_problem)]
        return [set_aside_file(files, path, reason) for path, reason in damaged + bad_image]
    shard = _begin(image, scans, image_is_damaged=image_problem is not None)
    damaged += _replay(files, directory, shard, scans)
    shard.last_bulk = _sweep(files, directory, scans)
    if damaged or image_problem is not None:
        _save_and_set_aside(files, directory, shard, damaged, image_problem)
    return shard


def _load_image(directory: str) -> tuple[Image | None, str | None]:
    """Return the image and None, or None and what is wrong with the file."""
    try:
        return load_image(f"{directory}/{IMAGE_NAME}"), None
    except DamageError as exc:
        return None, str(exc)


def _scan_journals(files: Files, directory: str) -> tuple[list[_Scan], list[tuple[str, str]]]:
    """Return the journals, and (path, reason) of files that are none."""
    names = [name for name in files.names(directory) if _JOURNAL.fullmatch(name)]
    scans: list[_Scan] = []
    damaged: list[tuple[str, str]] = []
    for name in names:
        path = f"{directory}/{name}"
        data = files.read(path)
        if len(data) < HEADER_BYTES and name == names[-1]:
            # The daemon ended before the header was whole: nothing was acknowledged from it.
            files.remove(path)
            continue
        try:
            scans.append(_scan(path, data))
        except DamageError as exc:
            damaged.append((path, str(exc)))
    for scan, following in pairwise(scans):
        _end_where_the_next_began(scan, following.header)
    return scans, damaged


def _scan(path: str, data: bytes) -> _Scan:
    header = parse_journal_header(data)
    if not path.endswith(f"/{journal_name(header.sequence)}"):
        raise DamageError(f"journal {header.sequence} under another one's name")
    frames: list[Frame] = []
    position, generation = HEADER_BYTES, header.base_generation
    problem: str | None = None
    while position < len(data):
        try:
            frame = parse_frame(data, position, above=generation)
        except DamageError as exc:
            problem = f"at byte {position:,}: {exc}"
            break
        frames.append(frame)
        position, generation = frame.end, frame.generation
    synced = max((frame.synced for frame in frames), default=0)
    if problem is not None:
        synced = max(synced, _synced_behind(data, position, generation))
    return _Scan(path, header, data, frames, position, synced, problem)


def _synced_behind(data: bytes, bad: int, generation: int) -> int:
    """Return what good frames behind a bad one say was synced: their word makes it damage.

    The bad one's length says nothing, so every place that looks like a frame's kind is tried.
    """
    synced = 0
    found = _KIND.search(data, bad + 1 + KIND_AT)
    while found is not None:
        start = next_at = found.start() - KIND_AT
        try:
            frame = parse_frame(data, start, above=generation)
            if frame.synced <= start:
                synced, next_at = max(synced, frame.synced), frame.end - 1
        except DamageError:
            pass
        found = _KIND.search(data, next_at + 1 + KIND_AT)
    return synced


def _end_where_the_next_began(scan: _Scan, following: JournalHeader) -> None:
    """Forget frames behind the end that the next journal's header gives: they were refused."""
    if following.sequence != scan.header.sequence + 1 or following.epoch != scan.header.epoch:
        return
    if scan.good_end < following.previous_end:
        scan.problem = scan.problem or f"ends at {scan.good_end:,} of {following.previous_end:,}"
        return
    scan.problem = None
    scan.frames = [frame for frame in scan.frames if frame.end <= following.previous_end]
    scan.good_end = following.previous_end


def _begin(image: Image | None, scans: list[_Scan], *, image_is_damaged: bool) -> Recovered:
    if image is not None:
        head = image.header
        return Recovered(head.producer, head.epoch, head.generation, head.built_at_ns, image)
    first = scans[0].header
    # An image is synced before it gets its name: one that is damaged was there, whole, once.
    generation = first.base_generation if image_is_damaged else 0
    return Recovered(first.producer, first.epoch, generation, first.built_at_ns, None)


def _replay(
    files: Files, directory: str, shard: Recovered, scans: list[_Scan]
) -> list[tuple[str, str]]:
    """Apply the journals in order. Return (path, reason) of those that are to be set aside."""
    damaged: list[tuple[str, str]] = []
    before: _Scan | None = None
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
        shard.journals.append(_reopen(files, directory, scan))
    return damaged


def _reopen(files: Files, directory: str, scan: _Scan) -> Journal:
    """Return the journal with the bulks that its frames name: they go with it."""
    journal = reopen_journal(files, directory, scan.header, scan.good_end)
    present = files.names(directory)
    for frame in scan.frames:
        # One that is damaged or gone cannot be synced, and nothing is served from it.
        if frame.bulk is not None and frame.end <= scan.good_end:
            name = bulk_name(frame.bulk.number)
            if name in present:
                path = f"{directory}/{name}"
                journal.attach(CommittedBulk(files, path, frame.bulk.size))
    return journal


def _is_behind_a_gap(scan: _Scan, before: _Scan | None, shard: Recovered) -> bool:
    """Tell whether a journal between this one and what was applied so far is missing."""
    if before is not None and before.header.sequence + 1 == scan.header.sequence:
        return False
    return scan.header.base_generation > shard.generation


def _apply(files: Files, directory: str, shard: Recovered, scan: _Scan) -> None:
    """Apply the frames that the image does not hold; stop at a bulk that is not whole."""
    position = HEADER_BYTES
    for frame in scan.frames:
        if frame.generation > shard.generation:
            try:
                _apply_frame(files, directory, shard, frame)
            except DamageError as exc:
                scan.problem, scan.good_end = f"at byte {position:,}: {exc}", position
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
            shard.built_at_ns = frame.bulk.built_at_ns or shard.built_at_ns
        shard.change(records)


def _sweep(files: Files, directory: str, scans: list[_Scan]) -> int:
    """Remove staged files that no journal names; return the greatest number that one has.

    Their bulks were never committed.
    """
    bulks = [frame.bulk for scan in scans for frame in scan.frames if frame.bulk is not None]
    named = {bulk_name(bulk.number) for bulk in bulks}
    for name in files.names(directory):
        if _LEFT_OVER.fullmatch(name) and name not in named:
            files.remove(f"{directory}/{name}")
    return max((bulk.number for bulk in bulks), default=0)


def _save_and_set_aside(
    files: Files,
    directory: str,
    shard: Recovered,
    damaged: list[tuple[str, str]],
    image_problem: str | None,
) -> None:
    """Make an image of what is good before the damaged files leave: no crash loses it."""
    if image_problem is not None:
        # A second name, since the new image takes the first one.
        path = f"{directory}/{IMAGE_NAME}"
        target = name_to_set_aside(path)
        files.link(path, target)
        shard.set_aside.append(SetAside(target, image_problem))
    shard.image, _ = build_image(files, directory, shard.snapshot())
    shard.changes = {}
    shard.floor = 0
    for journal in shard.journals:
        journal.close()
        journal.remove()
    shard.journals = []
    # The last one first: after a crash in between, none would follow a gap and hide the image.
    for path, reason in sorted(damaged, reverse=True):
        shard.set_aside.append(set_aside_file(files, path, reason))
