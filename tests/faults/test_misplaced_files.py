"""Good bytes in the wrong place: records, frames and files swapped, older, foreign, cut and filled.

Whatever is found, each entry that is served is one that was stored under its name, in the order of
the writes; the file is set aside and reported; and the shard goes on.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import pytest

from autoloadd_daemon.errors import StartError
from autoloadd_daemon.storage.images import IMAGE_NAME
from autoloadd_daemon.storage.records import HEADER_BYTES
from autoloadd_protocol.image import HEADER_BYTES as IMAGE_HEADER_BYTES
from autoloadd_protocol.producer import Producer

from ..daemon.harness import Item, Life, files_in, record_of, write_files
from .specimens import SHARD, STORIES, Author, Start, expected, make_specimen, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..daemon.harness import Contents
    from .report import FaultCase
    from .specimens import Specimen

NEW = {b"new": Item(b"written after the damage")}
RANDOM_DAMAGES = 400


class Found(NamedTuple):
    """What a start served, and the former names of what it set aside."""

    contents: Contents
    set_aside: set[str]


@pytest.fixture
def cache_dir() -> Iterator[Path]:
    place = Path("/dev/shm")
    directory = tempfile.mkdtemp(prefix="ald-", dir=place if place.is_dir() else None)
    yield Path(directory)
    shutil.rmtree(directory)


def specimen_of(story: Callable[[Author], None], cache_dir: Path) -> Specimen:
    specimen = make_specimen(story, cache_dir / "made")
    shutil.rmtree(cache_dir / "made")
    return specimen


def start(cache_dir: Path, files: dict[str, bytes], case: FaultCase) -> Found:
    """Start on these files, twice, then write and start again; return what the first one found."""
    write_files(cache_dir / SHARD, files)
    case.explored += 1
    with started(cache_dir) as first:
        found = Found(first.contents, first.set_aside)
        reported = first.reported
    with started(cache_dir) as second:
        assert second.contents == found.contents
        assert second.reported == reported
        second.put(NEW)
    with started(cache_dir) as third:
        assert third.contents == found.contents | NEW
    return found


def is_from(contents: Contents, specimen: Specimen) -> bool:
    """Tell whether every entry is one that was stored under its name, at some time."""
    times = range(len(specimen.changes) + 1)
    stored = {pair for last in times for pair in specimen.contents(0, last).items()}
    return set(contents.items()) <= stored


# Within a file


@pytest.mark.parametrize("story", STORIES[:3])
def test_frames_that_changed_places(
    story: Callable[[Author], None], cache_dir: Path, case: FaultCase
) -> None:
    """What lies before the first of the two is kept, as behind any other bad frame."""
    case.unit = "swaps"
    specimen = specimen_of(story, cache_dir)
    for journal in specimen.journals:
        data = specimen.files[journal.name]
        for first, second in combinations(journal.frames, 2):
            swapped = b"".join(
                (
                    data[: first.begin],
                    data[second.begin : second.end],
                    data[first.end : second.begin],
                    data[first.begin : first.end],
                    data[second.end :],
                )
            )
            due = expected(specimen, journal.name, first.begin, len(data))
            found = start(cache_dir, {**specimen.files, journal.name: swapped}, case)
            case.wrong += found.contents != due.contents
            assert found.contents == due.contents, (first, second)
            assert journal.name in found.set_aside


def test_a_frame_that_was_written_twice(cache_dir: Path, case: FaultCase) -> None:
    case.unit = "copies"
    specimen = specimen_of(STORIES[1], cache_dir)
    (journal,) = specimen.journals
    data = specimen.files[journal.name]
    for number, frame in enumerate(journal.frames):
        for later in journal.frames[number:]:
            copied = data[: later.end] + data[frame.begin : frame.end] + data[later.end :]
            found = start(cache_dir, {**specimen.files, journal.name: copied}, case)
            # Where it was put it is out of order; what lies before it is good.
            assert found.contents == specimen.contents(0, later.generation), (frame, later)


@pytest.mark.parametrize("kind", ["journal", "image", "bulk"])
@pytest.mark.parametrize("part", ["record", "body", "blob"])
def test_records_swapped_between_two_names(
    kind: str, part: str, cache_dir: Path, case: FaultCase
) -> None:
    """`one` must never be served as `two`, with checksums moved along or not."""
    case.unit = "swaps"

    def story(author: Author) -> None:
        author.put(before=b"stays")
        if kind == "bulk":
            author.bulk("merge", one=b"of one", two=b"of two")
        else:
            author.put(one=b"of one", two=b"of two")
        if kind == "image":
            author.build()

    specimen = specimen_of(story, cache_dir)
    (name,) = [name for name in specimen.files if name.startswith(kind)]
    data = specimen.files[name]
    mtime = specimen.contents()[b"one"].mtime
    fingerprint = specimen.contents()[b"one"].fingerprint
    pieces = []
    for key in (b"one", b"two"):
        record = record_of(key, Item(b"of " + key, fingerprint, mtime))
        whole = bytes(record.stored())
        body, blob = bytes(record.buffer[record.start : record.end]), b"of " + key
        pieces.append({"record": whole, "body": body, "blob": blob}[part])
    places = [data.index(piece) for piece in pieces]
    swapped = bytearray(data)
    for place, piece in zip(places, reversed(pieces), strict=True):
        swapped[place : place + len(piece)] = piece
    found = start(cache_dir, {**specimen.files, name: bytes(swapped)}, case)
    due = expected(specimen, name, min(places), len(data))
    case.wrong += found.contents != due.contents
    assert found.contents == due.contents
    assert due.set_aside <= found.set_aside


@pytest.mark.parametrize("story", STORIES)
def test_zeros_at_the_end(
    story: Callable[[Author], None], cache_dir: Path, case: FaultCase
) -> None:
    """Behind the end, as a file system leaves them, or in the place of what was there."""
    case.unit = "tails"
    specimen = specimen_of(story, cache_dir)
    for name, data in specimen.files.items():
        for count in (1, 4, 31, 32, 511, 512, 4096, 100_000):
            found = start(cache_dir, {**specimen.files, name: data + bytes(count)}, case)
            is_journal = name.startswith("journal")
            due = (
                specimen.contents()
                if is_journal
                else expected(specimen, name, 0, len(data)).contents
            )
            assert found.contents == due, (name, count)
        for begin in range(0, len(data), 13):
            zeroed = data[:begin] + bytes(len(data) - begin)
            if zeroed == data:
                continue
            first_bad = next(i for i, (a, b) in enumerate(zip(data, zeroed, strict=True)) if a != b)
            due_then = expected_of_cut(specimen, name, first_bad)
            found = start(cache_dir, {**specimen.files, name: zeroed}, case)
            assert found.contents == due_then, (name, begin)


def expected_of_cut(specimen: Specimen, name: str, first_bad: int) -> Contents:
    """Return what is left where nothing from an offset on is good, the length being the same."""
    if name.startswith("journal") and first_bad >= HEADER_BYTES:
        return expected(specimen, name, first_bad, first_bad).contents
    return expected(specimen, name, first_bad, len(specimen.files[name])).contents


# Whole files


@pytest.mark.parametrize("story", STORIES)
def test_a_header_of_a_future_version(
    story: Callable[[Author], None], cache_dir: Path, case: FaultCase
) -> None:
    """Its checksum is right: only the version says that it cannot be read. It is kept."""
    case.unit = "files"
    specimen = specimen_of(story, cache_dir)
    for name, data in specimen.files.items():
        if name.startswith("bulk"):
            continue
        size = IMAGE_HEADER_BYTES if name == IMAGE_NAME else HEADER_BYTES
        head = data[:8] + (2).to_bytes(4, "little") + data[12 : size - 4]
        newer = head + crc32(head).to_bytes(4, "little") + data[size:]
        due = expected(specimen, name, 8, len(data))
        found = start(cache_dir, {**specimen.files, name: newer}, case)
        assert found.contents == due.contents, name
        assert name in found.set_aside
        (kept,) = (cache_dir / SHARD).glob(f"{name}.set-aside-*")
        assert kept.read_bytes() == newer


def test_an_older_copy_of_a_journal(cache_dir: Path, case: FaultCase) -> None:
    """The last one ends earlier then, and nothing else; one that another follows is damaged."""
    case.unit = "copies"
    for story in STORIES[:4]:
        specimen = specimen_of(story, cache_dir)
        for journal in specimen.journals:
            for frame in journal.frames:
                older = specimen.files[journal.name][: frame.begin]
                due = expected(specimen, journal.name, frame.begin, frame.begin)
                found = start(cache_dir, {**specimen.files, journal.name: older}, case)
                assert found.contents == due.contents, (story, frame)
                assert due.set_aside <= found.set_aside


@pytest.mark.parametrize("synced", [True, False])
def test_an_older_copy_of_the_image(synced: bool, cache_dir: Path, case: FaultCase) -> None:
    """The journal behind it shows that writes are missing in between."""
    case.unit = "copies"
    older: dict[str, bytes] = {}

    def story(author: Author) -> None:
        author.put(a=b"a1", gone=b"g1")
        author.build()
        older.update(files_in(author.directory))
        author.delete(b"gone")
        author.build()
        author.put(b=b"b1", sync=synced)
        author.put(b=b"b2")

    specimen = specimen_of(story, cache_dir)
    found = start(cache_dir, {**specimen.files, IMAGE_NAME: older[IMAGE_NAME]}, case)
    if synced:
        # Nobody knows what the missing writes deleted: nothing from before them is served.
        assert found.contents == specimen.contents(2)
    else:
        assert found.contents == specimen.contents(0, 1)
        assert found.set_aside == {specimen.journals[0].name}


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_a_bulk_in_the_place_of_another(mode: str, cache_dir: Path, case: FaultCase) -> None:
    """Of the same length, each record good: only the frame that names the file says it is not."""
    case.unit = "files"

    def story(author: Author) -> None:
        author.put(a=b"a1")
        author.bulk(mode, a=b"a2", b=b"b2")
        author.bulk(mode, a=b"a3", b=b"b3")
        author.put(c=b"c1")

    specimen = specimen_of(story, cache_dir)
    first, second = (name for name in specimen.files if name.startswith("bulk"))
    for name, other in ((first, second), (second, first)):
        data = specimen.files[other]
        assert len(data) == len(specimen.files[name])
        due = expected(specimen, name, 0, len(data))
        found = start(cache_dir, {**specimen.files, name: data}, case)
        case.wrong += found.contents != due.contents
        assert found.contents == due.contents


def life_of(producer: str, cache_dir: Path, *, epoch: int) -> dict[str, bytes]:
    """Return image and journal of a shard that has nothing to do with the specimens."""
    directory = cache_dir / "other"
    life = Life(directory)
    life.shard.producer = Producer(producer, "1")
    life.shard.epoch = epoch
    life.disk._producer, life.disk._epoch = life.shard.producer, epoch
    life.put({b"a": Item(b"foreign")})
    life.build()
    life.put({b"b": Item(b"foreign")})
    life.crash()
    files = files_in(directory)
    shutil.rmtree(directory)
    return files


@pytest.mark.parametrize("producer", ["bash", "zsh"])
@pytest.mark.parametrize("kind", ["image", "journal"])
@pytest.mark.parametrize("story", STORIES[:4])
def test_a_file_of_another_shard_or_life(
    story: Callable[[Author], None], kind: str, producer: str, cache_dir: Path, case: FaultCase
) -> None:
    """In the place of ours, or beside it under the next number: bash's is never served to zsh."""
    case.unit = "files"
    specimen = specimen_of(story, cache_dir)
    (foreign,) = (
        data
        for name, data in life_of(producer, cache_dir, epoch=7).items()
        if name.startswith(kind)
    )
    names = [name for name in specimen.files if name.startswith(kind)]
    if kind == "journal":
        names.append(f"journal.{int(names[-1][-8:]) + 1:08}")
    for name in names or [IMAGE_NAME]:
        files = {**specimen.files, name: foreign}
        if kind == "image":
            # Whose shard this is cannot be told: nothing is served, nothing is changed.
            check_that_it_does_not_start(cache_dir, files, case)
            continue
        found = start(cache_dir, files, case)
        case.wrong += not is_from(found.contents, specimen)
        assert is_from(found.contents, specimen), (name, found)
        assert name in found.set_aside
        if name not in specimen.files:
            assert found.contents == specimen.contents()


def check_that_it_does_not_start(cache_dir: Path, files: dict[str, bytes], case: FaultCase) -> None:
    """See that it says which directory is to be moved away."""
    write_files(cache_dir / SHARD, files)
    case.explored += 1
    with pytest.raises(StartError, match=f"{SHARD} holds the shard of .*: move it away"):
        Start(cache_dir)


def test_files_under_one_anothers_names(cache_dir: Path, case: FaultCase) -> None:
    case.unit = "swaps"
    for story in STORIES:
        specimen = specimen_of(story, cache_dir)
        files = specimen.files
        for first, second in combinations(files, 2):
            found = start(cache_dir, {**files, first: files[second], second: files[first]}, case)
            case.wrong += not is_from(found.contents, specimen)
            assert is_from(found.contents, specimen), (first, second)
            # What is shorter than a header and the last journal by name has never begun.
            large = {name for name in (first, second) if not name.startswith("bulk")}
            assert found.set_aside or len(large) < 2, (first, second)


# Anything at once


def damage(files: dict[str, bytes], generator: random.Random) -> dict[str, bytes]:
    """Return the files with a few things done to them that disks, programs and people do."""
    changed = dict(files)
    for _ in range(generator.randint(1, 4)):
        name = generator.choice(sorted(changed))
        data = changed[name]
        at = generator.randrange(len(data) + 1)
        size = generator.choice((1, 8, 64, 512))
        other = changed[generator.choice(sorted(changed))]
        changed[name] = generator.choice(
            (
                data[:at],
                data[:at] + generator.randbytes(size) + data[at + size :],
                data[:at] + bytes(size) + data[at + size :],
                data[:at] + data[at + size :],
                data[:at] + other[at : at + size] + data[at + size :],
                data + other[-size:],
                other,
            )
        )
        if generator.random() < 0.1:
            del changed[name]
        if not changed:
            return dict(files)
    return changed


@pytest.mark.parametrize("story", STORIES)
def test_several_damages_at_once(
    story: Callable[[Author], None], cache_dir: Path, case: FaultCase, effort: int
) -> None:
    """Of whatever is left, only what was stored is served."""
    case.unit = "damages"
    specimen = specimen_of(story, cache_dir)
    for seed in range(RANDOM_DAMAGES * effort):
        files = damage(specimen.files, random.Random(f"{story.__name__} {seed}"))
        found = start(cache_dir, files, case)
        case.wrong += not is_from(found.contents, specimen)
        assert is_from(found.contents, specimen), seed
