"""A shard's files while it is written: order of syncs, rotation, and errors at every call."""

from __future__ import annotations

import errno
import gc
import os
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.storage import journal
from autoloadd_daemon.storage.journal import journal_name
from autoloadd_daemon.storage.records import HEADER_BYTES, parse_frame, parse_journal_header

from ..harness import Contents, Item, Life, RecordingFiles, files_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A, B, C, D = (Item(b"blob " + name, b"f", 3) for name in (b"a", b"b", b"c", b"d"))
FIRST, SECOND = journal_name(1), journal_name(2)


@pytest.fixture
def directory(cache_dir: Path) -> Path:
    return cache_dir / "shard"


def test_a_journal_is_made_with_its_first_frame(directory: Path) -> None:
    life = Life(directory)
    assert not directory.exists()
    life.sync()
    assert (life.disk.end, life.disk.synced, life.disk.journal_bytes) == (0, 0, 0)
    assert not life.disk.has_unsynced
    life.put({b"a": A})
    assert list(files_in(directory)) == [FIRST]
    assert life.disk.end == life.disk.journal_bytes == (directory / FIRST).stat().st_size
    assert life.disk.has_unsynced
    life.sync()
    assert life.disk.synced == life.disk.end
    assert not life.disk.has_unsynced
    life.crash()


def test_each_frame_says_how_far_the_file_was_synced(directory: Path) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.sync()
    synced = life.disk.end
    life.put({b"b": B})
    life.crash()
    assert parse_frame((directory / FIRST).read_bytes(), synced).synced == synced


def test_headers_chain(directory: Path) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.put({b"b": B})
    end = life.disk.end
    life.crash()
    life = Life(directory)
    life.put({b"c": C})
    life.disk.rotate()
    life.put({b"d": D})
    life.crash()
    headers = [parse_journal_header(data) for data in files_in(directory).values()]
    assert [header.sequence for header in headers] == [1, 2, 3]
    assert [header.base_generation for header in headers] == [0, 2, 3]
    assert [header.previous_end for header in headers][:2] == [0, end]
    assert {header.epoch for header in headers} == {life.shard.epoch}


def test_older_journals_are_synced_first(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    life.disk.rotate()
    life.put({b"b": B})
    files.log.clear()
    life.sync()
    syncs = [entry for entry in files.operations() if entry.startswith("sync ")]
    assert syncs == [f"sync {FIRST}", f"sync {SECOND}"]


def test_journals_of_an_earlier_life_are_synced_too(directory: Path) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.bulk("merge", [{b"b": B}])
    life.crash()
    files = RecordingFiles()
    life = Life(directory, files)
    assert life.disk.has_unsynced
    life.put({b"c": C}, sync=True)
    syncs = [entry for entry in files.operations() if entry.startswith("sync ")]
    # Copies of what the earlier life wrote: a sync that failed there would say OK now.
    assert syncs == ["sync bulk.00000001.tmp", f"sync {FIRST}.tmp", f"sync {SECOND}"]
    assert not life.disk.has_unsynced
    life.crash()
    assert Life(directory).contents == {b"a": A, b"b": B, b"c": C}


def test_journals_go_after_the_image_is_on_stable_storage(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    files.log.clear()
    life.build()
    operations = files.operations()
    order = ["sync image.tmp", "rename image.tmp image", "sync_directory shard", f"remove {FIRST}"]
    assert [entry for entry in operations if entry in order] == order
    assert list(files_in(directory)) == ["image"]


def test_a_build_that_fails_leaves_the_journals(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    files.fail_next = "rename"
    with pytest.raises(StorageError):
        life.build()
    life.put({b"b": B})
    assert life.contents == {b"a": A, b"b": B}
    life.crash()
    assert Life(directory).contents == {b"a": A, b"b": B}


def test_a_failed_sync_refuses_writes_until_an_image_is_built(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A}, sync=True)
    files.fail_next = "sync"
    with pytest.raises(StorageError, match="sync failed"):
        life.put({b"b": B}, sync=True)
    assert life.disk.failure is not None
    with pytest.raises(StorageError, match="sync failed"):
        life.put({b"c": C})
    with pytest.raises(StorageError, match="sync failed"):
        life.sync()
    life.build()
    assert life.disk.failure is None
    life.put({b"d": D}, sync=True)
    life.crash()
    again = Life(directory)
    assert again.contents == {b"a": A, b"d": D}
    assert again.set_aside == []


def test_a_failed_first_sync_of_a_new_journal_is_recovered_from(directory: Path) -> None:
    """The refused frame is cut back with the header before it: the file ends empty."""
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    life.disk.rotate()
    files.fail_next = "sync_directory"
    with pytest.raises(StorageError):
        life.put({b"b": B}, sync=True)
    life.crash()
    again = Life(directory)
    assert again.contents == {b"a": A}
    assert again.set_aside == []


# Errors at every call


class Attempt:
    """Writes, builds and syncs on a disk that fails; notes what was acknowledged."""

    def __init__(self, directory: Path, files: RecordingFiles) -> None:
        self.life = Life(directory, files)
        self.acknowledged: Contents = {}
        self.unanswered: list[Contents] = []

    def run(self) -> None:
        """Do a put, a bulk, a synced put, a build and a put."""
        steps: list[Callable[[], None]] = [
            lambda: self._put(b"a", A),
            self._bulk,
            lambda: self._put(b"c", C, sync=True),
            self.life.build,
            lambda: self._put(b"d", D),
        ]
        for attempt in steps:
            try:
                attempt()
            except (StorageError, OSError):
                assert self.life.contents == self.acknowledged

    def _put(self, name: bytes, item: Item, *, sync: bool = False) -> None:
        self._expect({name: item})
        self.life.put({name: item}, sync=sync)
        self._acknowledge({name: item})

    def _bulk(self) -> None:
        self._expect({b"b": B})
        self.life.bulk("merge", [{b"b": B}])
        self._acknowledge({b"b": B})

    def _expect(self, items: Contents) -> None:
        # Refused is not answered: after a crash it may be there.
        self.unanswered.append(items)

    def _acknowledge(self, items: Contents) -> None:
        self.unanswered.remove(items)
        self.acknowledged |= items


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_loses_nothing_that_was_acknowledged(
    *, error: int, persistent: bool, cache_dir: Path
) -> None:
    for step in range(1, 60):
        directory = cache_dir / f"shard-{step}"
        files = RecordingFiles(fail_at=step, persistent=persistent, error=error)
        try:
            attempt = Attempt(directory, files)
        except OSError:
            assert step == 1, "only recovery's first call was made"
            continue
        attempt.run()
        assert_no_second_sync(files)
        attempt.life.crash()
        again = Life(directory)
        assert again.contents.items() >= attempt.acknowledged.items(), files.failed
        extra = {k: v for k, v in again.contents.items() if k not in attempt.acknowledged}
        assert all({name: item} in attempt.unanswered for name, item in extra.items())
        assert again.set_aside == [], files.failed
        again.put({b"new": A}, sync=True)
        again.crash()
        assert Life(directory).contents == again.contents
        if not files.failed:
            assert attempt.acknowledged == {b"a": A, b"b": B, b"c": C, b"d": D}
            return
    raise AssertionError("the attempt makes fewer calls than this")


def assert_no_second_sync(files: RecordingFiles) -> None:
    """A file whose sync failed is never synced again: the kernel would say OK."""
    for operation, name in files.failed:
        if operation == "sync" and name.startswith("journal"):
            assert (operation, name) not in files.log


def test_descriptors_are_given_back(directory: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        life = Life(directory)
        life.put({b"a": A})
        life.bulk("merge", [{b"b": B}])
        life.build()
        life.put({b"c": C})
        life.crash()
        del life
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


ROOM_BYTES = 8192


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals get room from their first sync on, not from the 32nd KiB on."""
    monkeypatch.setattr(journal, "room_bytes", lambda _end: ROOM_BYTES)


def test_a_quarter_of_a_journal_that_is_long_is_room() -> None:
    assert journal.room_bytes(HEADER_BYTES) == journal.room_bytes(32_767) == 0
    assert journal.room_bytes(32_768) == 8192
    assert journal.room_bytes(100_000) == 24_576
    assert journal.room_bytes(1 << 30) == 1 << 20


@pytest.mark.usefixtures("roomy")
def test_room_is_made_before_the_sync_and_written_over(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    files.log.clear()
    life.disk.sync(makes_room=True)
    assert files.operations(on="journal") == [f"overwrite {FIRST}", f"sync {FIRST}"]
    end = life.disk.end
    data = (directory / FIRST).read_bytes()
    assert data[end:] == bytes(ROOM_BYTES)
    assert life.disk.journal_bytes == end
    assert life.disk.disk_bytes == end + ROOM_BYTES
    life.put({b"b": B})
    files.log.clear()
    life.disk.sync(makes_room=True)
    assert files.operations(on="journal") == [f"sync {FIRST}"], "there is enough room"
    grown = (directory / FIRST).read_bytes()
    assert grown[:end] == data[:end]
    assert len(grown) == len(data)
    life.crash()
    assert Life(directory).contents == {b"a": A, b"b": B}


@pytest.mark.usefixtures("roomy")
def test_room_that_is_half_used_is_made_anew_behind_it(directory: Path) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.disk.sync(makes_room=True)
    first_end = life.disk.disk_bytes
    life.put({b"big": Item(bytes(ROOM_BYTES * 3 // 4))})
    life.disk.sync(makes_room=True)
    assert life.disk.disk_bytes == first_end + ROOM_BYTES == (directory / FIRST).stat().st_size
    life.put({b"bigger": Item(bytes(ROOM_BYTES * 2))})
    life.disk.sync(makes_room=True)
    assert life.disk.disk_bytes == life.disk.end + ROOM_BYTES == (directory / FIRST).stat().st_size
    contents = life.contents
    life.crash()
    assert Life(directory).contents == contents


@pytest.mark.usefixtures("roomy")
def test_a_sync_that_others_write_beside_makes_no_room(directory: Path) -> None:
    """What is appended meanwhile would be written over."""
    life = Life(directory)
    life.put({b"a": A})
    life.sync()
    assert (directory / FIRST).stat().st_size == life.disk.end == life.disk.disk_bytes


@pytest.mark.usefixtures("roomy")
def test_room_goes_with_what_is_taken_back_and_at_the_end(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    life.disk.sync(makes_room=True)
    files.fail_next = "append"
    with pytest.raises(StorageError):
        life.put({b"b": B})
    assert (directory / FIRST).stat().st_size == life.disk.end == life.disk.disk_bytes
    life.put({b"c": C})
    life.disk.sync(makes_room=True)
    life.disk.rotate()
    life.disk.sync(makes_room=True)
    assert (directory / FIRST).stat().st_size == life.disk.disk_bytes == life.disk.journal_bytes
    life.put({b"d": D})
    life.disk.sync(makes_room=True)
    life.crash()
    assert Life(directory).contents == {b"a": A, b"c": C, b"d": D}


@pytest.mark.usefixtures("roomy")
def test_where_room_cannot_be_given_back_nothing_is_lost(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    life.disk.sync(makes_room=True)
    life.disk.rotate()
    files.fail_next = "truncate"
    life.disk.sync()
    assert files.failed == [("truncate", FIRST)]
    life.put({b"b": B})
    life.crash()
    again = Life(directory)
    assert again.contents == {b"a": A, b"b": B}
    assert (again.set_aside, again.torn_bytes) == ([], 0)


@pytest.mark.usefixtures("roomy")
def test_where_there_is_no_place_for_room_the_sync_goes_on_without(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A})
    files.fail_next = "overwrite"
    life.disk.sync(makes_room=True)
    assert life.disk.synced == life.disk.end
    life.put({b"b": B})
    files.log.clear()
    life.disk.sync(makes_room=True)
    assert files.operations(on="journal") == [f"sync {FIRST}"], "not tried again"
    assert life.disk.failure is None
