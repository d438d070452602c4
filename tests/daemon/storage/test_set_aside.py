"""Set-aside files are kept, but not without a bound."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.set_aside import (
    find_set_aside,
    reason_of,
    remove_excess,
    set_aside_file,
    size_of,
)

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
    assert re.fullmatch(rf"{tmp_path}/image\.set-aside-20\d{{6}}T\d{{6}}Z-a-reason", aside.file)
    assert reason_of(aside.file) == "a reason"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"damaged"]
    assert find_set_aside(Files(), [str(tmp_path)]) == [aside.file]


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("at byte 1,234: a record's checksum does not match", "at-byte-1-234-a-record-s-checksum"),
        ("/a/b/image: image version 2", "image-image-version-2"),
        ("x" * 500, "x" * 60),
        ("???", ""),
    ],
)
def test_the_name_says_why(reason: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"damaged")
    aside = set_aside_file(Files(), str(tmp_path / "image"), reason)
    assert os.path.basename(aside.file).partition("Z-")[2].startswith(name)


def test_what_an_earlier_version_named_has_no_reason() -> None:
    assert reason_of("/c/image.set-aside-20261122T101500Z") == "not known"


def test_a_directory_counts_with_what_is_in_it_and_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "journal.00000001").mkdir()
    (tmp_path / "journal.00000001" / "inside").write_bytes(bytes(600))
    aside = set_aside_file(Files(), str(tmp_path / "journal.00000001"), "a directory")
    assert size_of(aside.file) == 600
    assert remove_excess(Files(), [aside.file], 599) == [aside.file]
    assert list(tmp_path.iterdir()) == []


def test_a_bulk_goes_before_the_journal_that_names_it(tmp_path: Path) -> None:
    for name in ("journal.00000001", "bulk.00000001", "bulk.00000002", "image"):
        (tmp_path / f"{name}.set-aside-20261122T101502Z-why").write_bytes(b"")
    found = [os.path.basename(path) for path in find_set_aside(Files(), [str(tmp_path)])]
    names = [name.partition(".set-aside")[0] for name in found]
    assert names == ["journal.00000001", "image", "bulk.00000002", "bulk.00000001"]


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
