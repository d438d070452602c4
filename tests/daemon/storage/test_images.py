"""Images: what they hold, in which order they come to disk, and that they cannot be changed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_daemon.errors import DamageError, DescriptorsError, StorageError
from autoloadd_daemon.storage.images import (
    IMAGE_NAME,
    TEMPORARY_NAME,
    Memory,
    Snapshot,
    build_image,
    load_image,
)
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import MAX_INDEX_BYTES
from autoloadd_protocol.producer import Producer

from ..harness import (
    EPOCH,
    PRODUCER,
    Item,
    QuickFiles,
    RecordingFiles,
    item_of,
    no_descriptor_left,
    records_of,
)

if TYPE_CHECKING:
    from autoloadd_protocol.image import Image
    from autoloadd_protocol.record import Record

A, B, C = Item(b"blob a", None, -9), Item(b"blob b", b"f", 7), Item(b"c" * 5000, None, 3)


def snapshot(
    changes: dict[bytes, Record | None], base: Image | None = None, keep: int | None = None
) -> Snapshot:
    return Snapshot(PRODUCER, EPOCH, 17, 99, base, changes, keep)


def build(
    directory: Path, items: dict[bytes, Item], base: Image | None = None, *deleted: bytes
) -> Image:
    changes: dict[bytes, Record | None] = dict(records_of(items))
    changes |= dict.fromkeys(deleted)
    return build_image(QuickFiles(), str(directory), snapshot(changes, base))[0]


def held(image: Image) -> dict[bytes, Item]:
    """Return what an image holds, in the order of generations."""
    entries = sorted(image.entries(), key=lambda entry: entry[1].start)
    return {name: item_of(record) for name, record in entries}


def test_the_same_image_is_in_memory_and_on_disk(cache_dir: Path) -> None:
    image = build(cache_dir, {b"b": B, b"a": A, b"c": C})
    image.verify()
    loaded = load_image(str(cache_dir / IMAGE_NAME))
    assert loaded is not None
    assert bytes(loaded.buffer) == bytes(image.buffer) == (cache_dir / IMAGE_NAME).read_bytes()
    assert held(loaded) == {b"b": B, b"a": A, b"c": C}
    assert list(held(loaded)) == [b"b", b"a", b"c"]
    head = loaded.header
    assert (head.producer, head.epoch, head.generation, head.built_at_ns) == (
        PRODUCER, EPOCH, 17, 99,
    )  # fmt: skip
    assert (head.entries, head.blob_bytes) == (3, 5012)
    assert (head.oldest_mtime_ns, head.newest_mtime_ns) == (-9, 7)


def test_changes_win_over_the_image_before(cache_dir: Path) -> None:
    base = build(cache_dir, {b"a": A, b"b": B, b"c": C})
    image = build(cache_dir, {b"a": C, b"d": B}, base, b"b", b"none")
    assert held(image) == {b"c": C, b"a": C, b"d": B}
    assert list(held(image)) == [b"c", b"a", b"d"], "older generations first"


def test_an_empty_shard_has_an_image(cache_dir: Path) -> None:
    image = build(cache_dir, {})
    assert held(image) == {}
    loaded = load_image(str(cache_dir / IMAGE_NAME))
    assert loaded is not None
    assert len(loaded) == 0


@given(
    sizes=st.lists(st.integers(0, 400), max_size=12),
    keep=st.integers(0, 4000),
    first=st.integers(0, 12),
)
def test_the_lowest_generations_are_evicted(
    sizes: list[int], keep: int, first: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("evict")
    items = {b"name %d" % number: Item(b"x" * size) for number, size in enumerate(sizes)}
    names = list(items)
    base = build(directory, {name: items[name] for name in names[:first]})
    changes: dict[bytes, Record | None] = dict(
        records_of({name: items[name] for name in names[first:]})
    )
    image, evicted = build_image(QuickFiles(), str(directory), snapshot(changes, base, keep))
    assert list(held(image)) == names[evicted:]
    costs = [record.stored_bytes + MAX_INDEX_BYTES for _, record in records_of(items)]
    assert sum(costs[evicted:]) <= keep
    assert evicted == 0 or sum(costs[evicted - 1 :]) > keep


def test_an_image_comes_to_disk_step_by_step(cache_dir: Path) -> None:
    build(cache_dir, {b"a": A})
    files = RecordingFiles()
    build_image(files, str(cache_dir), snapshot(dict(records_of({b"b": B}))))
    assert files.operations() == [
        f"make_directory {cache_dir.name}",
        f"create {TEMPORARY_NAME}",
        f"append {TEMPORARY_NAME}",
        f"sync {TEMPORARY_NAME}",
        f"rename {TEMPORARY_NAME} {IMAGE_NAME}",
        f"sync_directory {cache_dir.name}",
        f"sync_directory {cache_dir.parent.name}",
    ]


def test_a_large_image_is_synced_little_by_little(cache_dir: Path) -> None:
    """All at once at the end would hold up the journal's syncs."""
    files = RecordingFiles()
    changes = dict(records_of({b"%d" % number: Item(bytes(3_000_000)) for number in range(3)}))
    build_image(files, str(cache_dir), snapshot(dict(changes)))
    done = files.operations(on=TEMPORARY_NAME)
    part = [f"append {TEMPORARY_NAME}"] * 16
    sync = f"sync {TEMPORARY_NAME}"
    assert done[1:-1] == [*part, sync, *part, sync, *part[:3], sync]


@pytest.mark.parametrize("persistent", [False, True])
def test_an_error_at_each_step_leaves_the_old_or_the_new_image(
    *, persistent: bool, cache_dir: Path
) -> None:
    changes: dict[bytes, Record | None] = dict(records_of({b"b": B}))
    for step in range(1, 9):
        build(cache_dir, {b"a": A})
        files = RecordingFiles(fail_at=step, persistent=persistent, error=errno.ENOSPC)
        if step == 8:
            build_image(files, str(cache_dir), snapshot(changes))
            assert not files.failed
            continue
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(StorageError, match="No space left"):
            build_image(files, str(cache_dir), snapshot(changes))
        assert len(os.listdir("/proc/self/fd")) == before
        loaded = load_image(str(cache_dir / IMAGE_NAME))
        assert loaded is not None
        assert held(loaded) == ({b"a": A} if step <= 5 else {b"b": B}), files.failed
        if not persistent:
            assert not (cache_dir / TEMPORARY_NAME).exists()


@pytest.mark.parametrize("step", range(8))
def test_changes_lie_in_the_image_when_there_is_one(step: int, cache_dir: Path) -> None:
    """Where there is none they hold nothing of it. They are the same all the time."""
    base = build(cache_dir, {b"a": A, b"c": C})
    changes: dict[bytes, Record | None] = {**dict(records_of({b"b": B, b"a": C})), b"c": None}
    maps = maps_of_images()
    files = RecordingFiles(fail_at=step, error=errno.ENOSPC)
    found: Image | None = None
    with suppress(StorageError):
        found, _ = build_image(files, str(cache_dir), snapshot(changes, base))
    assert (found is None) == (step != 0)
    stored = [record for record in changes.values() if record is not None]
    assert [item_of(record) for record in stored] == [B, C]
    assert list(changes) == [b"b", b"a", b"c"]
    if found is None:
        assert maps_of_images() == maps
    else:
        for record in stored:
            assert isinstance(record.buffer, memoryview)
            assert record.buffer.obj is found.buffer.obj
        assert maps_of_images() == maps + 1


def maps_of_images() -> int:
    """Return how many images this process has mapped."""
    return (Path("/proc/self/maps").read_text()).count("/memfd:autoloadd-image")


def test_a_file_whose_sync_failed_is_not_synced_again(cache_dir: Path) -> None:
    """Also where it could not be removed: the next build takes a new file."""
    files = RecordingFiles(fail_at=4, persistent=True)
    changes: dict[bytes, Record | None] = dict(records_of({b"b": B}))
    with pytest.raises(StorageError, match="Input/output error"):
        build_image(files, str(cache_dir), snapshot(changes))
    assert files.failed[0] == ("sync", TEMPORARY_NAME)
    left = os.stat(cache_dir / TEMPORARY_NAME)
    kept = os.open(cache_dir / TEMPORARY_NAME, os.O_RDONLY)
    build_image(QuickFiles(), str(cache_dir), snapshot(changes))
    assert os.stat(cache_dir / IMAGE_NAME).st_ino != left.st_ino
    os.close(kept)


def test_a_missing_image_is_none(cache_dir: Path) -> None:
    assert load_image(str(cache_dir / IMAGE_NAME)) is None


@pytest.mark.parametrize("data", [b"", b"x", bytes(1024), bytes(5000)])
def test_what_is_no_image_is_damage(data: bytes, cache_dir: Path) -> None:
    path = cache_dir / IMAGE_NAME
    path.write_bytes(data)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DamageError, match=str(path)):
        load_image(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_and_a_directory_are_no_image(cache_dir: Path) -> None:
    build(cache_dir, {b"a": A})
    (cache_dir / "link").symlink_to(cache_dir / IMAGE_NAME)
    for name in ("link", "."):
        with pytest.raises(DamageError):
            load_image(str(cache_dir / name))


def test_memory_is_sealed(cache_dir: Path) -> None:
    memory = Memory()
    data = (build(cache_dir, {b"a": A}).buffer).tobytes()
    memory.write([bytes(4), data[4:100]])
    memory.write([memoryview(data)[100:]])
    memory.go_to(0)
    memory.write([data[:4]])
    descriptor = memory._descriptor
    assert descriptor is not None
    kept = os.dup(descriptor)
    image = memory.seal()
    assert memory.size == len(data)
    assert bytes(image.buffer) == data
    for change in (lambda: os.write(kept, b"x"), lambda: os.ftruncate(kept, 10)):
        with pytest.raises(PermissionError):
            change()
    os.close(kept)
    with pytest.raises(TypeError):
        image.buffer[0] = 1


def test_memory_that_is_given_up_is_closed_once(cache_dir: Path) -> None:
    del cache_dir
    before = len(os.listdir("/proc/self/fd"))
    memory = Memory()
    memory.write([b"x"])
    memory.close()
    memory.close()
    empty = Memory()
    with pytest.raises(ImageError):
        empty.seal()
    empty.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_memfd_plain_memory_does(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    image = build(cache_dir, {b"a": A, b"b": B})
    assert held(image) == {b"a": A, b"b": B}
    loaded = load_image(str(cache_dir / IMAGE_NAME))
    assert loaded is not None
    assert loaded.buffer.readonly
    assert bytes(loaded.buffer) == bytes(image.buffer)


def test_long_records_are_written_whole(cache_dir: Path) -> None:
    items = {b"%d" % number: Item(bytes([number]) * 3_000_000) for number in range(4)}
    items |= {b"small %d" % number: A for number in range(600)}
    base = build(cache_dir, items)
    # Neighbours in the image before are copied as one run, longer than a piece.
    image = build(cache_dir, {b"new": B}, base, b"small 7")
    del items[b"small 7"]
    assert held(image) == items | {b"new": B}
    loaded = load_image(str(cache_dir / IMAGE_NAME))
    assert loaded is not None
    assert bytes(loaded.buffer) == bytes(image.buffer)


def test_without_a_descriptor_nothing_is_begun(cache_dir: Path) -> None:
    changes: dict[bytes, Record | None] = dict(records_of({b"a": A}))
    with no_descriptor_left(), pytest.raises(DescriptorsError, match="Too many open files"):
        build_image(QuickFiles(), str(cache_dir), snapshot(changes))
    assert list(cache_dir.iterdir()) == []


def test_a_header_that_cannot_be_read_back_is_refused(cache_dir: Path) -> None:
    """What a bug, or memory that flips bits, may make of it: it must not be served."""
    before = len(os.listdir("/proc/self/fd"))
    odd = Snapshot(Producer("zsh", "5.9", 3), EPOCH, 17, 99, None, {})
    with pytest.raises(StorageError, match="building an image failed: the header names no"):
        build_image(QuickFiles(), str(cache_dir), odd)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (cache_dir / TEMPORARY_NAME).exists()
