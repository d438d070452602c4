"""`verify` beside a daemon that replaces and removes what is being read: none of it is damage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.shard import Shard
from autoloadd_daemon.storage.checking import Verdict, check_shard
from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.recovery import read_shard
from autoloadd_daemon.storage.shard_files import ShardFiles

from .harness import EPOCH, PRODUCER, Item, Life, files_in, write_files

if TYPE_CHECKING:
    from pathlib import Path


class BusyFiles(Files):
    """Files of a daemon that builds whenever some are read: `times` times, then no more."""

    def __init__(self, life: Life, times: int, *, reads_of: str = "") -> None:
        self.life = life
        self.times = times
        self.reads_of = reads_of
        self.builds = 0

    def read(self, path: str) -> bytes:
        """Read after a build that removes what is to be read, or that makes it old."""
        if self.builds < self.times and self.reads_of in path:
            self.builds += 1
            self.life.put({b"n%d" % self.builds: Item(b"x")})
            self.life.build()
            self.life.put({b"m%d" % self.builds: Item(b"x")})
        return super().read(path)


@pytest.mark.parametrize("times", [1, 5])
def test_files_that_a_daemon_replaces_meanwhile_are_no_damage(cache_dir: Path, times: int) -> None:
    life = Life(cache_dir / PRODUCER.shard_id())
    life.put({b"a": Item(b"1")})
    files = BusyFiles(life, times)
    reports = check_shard(files, str(life.directory))
    assert files.builds == times
    assert [(r.kind, r.verdict) for r in reports] == [
        ("image", Verdict.OK),
        ("journal", Verdict.OK),
    ]


def test_a_bulk_that_a_build_removes_while_it_is_wanted_is_no_damage(cache_dir: Path) -> None:
    life = Life(cache_dir / PRODUCER.shard_id())
    life.bulk("merge", [{b"a": Item(b"1")}])
    files = BusyFiles(life, 1, reads_of="bulk")
    reports = check_shard(files, str(life.directory))
    assert files.builds == 1
    assert [(r.kind, r.verdict) for r in reports] == [
        ("image", Verdict.OK),
        ("journal", Verdict.OK),
    ]


def test_the_journals_are_read_before_the_image_which_may_only_cover_more(cache_dir: Path) -> None:
    life = Life(cache_dir / PRODUCER.shard_id())
    life.put({b"a": Item(b"1")})

    class Building(Files):
        def names(self, path: str) -> list[str]:
            life.build()
            life.put({b"a": Item(b"2")})
            return super().names(path)

    reading = read_shard(Building(), str(life.directory))
    assert reading.damaged == []
    assert reading.shard is not None
    assert reading.shard.generation == 2


def test_a_shard_that_is_dropped_and_begun_again_meanwhile_is_no_damage(
    cache_dir: Path, tmp_path: Path
) -> None:
    directory, other = cache_dir / PRODUCER.shard_id(), tmp_path / PRODUCER.shard_id()
    first, second = Life(directory), Life(other)
    first.put({b"a": Item(b"1")})
    second.shard = Shard(PRODUCER, epoch=EPOCH + 1, built_at_ns=5)
    second.disk = ShardFiles(second.files, str(other), PRODUCER, EPOCH + 1)
    second.put({b"b": Item(b"2")})
    journal = files_in(other)
    second.build()
    later = {**files_in(other), **journal}

    class Reborn(Files):
        def read(self, path: str) -> bytes:
            data = super().read(path)
            write_files(directory, later)
            return data

    reports = check_shard(Reborn(), str(directory))
    assert [(r.kind, r.verdict) for r in reports] == [
        ("image", Verdict.OK),
        ("journal", Verdict.SPARE),
    ]


def test_files_that_never_stay_are_no_damage_either(cache_dir: Path) -> None:
    life = Life(cache_dir / PRODUCER.shard_id())
    life.put({b"a": Item(b"1")})
    (report,) = check_shard(BusyFiles(life, 1_000), str(life.directory))
    assert report.verdict is Verdict.UNREADABLE
    assert "faster than they can be read" in str(report.problem)


def test_what_comes_after_the_others_were_read_is_left_for_the_next_time(
    cache_dir: Path, tmp_path: Path
) -> None:
    life = Life(cache_dir / PRODUCER.shard_id())
    life.put({b"a": Item(b"1")})
    other = Life(tmp_path / PRODUCER.shard_id())
    other.put({b"a": Item(b"1")})
    other.build()

    class Late(Files):
        looks = 0

        def names(self, path: str) -> list[str]:
            self.looks += 1
            if self.looks == 3:
                later = files_in(other.directory) | {"journal.00000009": b""}
                write_files(life.directory, files_in(life.directory) | later)
            return super().names(path)

    files = Late()
    reports = check_shard(files, str(life.directory))
    assert files.looks == 3
    assert [os.path.basename(report.path) for report in reports] == ["journal.00000001"]
