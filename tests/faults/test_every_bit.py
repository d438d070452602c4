"""Truncations and flipped bits of every file of small shards: all of them, given the effort.

After each: exactly what must be left is served (`specimens.expected`), the damaged file is set
aside as it is and reported. The second start finds the same as the first, and what is written then
is there at the third (after every fourth damage where there is little time).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.storage.images import IMAGE_NAME
from autoloadd_daemon.storage.records import FRAME_BYTES, HEADER_BYTES
from autoloadd_protocol.image import HEADER_BYTES as IMAGE_HEADER_BYTES

from ..daemon.harness import Item, write_files
from .specimens import SHARD, STORIES, expected, make_specimen, parts_kept, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..daemon.harness import Contents
    from .report import FaultCase
    from .specimens import Author, Expected, Specimen

NEW = {b"new": Item(b"written after the damage")}
FIRST_TITLE = "an image and a journal"
GOES_ON_EVERY = 4
CHECKSUM_BYTES = 4


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory where there is such a place: tens of thousands of starts need it."""
    place = Path("/dev/shm")
    directory = tempfile.mkdtemp(prefix="ald-", dir=place if place.is_dir() else None)
    yield Path(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module", params=STORIES, ids=lambda story: story.__name__)
def specimen(request: pytest.FixtureRequest, memory: Path) -> Specimen:
    story: Callable[[Author], None] = request.param
    return make_specimen(story, memory / story.__name__)


@pytest.fixture
def cache_dir(memory: Path) -> Iterator[Path]:
    directory = memory / "cache"
    directory.mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)


def check(
    cache_dir: Path,
    specimen: Specimen,
    damaged: dict[str, bytes],
    due: Expected,
    case: FaultCase,
    effort: int,
) -> None:
    """Start on damaged files, and see what is served and what is set aside.

    Every second start answers before it has read the image: what the undamaged files hold, or a
    miss.
    """
    directory = cache_dir / SHARD
    files = {**specimen.files, **damaged}
    write_files(directory, files)
    case.explored += 1
    good = specimen.contents() if IMAGE_NAME in damaged else due.contents
    names = specimen.names if case.explored % 2 else None
    with started(cache_dir, names) as first:
        early = {name: item for name, item in first.early.items() if item is not None}
        case.wrong += len(early.items() - good.items())
        assert early.items() <= good.items()
        found = first.contents
        case.lost += sum(name not in found for name in due.contents)
        case.wrong += sum(due.contents.get(name) != blob for name, blob in found.items())
        assert found == due.contents
        assert due.set_aside <= first.set_aside
        assert all(path.exists() for path in first.reported)
    kept = parts_kept(directory, sorted(due.set_aside))
    assert kept == {name: files[name] for name in due.set_aside}
    if effort > 1 or case.explored % GOES_ON_EVERY == 0:
        check_that_it_goes_on(cache_dir, due.contents, first.reported)


def check_that_it_goes_on(cache_dir: Path, contents: Contents, reported: set[Path]) -> None:
    """Start twice more, and write in between: nothing is lost, nothing more is set aside."""
    with started(cache_dir) as second:
        assert second.contents == contents
        assert second.reported == reported
        second.put(NEW)
    with started(cache_dir) as third:
        assert third.contents == contents | NEW
        assert third.reported == reported


def with_bit_flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def heads(specimen: Specimen, name: str) -> set[int]:
    """Return the offsets of the bytes of a file's header (without its padding) and frame heads."""
    journal = next((each for each in specimen.journals if each.name == name), None)
    if journal is None and name != IMAGE_NAME:
        return set()
    size = IMAGE_HEADER_BYTES if journal is None else HEADER_BYTES
    fields = len(specimen.files[name][: size - CHECKSUM_BYTES].rstrip(b"\0"))
    found = {*range(fields), *range(size - CHECKSUM_BYTES, size)}
    for frame in [] if journal is None else journal.frames:
        found.update(range(frame.begin, frame.begin + FRAME_BYTES))
    return found


def places(specimen: Specimen, name: str, effort: int) -> list[int]:
    """Return which bytes to damage: all; of images the fields of the header and some others.

    Index and records are checked whole: which byte is bad makes no difference. With effort all.
    """
    size = len(specimen.files[name])
    if effort > 1 or name != IMAGE_NAME:
        return list(range(size))
    if specimen.title != FIRST_TITLE:
        return list(range(0, size, 23))
    return sorted({*heads(specimen, name), *range(0, size, 3)})


def test_every_flipped_bit(
    specimen: Specimen, cache_dir: Path, case: FaultCase, effort: int
) -> None:
    """All bits of the heads in one specimen; of other bytes one each, or all with effort."""
    case.unit = "flips"
    for name, data in specimen.files.items():
        whole = heads(specimen, name) if specimen.title == FIRST_TITLE else set()
        for at in places(specimen, name, effort):
            due = expected(specimen, name, at, len(data))
            bits = range(8) if effort > 1 or at in whole else [at * 5 % 8]
            for bit in bits:
                damaged = {name: with_bit_flipped(data, at, bit)}
                try:
                    check(cache_dir, specimen, damaged, due, case, effort)
                except AssertionError as exc:
                    exc.add_note(f"{specimen.title}: bit {bit} of byte {at:,} of {name}")
                    raise


def test_every_truncation(
    specimen: Specimen, cache_dir: Path, case: FaultCase, effort: int
) -> None:
    case.unit = "truncations"
    for name, data in specimen.files.items():
        for length in places(specimen, name, effort):
            due = expected(specimen, name, length, length)
            try:
                check(cache_dir, specimen, {name: data[:length]}, due, case, effort)
            except AssertionError as exc:
                exc.add_note(f"{specimen.title}: {name} cut to {length:,} bytes")
                raise
