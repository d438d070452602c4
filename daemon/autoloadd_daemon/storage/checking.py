"""What each file of a shard is, and whether it is whole. Nothing is ever changed.

What counts as damage is decided by the code that recovery uses, so a file is called damaged here
just when the next start of the daemon would set it aside. It works beside a running daemon: files
that are replaced or removed meanwhile are looked at again.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from zlib import crc32

from autoloadd_daemon.errors import DamageError
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import HEADER_BYTES, parse_header

from .bulks import bulk_name, read_bulk
from .image_file import ImageFile
from .images import IMAGE_NAME, TEMPORARY_NAME
from .records import parse_records
from .recovery import LEFT_OVER, read_shard
from .scanning import JOURNAL_NAME
from .set_aside import is_set_aside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_protocol.image import Image

    from .files import Files
    from .records import BulkFile
    from .recovery import Reading
    from .scanning import JournalScan

_BULK_NAME = re.compile(r"bulk\.\d+")
_STAGED_NAME = re.compile(r"staged\.\d+")
_BESIDE_SOCKET = re.compile(r"zsh\.lock|\.?(?:zsh|plugin)-.+")
"""What shells keep beside the socket, and `autoloadctl publish zsh` lays out there."""

_ATTEMPTS = 20
"""A daemon builds at most a few images a second: so many reads never all meet one."""


class Verdict(StrEnum):
    """What is to be said of a file. Only `DAMAGED` is a loss, only `UNREADABLE` an open question.

    `TORN` is a journal whose last bytes a crash kept from being whole: they were never promised.
    `SPARE` is what nothing is read from any more, or not yet.
    """

    OK = "ok"
    TORN = "torn tail"
    SPARE = "not needed"
    SET_ASIDE = "set aside"
    UNKNOWN = "unknown"
    UNREADABLE = "cannot be read"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file: `entries` are an image's or a bulk's entries, a journal's frames; None unknown.

    `size` and `at` in bytes; `at` is where the first bad byte is looked for, or a torn tail begins.
    """

    path: str
    kind: str
    verdict: Verdict
    size: int
    entries: int | None = None
    problem: str | None = None
    at: int | None = None


def check_shard(files: Files, directory: str) -> list[FileReport]:
    """Return a report for each file of a shard's directory; none where the directory is gone."""
    for _ in range(_ATTEMPTS):
        before = _appearance(files, directory)
        try:
            reports = _check_files(files, directory)
        except FileNotFoundError:
            continue
        doubtful = any(report.verdict is Verdict.DAMAGED for report in reports)
        if not doubtful or _appearance(files, directory) == before:
            return reports
    problem = "a daemon replaces its files faster than they can be read: try again"
    return [FileReport(directory, "shard", Verdict.UNREADABLE, 0, problem=problem)]


def _appearance(files: Files, directory: str) -> object:
    """Return what changes when the daemon replaces, adds or removes a file that counts."""
    names = [name for name in files.names(directory) if not _STAGED_NAME.fullmatch(name)]
    try:
        found = os.lstat(f"{directory}/{IMAGE_NAME}")
    except FileNotFoundError:
        return names, None
    return names, (found.st_ino, found.st_mtime_ns)


def _check_files(files: Files, directory: str) -> list[FileReport]:
    try:
        reading = read_shard(files, directory)
    except FileNotFoundError:
        raise
    except OSError as exc:
        return [_report_unread(files, directory, name, exc) for name in files.names(directory)]
    shard = _ShardCheck(files, directory, reading)
    names = files.names(directory)
    if not shard.read_names <= set(names):
        raise FileNotFoundError(directory)  # what was read tells nothing of what took its place
    reports = map(shard.check, names)
    return [*shard.check_place(), *(report for report in reports if report is not None)]


def _report_unread(files: Files, directory: str, name: str, error: OSError) -> FileReport:
    """Return what can be said where one file keeps the whole shard from being read."""
    path = f"{directory}/{name}"
    problem: str | None = f"not looked at, since another file cannot be read: {error.strerror}"
    try:
        files.read(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        problem = exc.strerror
    return FileReport(path, "file", Verdict.UNREADABLE, os.lstat(path).st_size, problem=problem)


class _ShardCheck:
    """One reading of a shard, and what it says of each file."""

    def __init__(self, files: Files, directory: str, reading: Reading) -> None:
        self._files = files
        self._directory = directory
        self._reading = reading
        image = None if reading.shard is None else reading.shard.image
        assert not isinstance(image, ImageFile), "all of it was read"
        self._image = image
        self._scans = {scan.path: scan for scan in reading.journals.scans}
        self._damaged = dict(reading.damaged)
        self._bulks = dict(_named_bulks(reading.journals.scans))

    @property
    def read_names(self) -> set[str]:
        """The names of the files that the shard was read from."""
        names = {os.path.basename(path) for path in [*self._scans, *self._damaged]}
        return names if self._image is None else {*names, IMAGE_NAME}

    def check_place(self) -> Iterator[FileReport]:
        """Yield reports about the directory: another shard's, or one where a file is missing."""
        shard = self._reading.shard
        if shard is not None and shard.producer.shard_id() != os.path.basename(self._directory):
            problem = f"holds the shard of {shard.producer}; autoloadd does not start: move it away"
            yield FileReport(self._directory, "shard", Verdict.DAMAGED, 0, problem=problem)
        if shard is not None and shard.missing is not None:
            problem = f"{shard.missing} is missing: nothing from before it is served"
            yield FileReport(self._directory, "shard", Verdict.DAMAGED, 0, problem=problem)

    def check(self, name: str) -> FileReport | None:
        """Return the report of one file, None where it came after the others were read.

        Raises OSError where it is gone or cannot be read.
        """
        path = f"{self._directory}/{name}"
        size = os.lstat(path).st_size
        if is_set_aside(name):
            return FileReport(path, "set aside", Verdict.SET_ASIDE, size)
        if name == IMAGE_NAME:
            return self._check_image(path, size)
        if JOURNAL_NAME.fullmatch(name):
            return self._check_journal(path, size)
        if _BULK_NAME.fullmatch(name):
            return self._check_bulk(path, size)
        spare = _describe_left_over(name)
        if spare is not None:
            return FileReport(path, "left over", Verdict.SPARE, size, problem=spare)
        return report_unknown(path)

    def _check_image(self, path: str, size: int) -> FileReport | None:
        problem, at = self._reading.image_problem, None
        if problem is not None:
            at = _locate_damage(self._files, path)
            problem = _without(path, problem)
            return FileReport(path, "image", Verdict.DAMAGED, size, None, problem, at)
        if self._image is None:
            return None
        contradiction = find_contradiction(self._image)
        verdict = Verdict.OK if contradiction is None else Verdict.DAMAGED
        return FileReport(path, "image", verdict, size, len(self._image), contradiction)

    def _check_journal(self, path: str, size: int) -> FileReport | None:
        scan = self._scans.get(path)
        frames = None if scan is None else len(scan.frames)
        if path in self._damaged:
            at = 0 if scan is None else scan.good_end
            problem = _without(path, self._damaged[path])
            return FileReport(path, "journal", Verdict.DAMAGED, size, frames, problem, at)
        if path == self._reading.journals.not_begun:
            problem = "ends before its header does: nothing was acknowledged from it"
            return FileReport(path, "journal", Verdict.SPARE, size, 0, problem)
        if scan is None:
            return None
        if scan.problem is not None:
            torn = f"{len(scan.data) - scan.good_end:,} bytes that were not promised"
            return FileReport(path, "journal", Verdict.TORN, size, frames, torn, scan.good_end)
        if scan.frames and self._is_covered(scan.header.epoch, scan.frames[-1].generation):
            covered = "the image has what it has"
            return FileReport(path, "journal", Verdict.SPARE, size, frames, covered)
        return FileReport(path, "journal", Verdict.OK, size, frames)

    def _check_bulk(self, path: str, size: int) -> FileReport:
        named = self._bulks.get(os.path.basename(path))
        if named is None:
            return FileReport(path, "bulk", Verdict.SPARE, size, problem="no journal names it")
        epoch, generation, bulk = named
        if self._is_covered(epoch, generation):
            problem = "the image has what it has"
            return FileReport(path, "bulk", Verdict.SPARE, size, problem=problem)
        try:
            records = read_bulk(self._files, self._directory, bulk)
        except DamageError as exc:
            return FileReport(path, "bulk", Verdict.DAMAGED, size, None, _without(path, str(exc)))
        return FileReport(path, "bulk", Verdict.OK, size, len(records))

    def _is_covered(self, epoch: int, generation: int) -> bool:
        head = None if self._image is None else self._image.header
        return head is not None and head.epoch == epoch and generation <= head.generation


def report_unknown(path: str) -> FileReport:
    """Return the report of a file that is none of the storage's. Raises OSError."""
    found = os.lstat(path)
    directory, name = os.path.split(path)
    # Where there is no runtime directory, the daemon's socket lies in the cache directory.
    if stat.S_ISSOCK(found.st_mode):
        return FileReport(path, "socket", Verdict.OK, found.st_size)
    if os.path.basename(directory) == "run" and _BESIDE_SOCKET.fullmatch(name):
        return FileReport(path, "shells", Verdict.OK, found.st_size)
    problem = "no file of autoloadd's"
    return FileReport(path, "unknown", Verdict.UNKNOWN, found.st_size, problem=problem)


def _describe_left_over(name: str) -> str | None:
    """Return what a file is that the next start removes, or None for any other."""
    if name == TEMPORARY_NAME:
        return "an image that is not whole yet, or was not when the daemon ended"
    return "what was not brought to its end" if LEFT_OVER.fullmatch(name) else None


def _named_bulks(scans: list[JournalScan]) -> Iterator[tuple[str, tuple[int, int, BulkFile]]]:
    for scan in scans:
        for frame in scan.frames:
            if frame.bulk is not None:
                yield (
                    bulk_name(frame.bulk.number),
                    (scan.header.epoch, frame.generation, frame.bulk),
                )


def _without(path: str, problem: str) -> str:
    return problem.removeprefix(f"{path}: ")


def find_contradiction(image: Image) -> str | None:
    """Return what an image whose checksums match says against itself, or None.

    Each record's own checksum, the slot that must name it, the order, and the header's sums.
    """
    start, entries, blob_bytes = image.header.records_at, 0, 0
    try:
        for name, record in parse_records(image.buffer, start, len(image.buffer)):
            if image.look_up(name) != record:
                return f"the index does not lead to the record of {name!r:.60}"
            entries += 1
            blob_bytes += record.blob_bytes
    except DamageError as exc:
        return str(exc)
    if (entries, blob_bytes) != (image.header.entries, image.header.blob_bytes):
        return f"{entries:,} records of {blob_bytes:,} bytes, which the header contradicts"
    return _find_disorder(image)


def _find_disorder(image: Image) -> str | None:
    before = b""
    for index in range(len(image)):
        name = image.name_at(index)
        if name <= before:
            return f"the order has {name!r:.60} behind {before!r:.60}"
        before = name
    return None


def _locate_damage(files: Files, path: str) -> int | None:
    """Return the first byte that can be told to be bad: of the header, the index or a record.

    None where the file is whole in itself, or cannot be read.
    """
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        header = parse_header(data)
    except ImageError:
        return 0
    if len(data) != header.total_bytes:
        return min(len(data), header.total_bytes)
    position = header.records_at
    try:
        for _, record in parse_records(data, position, len(data)):
            position = record.end
    except DamageError:
        return position
    is_bad = crc32(data[HEADER_BYTES : header.records_at]) != header.index_checksum
    return HEADER_BYTES if is_bad else None
