"""An image that is still in its file: the same answers as from memory, and never a wrong one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_daemon.errors import DamageError
from autoloadd_daemon.storage.image_file import ImageFile, open_image
from autoloadd_daemon.storage.images import IMAGE_NAME, Snapshot, build_image
from autoloadd_protocol.image import HEADER_BYTES, SLOT, SLOT_BYTES
from autoloadd_protocol.limits import BLOB_BYTES, FINGERPRINT_BYTES

from ..harness import EPOCH, PRODUCER, Contents, Item, QuickFiles, item_of, records_of

if TYPE_CHECKING:
    from pathlib import Path

    from autoloadd_daemon.storage.images import SealedImage

LONG = b"n" * 36
ITEMS: Contents = {
    b"a": Item(b"blob a", None, -9),
    b"b": Item(b"b" * 300, b"fingerprint", 2**40),
    LONG + b" one": Item(b"1", b"f" * FINGERPRINT_BYTES, 2**62),
    LONG + b" two": Item(b""),
    b"n" * 1024: Item(b"c" * 5000, b"f" * 200, 3),
}


def make(directory: Path, items: Contents) -> SealedImage:
    snapshot = Snapshot(PRODUCER, EPOCH, 17, 99, None, dict(records_of(items)))
    return build_image(QuickFiles(), str(directory), snapshot)[0]


def opened(directory: Path) -> ImageFile:
    image = open_image(str(directory / IMAGE_NAME))
    assert image is not None
    return image


def found(image: ImageFile | SealedImage, name: bytes) -> tuple[Item, bytes] | None:
    """Return what is stored under a name, and the record's bytes as an answer has them."""
    record = image.look_up(name)
    if record is None:
        return None
    return item_of(record), bytes(record.buffer[record.start : record.end])


names = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.builds(LONG.__add__, st.binary(max_size=5)),
    st.integers(1, 1024).map(lambda size: b"x" * size),
)
items = st.builds(
    Item,
    st.one_of(st.binary(max_size=20), st.integers(0, 70_000).map(bytes)),
    st.one_of(st.none(), st.integers(1, FINGERPRINT_BYTES).map(bytes)),
    st.integers(-(2**63), 2**63 - 1),
)


@given(stored=st.dictionaries(names, items, max_size=30), asked=st.lists(names, max_size=10))
def test_it_answers_as_the_image_in_memory_does(
    stored: Contents, asked: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("image")
    in_memory = make(directory, stored)
    in_file = opened(directory)
    assert in_file.header == in_memory.header
    assert len(in_file) == len(stored)
    for name in [*stored, *asked]:
        assert found(in_file, name) == found(in_memory, name)
    loaded = in_file.load()
    assert bytes(loaded.buffer) == bytes(in_memory.buffer)


def test_a_blob_of_any_size(cache_dir: Path) -> None:
    largest = {b"big": Item(os.urandom(BLOB_BYTES), b"f" * FINGERPRINT_BYTES, 1)}
    in_memory = make(cache_dir, largest)
    assert found(opened(cache_dir), b"big") == found(in_memory, b"big")


def test_many_names_that_meet_in_the_table(cache_dir: Path) -> None:
    """Probing goes over the table's end, and past blocks of slots that others took."""
    many: Contents = {b"name %d" % number: Item(b"blob %d" % number) for number in range(3000)}
    make(cache_dir, many)
    in_file = opened(cache_dir)
    for name, item in many.items():
        record = in_file.look_up(name)
        assert record is not None
        assert item_of(record) == item
    assert all(in_file.look_up(b"none %d" % number) is None for number in range(3000))


def test_no_flipped_bit_makes_a_wrong_answer(cache_dir: Path) -> None:
    make(cache_dir, ITEMS)
    path = cache_dir / IMAGE_NAME
    data = path.read_bytes()
    good = {name: found(opened(cache_dir), name) for name in ITEMS}
    missed = 0
    for at in range(HEADER_BYTES, len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        image = opened(cache_dir)
        answers = {name: found(image, name) for name in ITEMS}
        assert image.look_up(b"never stored") is None
        for name, answer in answers.items():
            assert answer in (good[name], None), (at, name)
        missed += None in answers.values()
        with pytest.raises(DamageError, match="checksum does not match"):
            image.load()
    assert missed > 5000, "every byte of a record is covered"


@given(
    slots=st.lists(
        st.builds(
            SLOT.pack,
            st.sampled_from(list(ITEMS)[:2]),
            st.just(0),
            st.one_of(st.integers(0, 9000), st.integers(0, 2**64 - 1)),
            st.one_of(st.integers(0, 9000), st.integers(0, 2**64 - 1)),
        ),
        min_size=16,
        max_size=16,
    )
)
def test_whatever_the_table_says_no_answer_is_wrong(
    slots: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("image")
    good = make(directory, ITEMS)
    path = directory / IMAGE_NAME
    data = path.read_bytes()
    assert good.header.slots == len(slots)
    end = HEADER_BYTES + len(slots) * SLOT_BYTES
    path.write_bytes(data[:HEADER_BYTES] + b"".join(slots) + data[end:])
    image = opened(directory)
    for name in ITEMS:
        assert found(image, name) in (found(good, name), None)


def test_a_slot_that_spans_what_no_blob_has(cache_dir: Path) -> None:
    half = Item(bytes(BLOB_BYTES * 3 // 4))
    header = make(cache_dir, {b"a": half, b"b": half}).header
    path = cache_dir / IMAGE_NAME
    data = bytearray(path.read_bytes())
    for at in range(HEADER_BYTES, header.order_at, SLOT_BYTES):
        name, mtime, start, _end = SLOT.unpack_from(data, at)
        if name == b"a":
            SLOT.pack_into(data, at, name, mtime, start, header.total_bytes)
    path.write_bytes(data)
    assert opened(cache_dir).look_up(b"a") is None


def test_a_table_without_a_free_slot_has_an_end(cache_dir: Path) -> None:
    make(cache_dir, ITEMS)
    path = cache_dir / IMAGE_NAME
    data = path.read_bytes()
    taken = SLOT.pack(b"other", 0, 1, 1) * 16
    path.write_bytes(data[:HEADER_BYTES] + taken + data[HEADER_BYTES + len(taken) :])
    assert opened(cache_dir).look_up(b"a") is None


def test_a_file_that_is_cut_while_it_is_read(cache_dir: Path) -> None:
    in_memory = make(cache_dir, ITEMS)
    path = cache_dir / IMAGE_NAME
    image = opened(cache_dir)
    for size in range(in_memory.header.total_bytes - 1, -1, -7):
        os.truncate(path, size)
        for name in ITEMS:
            assert found(image, name) in (found(in_memory, name), None)
        with pytest.raises(DamageError):
            image.load()
    assert [image.look_up(name) for name in ITEMS] == [None] * len(ITEMS)


def test_a_disk_that_cannot_read_is_a_miss(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(cache_dir, ITEMS)
    image = opened(cache_dir)

    def fail(*_arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    assert image.look_up(b"a") is None


def test_a_file_that_became_another_image(cache_dir: Path) -> None:
    make(cache_dir, ITEMS)
    image = opened(cache_dir)
    elsewhere = cache_dir / "elsewhere"
    make(elsewhere, {b"a": Item(b"other")})
    (cache_dir / IMAGE_NAME).write_bytes((elsewhere / IMAGE_NAME).read_bytes())
    with pytest.raises(DamageError, match="it was changed while it was read"):
        image.load()


def test_what_is_no_image(cache_dir: Path) -> None:
    path = cache_dir / IMAGE_NAME
    assert open_image(str(path)) is None
    os.mkfifo(path)
    with pytest.raises(DamageError, match="not a regular file"):
        open_image(str(path))
    path.unlink()
    path.write_bytes(b"")
    with pytest.raises(DamageError, match="0 bytes are less than a header"):
        open_image(str(path))
    make(cache_dir, ITEMS)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DamageError, match="the header says"):
        open_image(str(path))


def test_its_descriptor_goes_with_it(cache_dir: Path) -> None:
    make(cache_dir, ITEMS)
    before = os.listdir("/proc/self/fd")
    image = opened(cache_dir)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del image
    assert os.listdir("/proc/self/fd") == before
