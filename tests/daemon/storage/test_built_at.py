"""When a shard was built: a bulk says it where its entries are the only ones; after a crash too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..harness import Item, Life

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Before = Callable[[Life], None]

BUILT_AT = 77


def put(life: Life) -> None:
    life.put({b"a": Item(b"1"), b"b": Item(b"2")})


def put_and_delete(life: Life) -> None:
    put(life)
    life.delete([b"a", b"b", b"none"])


def build_and_delete(life: Life) -> None:
    put(life)
    life.build()
    life.delete([b"a", b"b"])


def build_and_clear(life: Life) -> None:
    put(life)
    life.build()
    life.clear()


def clear_and_build(life: Life) -> None:
    put(life)
    life.clear()
    life.build()


def put_and_build(life: Life) -> None:
    put(life)
    life.build()


def build_and_delete_one(life: Life) -> None:
    put(life)
    life.build()
    life.delete([b"a", b"none"])


def clear_and_put(life: Life) -> None:
    clear_and_build(life)
    put(life)


def nothing(_life: Life) -> None:
    """Begin with a new shard."""


EMPTY: tuple[Before, ...] = (
    nothing, put_and_delete, build_and_delete, build_and_clear, clear_and_build,
)  # fmt: skip
NOT_EMPTY: tuple[Before, ...] = (put, put_and_build, build_and_delete_one, clear_and_put)


def merge_and_crash(directory: Path, before: Before, built_at_ns: int | None) -> tuple[int, int]:
    """Return the time that the shard has after a merge, and after the recovery from a crash."""
    life = Life(directory)
    before(life)
    life.bulk("merge", [{b"c": Item(b"3")}], built_at_ns=built_at_ns)
    then = life.shard.built_at_ns
    life.crash()
    return then, Life(directory).shard.built_at_ns


@pytest.mark.parametrize("before", EMPTY)
def test_a_merge_into_a_shard_without_entries_sets_it(tmp_path: Path, before: Before) -> None:
    assert merge_and_crash(tmp_path / "shard", before, BUILT_AT) == (BUILT_AT, BUILT_AT)


@pytest.mark.parametrize("before", NOT_EMPTY)
def test_a_merge_beside_other_entries_does_not(tmp_path: Path, before: Before) -> None:
    then, later = merge_and_crash(tmp_path / "shard", before, BUILT_AT)
    assert then == later != BUILT_AT


def test_1970_is_a_time_and_none_is_not(tmp_path: Path) -> None:
    assert merge_and_crash(tmp_path / "one", nothing, 0) == (0, 0)
    then, later = merge_and_crash(tmp_path / "other", nothing, None)
    assert then == later != 0
