"""The portable form of a shard: whole, or refused."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_protocol.errors import PortableError
from autoloadd_protocol.portable import (
    MAGIC,
    EntryValues,
    Portable,
    PortableHeader,
    encode_portable,
    read_portable,
)
from autoloadd_protocol.producer import Producer

from ..damage import damage

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = PortableHeader(Producer("zsh", "5.9", 8, "a build"), 1_795_384_784_123_456_789)
ENTRIES: dict[str, EntryValues] = {
    "_git": (bytes(range(256)) * 2, b"fingerprint", 1, 2),
    "empty": (b"", None, -(2**63), 2**63 - 1),
    "функция": (b"blob", None, 1_735_689_600_000_000_000, 1_795_384_784_000_000_001),
}


def encode(entries: Mapping[str, EntryValues], header: PortableHeader = HEADER) -> bytes:
    ordered = sorted(entries.items(), key=lambda item: item[0].encode())
    return b"".join(encode_portable(header, ordered))


def entries_of(found: Portable) -> dict[str, EntryValues]:
    return {each.name: found.load(each) for each in found.entries}


DATA = encode(ENTRIES)


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def seal(value: object) -> bytes:
    return seal_bytes(pack(value))


def seal_bytes(body: bytes) -> bytes:
    return pack([crc32(body), body])


def with_end(*values: object, count: int | None = None) -> bytes:
    """Return a stream of these sealed values, and an end that fits them."""
    data = pack(["autoloadd", 1]) + b"".join(map(seal, values))
    return data + seal([len(values) - 1 if count is None else count, crc32(data)])


HEAD: dict[str, Any] = {
    "producer": {"name": "zsh", "version": "5.9", "pointer_width": 8},
    "built_at_ns": 5,
}

whole_times = st.integers(-(2**63), 2**63 - 1)
entries = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.tuples(
        st.binary(max_size=300),
        st.none() | st.binary(min_size=1, max_size=80),
        whole_times,
        whole_times,
    ),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)
headers = st.builds(
    PortableHeader,
    st.builds(Producer, texts, texts, st.sampled_from([4, 8]), st.none() | texts),
    whole_times,
)


@settings(deadline=None)
@given(headers, entries)
def test_whatever_is_written_is_read_back(
    header: PortableHeader, given_entries: dict[str, EntryValues]
) -> None:
    found = read_portable(encode(given_entries, header))
    assert (found.header, entries_of(found)) == (header, given_entries)
    assert [each.cached_at_ns for each in found.entries] == [
        given_entries[each.name][3] for each in found.entries
    ]


def test_any_messagepack_library_reads_it() -> None:
    magic, header, *items, end = msgpack.Unpacker(BytesIO(DATA))
    assert magic == ["autoloadd", 1]
    assert all(crc32(body) == checksum for checksum, body in (header, *items, end))
    assert msgpack.unpackb(header[1]) == {
        "producer": HEADER.producer.as_map(),
        "built_at_ns": HEADER.built_at_ns,
    }
    rows = [msgpack.unpackb(body) for _, body in items]
    assert {name: tuple(values) for name, *values in rows} == ENTRIES
    before_the_end = DATA[: -len(pack(end))]
    assert msgpack.unpackb(end[1]) == [3, crc32(before_the_end)]


def test_the_bytes_of_version_1_never_change() -> None:
    header = PortableHeader(Producer("zshrs", "0.1.0", 8), 1_795_384_784_000_000_000)
    assert encode({"a": (b"\x00", None, 1, -1)}, header).hex(" ") == (
        "92 a9 61 75 74 6f 6c 6f 61 64 64 01 "  # ["autoloadd", 1]
        "92 ce 07 78 7c 6d c4 48 "
        "82 a8 70 72 6f 64 75 63 65 72 "  # {"producer":
        "83 a4 6e 61 6d 65 a5 7a 73 68 72 73 a7 76 65 72 73 69 6f 6e a5 30 2e 31 2e 30 "
        "ad 70 6f 69 6e 74 65 72 5f 77 69 64 74 68 08 "
        "ab 62 75 69 6c 74 5f 61 74 5f 6e 73 cf 18 ea 7c f2 dd 76 20 00 "  # "built_at_ns":
        "92 ce 3f 82 8e 02 c4 09 95 a1 61 c4 01 00 c0 01 ff "  # ["a", b"\0", nil, 1, -1]
        "92 ce d5 ab 5c bb c4 07 92 01 ce 08 46 30 fd"  # [1, CRC-32 of all before]
    )


def test_a_stream_that_another_program_wrote_is_read() -> None:
    # Its forms need not be the shortest, and its header may say more.
    found = read_portable(with_end({**HEAD, "comment": "by hand"}, ["a", b"1", None, 3, 4]))
    assert found.header == PortableHeader(Producer("zsh", "5.9", 8), 5)
    assert entries_of(found) == {"a": (b"1", None, 3, 4)}


def read_or_refuse(data: bytes) -> Portable | None:
    """Return what is read; None where it is refused as it should be."""
    try:
        return read_portable(data)
    except PortableError as exc:
        refused = exc
    assert 0 <= refused.position <= len(data), refused
    assert str(refused) == f"at byte {refused.position:,}: {refused.reason}"
    return None


def test_12_000_damaged_files_give_all_that_was_written_or_nothing() -> None:
    random = Random(20_261_123)
    refused = 0
    for _ in range(12_000):
        data = damage(DATA, random)
        found = read_or_refuse(data)
        if found is None:
            refused += 1
        else:
            assert data == DATA
            assert (found.header, entries_of(found)) == (HEADER, ENTRIES)
    assert refused > 11_000


def test_every_file_that_is_cut_off_is_refused() -> None:
    assert not any(read_or_refuse(DATA[:size]) for size in range(len(DATA)))


def test_every_flipped_bit_is_refused() -> None:
    for at in range(len(DATA)):
        for bit in range(8):
            data = bytearray(DATA)
            data[at] ^= 1 << bit
            assert read_or_refuse(bytes(data)) is None


ENTRY: list[object] = ["a", b"", None, 0, 0]
OTHER: list[object] = ["b", b"", None, 0, 0]
NO_UTF8 = b"\x95\xa1\xff\xc4\0\xc0\0\0"

REFUSED = {
    "nothing": (b"", 0, "no file of autoloadd's"),
    "another file": (b"#!/bin/zsh\n", 0, "no file of autoloadd's"),
    "no version": (MAGIC, 11, "there is no version"),
    "a version that is none": (MAGIC + b"\xc0", 11, "there is no version"),
    "a later version": (MAGIC + b"\x02", 11, "version 2; this autoloadd reads only 1"),
    "no header": (MAGIC + b"\x01", 12, "the file was cut off here"),
    "no pair": (MAGIC + b"\x01\xc0", 12, "no [checksum, bytes] begins here"),
    "no checksum": (MAGIC + b"\x01\x92\xc0", 13, "no checksum stands here"),
    "no bytes": (MAGIC + b"\x01\x92\x00\xc0", 14, "no bytes begin here"),
    "cut within": (MAGIC + b"\x01\x92\x00\xc4\x05abc", 19, "the file was cut off here"),
    "another checksum": (MAGIC + b"\x01\x92\x00\xc4\x01a", 16, "the checksum does not match"),
    "no MessagePack": (
        MAGIC + b"\x01" + pack([crc32(b"\xc1"), b"\xc1"]), 20, "no MessagePack value",
    ),
    "two values in one": (
        MAGIC + b"\x01" + pack([crc32(b"\0\0"), b"\0\0"]), 20, "no MessagePack value",
    ),
    "a header that is no map": (with_end(1), 20, "the header is no map"),
    "a header without a producer": (with_end({}), 20, "the header: producer: expected a map"),
    "a header without times": (
        with_end({"producer": HEAD["producer"]}), 20, "the header has no built_at_ns",
    ),
    "names in another order": (with_end(HEAD, OTHER, ENTRY), 104, "does not follow"),
    "a name twice": (with_end(HEAD, ENTRY, ENTRY), 104, "does not follow"),
    "an empty name": (with_end(HEAD, ["", *ENTRY[1:]]), 88, "at least one byte"),
    "an entry without times": (with_end(HEAD, ["a", b"", None, None, 0]), 88, "its times"),
    "a blob that is text": (with_end(HEAD, ["a", "", None, 0, 0]), 88, "expected a bin"),
    "a name that is not UTF-8": (
        with_end(HEAD, ENTRY).replace(seal(ENTRY), seal_bytes(NO_UTF8)), 88, "no MessagePack value",
    ),
    "an entry too few": (with_end(HEAD, ENTRY, count=2), 96, "does not fit the 1 entries"),
    "an end that is none": (with_end(HEAD, {"end": 1}), 80, "does not fit the 0 entries"),
    "something behind": (DATA + b"\0", len(DATA), "something follows the end"),
    "twice the same": (DATA + DATA, len(DATA), "something follows the end"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "position", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_stream_is_refused_with_the_position_and_the_reason(
    data: bytes, position: int, reason: str
) -> None:
    with pytest.raises(PortableError) as caught:
        read_portable(data)
    assert (caught.value.position, reason in caught.value.reason) == (position, True), caught.value


def test_an_entry_that_was_taken_out_or_moved_is_missed() -> None:
    parts = list(encode_portable(HEADER, sorted(ENTRIES.items())))
    for wrong in (
        [*parts[:1], *parts[2:]],
        [*parts[:-2], parts[-1]],
        [parts[0], parts[2], parts[1], *parts[3:]],
        [*parts[:2], *parts[1:]],
    ):
        with pytest.raises(PortableError):
            read_portable(b"".join(wrong))


BOMBS = {
    "arrays": b"\xdc\xff\xff" * 1024,
    "arrays that fit": b"\x9f" * 1024,
    "maps": b"\xde\xff\xff" * 1024,
    "4 billion items": b"\xdd\xff\xff\xff\xff",
    "an ext type": b"\xc7\x05\x01hello",
    "a time": b"\xd6\xff\0\0\0\0",
    "100,000 levels": b"\x91" * 100_000 + b"\xc0",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_value_that_asks_for_much_gets_nothing(bomb: bytes) -> None:
    data = pack(["autoloadd", 1]) + pack([crc32(bomb), bomb])
    tracemalloc.start()
    try:
        with pytest.raises(PortableError):
            read_portable(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
