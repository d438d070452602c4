"""Staged bulks: all of one at its commit, or nothing, wherever the daemon ends."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from autoloadd_daemon.errors import DamageError, StorageError
from autoloadd_daemon.storage.bulks import StagedBulk, bulk_name, read_bulk, staged_name
from autoloadd_daemon.storage.journal import journal_name
from autoloadd_daemon.storage.records import HEADER_BYTES, BulkFile, encode_bulk
from autoloadd_daemon.writes import CommitBulk

from ..harness import (
    PRODUCER,
    Item,
    Life,
    QuickFiles,
    RecordingFiles,
    files_in,
    item_of,
    records_of,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = Item(b"blob a"), Item(b"blob b", b"f", 7), Item(b"blob c" * 60)
JOURNAL = journal_name(1)


@pytest.fixture
def directory(cache_dir: Path) -> Path:
    return cache_dir / "shard"


def stage(directory: Path, mode: str = "merge") -> StagedBulk:
    return StagedBulk(QuickFiles(), str(directory), number=3, mode=mode, built_at_ns=9)


def test_a_commit_describes_the_file_it_leaves(directory: Path) -> None:
    staged = stage(directory)
    assert staged.add(records_of({b"a": A, b"b": B})) == 2
    assert staged.add(records_of({b"a": C})) == 2
    assert list(staged.records) == [b"b", b"a"], "the order of the last change"
    described, committed = staged.commit()
    data = (directory / bulk_name(3)).read_bytes()
    assert described == BulkFile("merge", 3, len(data), crc32(data), 9)
    assert staged.stored_bytes == len(data)
    assert committed.path == str(directory / bulk_name(3))
    found = read_bulk(QuickFiles(), str(directory), described)
    assert {name: item_of(record) for name, record in found.items()} == {b"b": B, b"a": C}
    assert list(found) == [b"b", b"a"]


def test_an_empty_bulk_is_one(directory: Path) -> None:
    described, _ = stage(directory).commit()
    assert read_bulk(QuickFiles(), str(directory), described) == {}


def test_a_bulk_that_is_given_up_leaves_nothing(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    staged = stage(directory)
    staged.add(records_of({b"a": A}))
    staged.discard()
    assert not directory.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_number_that_is_taken_is_refused(directory: Path) -> None:
    staged = stage(directory)
    with pytest.raises(StorageError, match="File exists"):
        stage(directory)
    staged.discard()


def test_a_bulk_that_is_gone_is_damage(directory: Path) -> None:
    described, committed = stage(directory).commit()
    os.unlink(committed.path)
    with pytest.raises(DamageError, match="No such file"):
        read_bulk(QuickFiles(), str(directory), described)


def test_an_add_that_fails_is_refused(directory: Path) -> None:
    directory.mkdir()
    files = RecordingFiles(fail_at=3, error=errno.ENOSPC)
    staged = StagedBulk(files, str(directory), number=1, mode="merge", built_at_ns=None)
    with pytest.raises(StorageError, match="No space left"):
        staged.add(records_of({b"a": A}))
    staged.discard()
    assert not directory.exists()


def test_a_commit_that_cannot_rename_leaves_nothing_open_and_no_file(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    directory.mkdir()
    files = RecordingFiles(fail_at=4)
    staged = StagedBulk(files, str(directory), number=1, mode="merge", built_at_ns=None)
    staged.add(records_of({b"a": A}))
    write = CommitBulk(PRODUCER, "write", lambda _outcome: None, staged)
    with pytest.raises(StorageError, match="Input/output error"):
        write.prepare()
    write.give_up()
    assert not directory.exists()
    assert len(os.listdir("/proc/self/fd")) == before


class UnclosableFiles(QuickFiles):
    """A disk that reports at the close what it could not write, as network disks do."""

    def close(self, descriptor: int) -> None:
        """Close, and fail all the same."""
        super().close(descriptor)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_a_close_that_fails_refuses_the_commit_and_is_not_done_twice(directory: Path) -> None:
    directory.mkdir()
    staged = StagedBulk(UnclosableFiles(), str(directory), number=1, mode="merge", built_at_ns=None)
    write = CommitBulk(PRODUCER, "write", lambda _outcome: None, staged)
    with pytest.raises(StorageError, match="quota"):
        write.prepare()
    # This takes the number of the descriptor that is closed already.
    other = os.open(directory, os.O_RDONLY)
    write.give_up()
    os.fstat(other)
    os.close(other)
    assert not directory.exists()


# Crashes


def committed_shard(directory: Path, mode: str) -> dict[str, bytes]:
    """Return the files of a shard with a put, a bulk, a put."""
    life = Life(directory)
    life.put({b"a": A})
    life.bulk(mode, [{b"b": B}, {b"c": C, b"b": A}], built_at_ns=77)
    life.crash()
    return files_in(directory)


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_a_crash_at_each_step_of_a_commit_leaves_all_or_nothing(mode: str, directory: Path) -> None:
    files = committed_shard(directory, mode)
    journal, bulk = files[JOURNAL], files[bulk_name(1)]
    frame_at = len(journal) - len(b"".join(encode_bulk(2, 0, described(mode, bulk))))
    for length in range(len(bulk) + 1):
        staged = {JOURNAL: journal[:frame_at], staged_name(1): bulk[:length]}
        assert_recovers(directory, staged, {b"a": A})
    renamed = {JOURNAL: journal[:frame_at], bulk_name(1): bulk}
    assert_recovers(directory, renamed, {b"a": A})
    for length in range(frame_at, len(journal)):
        assert_recovers(directory, renamed | {JOURNAL: journal[:length]}, {b"a": A})
    new = {b"b": A, b"c": C}
    write_files(directory, files)
    life = Life(directory)
    assert life.contents == (new if mode == "replace" else {b"a": A} | new)
    assert life.shard.built_at_ns == (77 if mode == "replace" else 5)


def described(mode: str, bulk: bytes) -> BulkFile:
    """Return what the frame says of a bulk."""
    return BulkFile(mode, 1, len(bulk), crc32(bulk), 77)


def assert_recovers(directory: Path, files: dict[str, bytes], expected: dict[bytes, Item]) -> None:
    """Recover exactly this, with no bulk left over and none damaged; then commit another."""
    write_files(directory, files)
    life = Life(directory)
    assert life.contents == expected
    assert life.set_aside == []
    assert [name for name in files_in(directory) if name != JOURNAL] == []
    life.bulk("merge", [{b"d": B}], sync=True)
    life.crash()
    again = Life(directory)
    assert again.contents == expected | {b"d": B}
    again.crash()


@pytest.mark.parametrize("is_synced", [False, True])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_bulk_that_is_lost_ends_the_journal_before_it(
    is_there: bool, is_synced: bool, directory: Path
) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.bulk("replace", [{b"b": B}], sync=is_synced)
    life.put({b"c": C})
    life.crash()
    files = files_in(directory)
    bulk = files.pop(bulk_name(1))
    life = recover(directory, files | ({bulk_name(1): bulk[:-1]} if is_there else {}))
    assert life.contents == {b"a": A}
    assert bool(life.set_aside) == is_synced
    assert (life.torn_bytes > 0) != is_synced
    # What is left of it is no reason to refuse what comes.
    life.put({b"d": B}, sync=True)
    life.crash()
    assert Life(directory).contents == {b"a": A, b"d": B}


def test_a_bulk_that_cannot_be_read_is_kept_aside_with_its_journal(directory: Path) -> None:
    life = Life(directory)
    life.put({b"a": A})
    life.bulk("replace", [{b"b": B}])
    life.crash()
    bulk = directory / bulk_name(1)
    elsewhere = bulk.rename(directory.parent / "elsewhere")
    # Nothing was synced, but no torn write makes a file that is there unreadable.
    bulk.symlink_to(elsewhere)
    life = Life(directory)
    assert life.contents == {b"a": A}
    kept = {os.path.basename(aside.file).partition(".set-aside-")[0] for aside in life.set_aside}
    assert kept == {JOURNAL, bulk_name(1)}
    assert life.torn_bytes == 0


def test_a_good_bulk_of_the_same_length_in_anothers_place_is_damage(directory: Path) -> None:
    life = Life(directory)
    life.bulk("merge", [{b"a": Item(b"older")}])
    life.bulk("merge", [{b"a": Item(b"newer")}])
    life.put({b"b": B}, sync=True)
    life.put({b"c": C})
    life.crash()
    files = files_in(directory)
    older, newer = files[bulk_name(1)], files[bulk_name(2)]
    assert len(older) == len(newer)
    # Each record is whole: only the frame's checksum knows the file.
    life = recover(directory, files | {bulk_name(2): older})
    assert life.contents == {b"a": Item(b"older")}
    assert life.set_aside


def recover(directory: Path, files: dict[str, bytes]) -> Life:
    write_files(directory, files)
    return Life(directory)


def test_a_bulk_is_synced_before_the_frame_that_names_it_and_its_name_too(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.put({b"a": A}, sync=True)
    files.log.clear()
    life.bulk("merge", [{b"b": B}], sync=True)
    assert files.operations() == [
        "make_directory shard",
        f"create {staged_name(1)}",
        f"append {staged_name(1)}",
        f"rename {staged_name(1)} {bulk_name(1)}",
        f"append {JOURNAL}",
        f"reopen {bulk_name(1)}",
        f"sync {bulk_name(1)}",
        f"sync {JOURNAL}",
        "sync_directory shard",
        f"sync_directory {directory.parent.name}",
    ]


def test_a_journal_is_removed_before_its_bulks(directory: Path) -> None:
    files = RecordingFiles()
    life = Life(directory, files)
    life.bulk("merge", [{b"b": B}])
    life.build()
    removed = [entry for entry in files.operations() if entry.startswith("remove")]
    assert removed[-2:] == [f"remove {JOURNAL}", f"remove {bulk_name(1)}"]
    assert list(files_in(directory)) == ["image"]


def test_a_bulk_of_an_earlier_life_goes_with_its_journal(directory: Path) -> None:
    committed_shard(directory, "merge")
    life = Life(directory)
    life.build()
    assert list(files_in(directory)) == ["image"]


def test_numbers_of_bulks_that_are_named_are_not_given_again(directory: Path) -> None:
    committed_shard(directory, "merge")
    life = Life(directory)
    life.bulk("merge", [{b"d": A}])
    life.crash()
    assert {bulk_name(1), bulk_name(2)} < files_in(directory).keys()
    assert Life(directory).contents == {b"a": A, b"b": A, b"c": C, b"d": A}


def test_a_bulk_frame_alone_is_a_journal(directory: Path) -> None:
    life = Life(directory)
    life.bulk("replace", [{b"a": A}])
    life.crash()
    assert len(files_in(directory)[JOURNAL]) > HEADER_BYTES
    assert Life(directory).contents == {b"a": A}
