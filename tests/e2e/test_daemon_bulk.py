"""Bulk writes through the running daemon: all of it at the commit, or nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Entry
from autoloadd_client.errors import BusyError
from autoloadd_protocol.limits import BULKS

from ..running import producer_map, wait_until

if TYPE_CHECKING:
    from autoloadd_client import Cache

    from ..running import Daemon, RawClient

SECONDS = 20.0
MIB = 1024 * 1024


def staged_files(served: Daemon) -> set[str]:
    """Return the files of bulks that are not committed."""
    return {name for name in served.files if "/staged." in name}


def test_merge(client: RawClient) -> None:
    client.ok("put_many", {"kept": [b"old"], "changed": [b"old"]})
    token = client.ok("bulk_begin", "merge", 5)
    assert client.ok("bulk_add", token, {"changed": [b"new"], "added": [b"1", b"fp", 7, 8]}) == 2
    assert client.ok("bulk_add", token, {"added": [b"2", None, 9, 10], "more": [b"3"]}) == 3
    assert client.ok("count") == 2
    assert client.ok("bulk_commit", token) == 2
    assert [name for name, _ in client.ok("names")] == ["added", "changed", "kept", "more"]
    assert client.ok("get", "added")[1:] == (b"2", None, 9, 10)
    assert client.ok("get", "more")[1:4] == (b"3", None, 5)
    assert client.ok("get", "kept")[1] == b"old"


def test_replace(client: RawClient, producer: str) -> None:
    shard = client.hello(producer_map(producer)).result["shard"]
    client.ok("put_many", {"a": [b"old"], "b": [b"old"]})
    token = client.ok("bulk_begin", "replace", None, 1234)
    client.ok("bulk_add", token, {"b": [b"new"], "c": [b"new"]})
    assert client.ok("get", "a")[1] == b"old"
    client.ok("bulk_commit", token, "fsync")
    assert client.ok("names") == (("b", None), ("c", None))
    assert client.ok("stats")["blob_bytes"] == 6
    (found,) = [each for each in client.ok("shards") if each["id"] == shard]
    assert found["built_at_ns"] == 1234


def test_replace_by_nothing(client: RawClient) -> None:
    client.ok("put", "a", b"1")
    client.ok("bulk_commit", client.ok("bulk_begin", "replace"))
    assert client.ok("count") == 0


def test_a_replace_wins_over_what_came_before_its_commit(
    client: RawClient, shard_cache: Cache
) -> None:
    """Also over a put that came after the entries were sent."""
    token = client.ok("bulk_begin", "replace")
    client.ok("bulk_add", token, {"a": [b"bulk"]})
    shard_cache.put("a", b"later")
    shard_cache.put("b", b"later")
    client.ok("bulk_commit", token)
    assert dict(shard_cache.names()) == {"a": None}
    assert shard_cache.get("a") == b"bulk"


def test_abort(served: Daemon, client: RawClient) -> None:
    token = client.ok("bulk_begin", "replace")
    client.ok("bulk_add", token, {"a": [b"1"]})
    assert staged_files(served)
    assert client.ok("bulk_abort", token) is None
    assert not staged_files(served)
    assert client.ok("count") == 0
    for method in ("bulk_commit", "bulk_abort"):
        assert client.refusal(method, token) == "bad_request"
    assert client.refusal("bulk_add", token, {"a": [b"1"]}) == "bad_request"
    assert client.ok("bulk_begin", "merge") != token


@pytest.mark.parametrize("how", ["close", "end of input", "in the middle of a frame"])
def test_the_end_of_the_connection_takes_it_back(
    served: Daemon, producer: str, shard_cache: Cache, how: str
) -> None:
    with served.connect() as client:
        client.hello(producer_map(producer))
        token = client.ok("bulk_begin", "merge")
        client.ok("bulk_add", token, {"a": [bytes(100_000)]})
        assert staged_files(served)
        if how == "in the middle of a frame":
            client.send(client.request_bytes("bulk_commit", token)[:-1])
        if how != "close":
            client.end_input()
            assert client.is_closed()
    wait_until(lambda: not staged_files(served), SECONDS, "the staged file to be removed")
    assert shard_cache.count() == 0


def test_a_commit_that_is_sent_before_the_end_counts(
    served: Daemon, producer: str, shard_cache: Cache
) -> None:
    with served.connect() as client:
        client.hello(producer_map(producer))
        token = client.ok("bulk_begin", "merge")
        client.send(
            client.request_bytes("bulk_add", token, {"a": [b"1"]})
            + client.request_bytes("bulk_commit", token)
        )
    wait_until(lambda: shard_cache.count() == 1, SECONDS, "the bulk")


def test_a_token_is_of_its_connection(served: Daemon, client: RawClient, producer: str) -> None:
    token = client.ok("bulk_begin", "merge")
    with served.connect() as other:
        other.hello(producer_map(producer))
        assert other.refusal("bulk_add", token, {"a": [b"1"]}) == "bad_request"
        assert other.refusal("bulk_commit", token) == "bad_request"
        assert other.refusal("bulk_abort", token) == "bad_request"
    for wrong in (token + 1, 0, -1, "1", None, 2**32):
        assert client.refusal("bulk_add", wrong, {"a": [b"1"]}) == "bad_request"
    client.ok("bulk_add", token, {"a": [b"2"]})
    client.ok("bulk_commit", token)
    assert client.ok("get", "a")[1] == b"2"


def test_one_bulk_for_each_connection(client: RawClient) -> None:
    token = client.ok("bulk_begin", "merge")
    assert client.refusal("bulk_begin", "merge") == "busy"
    client.ok("bulk_commit", token)
    client.ok("bulk_abort", client.ok("bulk_begin", "merge"))


def test_four_open_at_most(served: Daemon, producer: str, client: RawClient) -> None:
    others = [served.connect() for _ in range(BULKS)]
    tokens: list[int] = []
    for other in others:
        other.hello(producer_map(producer))
        tokens.append(other.ok("bulk_begin", "merge"))
    assert len(set(tokens)) == BULKS
    assert client.refusal("bulk_begin", "merge") == "busy"
    with served.cache(producer) as library, pytest.raises(BusyError):
        library.replace({"a": b"1"})
    others[0].ok("bulk_commit", tokens[0])
    client.ok("bulk_abort", client.ok("bulk_begin", "merge"))
    others[1].socket.close()
    wait_until(lambda: client.call("bulk_begin", "merge").error is None, SECONDS, "room for a bulk")
    for other in others:
        other.socket.close()


def test_a_hello_in_between_does_not_change_whose_it_is(client: RawClient, producer: str) -> None:
    token = client.ok("bulk_begin", "merge")
    client.hello(producer_map("other/" + producer.split("/", 1)[1]))
    client.ok("bulk_add", token, {"a": [b"1"]})
    client.ok("bulk_commit", token)
    assert client.ok("count") == 0
    client.hello(producer_map(producer))
    assert client.ok("count") == 1


def test_a_refused_part_changes_nothing(client: RawClient) -> None:
    token = client.ok("bulk_begin", "merge")
    client.ok("bulk_add", token, {"a": [b"1"]})
    assert client.refusal("bulk_add", token, {"b": [b"1"], "": [b"1"]}) == "bad_request"
    assert client.refusal("bulk_begin", "append") == "bad_request"
    assert client.ok("bulk_add", token, {"c": [b"1"]}) == 2
    client.ok("bulk_commit", token)
    assert client.ok("names") == (("a", None), ("c", None))


def test_dropping_the_shard_under_a_bulk(
    served: Daemon, client: RawClient, producer: str, shard_cache: Cache
) -> None:
    """The bulk goes with the shard; what is written after that is as ever."""
    shard = client.hello(producer_map(producer)).result["shard"]
    client.ok("put", "a", b"1")
    token = client.ok("bulk_begin", "merge")
    client.ok("bulk_add", token, {"b": [b"1"]})
    shard_cache.drop_shard(shard)
    assert client.call("bulk_commit", token).error is not None
    assert shard_cache.count() == 0
    assert shard_cache.put("c", b"1") is not None
    assert dict(shard_cache.names()) == {"c": None}


def test_the_library_streams_what_passes_a_frame(shard_cache: Cache) -> None:
    entries = {f"n{number:03}": os.urandom(200_000) for number in range(100)}
    seen: list[int] = []
    shard_cache.put("before", b"1")
    shard_cache.merge(entries, on_progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[-1], len(seen) > 10) == (100, True)
    assert shard_cache.get_many(entries) == entries
    assert shard_cache.count() == 101
    shard_cache.replace({"only": Entry(b"1", b"fp", 5, 6)}, built_at_ns=99)
    assert shard_cache.get_entry("only") == Entry(b"1", b"fp", 5, 6)
    assert shard_cache.count() == 1


def test_put_many_that_is_too_large_for_a_frame(shard_cache: Cache) -> None:
    entries = {f"n{number}": os.urandom(3 * MIB) for number in range(4)}
    shard_cache.put_many(entries)
    assert shard_cache.get_many(entries) == entries


def test_an_iterable_that_fails_leaves_nothing(served: Daemon, shard_cache: Cache) -> None:
    def entries() -> object:
        yield "a", bytes(3 * MIB)
        yield "b", bytes(3 * MIB)
        raise ValueError("the caller's own")

    shard_cache.put("kept", b"1")
    with pytest.raises(ValueError, match="the caller's own"):
        shard_cache.replace(entries())  # type: ignore[arg-type]
    wait_until(lambda: not staged_files(served), SECONDS, "the staged file to be removed")
    assert dict(shard_cache.names()) == {"kept": None}
