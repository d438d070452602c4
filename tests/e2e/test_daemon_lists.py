"""Lists of names and of entries: pages, what is left over, and the limit of a frame."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_protocol.limits import BLOB_BYTES, FRAME_BYTES

from ..running import producer_map, wait_until

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from ..running import RawClient

MIB = 1024 * 1024


def with_image(client: RawClient, shard: str) -> None:
    """Put more than a journal may hold, so that the shard gets an image; wait for it."""
    filling = {f"image-{number:04}": [bytes(1000)] for number in range(1500)}
    client.ok("put_many", filling)

    def has_image() -> bool:
        return any(each["id"] == shard and each["image_bytes"] for each in client.ok("shards"))

    wait_until(has_image, 20, "an image")


def test_names_page_over_image_and_changes(client: RawClient, producer: str) -> None:
    with_image(client, client.hello(producer_map(producer)).result["shard"])
    expected = {f"image-{number:04}" for number in range(1500)}
    client.ok("put_many", {"image-0100": [b"new"], "zz": [b""], "a": [b""], "image-00005": [b""]})
    client.ok("delete", ["image-0200", "image-1499", "absent"])
    expected |= {"zz", "a", "image-00005"}
    expected -= {"image-0200", "image-1499"}
    ordered = sorted(expected)
    assert client.ok("count") == len(expected)
    for limit in (1, 7, 999, 1000, None):
        found: list[str] = []
        while page := client.ok("names", None, found[-1] if found else None, limit):
            found += [name for name, _ in page]
            if limit == 1 and len(found) > 20:
                break
        assert found == ordered[: len(found)]
        assert limit == 1 or found == ordered
    page = client.ok("names", "image-00", "image-0005", 3)
    assert [name for name, _ in page] == ["image-0006", "image-0007", "image-0008"]
    for prefix in ("image-01", "zz", "none", "image-", "a"):
        page = client.ok("names", prefix)
        assert [name for name, _ in page] == [n for n in ordered if n.startswith(prefix)][:1000]
    # `after` need not be there, nor have the prefix.
    assert client.ok("names", "zz", "a")[0][0] == "zz"
    assert client.ok("names", "a", "b") == ()
    assert client.ok("names", None, "image-9", 2) == (("zz", None),)
    assert client.ok("names", None, "zz") == ()


def test_names_are_sorted_by_bytes(client: RawClient) -> None:
    names = ["é", "z", "\U0001f600", "\uffff", "Z", "\0", "zz"]
    client.ok("put_many", {name: [b""] for name in names})
    found = [name for name, _ in client.ok("names")]
    assert found == sorted(names, key=str.encode)


@pytest.mark.parametrize("limit", [0, -1, 1001, "10", True])
def test_a_limit_of_names_that_cannot_be(client: RawClient, limit: object) -> None:
    assert client.refusal("names", None, None, limit) == "bad_request"


def get_all(client: RawClient, names: list[str]) -> tuple[dict[str, Any], list[int]]:
    """Ask for names until none is left over; return the entries and the size of each answer."""
    found: dict[str, Any] = {}
    sizes: list[int] = []
    while names:
        client.send(client.request_bytes("get_many", names))
        payload = client.receive_frame()
        assert payload is not None
        sizes.append(len(payload))
        client._received[:0] = len(payload).to_bytes(4, "big") + payload
        answer = client.receive()
        assert answer is not None
        assert answer.error is None, answer.error
        entries, left = answer.result
        assert entries
        assert not entries.keys() & found.keys()
        found |= entries
        names = list(left)
    return found, sizes


def test_get_many_leaves_over_what_does_not_fit(client: RawClient) -> None:
    names = [f"n{number}" for number in range(7)]
    for name in names:
        client.ok("put", name, name.encode() * (3 * MIB // 2))
    client.ok("put", "small", b"1")
    found, sizes = get_all(client, [*names, "absent", "small"])
    assert {name: entry[0] for name, entry in found.items()} == {
        "small": b"1",
        **{name: name.encode() * (3 * MIB // 2) for name in names},
    }
    assert max(sizes) <= FRAME_BYTES


def test_get_many_of_two_of_the_largest_blobs(client: RawClient) -> None:
    for name in ("a", "b"):
        client.ok("put", name, bytes(BLOB_BYTES))
    found, sizes = get_all(client, ["a", "b"])
    assert found.keys() == {"a", "b"}
    assert max(sizes) <= FRAME_BYTES


def test_get_many_counts_the_names_left_over(client: RawClient) -> None:
    """The names that are left over take room in the answer's frame too."""
    names = [f"{number:05}" + "n" * 90 for number in range(40_000)]
    for start in range(0, len(names), 10_000):
        part = names[start : start + 10_000]
        client.ok("put_many", {name: [bytes(300)] for name in part})
    started = time.monotonic()
    found, sizes = get_all(client, names)
    assert found.keys() == set(names)
    assert max(sizes) <= FRAME_BYTES
    assert time.monotonic() - started < 10, "the time grows faster than the number of names"


def test_get_many_whose_names_leave_no_room(client: RawClient) -> None:
    """Names that fill a frame by themselves: refused, not answered with too long a frame."""
    names = [f"{number:05}" + "n" * 1000 for number in range(7_500)]
    client.ok("put", names[0], bytes(BLOB_BYTES))
    client.ok("put", names[1], bytes(BLOB_BYTES))
    assert client.refusal("get_many", names) == "too_large"
    found, sizes = get_all(client, names[:3_500])
    assert found.keys() == set(names[:2])
    assert max(sizes) <= FRAME_BYTES
    assert client.ok("ping") == "pong"


def test_the_library_gets_many_with_long_names_and_large_blobs(shard_cache: Cache) -> None:
    names = [f"{number:05}" + "n" * 1000 for number in range(5_000)]
    large = {names[0]: bytes(BLOB_BYTES), names[1]: os.urandom(BLOB_BYTES)}
    shard_cache.merge(dict.fromkeys(names, b"small") | large)
    assert shard_cache.get_many(names) == dict.fromkeys(names, b"small") | large


def test_get_many_of_one_name_twice(client: RawClient) -> None:
    client.ok("put", "a", b"1")
    entries, left = client.ok("get_many", ["a", "a", "b", ["a", b"other"]])
    assert (entries.keys(), left) == ({"a"}, ())
