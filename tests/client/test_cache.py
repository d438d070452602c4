"""Every method of `Cache` against the real daemon."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import (
    TOOL_OUTPUT,
    Cache,
    Entry,
    NoProducerError,
    Producer,
    RefusedError,
    UnreachableError,
)
from autoloadd_protocol.limits import BLOB_BYTES, FRAME_BYTES, NAMES

from ..running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..running import Daemon

EVERY_BYTE = bytes(range(256)) * 16


def test_put_and_get(cache: Cache) -> None:
    assert cache.get("name") is None
    first = cache.put("name", EVERY_BYTE)
    second = cache.put("name", b"")
    assert isinstance(first, int)
    assert second is not None
    assert second > first
    assert cache.get("name") == b""


@pytest.mark.parametrize(
    "name", ["a", "n" * 31, "n" * 32, "n" * 1024, "nl\nnul\0", "ä€😀", "ä" * 512]
)
def test_every_width_of_names_and_blobs(shard_cache: Cache, name: str) -> None:
    for size in (0, 1, 255, 256, 65_535, 65_536, 200_000):
        blob = (EVERY_BYTE * (size // len(EVERY_BYTE) + 1))[:size]
        fingerprint = b"f" * (1 + size % 1024)
        shard_cache.put(name, blob, fingerprint=fingerprint)
        assert shard_cache.get(name) == blob
        assert shard_cache.get_many([name]) == {name: blob}
        entry = shard_cache.get_entry(name)
        assert entry is not None
        assert (entry.blob, entry.fingerprint) == (blob, fingerprint)
        assert list(shard_cache.names()) == [(name, None)]


def test_the_largest_blob(cache: Cache) -> None:
    blob = os.urandom(BLOB_BYTES)
    cache.put("name", blob)
    assert cache.get("name") == blob
    assert cache.get_many(["name", "other"]) == {"name": blob}


def test_get_entry_tells_what_was_stored(daemon: Daemon) -> None:
    before = time.time_ns()
    with daemon.cache(binary_mtime_ns=-5) as cache:
        cache.put("name", b"blob", fingerprint=b"print")
        entry = cache.get_entry("name")
        assert cache.get_entry("other") is None
    assert entry is not None
    assert entry.cached_at_ns is not None
    assert entry == Entry(b"blob", b"print", -5, entry.cached_at_ns)
    assert before <= entry.cached_at_ns <= time.time_ns()


def test_an_entry_older_than_the_binary_is_a_miss(daemon: Daemon, tmp_path: Path) -> None:
    binary = tmp_path / "shell"
    binary.touch()
    os.utime(binary, ns=(1_000, 1_000))
    with daemon.cache(binary=binary) as old:
        old.put("name", b"old")
        assert old.get("name") == b"old"
    os.utime(binary, ns=(1_001, 1_001))
    with daemon.cache(binary=binary) as new:
        assert new.get("name") is None
        assert new.get_entry("name") is None
        assert new.get_many(["name"]) == {}
        assert new.missing(["name"]) == ["name"]
        assert list(new.names()) == [("name", False)]
        new.put("name", b"new")
        assert new.get("name") == b"new"
        assert list(new.names()) == [("name", True)]
    with daemon.cache() as timeless:
        assert timeless.get("name") == b"new"


def test_another_fingerprint_is_a_miss(cache: Cache) -> None:
    cache.put("with", b"blob", fingerprint=b"one")
    cache.put("without", b"blob")
    assert cache.get("with", fingerprint=b"one") == b"blob"
    assert cache.get("with", fingerprint=b"two") is None
    assert cache.get("without", fingerprint=b"one") is None
    assert cache.get("with") == b"blob"


def test_producers_do_not_see_each_other(daemon: Daemon) -> None:
    producers: list[Producer | str] = [
        "zsh/5.9/8",
        "zsh/5.9/4",
        "zsh/5.10/8",
        "zsh/5.9/8/build",
        TOOL_OUTPUT,
    ]
    caches = [Cache(producer, socket_path=daemon.socket_path) for producer in producers]
    for number, cache in enumerate(caches):
        cache.put("name", b"%d" % number)
    assert [cache.get("name") for cache in caches] == [b"%d" % number for number in range(5)]
    with Cache(Producer("zsh", "5.9"), socket_path=daemon.socket_path) as same:
        assert same.get("name") == b"0"
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("sync", ["memory", "write", "fsync"])
def test_every_level_of_durability(cache: Cache, sync: str) -> None:
    assert cache.put("a", b"1", sync=sync)
    assert cache.put_many({"b": b"2"}, sync=sync)
    assert cache.merge({"c": b"3"}, sync=sync)
    assert cache.delete("a", sync=sync) == 1
    assert cache.replace({"d": b"4"}, sync=sync)
    assert cache.clear(sync=sync) == 1


def test_put_many_takes_blobs_and_entries(cache: Cache) -> None:
    cache.put_many({"a": b"1", "b": Entry(b"2"), "c": Entry(b"3", b"print", 7, 8)})
    assert cache.get_many(["a", "b", "c", "d", "a"]) == {"a": b"1", "b": b"2", "c": b"3"}
    assert cache.get_entry("c") == Entry(b"3", b"print", 7, 8)


def test_put_many_is_all_or_nothing(cache: Cache) -> None:
    with pytest.raises(RefusedError):
        cache.put_many({"a": b"1", "b": "text"})  # type: ignore[dict-item]
    assert cache.count() == 0


def test_put_many_of_more_than_a_frame(cache: Cache) -> None:
    entries: dict[str, bytes | Entry] = {
        str(number): os.urandom(1 << 20) for number in range((FRAME_BYTES >> 20) + 2)
    }
    cache.put_many(entries)
    assert cache.get_many(entries) == entries


@pytest.mark.parametrize("spare", [200, 100, 90, 80, 70, 60, 50, 40, 0])
def test_put_many_of_just_a_frame(shard_cache: Cache, spare: int) -> None:
    entries = {"a": bytes(BLOB_BYTES), "b": os.urandom(FRAME_BYTES - BLOB_BYTES - spare)}
    assert shard_cache.put_many(entries) > 0
    assert shard_cache.get_many(["a", "b"]) == entries


def test_more_names_than_a_request_may_have(cache: Cache) -> None:
    names = [f"name{number}" for number in range(NAMES + 10)]
    assert cache.put_many(dict.fromkeys(names, b"")) > 0
    assert cache.count() == len(names)
    assert cache.missing(names) == []
    assert cache.missing(["new", *names, "newer"]) == ["new", "newer"]
    assert cache.get_many(names) == dict.fromkeys(names, b"")
    assert [name for name, _fresh in cache.names()] == sorted(names)
    assert cache.delete(names) == len(names)
    assert cache.count() == 0


def test_get_many_of_more_than_a_frame(cache: Cache) -> None:
    entries = {str(number): os.urandom(700_000) for number in range(20)}
    cache.merge(entries)
    assert cache.get_many([*entries, "absent"]) == entries


def test_merge_keeps_and_replace_does_not(cache: Cache) -> None:
    cache.put("kept", b"0")
    seen: list[int] = []
    generation = cache.merge(((str(n), b"%d" % n) for n in range(100)), on_progress=seen.append)
    assert (cache.count(), seen) == (101, [100])
    assert cache.stats()["generation"] == generation
    seen.clear()
    assert cache.replace([("only", Entry(b"one"))], on_progress=seen.append) > generation
    assert (list(cache.names()), seen) == ([("only", None)], [1])
    cache.replace({})
    assert cache.count() == 0


def test_a_large_merge_is_streamed_and_the_later_of_two_stays(cache: Cache) -> None:
    blobs = [os.urandom(300_000) for _ in range(12)]
    seen: list[int] = []
    pairs = [(f"name{number % 10}", blob) for number, blob in enumerate(blobs)]
    cache.merge(iter(pairs), on_progress=seen.append)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert cache.get_many(dict(pairs)) == dict(pairs)


def test_entries_of_a_bulk_may_come_from_the_cache_itself(cache: Cache) -> None:
    cache.merge({str(number): os.urandom(400_000) for number in range(8)})
    before = cache.get_many(map(str, range(8)))
    cache.replace((f"copy{name}", cache.get(name) or b"") for name, _fresh in cache.names())
    assert cache.get_many(f"copy{n}" for n in range(8)) == {
        f"copy{n}": b for n, b in before.items()
    }


def test_a_bulk_whose_entries_fail_leaves_nothing(cache: Cache) -> None:
    def entries() -> Any:
        for number in range(8):
            yield str(number), os.urandom(400_000)
        raise LookupError("the caller's own")

    cache.put("kept", b"")
    for write in (cache.merge, cache.replace):
        with pytest.raises(LookupError):
            write(entries())
    assert list(cache.names()) == [("kept", None)]
    assert cache.merge({str(number): os.urandom(400_000) for number in range(8)})


def test_a_bulk_comes_after_the_writes_that_were_not_waited_for(cache: Cache) -> None:
    for number in range(200):
        cache.put(f"name{number}", b"early", wait=False)
    cache.replace({"name0": b"late"})
    assert list(cache.names()) == [("name0", None)]
    assert cache.get("name0") == b"late"


def test_built_at_is_stored(daemon: Daemon, cache: Cache) -> None:
    cache.replace({"a": b""}, built_at_ns=12_345)
    with daemon.cache(None) as control:
        (shard,) = control.shards()
    assert shard["built_at_ns"] == 12_345


def test_built_at_is_stored_by_a_merge_into_nothing(daemon: Daemon, cache: Cache) -> None:
    def built_at() -> int:
        with daemon.cache(None) as control:
            (shard,) = control.shards()
        found: int = shard["built_at_ns"]
        return found

    assert cache.merge({"a": b""}, built_at_ns=12_345) == 1
    assert built_at() == 12_345
    cache.merge({"b": b""}, built_at_ns=54_321)
    assert built_at() == 12_345
    assert [name for name, _ in cache.names()] == ["a", "b"]


def test_get_entries_gives_all_of_each_in_the_order_asked_for(cache: Cache) -> None:
    entries = {
        "b": Entry(b"1", b"fp", 1, 2),
        "a": Entry(b"2", None, 3, 4),
        # Three of these need three answers.
        **{f"large {number}": Entry(bytes(4 << 20), None, 5, 6) for number in (3, 1, 2)},
        **{f"name {number}": Entry(b"%d" % number, None, 7, 8) for number in range(2_500)},
    }
    cache.merge(entries)
    asked = iter(["none", *entries])
    found = cache.get_entries(asked)
    first = next(found)
    assert next(asked) == "name 994"  # a page of 1,000 was taken
    assert [first, *found] == [item for item in entries.items() if item[0] != "name 994"]


def test_get_entries_leaves_out_what_is_stale(daemon: Daemon, cache: Cache) -> None:
    cache.merge({"old": Entry(b"", None, 1, 0), "new": Entry(b"", None, 2, 0)})
    with daemon.cache(binary_mtime_ns=2) as fresh:
        assert [name for name, _ in fresh.get_entries(["old", "new"])] == ["new"]


def test_delete_and_clear_tell_how_many(cache: Cache) -> None:
    cache.put_many(dict.fromkeys("abcdef", b""))
    assert cache.delete("a") == 1
    assert cache.delete(["a", "b", "c", "none"]) == 2
    assert cache.delete([]) == 0
    assert cache.clear() == 3
    assert cache.clear() == 0


def test_names_by_prefix_over_many_pages(cache: Cache) -> None:
    names = {f"{letter}{number}" for letter in "ab" for number in range(1500)}
    cache.merge((name, b"") for name in names)
    assert [name for name, _fresh in cache.names()] == sorted(names)
    assert [name for name, _fresh in cache.names("b1")] == sorted(
        name for name in names if name.startswith("b1")
    )
    assert list(cache.names("c")) == []


def test_missing_compares_each_name_as_get_does(daemon: Daemon) -> None:
    with daemon.cache(binary_mtime_ns=10) as cache:
        cache.put_many({"a": b"", "b": Entry(b"", b"one"), "c": Entry(b"", None, 9)})
        wanted: list[str | tuple[str, bytes | None, int | None]] = [
            "c", "a", ("b", b"one", None), ("b", b"two", None), ("a", None, 11), "d", ("c", None, 9)
        ]  # fmt: skip
        assert cache.missing(wanted) == ["c", "b", "a", "d"]


def test_stats_and_count(daemon: Daemon) -> None:
    with daemon.cache(binary_mtime_ns=10) as cache:
        cache.put_many({"a": b"123", "b": Entry(b"4567", None, 9)})
        assert cache.get("a") == b"123"
        assert cache.get("b") is None
        assert cache.count() == 2
        stats = cache.stats()
    assert (stats["entries"], stats["blob_bytes"]) == (2, 7)
    assert (stats["fresh"], stats["stale"]) == (1, 1)
    assert (stats["hits"], stats["misses"]) == (1, 1)
    with daemon.cache() as timeless:
        stats = timeless.stats()
    assert (stats["fresh"], stats["stale"]) == (None, None)


def test_writes_that_nobody_waits_for(cache: Cache) -> None:
    assert cache.put("a", b"1", wait=False) is None
    assert cache.get("a") == b"1"
    for number in range(500):
        cache.put(f"name{number}", b"%d" % number, wait=False)
    assert cache.delete([f"name{number}" for number in range(499)], wait=False) is None
    flushed = cache.flush()
    assert flushed[1:] == (0, None, 0)
    assert flushed.generation == cache.stats()["generation"]
    assert cache.get("name499") == b"499"
    assert cache.count() == 2


def test_written_and_closed_at_once_is_there(daemon: Daemon) -> None:
    with daemon.cache() as writer:
        writer.put("a", b"1", wait=False)
    with daemon.cache() as reader:
        wait_until(lambda: reader.get("a") == b"1", 20, "the write to be seen")


def test_flush_tells_what_was_refused(daemon: Daemon) -> None:
    with daemon.cache(None) as cache:
        cache.put("a", b"1", wait=False)
        cache.put("b", b"1", wait=False)
        with pytest.raises(NoProducerError):
            cache.count()
    with daemon.cache() as cache:
        assert cache.count() == 0


def test_control_without_a_producer(daemon: Daemon, cache: Cache) -> None:
    cache.put("a", b"1")
    with Cache(None, socket_path=daemon.socket_path, timeout=20) as control:
        control.ping()
        assert daemon.process is not None
        assert control.status()["pid"] == daemon.process.pid
        assert control.server["pid"] == daemon.process.pid
        assert control.server["shard"] is None
        (shard,) = control.shards()
        assert shard["producer"] == {"name": "zsh", "version": "5.9", "pointer_width": 8}
        assert shard["entries"] == 1
        with pytest.raises(NoProducerError):
            control.get("a")
        with pytest.raises(RefusedError):
            control.drop_shard("none")
        control.drop_shard(shard["id"])
        assert control.shards() == []
    assert cache.get("a") is None


def test_shutdown_keeps_everything(daemon: Daemon) -> None:
    with daemon.cache() as cache:
        cache.put("a", b"1", sync="memory")
        cache.put("b", b"2", wait=False)
        cache.shutdown()
        assert daemon.process is not None
        assert daemon.process.wait(20) == 0
        with pytest.raises(UnreachableError):
            cache.get("a")
        daemon.start()
        assert cache.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}


def test_a_closed_cache_connects_again(cache: Cache) -> None:
    cache.put("a", b"1")
    cache.close()
    cache.close()
    assert cache.get("a") == b"1"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_blob_may_be_any_kind_of_bytes(
    shard_cache: Cache, kind: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    shard_cache.put("one", kind(b"blob"))
    shard_cache.put_many({"two": kind(b"blob")})
    assert shard_cache.get_many(["one", "two"]) == {"one": b"blob", "two": b"blob"}
