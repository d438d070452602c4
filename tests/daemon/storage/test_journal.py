"""One journal: what it takes, in which order it syncs, and that a failed sync is its last."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.storage.journal import (
    Journal,
    create_journal,
    journal_name,
)
from autoloadd_daemon.storage.records import HEADER_BYTES, JournalHeader, encode_clear

from ..harness import EPOCH, PRODUCER, RecordingFiles

if TYPE_CHECKING:
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


def test_a_removed_file_takes_nothing(cache_dir: Path) -> None:
    journal = create(cache_dir, RecordingFiles())
    (cache_dir / NAME).unlink()
    with pytest.raises(StorageError, match="was removed while the daemon ran"):
        journal.append([FRAME])
    assert journal.failed is not None
    journal.remove()
    journal.close()
