"""Reading journals: which frames are good, where the good ones end, and what is wrong there."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import DamageError

from .files import is_damage
from .journal import PAGE_BYTES, journal_name
from .records import (
    HEADER_BYTES,
    KIND_AT,
    Frame,
    JournalHeader,
    parse_frame,
    parse_journal_header,
)

if TYPE_CHECKING:
    from .files import Files

JOURNAL_NAME = re.compile(r"journal\.\d+")
_KIND = re.compile(rb"[\1-\4]\0\0\0")


class JournalScan:
    """One journal as read: its frames are good up to `good_end`, `problem` says what is next."""

    def __init__(
        self,
        path: str,
        header: JournalHeader,
        data: bytes,
        frames: list[Frame],
        *,
        good_end: int,
        synced: int,
        problem: str | None,
    ) -> None:
        self.path = path
        self.header = header
        self.data = data
        self.frames = frames
        self.good_end = good_end
        self.synced = synced
        self.problem = problem


class JournalScans:
    """The journals of a shard, in order.

    `not_begun` is the path of one that ends before its header does: the daemon ended there, and
    nothing was acknowledged from it. `damaged` are (path, reason) of files that are no journals.
    """

    def __init__(self) -> None:
        self.scans: list[JournalScan] = []
        self.not_begun: str | None = None
        self.damaged: list[tuple[str, str]] = []


def scan_journals(files: Files, directory: str) -> JournalScans:
    """Return the journals in a directory; nothing is changed. Raises OSError."""
    names = [name for name in files.names(directory) if JOURNAL_NAME.fullmatch(name)]
    found = JournalScans()
    for name in names:
        path = f"{directory}/{name}"
        try:
            data = files.read(path)
        except OSError as exc:
            if not is_damage(exc):
                raise
            found.damaged.append((path, f"{exc.strerror}"))
            continue
        if len(data) < HEADER_BYTES and name == names[-1]:
            found.not_begun = path
            continue
        try:
            found.scans.append(scan_journal(path, data))
        except DamageError as exc:
            found.damaged.append((path, str(exc)))
    for scan, following in pairwise(found.scans):
        end_where_the_next_began(scan, following.header)
    return found


def scan_journal(path: str, data: bytes) -> JournalScan:
    """Return the journal whose bytes these are. Raises DamageError where it is none."""
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
        in_place = _without_misplaced(frames, data, position, header.base_generation)
        if len(in_place) < len(frames):
            # No torn write leaves good frames in another order: all of the file is suspect.
            frames, synced = in_place, len(data)
            position = frames[-1].end if frames else HEADER_BYTES
    if problem is not None:
        data = _without_room(data, position)
        if len(data) == position and synced <= position:
            problem = None
    return JournalScan(
        path, header, data, frames, good_end=position, synced=synced, problem=problem
    )


def _without_room(data: bytes, good_end: int) -> bytes:
    """Return a journal without the zeros that were put behind its end for frames to come.

    No frame is all zeros, but one that is torn may end with some.
    """
    end = max(len(data.rstrip(b"\0")), good_end)
    return data[:end] if end == good_end or len(data) - end >= PAGE_BYTES else data


def _without_misplaced(
    frames: list[Frame], data: bytes, bad: int, base_generation: int
) -> list[Frame]:
    """Return the frames that are where they were written, by what the one behind them says.

    One that is good and comes too late shows that those above its generation came too early. One
    that is there already is a copy, and shows nothing.
    """
    try:
        late = parse_frame(data, bad, above=base_generation)
    except DamageError:
        return frames
    if any(frame.generation == late.generation for frame in frames):
        return frames
    return [frame for frame in frames if frame.generation < late.generation]


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


def end_where_the_next_began(scan: JournalScan, following: JournalHeader) -> None:
    """Forget frames behind the end that the next journal's header gives: they were refused."""
    if following.sequence != scan.header.sequence + 1 or following.epoch != scan.header.epoch:
        return
    if scan.good_end < following.previous_end:
        scan.problem = scan.problem or f"ends at {scan.good_end:,} of {following.previous_end:,}"
        return
    scan.problem = None
    scan.frames = [frame for frame in scan.frames if frame.end <= following.previous_end]
    scan.good_end = following.previous_end
