"""One journal: what it takes, in which order it syncs, and that a failed sync is its last."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.errors import DescriptorsError, StorageError
from autoloadd_daemon.storage.bulks import CommittedBulk, bulk_name
from autoloadd_daemon.storage.journal import (
    Journal,
    create_journal,
    journal_name,
)
from autoloadd_daemon.storage.records import HEADER_BYTES, JournalHeader, encode_clear

from ..harness import EPOCH, PRODUCER, RecordingFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER = JournalHeader(PRODUCER, EPOCH, 1, 0, 0, 5)
NAME = journal_name(1)
FRAME = b"".join(encode_clear(1, 0))


def create(directory: Path, files: RecordingFiles) -> Journal:
    return create_journal(files, str(directory), HEADER)


def test_names_sort_as_their_numbers() -> None:
    assert journal_name(7) == "journal.00000007"
    assert sorted(map(journal_name, (10, 9, 100))) == list(map(journal_name, (9, 10, 100)))


def test_a_journal_begins_with_its_header(cache_dir: Path) -> None:
    files = RecordingFiles()
    journal = create(cache_dir, files)
    assert (journal.end, journal.synced, journal.failed) == (HEADER_BYTES, 0, None)
    assert (cache_dir / NAME).read_bytes() == HEADER.pack()
    journal.append([FRAME, memoryview(FRAME)])
    assert journal.end == HEADER_BYTES + 2 * len(FRAME)
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + 2 * FRAME
    journal.close()


def test_it_is_appended_to_before_it_is_synced_and_its_name_once(cache_dir: Path) -> None:
    files = RecordingFiles()
    journal = create(cache_dir, files)
    for _ in range(2):
        journal.append([FRAME])
        journal.sync()
        journal.sync()
    assert journal.synced == journal.end
    assert files.operations() == [
        f"create {NAME}",
        f"append {NAME}",
        f"append {NAME}",
        f"sync {NAME}",
        f"sync_directory {cache_dir.name}",
        f"sync_directory {cache_dir.parent.name}",
        f"append {NAME}",
        f"sync {NAME}",
    ]
    journal.close()


@pytest.mark.parametrize("operation", ["create", "append"])
def test_a_journal_that_cannot_be_made_leaves_no_file(operation: str, cache_dir: Path) -> None:
    files = RecordingFiles()
    files.fail_next = operation
    with pytest.raises(StorageError, match=NAME):
        create(cache_dir, files)
    assert list(cache_dir.iterdir()) == []
    create(cache_dir, files).close()


def test_an_append_that_fails_is_cut_back_and_can_be_tried_again(cache_dir: Path) -> None:
    files = RecordingFiles(error=errno.ENOSPC)
    journal = create(cache_dir, files)
    journal.append([FRAME])
    files.fail_next = "append"
    with pytest.raises(StorageError, match="No space left"):
        journal.append([FRAME, FRAME])
    assert files.log[-1] == ("truncate", NAME)
    assert journal.failed is None
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME
    journal.append([FRAME])
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME * 2
    journal.close()


def test_one_that_cannot_be_cut_back_takes_nothing_more(cache_dir: Path) -> None:
    files = RecordingFiles()
    journal = create(cache_dir, files)
    files.fail_at, files.persistent = len(files.log) + 1, True
    with pytest.raises(StorageError):
        journal.append([FRAME])
    files.fail_at = 0
    assert journal.failed is not None
    assert "cannot be cut back" in journal.failed
    assert journal.end == HEADER_BYTES
    with pytest.raises(StorageError, match="cannot be cut back"):
        journal.append([FRAME])
    with pytest.raises(StorageError, match="cannot be cut back"):
        journal.sync()
    journal.close()


@pytest.mark.parametrize("operation", ["sync", "sync_directory"])
def test_after_a_failed_sync_the_file_is_never_synced_again(
    operation: str, cache_dir: Path
) -> None:
    files = RecordingFiles()
    journal = create(cache_dir, files)
    journal.append([FRAME])
    files.fail_next = operation
    with pytest.raises(StorageError, match="sync failed: Input/output error"):
        journal.sync()
    files.log.clear()
    with pytest.raises(StorageError, match="sync failed"):
        journal.sync()
    with pytest.raises(StorageError, match="sync failed"):
        journal.append([FRAME])
    assert files.log == []
    assert journal.synced == 0
    journal.close()


def test_refused_frames_are_cut_back(cache_dir: Path) -> None:
    journal = create(cache_dir, RecordingFiles())
    journal.append([FRAME])
    end = journal.end
    journal.append([FRAME])
    journal.cut_back(end)
    assert journal.end == end
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME
    journal.close()


def committed_bulk(directory: Path, files: RecordingFiles, number: int) -> CommittedBulk:
    """Return a bulk of 100 bytes whose file is there."""
    path = directory / bulk_name(number)
    path.write_bytes(bytes(100))
    return CommittedBulk(files, str(path), 100)


@pytest.mark.parametrize("failing", ["reopen", "sync", "sync_directory"])
def test_a_refused_frame_takes_its_bulk_with_it(failing: str, cache_dir: Path) -> None:
    """Wherever the sync failed that it was refused for: before its bulk was synced, or behind."""
    files = RecordingFiles()
    journal = create(cache_dir, files)
    journal.append([FRAME], [committed_bulk(cache_dir, files, 1)])
    end = journal.end
    journal.append([FRAME], [committed_bulk(cache_dir, files, 2)])
    files.fail_next = failing
    with pytest.raises(StorageError, match="sync failed"):
        journal.sync()
    journal.cut_back(end)
    assert (journal.end, journal.bulk_bytes) == (end, 100)
    journal.close()
    journal.remove()
    assert [path.name for path in cache_dir.iterdir()] == [bulk_name(2)], "its write removes it"


def test_a_bulk_that_was_refused_is_not_synced(cache_dir: Path) -> None:
    """The sync of an older journal may have failed, which says nothing of this one."""
    files = RecordingFiles()
    journal = create(cache_dir, files)
    bulk = committed_bulk(cache_dir, files, 1)
    journal.append([FRAME], [bulk])
    journal.cut_back(HEADER_BYTES)
    os.unlink(bulk.path)
    journal.append([FRAME])
    journal.sync()
    assert journal.synced == journal.end == HEADER_BYTES + len(FRAME)
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME
    journal.close()


def test_what_is_closed_is_cut_back_in_memory_alone(cache_dir: Path) -> None:
    files = RecordingFiles()
    journal = create(cache_dir, files)
    journal.append([FRAME])
    journal.close()
    journal.cut_back(HEADER_BYTES)
    assert journal.end == HEADER_BYTES
    assert journal.failed is None
    assert "truncate" not in dict(files.log)


def unlink(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_directory(path: Path) -> None:
    move_directory(path)
    path.parent.mkdir()
    path.write_bytes(b"another's")


@pytest.mark.parametrize("change", [unlink, replace, move_directory, replace_directory])
def test_a_file_that_is_not_there_any_more_takes_nothing(
    change: Callable[[Path], None], cache_dir: Path
) -> None:
    directory = cache_dir / "shard"
    directory.mkdir()
    journal = create(directory, RecordingFiles())
    journal.append([FRAME])
    change(directory / NAME)
    left = {path: path.read_bytes() for path in cache_dir.rglob(NAME)}
    with pytest.raises(StorageError, match="was removed or replaced while the daemon ran"):
        journal.append([FRAME])
    assert journal.failed is not None
    journal.remove()
    assert {path: path.read_bytes() for path in cache_dir.rglob(NAME)} == left, "not ours"
    journal.close()
    journal.close()


def test_the_last_sync_of_a_journal_gives_its_descriptor_back(cache_dir: Path) -> None:
    open_journals: set[Journal] = set()
    before = len(os.listdir("/proc/self/fd"))
    journal = create_journal(RecordingFiles(), str(cache_dir), HEADER, open_journals)
    journal.append([FRAME])
    journal.sync()
    assert open_journals == {journal}
    assert not journal.wants_sync
    journal.has_ended = True
    assert journal.wants_sync
    journal.sync()
    assert open_journals == set()
    assert not journal.wants_sync
    assert len(os.listdir("/proc/self/fd")) == before
    journal.remove()
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("operation", ["sync", "append", "rename"])
def test_what_an_earlier_daemon_wrote_is_copied_and_never_synced(
    operation: str, cache_dir: Path
) -> None:
    create(cache_dir, RecordingFiles()).close()
    with (cache_dir / NAME).open("ab") as file:
        file.write(FRAME + b"torn")
    files = RecordingFiles()
    journal = Journal(files, str(cache_dir), HEADER, HEADER_BYTES + len(FRAME))
    files.fail_next = operation
    with pytest.raises(StorageError, match="Input/output error"):
        journal.sync()
    assert journal.failed is None, "the copy failed, not the journal"
    assert journal.wants_sync
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME + b"torn"
    journal.sync()
    assert not journal.wants_sync
    assert (cache_dir / NAME).read_bytes() == HEADER.pack() + FRAME
    assert f"sync {NAME}" not in files.operations()
    assert files.operations()[-2:] == [
        f"sync_directory {cache_dir.name}",
        f"sync_directory {cache_dir.parent.name}",
    ]
    journal.remove()
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("operation", ["sync_directory", "reopen"])
def test_a_lack_of_descriptors_is_no_failure(operation: str, cache_dir: Path) -> None:
    files = RecordingFiles(error=errno.EMFILE)
    journal = create(cache_dir, files)
    (cache_dir / "bulk.00000001").write_bytes(b"bulk")
    journal.append([FRAME], [CommittedBulk(files, str(cache_dir / "bulk.00000001"), 4)])
    files.fail_next = operation
    with pytest.raises(DescriptorsError, match="Too many open files"):
        journal.sync()
    assert journal.failed is None
    journal.sync()
    assert journal.synced == journal.end
    files.fail_next = "create"
    with pytest.raises(DescriptorsError):
        create_journal(files, str(cache_dir), HEADER._replace(sequence=2))
    journal.close()
