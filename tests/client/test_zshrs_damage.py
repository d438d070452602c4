"""Damaged files of zshrs: refused with a position and a reason, or read as they say.

The file has no checksum, so some damage is none to any reader: a changed byte of a blob, a time.
What is accepted is held against a second reader, which shares no code with ours.
"""

from __future__ import annotations

import struct
import tracemalloc
from random import Random

import pytest

from autoloadd_client.zshrs.errors import DamagedFileError
from autoloadd_client.zshrs.layout import LAYOUTS, RUSTC_1_95, Header
from autoloadd_client.zshrs.reading import ShardFile, read_shard_file
from autoloadd_client.zshrs.writing import EntryToWrite, encode_shard_file

from ..damage import damage
from ..zshrs_files import DATA, FIXTURES, read_naively

THREE = (DATA / "three.rkyv").read_bytes()
ROOT = len(THREE) - 48
ENTRY = ROOT - 96  # of _empty, whose name is in its field
FUNCTION = ENTRY + 32
LONG = ENTRY + 64


def read_or_refuse(data: bytes) -> ShardFile | None:
    """Return what is read; None where it is refused as it should be."""
    try:
        return read_shard_file(data)
    except DamagedFileError as exc:
        refused = exc
    assert 0 <= refused.position <= len(data), refused
    assert str(refused) == f"at byte {refused.position:,}: {refused.reason}"
    return None


def check_against_naive(found: ShardFile, data: bytes) -> None:
    """Check that what was read is what the file says, and that zshrs would find all of it."""
    naive = read_naively(data, found.layout.name)
    assert found.header == (naive.version.decode(), naive.pointer_width, naive.built_at)
    ours = [
        (each.name.encode(), each.binary_mtime_secs, each.cached_at_secs, found.blob(each))
        for each in found.entries
    ]
    assert ours == naive.slots
    assert all(naive.look_up(name) == (*times, blob) for name, *times, blob in naive.slots)


def some_files(random: Random) -> list[bytes]:
    made = []
    for layout in LAYOUTS.values():
        for count in (1, 2, 5, 9):
            entries = {
                b"_%x" % random.getrandbits(random.choice((8, 40, 160))): EntryToWrite(
                    random.randbytes(random.choice((0, 3, 30))), random.getrandbits(31), 7
                )
                for _ in range(count)
            }
            header = Header(random.choice(("0.1.0", "0.12.27-nightly.1")), 8, 1_795_384_784)
            made.append(b"".join(encode_shard_file(header, entries, layout)))
    return made + [(DATA / name).read_bytes() for name in FIXTURES if "hundred" not in name]


def test_12_000_damaged_files_are_refused_or_read_as_they_say() -> None:
    random = Random(20_261_123)
    files = some_files(random)
    refused = changed = 0
    for number in range(12_000):
        data = damage(files[number % len(files)], random)
        found = read_or_refuse(data)
        if found is None:
            refused += 1
        else:
            changed += data not in files
            check_against_naive(found, data)
    # Both happen, or this would show nothing.
    assert refused > 6_000
    assert changed > 1_000


def test_every_file_that_is_cut_off_is_refused() -> None:
    for size in range(len(THREE)):
        assert read_or_refuse(THREE[:size]) is None


def test_every_flipped_bit_of_what_leads_to_other_bytes_is_refused() -> None:
    leads = {
        *range(ROOT + 16, ROOT + 28),  # mark, format, pointer width
        *range(ROOT + 36, ROOT + 44),  # both tables
        *range(FUNCTION + 4, FUNCTION + 8),  # names that lie elsewhere
        *range(LONG + 4, LONG + 8),
        *range(ENTRY + 24, ENTRY + 28),  # blobs; behind the last one there is room
        *range(FUNCTION + 24, FUNCTION + 28),
    }
    accepted = set()
    for at in range(len(THREE)):
        for bit in range(8):
            data = bytearray(THREE)
            data[at] ^= 1 << bit
            found = read_or_refuse(bytes(data))
            if found is not None:
                check_against_naive(found, bytes(data))
                accepted.add(at)
    assert accepted & leads == set()
    # What no reader can check: the bytes of a blob, its length where less leaves a gap, times.
    assert {*range(26, 38), FUNCTION + 28, LONG + 8, LONG + 16, ROOT + 8} <= accepted


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


REFUSED = {
    "no file at all": (b"", 0, "the file ends here"),
    "not a multiple of 8": (b"12345" + THREE, 565, "a multiple of 8 bytes"),
    "zeros": (bytes(560), ROOT, "zshrs's mark is not in the header"),
    "another form": (put(THREE, ROOT + 20, "<I", 2), ROOT + 20, "format version 2; only 1"),
    "no pointer width": (put(THREE, ROOT + 24, "<I", 16), ROOT + 24, "a pointer width of 16"),
    "no version": (put(THREE, ROOT, "<Q", 0), ROOT, "zshrs's version has 1 to 128 bytes"),
    "a version that is not UTF-8": (put(THREE, ROOT, "<B", 0xFF), ROOT, "no UTF-8"),
    "a surrogate": (put(THREE, ROOT, "<I", 0x00B0A0ED), ROOT, "no UTF-8"),
    "a time after 2262": (put(THREE, ROOT + 8, "<Q", 2**63), ROOT + 8, "does not fit 64 bits"),
    "an mtime after 2262": (put(THREE, ENTRY + 8, "<q", 2**62), ENTRY + 8, "does not fit"),
    "a cached_at before 1677": (put(THREE, ENTRY + 16, "<q", -(2**62)), ENTRY + 16, "does not"),
    "more entries than bytes": (put(THREE, ROOT + 32, "<I", 2**32 - 1), ROOT + 32, "do not fit"),
    "displacements before the file": (
        put(THREE, ROOT + 36, "<i", -(ROOT + 40)), ROOT + 36, "it points to bytes -4 to 8",
    ),
    "displacements that are askew": (
        put(THREE, ROOT + 36, "<i", -(ROOT + 36) + 2), ROOT + 36, "no multiple of 4",
    ),
    "entries that are askew": (
        put(THREE, ROOT + 40, "<i", ENTRY - 4 - ROOT - 40), ROOT + 40, "no multiple of 8",
    ),
    "entries in the root": (
        put(THREE, ROOT + 40, "<i", ENTRY + 8 - ROOT - 40), ROOT + 40, "must lie between",
    ),
    "a slot that is not there": (put(THREE, 0, "<I", 3), 0, "slot 3 of 3"),
    "too much text in a field": (put(THREE, ENTRY + 7, "<B", 8), ENTRY + 7, "8 bytes of text"),
    "another name": (put(THREE, ENTRY, "<B", ord("-")), ENTRY, "would not find '-empty'"),
    "a text before the displacements": (
        put(THREE, FUNCTION + 4, "<i", 4 - FUNCTION), FUNCTION, "must lie between 12 and",
    ),
    "a blob within the text": (
        put(THREE, FUNCTION + 24, "<i", 12 - FUNCTION - 24), FUNCTION + 24, "must lie between",
    ),
    "a blob into the entries": (put(THREE, LONG + 28, "<I", 300), LONG + 24, "must lie between"),
    "an empty blob outside": (
        put(THREE, ENTRY + 24, "<i", 8 - ENTRY - 24), ENTRY + 24, "it points to bytes 8 to 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "position", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_with_the_position_and_the_reason(
    data: bytes, position: int, reason: str
) -> None:
    with pytest.raises(DamagedFileError) as caught:
        read_shard_file(data)
    assert (caught.value.position, reason in caught.value.reason) == (position, True), caught.value


def test_a_long_text_that_is_not_utf8_is_refused_where_it_is_wrong() -> None:
    data = THREE.replace("функция".encode(), "функци".encode() + b"\xd1\xd1")
    with pytest.raises(DamagedFileError, match="no UTF-8: invalid continuation byte"):
        read_shard_file(data)


def test_two_entries_of_one_name_are_refused() -> None:
    # The second is found in the first's slot.
    one = EntryToWrite(b"", 1, 1)
    data = b"".join(encode_shard_file(Header("1", 8, 1), {b"a": one, b"b": one}, RUSTC_1_95))
    assert read_or_refuse(data.replace(b"b\0\0\0\0\0\0\1", b"a\0\0\0\0\0\0\1")) is None


def test_numbers_that_promise_much_take_no_memory() -> None:
    tracemalloc.start()
    try:
        for at in (0, 4, 8, *range(ENTRY, len(THREE), 4)):
            for value in (2**31 - 1, 2**32 - 1, 2**30):
                read_or_refuse(put(THREE, at, "<I", value))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
