"""zshrs's file: what its own code wrote is read and written again byte for byte."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_client.zshrs.errors import InexpressibleError, UnseparableError
from autoloadd_client.zshrs.layout import LAYOUTS, MAX_BYTES, RUSTC_1_63, RUSTC_1_95, Header
from autoloadd_client.zshrs.place import default_path
from autoloadd_client.zshrs.reading import MAX_SECONDS, read_shard_file
from autoloadd_client.zshrs.seahash import bucket_hash, seeded_hash, seeded_name
from autoloadd_client.zshrs.writing import EntryToWrite, encode_shard_file

from ..zshrs_files import DATA, FIXTURES, naive_hash, read_naively, unseparable_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoloadd_client.zshrs.layout import Layout
    from autoloadd_client.zshrs.reading import ShardFile

HEADER = Header("0.1.0", 8, 1_795_384_784)
OF_1_63 = "rustc163_three.rkyv"


def entry(blob: bytes = b"blob", mtime: int = 5, cached_at: int = 7) -> EntryToWrite:
    return EntryToWrite(blob, mtime, cached_at)


def encode(
    entries: Mapping[bytes, EntryToWrite], header: Header = HEADER, layout: Layout = RUSTC_1_95
) -> bytes:
    return b"".join(encode_shard_file(header, entries, layout))


def entries_of(found: ShardFile) -> dict[bytes, EntryToWrite]:
    return {
        each.name.encode(): EntryToWrite(
            found.blob(each), each.binary_mtime_secs, each.cached_at_secs
        )
        for each in found.entries
    }


@pytest.mark.parametrize("name", FIXTURES)
def test_what_zshrs_wrote_is_read_as_it_is(name: str) -> None:
    found = read_shard_file((DATA / name).read_bytes())
    said = FIXTURES[name]
    header = said["header"]
    assert found.header == (
        header["zshrs_version"], header["pointer_width"], header["built_at_secs"],
    )  # fmt: skip
    assert found.layout is (RUSTC_1_63 if name == OF_1_63 else RUSTC_1_95)
    assert [
        (
            each.name,
            each.binary_mtime_secs,
            each.cached_at_secs,
            hashlib.sha256(found.blob(each)).hexdigest(),
        )
        for each in found.entries
    ] == [
        (each["name"], each["binary_mtime_at_cache"], each["cached_at_secs"], each["blob_sha256"])
        for each in said["entries_in_table_order"]
    ]


@pytest.mark.parametrize("name", FIXTURES)
def test_what_zshrs_wrote_is_written_again_byte_for_byte(name: str) -> None:
    data = (DATA / name).read_bytes()
    found = read_shard_file(data)
    entries = list(entries_of(found).items())
    for _ in range(3):
        random.Random(1).shuffle(entries)
        assert encode(dict(entries), found.header, found.layout) == data


def test_the_two_orders_of_fields_hold_the_same() -> None:
    newer = (DATA / "three.rkyv").read_bytes()
    older = (DATA / OF_1_63).read_bytes()
    found = read_shard_file(newer)
    assert found.layout.name == "1.95"
    assert encode(entries_of(found), found.header, RUSTC_1_63) == older
    assert encode(entries_of(read_shard_file(older)), found.header, RUSTC_1_95) == newer


def test_a_version_that_looks_like_the_mark_of_the_other_order_does_not_mislead() -> None:
    header = Header("LARZ", 8, 1)
    for layout in LAYOUTS.values():
        found = read_shard_file(encode({b"a": entry()}, header, layout))
        assert (found.layout, found.header) == (layout, header)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
times = st.integers(-MAX_SECONDS, MAX_SECONDS)
shards = st.dictionaries(
    names.map(str.encode), st.builds(EntryToWrite, st.binary(max_size=80), times, times)
)
headers = st.builds(
    Header,
    names.filter(lambda text: 0 < len(text.encode()) <= 128),
    st.sampled_from([4, 8]),
    st.integers(0, MAX_SECONDS),
)


@settings(max_examples=300, deadline=None)
@given(shards, headers, st.sampled_from(list(LAYOUTS.values())))
def test_whatever_is_written_is_read_back_and_found(
    entries: dict[bytes, EntryToWrite], header: Header, layout: Layout
) -> None:
    data = encode(entries, header, layout)
    found = read_shard_file(data)
    assert (found.layout, found.header, entries_of(found)) == (layout, header, entries)
    naive = read_naively(data, layout.name)
    assert len(naive.slots) == len(entries)
    for name, each in entries.items():
        assert naive.look_up(name) == (each.binary_mtime_secs, each.cached_at_secs, each.blob)
    assert naive.look_up(b"no such name, of any of them") is None


def test_a_thousand_names_find_their_slots() -> None:
    entries = {b"fn_%06d" % number: entry(b"%d" % number) for number in range(1_000)}
    data = encode(entries)
    assert entries_of(read_shard_file(data)) == entries
    naive = read_naively(data, "1.95")
    assert all(naive.look_up(name) == (5, 7, entries[name].blob) for name in entries)


@given(st.binary(max_size=90), st.integers(0x80000000, 0xFFFFFFFF))
def test_the_hash_is_the_one_that_is_written_down(name: bytes, seed: int) -> None:
    assert bucket_hash(name) == naive_hash(name)
    assert seeded_hash(seed, seeded_name(name)) == naive_hash(name, seed)


def test_names_that_no_seed_separates_are_refused_before_a_search() -> None:
    one, other = unseparable_pair(same_bucket=True)
    assert one.decode() != other.decode()
    assert all(naive_hash(one, seed) == naive_hash(other, seed) for seed in (2**31, 2**32 - 2, 99))
    with pytest.raises(UnseparableError) as caught:
        encode({one: entry(), other: entry()})
    assert set(caught.value.names) == {one, other}
    assert "whose hashes are equal for every seed" in str(caught.value)
    assert repr(one.decode()) in str(caught.value)


def test_the_same_names_in_two_buckets_are_no_trouble() -> None:
    one, other = unseparable_pair(same_bucket=False)
    entries = {one: entry(b"1"), other: entry(b"2")}
    assert entries_of(read_shard_file(encode(entries))) == entries


def test_a_search_that_would_not_end_is_given_up() -> None:
    # All in one bucket: a seed in six million gives each of 18 a slot of its own.
    random_names = random.Random(3)
    crowd: dict[bytes, EntryToWrite] = {}
    while len(crowd) < 18:
        name = b"%x" % random_names.getrandbits(64)
        if naive_hash(name) % 18 == 0:
            crowd[name] = entry()
    with pytest.raises(UnseparableError, match="no seed was found") as caught:
        encode(crowd)
    assert set(caught.value.names) == set(crowd)


def test_a_file_over_2_gib_is_refused_before_it_is_made() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_BYTES

    with pytest.raises(InexpressibleError, match="larger than 2 GiB"):
        encode({b"a": entry(Huge())})


def test_where_zshrs_keeps_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    assert default_path({}) == "/home/you/.zshrs/autoloads.rkyv"
    assert default_path({"ZSHRS_HOME": ""}) == "/home/you/.zshrs/autoloads.rkyv"
    assert default_path({"ZSHRS_HOME": "/elsewhere"}) == "/elsewhere/autoloads.rkyv"
