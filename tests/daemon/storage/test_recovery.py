"""Whatever a crash, a power loss or a bad disk leaves: only what was stored is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from autoloadd_daemon.storage.records import (
    HEADER_BYTES,
    parse_frame,
)
from autoloadd_daemon.storage.scanning import scan_journal

from ..harness import Contents, Item, Life, files_in, write_files

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND, THIRD = "journal.00000001", "journal.00000002", "journal.00000003"
NEW = {b"new": Item(b"written after recovery")}


class Written(NamedTuple):
    """A shard's files, and what it held after each write."""

    files: dict[str, bytes]
    states: list[Contents]


class Story:
    """Writes to a shard, and notes what it holds after each write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.life = Life(directory)
        self.states: list[Contents] = [{}]

    def put(self, *names: bytes, sync: bool = False) -> Story:
        """Store each name, with a blob that no other write has."""
        blob = b"blob of write %d" % len(self.states)
        mark = len(self.states)
        items = {name: Item(blob + name, b"f%d" % mark if mark % 2 else None, 1) for name in names}
        self.life.put(items, sync=sync)
        return self._note()

    def delete(self, *names: bytes) -> Story:
        """Remove names."""
        self.life.delete(names)
        return self._note()

    def clear(self) -> Story:
        """Remove everything."""
        self.life.clear()
        return self._note()

    def bulk(self, mode: str, *names: bytes) -> Story:
        """Commit a bulk of two parts; the second overwrites the first's first name."""
        mark = len(self.states)
        items = {name: Item(b"bulk %d " % mark + name, None, 2) for name in names}
        again = {names[0]: Item(b"again %d" % mark)}
        self.life.bulk(mode, [items, again], built_at_ns=mark)
        return self._note()

    def build(self) -> Story:
        """Make an image of everything so far."""
        self.life.build()
        return self

    def sync(self) -> Story:
        """Bring everything to stable storage."""
        self.life.sync()
        return self

    def restart(self) -> Story:
        """Crash and recover: writes go to a new journal."""
        self.life.crash()
        self.life = Life(self.directory)
        assert self.life.contents == self.states[-1]
        assert self.life.set_aside == []
        return self

    def end(self) -> Written:
        """Crash; return what is there."""
        self.life.crash()
        return Written(files_in(self.directory), self.states)

    def _note(self) -> Story:
        self.states.append(self.life.contents)
        return self


def every_kind(story: Story) -> Story:
    """Write each kind of frame, the last known sync in the middle."""
    story.put(b"a").put(b"b", b"c").delete(b"b", b"none").sync().put(b"d").clear()
    return story.put(b"a", b"e").bulk("merge", b"e", b"f").bulk("replace", b"g").put(b"h")


def frame_spans(journal: bytes) -> list[tuple[int, int]]:
    """Return (begin, end) of every frame in a good journal."""
    spans, at = [], HEADER_BYTES
    while at < len(journal):
        end = parse_frame(journal, at).end
        spans.append((at, end))
        at = end
    return spans


def flips(data: bytes, span: range | None = None) -> list[tuple[int, bytes]]:
    """Return (offset, data) with each single bit flipped."""
    places = range(len(data)) if span is None else span
    return [
        (at, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        for at in places
        for bit in range(8)
    ]


def recover(directory: Path, files: dict[str, bytes]) -> Life:
    """Return a life that began with exactly these files; new writes must survive the next one."""
    write_files(directory, files)
    return Life(directory)


def go_on(life: Life) -> Life:
    """Write, crash, recover: nothing that was there or is new may be lost."""
    before = life.contents
    life.put(NEW)
    life.crash()
    again = Life(life.directory)
    assert again.contents == before | NEW
    assert again.shard.generation == life.shard.generation
    return again


@pytest.fixture
def story(cache_dir: Path) -> Story:
    return Story(cache_dir / "shard")


def test_what_was_written_is_recovered(story: Story) -> None:
    written = every_kind(story).end()
    life = Life(story.directory)
    assert life.contents == written.states[-1]
    assert life.torn_bytes == 0
    assert life.set_aside == []


def test_nothing_is_recovered_where_nothing_is(cache_dir: Path) -> None:
    life = Life(cache_dir / "none")
    assert life.recovered is None
    assert life.set_aside == []


# Truncations


def test_every_truncation_of_the_last_journal_leaves_a_prefix(
    story: Story, cache_dir: Path
) -> None:
    written = every_kind(story).end()
    journal = written.files[FIRST]
    ends = [HEADER_BYTES, *(end for _, end in frame_spans(journal))]
    directory = cache_dir / "cut"
    for length in range(len(journal)):
        life = recover(directory, written.files | {FIRST: journal[:length]})
        kept = sum(end <= length for end in ends)
        assert life.contents == written.states[max(kept - 1, 0)], length
        assert life.set_aside == [], length
        assert life.torn_bytes == (length - ends[kept - 1] if kept else 0)
        go_on(go_on(life)).crash()


def test_every_truncation_of_the_last_journal_behind_an_image(
    story: Story, cache_dir: Path
) -> None:
    story.put(b"a", b"b").build()
    written = story.put(b"c").delete(b"a").clear().put(b"d").end()
    (name,) = [name for name in written.files if name.startswith("journal")]
    ends = [end for _, end in frame_spans(written.files[name])]
    directory = cache_dir / "cut"
    for length in range(len(written.files[name])):
        life = recover(directory, written.files | {name: written.files[name][:length]})
        kept = sum(end <= length for end in ends)
        assert life.contents == written.states[1 + kept], length
        assert life.set_aside == []
        go_on(life).crash()


def test_every_truncation_of_an_earlier_journal_is_damage(story: Story, cache_dir: Path) -> None:
    written = story.put(b"a").put(b"b").restart().put(b"c").delete(b"a").end()
    journal = written.files[FIRST]
    ends = [HEADER_BYTES, *(end for _, end in frame_spans(journal))]
    directory = cache_dir / "cut"
    for length in range(len(journal)):
        life = recover(directory, written.files | {FIRST: journal[:length]})
        kept = sum(end <= length for end in ends)
        if kept:
            assert life.contents == written.states[kept - 1], length
            assert [_name(aside.file) for aside in life.set_aside] == [SECOND, FIRST]
        else:
            # Its header is gone, and nothing says that what follows was synced.
            assert life.contents == {}, length
            assert [_name(aside.file) for aside in life.set_aside] == [SECOND, FIRST]
        assert kept_bytes(directory, FIRST) == journal[:length]
        go_on(go_on(life)).crash()


def test_every_truncation_of_the_image_is_set_aside(story: Story, cache_dir: Path) -> None:
    written = story.put(b"a", b"b").build().put(b"c").end()
    image = written.files["image"]
    directory = cache_dir / "cut"
    for length in range(0, len(image), 3):
        life = recover(directory, written.files | {"image": image[:length]})
        assert life.contents == {b"c": written.states[-1][b"c"]}, length
        assert [_name(aside.file) for aside in life.set_aside] == ["image"]
        assert kept_bytes(directory, "image") == image[:length]
        go_on(life).crash()


def test_bytes_behind_an_image_are_damage(story: Story, cache_dir: Path) -> None:
    written = story.put(b"a").build().end()
    image = written.files["image"] + b"\0"
    life = recover(cache_dir / "long", {"image": image})
    assert life.recovered is None
    assert [_name(aside.file) for aside in life.set_aside] == ["image"]


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".set-aside-")[0]


def kept_bytes(directory: Path, name: str) -> bytes:
    """Return the bytes of the one file that was set aside under this name."""
    (path,) = directory.glob(f"{name}.set-aside-*")
    return path.read_bytes()


# Flipped bits


def test_every_flipped_bit_of_the_last_journal_leaves_a_prefix(
    story: Story, cache_dir: Path
) -> None:
    written = every_kind(story).end()
    journal = written.files[FIRST]
    directory = cache_dir / "flipped"
    spans = frame_spans(journal)
    synced = max(parse_frame(journal, begin).synced for begin, _ in spans)
    bulks = sorted(name for name in written.files if name.startswith("bulk."))
    for index, (begin, end) in enumerate(spans):
        for at, flipped in flips(journal, range(begin, end)):
            life = recover(directory, written.files | {FIRST: flipped})
            assert life.contents == written.states[index], at
            # Frames behind it that are good say how far the file was synced.
            if begin < synced:
                kept = [_name(aside.file) for aside in life.set_aside]
                assert kept == [*bulks, FIRST], at
                assert kept_bytes(directory, FIRST) == flipped
                assert life.torn_bytes == 0
            else:
                assert life.set_aside == [], at
                assert life.torn_bytes == len(journal) - begin
            life.crash()


def test_shards_with_a_flipped_bit_go_on(story: Story, cache_dir: Path) -> None:
    written = every_kind(story).end()
    journal = written.files[FIRST]
    directory = cache_dir / "flipped"
    for _, flipped in flips(journal)[:: 8 * 5]:
        go_on(go_on(recover(directory, written.files | {FIRST: flipped}))).crash()


def test_every_flipped_bit_of_a_journal_header_sets_it_aside(story: Story, cache_dir: Path) -> None:
    written = story.put(b"a").build().put(b"a", b"b").end()
    (name,) = [name for name in written.files if name.startswith("journal")]
    directory = cache_dir / "flipped"
    for at, flipped in flips(written.files[name], range(HEADER_BYTES)):
        life = recover(directory, written.files | {name: flipped})
        assert life.contents == written.states[1], at
        assert [_name(aside.file) for aside in life.set_aside] == [name]
        life.crash()


def test_every_flipped_bit_of_an_earlier_journal_keeps_what_lies_before(
    story: Story, cache_dir: Path
) -> None:
    written = story.put(b"a").delete(b"a").put(b"b").restart().put(b"c").end()
    journal = written.files[FIRST]
    directory = cache_dir / "flipped"
    for index, (begin, end) in enumerate(frame_spans(journal)):
        for at, flipped in flips(journal, range(begin, end)):
            life = recover(directory, written.files | {FIRST: flipped})
            assert life.contents == written.states[index], at
            assert [_name(aside.file) for aside in life.set_aside] == [SECOND, FIRST]
            life.crash()


def test_every_flipped_bit_of_the_image_is_set_aside(story: Story, cache_dir: Path) -> None:
    written = story.put(b"a", b"b").build().put(b"c").end()
    directory = cache_dir / "flipped"
    for at, flipped in flips(written.files["image"]):
        life = recover(directory, written.files | {"image": flipped})
        assert life.contents == {b"c": written.states[-1][b"c"]}, at
        assert [_name(aside.file) for aside in life.set_aside] == ["image"]
        life.crash()


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_every_flipped_bit_of_a_bulk_ends_the_journal_there(
    mode: str, story: Story, cache_dir: Path
) -> None:
    written = story.put(b"a").bulk(mode, b"b", b"c").put(b"d").end()
    (name,) = [name for name in written.files if name.startswith("bulk")]
    directory = cache_dir / "flipped"
    for at, flipped in flips(written.files[name]):
        life = recover(directory, written.files | {name: flipped})
        assert life.contents == written.states[1], at
        assert life.torn_bytes > 0
        life.crash()


# Room: zeros that were put behind a journal's end for frames to come


@pytest.mark.parametrize("room", [1, 31, 32, 33, 4095, 4096, 1 << 20])
def test_room_behind_a_journal_is_no_torn_tail(story: Story, cache_dir: Path, room: int) -> None:
    written = every_kind(story).end()
    for frames in (written.files[FIRST], written.files[FIRST][:HEADER_BYTES]):
        expected = written.states[-1 if len(frames) > HEADER_BYTES else 0]
        scan = scan_journal(f"/{FIRST}", frames + bytes(room))
        assert (scan.problem, scan.data) == (None, frames)
        life = recover(cache_dir / "room", written.files | {FIRST: frames + bytes(room)})
        assert life.contents == expected
        assert (life.set_aside, life.torn_bytes) == ([], 0)
        again = go_on(life)
        assert (again.set_aside, again.torn_bytes) == ([], 0)
        again.crash()


def test_of_a_frame_that_is_torn_within_room_only_its_bytes_count(
    story: Story, cache_dir: Path
) -> None:
    written = every_kind(story).end()
    journal = written.files[FIRST]
    begin, end = frame_spans(journal)[-1]
    for length in range(begin + 4, end, 7):
        torn = journal[:length]
        life = recover(cache_dir / "torn", written.files | {FIRST: torn + bytes(8192)})
        assert life.contents == written.states[-2]
        assert (life.set_aside, life.torn_bytes) == ([], len(torn.rstrip(b"\0")) - begin)
        go_on(life).crash()


def test_pages_of_a_synced_frame_that_are_zero_are_damage_where_it_shows(
    story: Story, cache_dir: Path
) -> None:
    """A frame behind them says that they were synced: room is only what nothing lies behind."""
    written = story.put(b"a").put(b"b").sync().put(b"c").end()
    journal = written.files[FIRST]
    begin, end = frame_spans(journal)[1]
    lost = journal[:begin] + bytes(end - begin) + journal[end:] + bytes(8192)
    life = recover(cache_dir / "lost", written.files | {FIRST: lost})
    assert life.contents == written.states[1]
    assert [_name(aside.file) for aside in life.set_aside] == [FIRST]
    assert kept_bytes(cache_dir / "lost", FIRST) == lost
