"""Set-aside files are kept, but not without a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.set_aside import find_set_aside, remove_excess, set_aside_file

if TYPE_CHECKING:
    from pathlib import Path


def make_files(directory: Path, *sizes: int) -> list[str]:
    """Set files of these sizes aside, one a second; return their paths, newest first."""
    paths: list[str] = []
    for number, size in enumerate(sizes):
        path = directory / f"image.set-aside-20261122T10150{number}Z"
        path.write_bytes(bytes(size))
        paths.insert(0, str(path))
    return paths


def test_a_file_keeps_its_bytes_under_a_name_that_says_when(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"damaged")
    aside = set_aside_file(Files(), str(tmp_path / "image"), "a reason")
    assert aside.reason == "a reason"
    assert aside.file.startswith(f"{tmp_path}/image.set-aside-20")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"damaged"]
    assert find_set_aside(Files(), [str(tmp_path)]) == [aside.file]


def test_files_are_found_newest_first_whatever_they_were_called(tmp_path: Path) -> None:
    image = make_files(tmp_path, 1, 1)
    journal = tmp_path / "journal.00000001.set-aside-20261122T101502Z"
    journal.write_bytes(b"")
    (tmp_path / "image").write_bytes(b"in use")
    assert find_set_aside(Files(), [str(tmp_path)]) == [str(journal), *image]


def test_the_newest_three_are_kept(tmp_path: Path) -> None:
    paths = make_files(tmp_path, 1, 1, 1, 1, 1)
    assert remove_excess(Files(), paths, 1000) == paths[3:]
    assert find_set_aside(Files(), [str(tmp_path)]) == paths[:3]


def test_fewer_are_kept_where_they_are_large(tmp_path: Path) -> None:
    paths = make_files(tmp_path, 10, 600, 500)
    assert remove_excess(Files(), paths, 1000) == paths[1:]
    assert find_set_aside(Files(), [str(tmp_path)]) == paths[:1]
