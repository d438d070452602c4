"""What the one module that changes files does to real ones."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from autoloadd_daemon.storage.files import Files, is_damage

from ..harness import RecordingFiles

FILES = Files()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def test_a_new_file_is_ours_alone_and_written_at_its_end(path: str) -> None:
    descriptor = FILES.create(path)
    FILES.append(descriptor, [b"one", b"", memoryview(b" two")])
    FILES.append(descriptor, [])
    FILES.append(descriptor, [b" three"])
    FILES.sync_data(descriptor)
    FILES.sync(descriptor)
    assert FILES.identity(path) == (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)
    FILES.close(descriptor)
    assert FILES.read(path) == b"one two three"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        FILES.create(path)


def test_more_parts_than_one_call_takes_are_all_written(path: str) -> None:
    parts = [b"%d," % number for number in range(2_000)]
    descriptor = FILES.create(path)
    FILES.append(descriptor, iter(parts))
    FILES.close(descriptor)
    assert FILES.read(path) == b"".join(parts)


def test_a_full_pipe_is_an_error_with_a_part_written() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    data = bytes(range(256)) * 1024
    with pytest.raises(BlockingIOError):
        FILES.append(writer, [data[:100_000], data[100_000:]])
    assert data.startswith(os.read(reader, len(data)))
    os.close(reader)
    os.close(writer)


def test_short_writes_are_gone_on_with(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev

    def writev(descriptor: int, parts: list[memoryview]) -> int:
        return real(descriptor, [parts[0][:3]])

    monkeypatch.setattr(os, "writev", writev)
    descriptor = FILES.create_for_image(path)
    FILES.append(descriptor, [b"abcdefgh", b"ij", b"klm"])
    FILES.close(descriptor)
    assert FILES.read(path) == b"abcdefghijklm"


def test_what_is_written_over_leaves_appends_where_they_were(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:2], offset))
    descriptor = FILES.create(path)
    FILES.append(descriptor, [b"abcdef"])
    FILES.overwrite(descriptor, b"BCD", 1)
    FILES.overwrite(descriptor, b"----", 6)
    FILES.append(descriptor, [b"gh"])
    FILES.close(descriptor)
    assert FILES.read(path) == b"aBCDefgh--"


def test_an_image_file_is_a_new_one(path: str) -> None:
    FILES.close(FILES.create_for_image(path))
    with pytest.raises(FileExistsError):
        FILES.create_for_image(path)


def test_a_file_is_cut_and_appended_to_again(path: str) -> None:
    Path(path).write_bytes(b"good torn")
    descriptor = FILES.reopen(path)
    FILES.truncate(descriptor, 5)
    FILES.append(descriptor, [b"new"])
    FILES.close(descriptor)
    assert FILES.read(path) == b"good new"


def test_a_removed_or_replaced_file_is_told_from_another(path: str) -> None:
    descriptor = FILES.create(path)
    identity = FILES.identity(path)
    FILES.close(FILES.create(f"{path}.other"))
    FILES.rename(f"{path}.other", path)
    assert FILES.identity(path) not in (identity, None)
    FILES.remove(path)
    assert FILES.identity(path) is None
    assert FILES.identity(f"{path}/in a folder that is gone") is None
    FILES.close(descriptor)
    FILES.remove(path)


def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path: Path, path: str) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file") as pipe:
        FILES.read(path)
    with pytest.raises(OSError, match="not a regular file") as directory:
        FILES.read(str(tmp_path))
    assert is_damage(pipe.value)
    assert is_damage(directory.value)
    assert not is_damage(OSError(errno.EMFILE, "too many"))


def test_a_copy_takes_the_place_of_a_file(tmp_path: Path, path: str) -> None:
    Path(path).write_bytes(b"good torn")
    Path(f"{path}.tmp").write_bytes(b"left over")
    before = FILES.identity(path)
    FILES.replace_by_copy(path, 4)
    assert FILES.read(path) == b"good"
    assert FILES.identity(path) != before
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("operation", ["append", "sync", "rename"])
def test_a_copy_that_fails_leaves_the_file(operation: str, tmp_path: Path, path: str) -> None:
    Path(path).write_bytes(b"good torn")
    files = RecordingFiles()
    files.fail_next = operation
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Input/output error"):
        files.replace_by_copy(path, 4)
    assert Path(path).read_bytes() == b"good torn"
    assert os.listdir(tmp_path) == ["file"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_goes_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "shard" / "odd").mkdir(parents=True)
    (tmp_path / "shard" / "odd" / "file").write_bytes(b"")
    (tmp_path / "shard" / "link").symlink_to(tmp_path)
    FILES.remove_tree(str(tmp_path / "shard"))
    FILES.remove_tree(str(tmp_path / "none"))
    assert os.listdir(tmp_path) == []


def test_symbolic_links_are_not_followed(tmp_path: Path, path: str) -> None:
    (tmp_path / "target").write_bytes(b"not ours")
    os.symlink("target", path)
    for use in (FILES.reopen, FILES.read):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            use(path)
    with pytest.raises(FileExistsError):
        FILES.create_for_image(path)
    assert (tmp_path / "target").read_bytes() == b"not ours"


def test_directories_are_made_once_and_ours_alone(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    FILES.make_directories(str(deep))
    FILES.make_directories(str(deep))
    FILES.make_directory(str(deep))
    for directory in (deep, deep.parent, deep.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    FILES.sync_directory(str(deep))
    with pytest.raises(FileNotFoundError):
        FILES.sync_directory(str(tmp_path / "none"))


def test_a_directory_where_a_file_lies_is_an_error(tmp_path: Path, path: str) -> None:
    Path(path).write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        FILES.make_directories(path + "/below")
    with pytest.raises(NotADirectoryError):
        FILES.sync_directory(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_tree_goes_with_its_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("b", "a"):
        (tree / name).write_bytes(b"")
    assert FILES.names(str(tree)) == ["a", "b"]
    FILES.rename(str(tree), str(tmp_path / "moved"))
    FILES.remove_tree(str(tmp_path / "moved"))
    assert FILES.names(str(tmp_path / "moved")) == []
    assert list(tmp_path.iterdir()) == []
