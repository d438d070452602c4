"""The model of a disk itself: what it must allow, and what it must not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from .disk_model import (
    BeginSync,
    Create,
    Disk,
    Link,
    MakeDirectory,
    RemoveDirectory,
    Rename,
    SyncDirectory,
    SyncFile,
    Truncate,
    Unlink,
    Write,
)
from .strace_log import Replay, parse

if TYPE_CHECKING:
    from .disk_model import Operation

ROOT = "/c"
NEW: list[Operation] = [Create("/c/f", 1), Write(1, 0, b"old"), SyncFile(1), SyncDirectory(ROOT)]
"""A file that is there for sure."""


def after_power_loss(*log: Operation, in_order: bool = True) -> set[tuple[tuple[str, bytes], ...]]:
    """Return the files of every state that a power loss at the end of a log can leave."""
    disk = Disk(ROOT, commits_in_order=in_order)
    for operation in log:
        disk.apply(operation)
    return {state.files for state in disk.crash_states(random.Random(1), 300)}


def contents(*log: Operation) -> set[bytes]:
    """Return what a power loss can leave in the one file that is there for sure."""
    return {
        data for files in after_power_loss(*NEW, *log) for path, data in files if path == "/c/f"
    }


def test_what_is_synced_with_its_name_stays() -> None:
    assert after_power_loss(*NEW) == {(("/c/f", b"old"),)}


def test_a_synced_file_without_a_synced_directory_may_be_gone() -> None:
    assert after_power_loss(*NEW[:-1]) == {(), (("/c/f", b"old"),)}


def test_a_name_that_is_synced_before_the_bytes_may_be_empty_or_anything_between() -> None:
    found = after_power_loss(Create("/c/f", 1), Write(1, 0, b"ab"), SyncDirectory(ROOT))
    assert found == {(("/c/f", data),) for data in (b"", b"a", b"ab", b"\0\0")}


def test_writes_reach_the_disk_in_any_order() -> None:
    found = contents(Write(1, 3, b"X"), Write(1, 4, b"Y"))
    assert {b"old", b"oldX", b"oldXY", b"old\0Y", b"old\0"} <= found


def test_pages_of_a_write_reach_the_disk_in_any_order() -> None:
    found = contents(Write(1, 0, b"a" * 4096 + b"b" * 4096))
    assert b"old" + bytes(4093) + b"b" * 4096 in found
    assert b"a" * 4096 in found


def test_a_sync_covers_what_was_there_when_it_began() -> None:
    log = (Write(1, 3, b"1"), BeginSync(9, 1), Write(1, 4, b"2"), SyncFile(1, begun=9))
    found = contents(*log)
    assert {b"old1", b"old12"} <= found
    assert all(data.startswith(b"old1") for data in found)


def test_a_failed_sync_makes_nothing_durable_then_or_later() -> None:
    found = contents(Write(1, 3, b"X"), SyncFile(1, failed=True), SyncFile(1))
    assert {b"old", b"oldX"} <= found


def test_what_is_written_after_a_failed_sync_can_be_synced() -> None:
    log = (Write(1, 3, b"X"), SyncFile(1, failed=True), Truncate(1, 3), Write(1, 3, b"X"))
    assert contents(*log, SyncFile(1)) == {b"oldX"}


def test_a_truncation_lasts_from_its_sync_on() -> None:
    assert {b"old", b"o"} <= contents(Truncate(1, 1))
    assert contents(Truncate(1, 1), SyncFile(1)) == {b"o"}


def test_a_rename_is_all_or_nothing_until_its_directory_is_synced() -> None:
    log: list[Operation] = [
        *NEW,
        Create("/c/t", 2),
        Write(2, 0, b"new"),
        SyncFile(2),
        Rename("/c/t", "/c/f"),
    ]
    found = after_power_loss(*log)
    assert {dict(files)["/c/f"] for files in found} == {b"old", b"new"}
    assert after_power_loss(*log, SyncDirectory(ROOT)) == {(("/c/f", b"new"),)}


def test_a_rename_of_what_is_not_synced_may_lose_both() -> None:
    log: list[Operation] = [*NEW, Create("/c/t", 2), Write(2, 0, b"new"), Rename("/c/t", "/c/f")]
    assert b"" in {dict(files)["/c/f"] for files in after_power_loss(*log, SyncDirectory(ROOT))}


def test_a_removal_may_reach_the_disk_before_what_came_earlier() -> None:
    found = after_power_loss(*NEW, Create("/c/g", 2), SyncFile(2), Unlink("/c/f"))
    assert {(), (("/c/f", b"old"), ("/c/g", b""))} <= found


@pytest.mark.parametrize("in_order", [True, False])
def test_a_directory_of_a_directory_must_be_synced_too(in_order: bool) -> None:
    log: list[Operation] = [MakeDirectory("/c/d"), Create("/c/d/f", 1), SyncFile(1)]
    inner = after_power_loss(*log, SyncDirectory("/c/d"), in_order=in_order)
    # A journal commits what came before; POSIX promises the names of this directory only.
    assert (() in inner) is not in_order
    both = after_power_loss(*log, SyncDirectory("/c/d"), SyncDirectory(ROOT), in_order=in_order)
    assert both == {(("/c/d/f", b""),)}


def test_a_sync_of_a_directory_covers_what_was_there_when_it_began() -> None:
    log = (*NEW, BeginSync(9, ROOT), Unlink("/c/f"), SyncDirectory(ROOT, begun=9))
    assert after_power_loss(*log) == {(), (("/c/f", b"old"),)}


def test_a_second_name_keeps_the_file() -> None:
    log = (*NEW, Link("/c/f", "/c/g"), Unlink("/c/f"), SyncDirectory(ROOT))
    assert after_power_loss(*log) == {(("/c/g", b"old"),)}


def test_a_directory_takes_its_files_along() -> None:
    log: list[Operation] = [
        MakeDirectory("/c/d"),
        Create("/c/d/f", 1),
        Rename("/c/d", "/c/e"),
        SyncDirectory(ROOT),
    ]
    assert after_power_loss(*log) == {(("/c/e/f", b""),)}
    gone = (*log, Unlink("/c/e/f"), RemoveDirectory("/c/e"), SyncDirectory("/c/e"))
    assert after_power_loss(*gone, SyncDirectory(ROOT)) == {()}


@pytest.mark.parametrize("in_order", [True, False])
def test_what_is_pending_in_a_directory_follows_its_rename(in_order: bool) -> None:
    log: list[Operation]
    log = [MakeDirectory("/c/d"), SyncDirectory(ROOT), Create("/c/d/f", 1), Rename("/c/d", "/c/e")]
    disk = Disk(ROOT, commits_in_order=in_order)
    for operation in (*log, BeginSync(9, "/c/e"), SyncDirectory(ROOT)):
        disk.apply(operation)
    assert disk.after_kill().files == (("/c/e/f", b""),)
    disk.apply(SyncDirectory("/c/e", begun=9))
    assert {state.files for state in disk.crash_states(random.Random(1), 9)} == {(("/c/e/f", b""),)}


def test_a_kill_loses_nothing() -> None:
    disk = Disk(ROOT)
    for operation in (*NEW, Write(1, 3, b"X"), Create("/c/g", 2)):
        disk.apply(operation)
    assert disk.after_kill().files == (("/c/f", b"oldX"), ("/c/g", b""))


def hexed(text: str) -> str:
    """Return a string as strace writes it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'


def replayed(*lines: str) -> list[Operation]:
    """Return the operations of a log's lines, in which `'...'` stands for a string."""
    parts = [line.split("'") for line in lines]
    text = "\n".join(
        "".join(hexed(part) if i % 2 else part for i, part in enumerate(line)) for line in parts
    )
    replay = Replay(ROOT)
    replay.run(parse(text))
    return replay.log


def test_calls_that_overlap_in_straces_log() -> None:
    assert replayed(
        "1 openat(AT_FDCWD, '/c/f', O_WRONLY|O_CREAT|O_EXCL|O_APPEND, 0600) = 5",
        "1 write(5, 'ab', 2) = 2",
        "2 fdatasync(5 <unfinished ...>",
        "1 writev(5, [{iov_base='cd', iov_len=2}, {iov_base='ef', iov_len=2}], 2) = 3",
        "1 rename('/c/f', '/c/g' <unfinished ...>",
        "2 <... fdatasync resumed>) = 0",
        "1 <... rename resumed>) = 0",
        "2 openat(AT_FDCWD, '/c', O_RDONLY|O_DIRECTORY) = 6",
        "2 fsync(6) = -1 EIO (Input/output error)",
        "2 fsync(6) = 0",
        "2 close(6) = 0",
        "2 pwrite64(5, 'X', 1, 1) = 1",
        "2 ftruncate(5, 1) = 0",
        "2 fsync(5) = -1 EIO (Input/output error)",
        "2 unlink('/c/none') = -1 ENOENT (No such file or directory)",
        "2 unlink('/c/g') = 0",
        "1 write(5, 'never ends' <unfinished ...>",
    ) == [
        Create("/c/f", 1),
        Write(1, 0, b"ab"),
        BeginSync(2, 1),
        Write(1, 2, b"cde"),
        Rename("/c/f", "/c/g"),
        SyncFile(1, begun=2),
        BeginSync(8, "/c"),
        BeginSync(9, "/c"),
        SyncDirectory("/c", begun=9),
        Write(1, 1, b"X"),
        Truncate(1, 1),
        BeginSync(13, 1),
        SyncFile(1, failed=True, begun=13),
        Unlink("/c/g"),
    ]
