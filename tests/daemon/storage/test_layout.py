"""What a new image holds after any changes, against a model; and that no step of it is long."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_daemon.storage.images import Snapshot, build_image
from autoloadd_daemon.storage.layout import sorted_in_steps
from autoloadd_daemon.storage.pace import Pace, at_once
from autoloadd_protocol.image import MAX_INDEX_BYTES, Image

from ..harness import EPOCH, PRODUCER, Item, QuickFiles, item_of, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_protocol.record import Record

    from ..harness import Contents

    Changes = dict[bytes, Item | None]

NAMES = st.one_of(
    st.text("ab", min_size=1, max_size=4),
    st.text("ab", min_size=38, max_size=41),
    st.integers(0, 60).map("name {}".format),
).map(str.encode)
ITEMS = st.builds(
    Item,
    st.integers(0, 300).map(bytes),
    st.none() | st.binary(min_size=1, max_size=3),
    st.integers(-(2**63), 2**63 - 1),
)
BUILDS = st.lists(
    st.tuples(
        st.dictionaries(NAMES, st.none() | ITEMS, max_size=60),
        st.none() | st.none() | st.integers(0, 40_000),
    ),
    min_size=1,
    max_size=5,
)


def build(
    directory: Path, base: Image | None, changes: Changes, keep: int | None, pace: Pace
) -> tuple[Image, int]:
    records: dict[bytes, Record | None] = {
        name: None if item is None else record_of(name, item) for name, item in changes.items()
    }
    before = {name: None if record is None else item_of(record) for name, record in records.items()}
    snapshot = Snapshot(PRODUCER, EPOCH, 17, 99, base, records, keep)
    built = build_image(QuickFiles(), str(directory), snapshot, pace)
    after = {name: None if record is None else item_of(record) for name, record in records.items()}
    assert after == before, "whoever looks a name up in the changes finds the same"
    return built


def apply(contents: Contents, changes: Changes, keep: int | None) -> tuple[Contents, int]:
    """Return what is left, the oldest first, and how many were evicted."""
    left = {name: item for name, item in contents.items() if name not in changes}
    left |= {name: item for name, item in changes.items() if item is not None}
    sizes = {name: record_of(name, item).stored_bytes + MAX_INDEX_BYTES
             for name, item in left.items()}  # fmt: skip
    evicted = 0
    while keep is not None and sum(sizes[name] for name in left) > keep:
        del left[next(iter(left))]
        evicted += 1
    return left, evicted


def check(image: Image, contents: Contents) -> None:
    """Compare everything that an image says with what it should hold."""
    image.verify()
    assert [item_of(record) for record in image.oldest_first()] == list(contents.values())
    assert [image.name_at(at) for at in range(len(image))] == sorted(contents)
    assert {name: item_of(record) for name, record in image.entries()} == contents
    for name in (*contents, b"absent", b"b" * 39):
        record = image.look_up(name)
        assert (record and item_of(record)) == contents.get(name)
    head = image.header
    mtimes = [item.mtime for item in contents.values()] or [0]
    assert (head.oldest_mtime_ns, head.newest_mtime_ns) == (min(mtimes), max(mtimes))
    assert head.blob_bytes == sum(len(item.blob) for item in contents.values())
    records = [record_of(name, item).stored() for name, item in contents.items()]
    assert bytes(image.buffer[head.records_at :]) == b"".join(records)


@settings(deadline=None)
@given(builds=BUILDS)
def test_each_image_is_the_one_before_with_its_changes(
    builds: list[tuple[Changes, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("builds")
    image: Image | None = None
    contents: Contents = {}
    for changes, keep in builds:
        other, _ = build(directory, image, changes, keep, at_once())
        image, evicted = build(directory, image, changes, keep, Pace())
        assert image.buffer == other.buffer, "the pace changes no byte"
        contents, expected = apply(contents, changes, keep)
        assert evicted == expected
        check(image, contents)


def many(first: int, end: int, step: int = 1) -> dict[bytes, Item]:
    return {b"name %06d" % n: Item(b"%d" % n, None, n) for n in range(first, end, step)}


@pytest.mark.parametrize("step", [1, 3, 700])
def test_names_that_are_sorted_in_among_many(step: int, cache_dir: Path) -> None:
    """More of them than are sorted at once, near one another and far apart."""
    contents: Contents = many(0, 4000, 2)
    image, _ = build(cache_dir, None, dict(contents), None, at_once())
    added = many(1, 5001, 2 * step)
    changes: Changes = {**dict.fromkeys(many(0, 4000, 50)), **added, **many(2, 600, 4)}
    image, _ = build(cache_dir, image, changes, None, Pace())
    contents, _ = apply(contents, changes, None)
    check(image, contents)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
def test_sorting_in_steps_is_sorting(count: int) -> None:
    items = [number * 7919 % 10_007 for number in range(count)]
    assert list(sorted_in_steps(items, Pace())) == sorted(items)


class WatchedPace(Pace):
    """Notes what it worked between two occasions to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self._last = time.thread_time()

    def rest(self) -> None:
        """Rest, if enough was done."""
        self.longest = max(self.longest, time.thread_time() - self._last)
        super().rest()
        self._last = time.thread_time()


@pytest.fixture
def _without_collections() -> Iterator[None]:
    """A collection of all that the tests hold takes 90 ms, of what a daemon does 3."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collections")
def test_no_step_of_a_build_is_long(cache_dir: Path) -> None:
    """In CPU time, which other load lengthens little. All of it takes 200 ms."""
    blob = bytes(300)
    image, _ = build(cache_dir, None, {name: Item(blob) for name in many(0, 30_000)}, None, Pace())
    changes = {name: record_of(name, Item(blob)) for name in many(25_000, 40_000)}
    pace = WatchedPace()
    keep = 30_000 * (350 + MAX_INDEX_BYTES)
    snapshot = Snapshot(PRODUCER, EPOCH, 1, 1, image, dict(changes), keep)
    _, evicted = build_image(QuickFiles(), str(cache_dir), snapshot, pace)
    assert evicted > 1000
    assert pace.longest < 0.010
