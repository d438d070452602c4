"""What each method does, to the running daemon, as docs/protocol.md has it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Entry
from autoloadd_protocol.limits import BLOB_BYTES, NAME_BYTES

from ..running import producer_map

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from ..running import Daemon, RawClient

MIB = 1024 * 1024
NASTY_NAMES = ["\0", "a\nb", "\x7f", " ", "é" * 512, "n" * NAME_BYTES, "\U0010ffff", "/etc/passwd"]


# hello


def test_hello_creates_no_shard(served: Daemon, producer: str) -> None:
    with served.connect() as client:
        result = client.hello(producer_map(producer)).result
        assert (result["epoch"], result["generation"]) == (0, 0)
        assert result["shard"] not in [shard["id"] for shard in client.ok("shards")]
        client.ok("put", "a", b"")
        again = client.hello(producer_map(producer)).result
        assert again["epoch"] != 0
        assert (again["shard"], again["generation"]) == (result["shard"], 1)
        assert result["shard"] in [shard["id"] for shard in client.ok("shards")]


def test_hello_again_sets_another_producer(served: Daemon, producer: str) -> None:
    with served.connect() as client:
        client.hello(producer_map(producer))
        client.ok("put", "a", b"1")
        client.hello(producer_map("other/" + producer.split("/", 1)[1]))
        assert client.ok("get", "a") is None
        client.hello(producer_map(producer))
        assert client.ok("get", "a")[1] == b"1"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (([2, 0], {"name": "a", "version": "1", "pointer_width": 8}), "unsupported_protocol"),
        (([0, 9], {"name": "a", "version": "1", "pointer_width": 8}), "unsupported_protocol"),
        (([1], {"name": "a", "version": "1", "pointer_width": 8}), "bad_request"),
        (("1.0",), "bad_request"),
        (([1, 0], {"name": "a", "version": "1", "pointer_width": 5}), "bad_request"),
        (([1, 0], {"name": "a", "version": "1"}), "bad_request"),
        (([1, 0], {"name": "", "version": "1", "pointer_width": 8}), "bad_request"),
        (([1, 0], {"name": "a" * 129, "version": "1", "pointer_width": 8}), "too_large"),
        (([1, 0], "zsh"), "bad_request"),
        (([1, 0], None, "client"), "bad_request"),
        (([1, 0], None, None, None), "bad_request"),
        ((), "bad_request"),
    ],
)
def test_a_hello_that_fails_leaves_no_producer(
    client: RawClient, params: tuple[object, ...], code: str
) -> None:
    client.ok("put", "a", b"1")
    assert client.refusal("hello", *params) == code
    assert client.refusal("get", "a") == "no_producer"
    assert client.ok("ping") == "pong"


def test_a_later_minor_version_is_spoken_to(served: Daemon) -> None:
    with served.connect() as client:
        assert client.ok("hello", [1, 99])["protocol"] == (1, 0)


DATA_REQUESTS: list[tuple[object, ...]] = [
    ("get", "a"), ("get_many", ["a"]), ("put", "a", b""), ("put_many", {"a": [b""]}),
    ("bulk_begin", "merge"), ("delete", ["a"]), ("clear",), ("names",), ("missing", ["a"]),
    ("count",), ("stats",), ("flush",),
]  # fmt: skip


def test_data_needs_a_producer_and_control_does_not(served: Daemon) -> None:
    with served.connect() as client:
        for answer in client.call_all(*DATA_REQUESTS):
            assert answer.error is not None
            assert answer.error[0] == "no_producer"
        for method in ("ping", "status", "shards"):
            client.ok(method)


def test_producers_do_not_see_each_other(served: Daemon, producer: str) -> None:
    """Every part of a producer tells it apart; no build and nil are the same."""
    base: dict[str, object] = {"name": producer, "version": "1", "pointer_width": 8}
    producers = [
        base,
        base | {"version": "2"},
        base | {"pointer_width": 4},
        base | {"build": "x"},
        base | {"build": "y"},
        base | {"name": producer + "2"},
    ]
    for number, each in enumerate(producers):
        with served.connect() as client:
            client.hello(each)
            assert client.ok("get", "a") is None
            client.ok("put", "a", b"%d" % number)
    for number, each in enumerate(producers):
        with served.connect() as client:
            client.hello(each)
            assert client.ok("get", "a")[1] == b"%d" % number
            assert client.ok("count") == 1
    with served.connect() as client:
        client.hello(base | {"build": None})
        assert client.ok("get", "a")[1] == b"0"


# Names and blobs


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_names_of_every_kind(client: RawClient, name: str) -> None:
    client.ok("put", name, name.encode())
    assert client.ok("get", name)[:2] == (name, name.encode())
    assert client.ok("get_many", [name])[0][name][0] == name.encode()
    assert client.ok("names") == ((name, None),)
    assert client.ok("missing", [name]) == ()
    assert client.ok("delete", [name]) == 1


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, BLOB_BYTES - 1, BLOB_BYTES])
def test_blobs_of_every_size(shard_cache: Cache, size: int) -> None:
    blob = os.urandom(size)
    shard_cache.put("a", blob)
    assert shard_cache.get("a") == blob
    assert shard_cache.get_many(["a"]) == {"a": blob}
    assert shard_cache.stats()["blob_bytes"] == size


def test_put_over_what_is_there(client: RawClient) -> None:
    first = client.ok("put", "a", b"first", 5, b"fp")
    assert client.ok("put", "a", b"2") == first + 1
    name, blob, fingerprint, mtime, _ = client.ok("get", "a")
    assert (name, blob, fingerprint, mtime) == ("a", b"2", None, 0)
    assert client.ok("count") == 1
    assert client.ok("stats")["blob_bytes"] == 1


def test_times_of_an_entry(client: RawClient) -> None:
    """What an entry says itself, then what the request says, then what the daemon knows."""
    before = time.time_ns()
    client.ok("put_many", {"own": [b"", b"fp", 3, 4], "request": [b"", None, None, None]}, 9)
    client.ok("put", "none", b"")
    after = time.time_ns()
    assert client.ok("get", "own")[2:] == (b"fp", 3, 4)
    assert client.ok("get", "request")[2:4] == (None, 9)
    assert before <= client.ok("get", "request")[4] <= after
    assert client.ok("get", "none")[3] == 0
    limit = 2**63
    client.ok("put_many", {"low": [b"", None, -limit, -limit], "high": [b"", None, limit - 1, 0]})
    assert client.ok("get", "low", -limit)[3:] == (-limit, -limit)
    assert client.ok("get", "high", limit - 1)[3] == limit - 1
    assert client.refusal("get", "high", limit) == "bad_request"


FRESHNESS = [
    # stored mtime, stored fingerprint, asked mtime, asked fingerprint, fresh
    (5, None, None, None, True),
    (5, None, 4, None, True),
    (5, None, 5, None, True),
    (5, None, 6, None, False),
    (None, None, 0, None, True),
    (None, None, -1, None, True),
    (None, None, 1, None, False),
    (-5, None, -5, None, True),
    (-5, None, -4, None, False),
    (5, b"x", None, None, True),
    (5, b"x", None, b"x", True),
    (5, b"x", None, b"y", False),
    (5, b"x", None, b"xx", False),
    (5, None, None, b"x", False),
    (5, b"x", 5, b"x", True),
    (5, b"x", 6, b"x", False),
    (5, b"x", 5, b"y", False),
    (5, b"\0" * 1024, 5, b"\0" * 1024, True),
]


def test_freshness(client: RawClient) -> None:
    """`get`, `get_many` and `missing` agree on each line of the table."""
    for number, (mtime, fingerprint, *_) in enumerate(FRESHNESS):
        client.ok("put", f"n{number}", b"blob", mtime, fingerprint)
    for number, (*_, asked_mtime, asked_fingerprint, fresh) in enumerate(FRESHNESS):
        name = f"n{number}"
        got = client.ok("get", name, asked_mtime, asked_fingerprint)
        assert (got is not None) == fresh, FRESHNESS[number]
        item = [name, asked_fingerprint, asked_mtime]
        assert (name in client.ok("get_many", [item])[0]) == fresh
        assert client.ok("missing", [item]) == (() if fresh else (name,))
        if asked_fingerprint is None:
            # An item's own time counts before the request's; without one the request's does.
            assert client.ok("missing", [name], asked_mtime) == (() if fresh else (name,))
            assert client.ok("missing", [item], asked_mtime) == (() if fresh else (name,))


def test_missing_keeps_the_given_order(client: RawClient) -> None:
    client.ok("put_many", {"fresh": [b"", b"fp", 9], "stale": [b"", b"old", 3]})
    wanted = ["z", "stale", "fresh", ["stale", b"old"], ["fresh", b"fp", 10], ["fresh", b"no"], "a"]
    expected = ("z", "stale", "fresh", "fresh", "a")
    assert client.ok("missing", wanted, 9)[:2] == expected[:2]
    # ["stale", b"old"] has no time of its own, so the request's makes it stale.
    assert client.ok("missing", wanted, 9) == ("z", "stale", "stale", "fresh", "fresh", "a")
    assert client.ok("missing", wanted) == ("z", "fresh", "fresh", "a")
    assert client.ok("missing", []) == ()


def test_missing_and_the_library_agree(shard_cache: Cache) -> None:
    shard_cache.put_many({"a": Entry(b"1", b"fp", 5), "b": Entry(b"2")})
    wanted: list[str | tuple[str, bytes | None, int | None]] = [
        *(("a", b"fp", 5), ("a", b"other", None), ("a", None, 6)),
        *("b", "c", ("b", None, 1)),
    ]
    assert shard_cache.missing(wanted) == ["a", "a", "c", "b"]


def test_stats_tell_fresh_from_stale(client: RawClient) -> None:
    client.ok("put_many", {f"n{number}": [b"12345", None, number] for number in range(10)})
    found = client.ok("stats")
    assert (found["entries"], found["fresh"], found["stale"]) == (10, None, None)
    assert (found["blob_bytes"], found["generation"]) == (50, 1)
    for mtime, stale in ((0, 0), (1, 1), (5, 5), (100, 10)):
        found = client.ok("stats", mtime)
        assert (found["fresh"], found["stale"]) == (10 - stale, stale)
    client.ok("get", "n5")
    client.ok("get", "n5", 6)
    client.ok("get", "absent")
    found = client.ok("stats")
    assert (found["hits"], found["misses"]) == (1, 2)


def test_names_tell_fresh_from_stale(client: RawClient) -> None:
    client.ok("put_many", {"a": [b"", None, 5], "b": [b"", None, 6]})
    assert client.ok("names") == (("a", None), ("b", None))
    assert client.ok("names", None, None, None, 6) == (("a", False), ("b", True))


# Changes


def test_delete_counts_what_was_there(client: RawClient) -> None:
    client.ok("put_many", {name: [b"1"] for name in "abc"})
    assert client.ok("delete", ["a", "x", "a"]) == 1
    assert client.ok("delete", []) == 0
    assert client.ok("clear") == 2
    assert client.ok("clear") == 0
    assert client.ok("stats")["blob_bytes"] == 0


def test_what_changes_nothing_makes_no_shard(served: Daemon, producer: str) -> None:
    with served.connect() as client:
        shard = client.hello(producer_map(producer)).result["shard"]
        assert client.ok("delete", ["a"]) == 0
        assert client.ok("clear") == 0
        assert client.ok("flush") == (0, 0, None)
        assert client.ok("get", "a") is None
        assert client.ok("stats", 5)["stale"] == 0
        assert shard not in [each["id"] for each in client.ok("shards")]


def test_flush_reports_what_was_refused_once(client: RawClient) -> None:
    client.notify("put", "a", b"1")
    client.notify("put", "", b"1")
    client.notify("put", "b", bytes(BLOB_BYTES + 1))
    client.notify("get", "a")
    client.notify("no_such_method")
    generation, refused, error = client.ok("flush")
    assert (generation, refused) == (1, 4)
    assert error.startswith("bad_request: a name")
    assert client.ok("flush") == (1, 0, None)
    assert client.ok("names") == (("a", None),)


def test_refused_notifications_are_of_their_connection(
    served: Daemon, client: RawClient, producer: str
) -> None:
    with served.connect() as other:
        other.hello(producer_map(producer))
        other.notify("put", "", b"")
        before = other.ok("status")["refused_notifications"]
        assert client.ok("flush")[1:] == (0, None)
        assert other.ok("flush")[1] == 1
    assert client.ok("status")["refused_notifications"] == before


@pytest.mark.parametrize("sync", ["memory", "write", "fsync", None])
def test_every_level_of_sync(client: RawClient, sync: str | None) -> None:
    assert client.ok("put", "a", b"1", None, None, sync) == 1
    assert client.ok("put_many", {"b": [b"1"]}, None, sync) == 2
    assert client.ok("delete", ["a"], sync) == 1
    assert client.ok("clear", sync) == 1
    assert client.refusal("put", "a", b"1", None, None, "disk") == "bad_request"


def test_put_many_is_all_or_nothing(client: RawClient) -> None:
    assert client.refusal("put_many", {"a": [b"1"], "b": ["no bin"]}) == "bad_request"
    assert client.refusal("put_many", {"a": [b"1"], "n" * 1025: [b""]}) == "too_large"
    assert client.ok("count") == 0
    assert client.ok("put_many", {}) == 1


# Shards


def test_shards_and_drop_shard(served: Daemon, client: RawClient, producer: str) -> None:
    shard = client.hello(producer_map(producer)).result["shard"]
    client.ok("put", "a", b"12345", None, None, "fsync")
    (found,) = [each for each in client.ok("shards") if each["id"] == shard]
    assert found["producer"] == producer_map(producer)
    assert (found["entries"], found["blob_bytes"], found["generation"]) == (1, 5, 1)
    assert found["journal_bytes"] > 0
    assert found["last_used_ns_ago"] >= 0
    assert abs(found["built_at_ns"] - time.time_ns()) < 60e9
    assert (served.cache_dir / shard).is_dir()
    assert client.ok("drop_shard", shard) is None
    assert not (served.cache_dir / shard).exists()
    assert client.ok("get", "a") is None
    assert client.refusal("drop_shard", shard) == "bad_request"
    assert client.refusal("drop_shard", 7) == "bad_request"
    # Another life: generations begin anew, in another epoch.
    assert client.ok("put", "b", b"1") == 1
    again = client.hello(producer_map(producer)).result
    assert again["epoch"] != found["epoch"]
    assert client.ok("names") == (("b", None),)


def test_status(served: Daemon, client: RawClient) -> None:
    found = client.ok("status")
    assert found["pid"] == served.pid
    assert found["socket"] == served.socket_path
    assert found["cache_dir"] == str(served.cache_dir)
    assert found["connections"] >= 1
    assert 10 * MIB < found["memory_bytes"] < 1024 * MIB
    assert found["storage"]["state"] == "healthy"
    assert found["storage"]["set_aside"] == ()
    assert found["uptime_ns"] > 0
