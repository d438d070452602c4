"""Small shards as they lie on disk, and what must be left of each after damage.

Number n of a specimen's changes is the write of generation n. So what a shard holds after damage is
the outcome of a run of its changes, and which run that must be follows from where the damage is:
`expected` says it from the files' layout alone, without any of the code that recovers.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import trio

from autoloadd_daemon.builder import Builder
from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.storage.images import IMAGE_NAME
from autoloadd_daemon.storage.records import HEADER_BYTES, parse_frame, parse_journal_header
from autoloadd_daemon.storage.syncing import SyncThread
from autoloadd_daemon.writer import Writer
from autoloadd_daemon.writes import Put
from autoloadd_protocol.image import parse_header

from ..daemon.harness import (
    PRODUCER,
    Contents,
    Item,
    Life,
    QuickFiles,
    contents_of,
    files_in,
    item_of,
    load_all,
    records_of,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Change = Callable[[Contents], Contents]

MAX_BYTES = 64 * 1024 * 1024
THREAD_SECONDS = 20.0
SHARD = PRODUCER.shard_id()


class FramePlace(NamedTuple):
    """Where one write lies in a journal. Offsets are bytes; `bulk` is the file that it names."""

    begin: int
    end: int
    generation: int
    synced: int
    bulk: str | None


class JournalPlan(NamedTuple):
    """A journal's frames, and the generation before its first one."""

    name: str
    base: int
    frames: list[FramePlace]


@dataclass(frozen=True)
class Specimen:
    """The files of a shard's directory by name, and what was done to the shard."""

    title: str
    files: dict[str, bytes]
    changes: list[Change]

    @cached_property
    def names(self) -> set[bytes]:
        """Every name that it ever held, and one that it did not."""
        times = range(len(self.changes) + 1)
        return {b"never stored", *(name for last in times for name in self.contents(0, last))}

    @cached_property
    def image_generation(self) -> int:
        """The generation that the image holds; 0 where there is none."""
        image = self.files.get(IMAGE_NAME)
        return 0 if image is None else parse_header(image).generation

    @cached_property
    def journals(self) -> list[JournalPlan]:
        """What lies where in the journals, oldest first."""
        names = sorted(name for name in self.files if name.startswith("journal"))
        return [_plan(name, self.files[name]) for name in names]

    def contents(self, first: int = 0, last: int | None = None) -> Contents:
        """Return what the writes above generation `first` up to `last` make of an empty shard."""
        contents: Contents = {}
        for change in self.changes[first:last]:
            contents = change(contents)
        return contents


def _plan(name: str, data: bytes) -> JournalPlan:
    base = parse_journal_header(data).base_generation
    frames: list[FramePlace] = []
    at = HEADER_BYTES
    while at < len(data):
        frame = parse_frame(data, at)
        bulk = None if frame.bulk is None else f"bulk.{frame.bulk.number:08d}"
        frames.append(FramePlace(at, frame.end, frame.generation, frame.synced, bulk))
        at = frame.end
    return JournalPlan(name, base, frames)


class Expected(NamedTuple):
    """What a start must find, and the names of the files that it must set aside."""

    contents: Contents
    set_aside: set[str]


def expected(specimen: Specimen, name: str, offset: int, length: int) -> Expected:
    """Return what must be left where a file is `length` bytes long, and wrong from `offset` on."""
    journals = specimen.journals
    if name == IMAGE_NAME:
        first = journals[0].base if journals else len(specimen.changes)
        return Expected(specimen.contents(first), {name})
    for number, journal in enumerate(journals):
        for frame in journal.frames:
            if frame.bulk == name:
                return _without_frame(specimen, number, frame, journal.frames)
        if journal.name == name:
            if offset < HEADER_BYTES:
                return _without_header(specimen, number, is_short=length < HEADER_BYTES)
            bad = next(frame for frame in journal.frames if offset < frame.end)
            left = [frame for frame in journal.frames if frame is not bad and frame.end <= length]
            return _without_frame(specimen, number, bad, left)
    raise ValueError(name)


def _all_of(specimen: Specimen) -> Expected:
    return Expected(specimen.contents(), set())


def _without_header(specimen: Specimen, number: int, *, is_short: bool) -> Expected:
    """Nothing of this journal counts. What follows does if a frame there says it was synced."""
    journals = specimen.journals
    journal, later = journals[number], journals[number + 1 :]
    if not later:
        # Shorter than a header: the daemon ended before the first frame, there is nothing to keep.
        last = max(journal.base, specimen.image_generation)
        return Expected(specimen.contents(0, last), set() if is_short else {journal.name})
    if later[0].base <= specimen.image_generation:
        return Expected(specimen.contents(), {journal.name})
    if any(frame.synced for each in later for frame in each.frames):
        return Expected(specimen.contents(later[0].base), {journal.name})
    names = {journal.name, *(each.name for each in later)}
    return Expected(specimen.contents(0, journal.base), names)


def _without_frame(
    specimen: Specimen, number: int, bad: FramePlace, left: list[FramePlace]
) -> Expected:
    """Whatever lies before a bad frame is kept; it is damage where frames `left` bear witness."""
    journals = specimen.journals
    journal, later = journals[number], journals[number + 1 :]
    if later and later[0].base <= specimen.image_generation:
        return _all_of(specimen)
    last = max(bad.generation - 1, specimen.image_generation)
    synced = max((frame.synced for frame in left), default=0)
    is_damage = later or bad.begin < synced
    names = {journal.name, *(each.name for each in later)} if is_damage else set()
    return Expected(specimen.contents(0, last), names)


# Making them


@dataclass
class Author:
    """Writes to a shard as the daemon does, and notes what each write did."""

    cache_dir: Path
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.life = Life(self.directory)

    @property
    def directory(self) -> Path:
        """Where the shard's files lie."""
        return self.cache_dir / SHARD

    def put(self, *, sync: bool = False, **blobs: bytes) -> None:
        """Store entries in one frame; every second write has fingerprints and a time."""
        number = len(self.changes)
        fingerprint = b"f%d" % number if number % 2 else None
        items = {name.encode(): Item(blob, fingerprint, number % 2) for name, blob in blobs.items()}
        self.life.put(items, sync=sync)
        self._note(lambda contents: contents | items)

    def delete(self, *names: bytes) -> None:
        """Remove entries."""
        self.life.delete(names)
        self._note(lambda contents: {n: item for n, item in contents.items() if n not in names})

    def clear(self) -> None:
        """Remove everything."""
        self.life.clear()
        self._note(lambda _contents: {})

    def bulk(self, mode: str, **blobs: bytes) -> None:
        """Store entries as a bulk."""
        items = {name.encode(): Item(blob) for name, blob in blobs.items()}
        self.life.bulk(mode, [items])
        self._note(lambda contents: {**(contents if mode == "merge" else {}), **items})

    def build(self) -> None:
        """Make an image of everything so far."""
        self.life.build()

    def restart(self) -> None:
        """End as kill -9 does, and go on in a new journal."""
        self.life.crash()
        self.life = Life(self.directory)
        assert self.life.set_aside == []

    def _note(self, change: Change) -> None:
        before = self.changes_made({})
        self.changes.append(change)
        assert self.life.contents == change(before)

    def changes_made(self, contents: Contents) -> Contents:
        """Return what all writes so far make of a shard."""
        for change in self.changes:
            contents = change(contents)
        return contents


def an_image_and_a_journal(author: Author) -> None:
    author.put(a=b"a1", b=b"b1" * 20, c=b"")
    author.build()
    author.put(a=b"a2", d=b"d1", sync=True)
    author.delete(b"b")
    author.put(e=b"e1")
    author.bulk("merge", e=b"e2", f=b"f1")
    author.put(a=b"a3")


def every_kind_of_write(author: Author) -> None:
    """Without an image; the last sync that a frame tells of is in the middle."""
    author.put(a=b"a1")
    author.delete(b"a", b"none")
    author.bulk("merge", b=b"b1", c=b"c1")
    author.put(c=b"c2", d=b"d2", sync=True)
    author.put(e=b"e1")
    author.bulk("replace", g=b"g1")
    author.clear()
    author.put(h=b"h1")


def a_journal_after_another(author: Author) -> None:
    """An image, then two lives, of which nothing says that it was synced."""
    author.put(a=b"a1", b=b"b1")
    author.build()
    author.put(a=b"a2")
    author.delete(b"b")
    author.restart()
    author.put(c=b"c1")
    author.bulk("merge", a=b"a3")


def a_synced_journal_after_another(author: Author) -> None:
    """Two lives; a frame of the second says that everything before it was synced."""
    author.put(a=b"a1", b=b"b1")
    author.delete(b"b")
    author.restart()
    author.put(c=b"c1", sync=True)
    author.put(d=b"d1")


def a_journal_that_the_image_covers(author: Author) -> None:
    """The daemon was killed before it could remove the first journal."""
    author.put(a=b"a1")
    author.put(b=b"b1")
    covered = files_in(author.directory)
    author.build()
    author.put(a=b"a2")
    write_files(author.directory, covered | files_in(author.directory))


STORIES = [
    an_image_and_a_journal,
    every_kind_of_write,
    a_journal_after_another,
    a_synced_journal_after_another,
    a_journal_that_the_image_covers,
]


def make_specimen(story: Callable[[Author], None], cache_dir: Path) -> Specimen:
    """Tell a story in a cache directory; return what is there after a kill at its end."""
    cache_dir.mkdir(mode=0o700)
    author = Author(cache_dir)
    story(author)
    author.life.crash()
    title = story.__name__.replace("_", " ")
    specimen = Specimen(title, files_in(author.directory), author.changes)
    last = max((f.generation for each in specimen.journals for f in each.frames), default=0)
    assert max(last, specimen.image_generation) == len(author.changes)
    return specimen


# Starting on them


class Start:
    """One start of the daemon's storage on a cache directory, with its real writer."""

    _thread: SyncThread | None = None

    def __init__(self, cache_dir: Path, ask_early: Iterable[bytes] | None = None) -> None:
        """Recover. Raises StartError.

        With names to ask for, images are not read before these were looked up in their files.
        """
        if Start._thread is None:
            Start._thread = SyncThread(lambda callback: callback())
        files, metrics = QuickFiles(), Metrics()
        self._catalog = Catalog(files, str(cache_dir), metrics, max_bytes=MAX_BYTES)
        self._catalog.recover(later_bytes=None if ask_early is None else 0)
        self.early = {name: self._served(name) for name in ask_early or ()}
        load_all(self._catalog)
        self._builder = Builder(self._catalog, files, Start._thread, metrics)
        self._writer = Writer(self._catalog, self._builder, Start._thread, metrics)
        self.reported = {Path(aside.file) for aside in metrics.set_aside}

    def _served(self, name: bytes) -> Item | None:
        shard = self._catalog.find(SHARD)
        record = None if shard is None else shard.look_up(name)
        return None if record is None else item_of(record)

    @property
    def contents(self) -> Contents:
        """Everything that is served, each entry checked."""
        shard = self._catalog.find(SHARD)
        return {} if shard is None else contents_of(shard)

    @property
    def set_aside(self) -> set[str]:
        """The former names of the files that are reported as set aside."""
        return {path.name.partition(".set-aside-")[0] for path in self.reported}

    def put(self, items: Mapping[bytes, Item]) -> None:
        """Store entries; they are acknowledged at `write` when this returns."""
        outcomes: list[object] = []
        trio.run(self._put, Put(PRODUCER, "write", outcomes.append, records_of(items)))
        assert [type(outcome) for outcome in outcomes] == [int], outcomes
        # A build may have been due: its journals are removed in the thread.
        done = Event()
        assert Start._thread is not None
        Start._thread.submit(done.set, lambda _error: None)
        assert done.wait(THREAD_SECONDS)

    async def _put(self, write: Put) -> None:
        async with trio.open_nursery() as nursery:
            self._builder.nursery = nursery
            self._writer.submit(write)
            self._writer.turn()

    def end(self) -> None:
        """End as kill -9 does."""
        for _, files in self._catalog:
            files.close()


@contextmanager
def started(cache_dir: Path, ask_early: Iterable[bytes] | None = None) -> Iterator[Start]:
    """A start that is ended with the block."""
    start = Start(cache_dir, ask_early)
    try:
        yield start
    finally:
        start.end()


def parts_kept(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of files that were set aside, by their former names."""
    found = {name: list(directory.glob(f"{name}.set-aside-*")) for name in names}
    assert all(len(paths) == 1 for paths in found.values()), found
    return {name: paths[0].read_bytes() for name, paths in found.items()}
