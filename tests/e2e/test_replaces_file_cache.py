"""What the old file cache had, line by line, through the real daemon and the real client.

The old one kept everything in one file; each writer locked it, read it, and wrote it whole.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Cache, Entry, facade
from autoloadd_client.errors import NotDurableError, SwitchedOffError
from autoloadd_protocol.image import HEADER_BYTES, parse_header
from autoloadd_protocol.producer import parse_producer

from ..running import PRODUCER, own_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..running import Daemon

SECONDS = 20.0
BLOB = bytes(range(256)) * 4
NEWER = "zsh/5.10/8"


def shard_directory(daemon: Daemon, producer: str = PRODUCER) -> Path:
    return daemon.cache_dir / parse_producer(producer).shard_id()


def image_of(daemon: Daemon, producer: str = PRODUCER) -> Path:
    return shard_directory(daemon, producer) / "image"


def journal_bytes(daemon: Daemon, producer: str = PRODUCER) -> int:
    return sum(path.stat().st_size for path in shard_directory(daemon, producer).glob("journal.*"))


# | single file shard with a header: magic, format version, producer version, pointer width,
# | built_at; a header that does not match is never served


def test_single_file_shard_with_a_header(daemon: Daemon, cache: Cache) -> None:
    """After a clean stop a shard is one file, and its header says whose it is."""
    cache.replace({"_git": BLOB}, built_at_ns=1_753_000_000_123_456_789)
    assert daemon.stop() == 0
    assert daemon.files == {f"{parse_producer(PRODUCER).shard_id()}/image"}
    data = image_of(daemon).read_bytes()
    assert data[:8] == b"ALDIMAGE"
    header = parse_header(data)
    assert header.producer == parse_producer(PRODUCER)
    assert (header.producer.version, header.producer.pointer_width) == ("5.9", 8)
    assert header.built_at_ns == 1_753_000_000_123_456_789
    daemon.start()
    (shard,) = cache.shards()
    assert shard["built_at_ns"] == header.built_at_ns
    assert cache.get("_git") == BLOB


HEADER_FIELDS = {
    "magic": 0,
    "version": 8,
    "pointer width": 12,
    "length": 16,
    "epoch": 24,
    "built at": 32,
}


@pytest.mark.parametrize("field", [*HEADER_FIELDS, "producer", "all"])
def test_a_header_that_does_not_match_is_never_served(
    daemon: Daemon, cache: Cache, field: str
) -> None:
    cache.put("_git", BLOB)
    cache.put("_svn", BLOB)
    assert daemon.stop() == 0
    image = image_of(daemon)
    data = bytearray(image.read_bytes())
    if field == "all":
        data[:HEADER_BYTES] = bytes(HEADER_BYTES)
    else:
        at = data.index(b"5.9") if field == "producer" else HEADER_FIELDS[field]
        data[at] ^= 1
    image.write_bytes(data)
    daemon.start()
    assert cache.get("_git") is None
    assert cache.count() == 0
    (reported,) = cache.status()["storage"]["set_aside"]
    assert (daemon.cache_dir / reported["file"]).read_bytes() == data


def test_the_image_of_another_producer_is_never_served(daemon: Daemon, cache: Cache) -> None:
    """A whole, undamaged file, where another producer's would lie."""
    with daemon.cache(NEWER) as newer:
        newer.put("_git", b"of the newer one")
    cache.put("_git", BLOB)
    assert daemon.stop() == 0
    image_of(daemon).write_bytes(image_of(daemon, NEWER).read_bytes())
    daemon.process = daemon.spawn()
    assert daemon.wait() == 1
    assert "holds the shard of zsh/5.10/8: move it away" in daemon.log


# | entry: binary mtime when cached, cached_at, blob


def test_entry_with_binary_mtime_cached_at_and_blob(daemon: Daemon, cache: Cache) -> None:
    full = Entry(BLOB, b"fingerprint", 1_753_000_000_123_456_789, 1_754_000_000_987_654_321)
    with daemon.cache(binary="/bin/sh") as with_binary:
        before = time.time_ns()
        with_binary.put("put", BLOB, fingerprint=b"x")
        after = time.time_ns()
        cache.put_many({"full": full})
        for _ in ("journal", "image"):
            found = with_binary.get_entry("put")
            assert found is not None
            assert (found.blob, found.fingerprint) == (BLOB, b"x")
            assert found.binary_mtime_ns == os.stat("/bin/sh").st_mtime_ns
            assert found.cached_at_ns is not None
            assert before <= found.cached_at_ns <= after
            assert cache.get_entry("full") == full
            daemon.restart()


# | keyed by function name, wherever the function came from


def test_keyed_by_function_name_within_a_producer(daemon: Daemon, cache: Cache) -> None:
    """Two versions of a shell no longer wipe each other's entries."""
    with daemon.cache(NEWER) as newer:
        for _ in range(3):
            cache.put("_git", b"5.9")
            newer.put("_git", b"5.10")
        newer.replace({"_svn": b"5.10"})
        newer.clear()
        assert newer.get("_git") is None
        assert cache.get("_git") == b"5.9"
        daemon.restart()
        assert cache.get("_git") == b"5.9"
        assert newer.count() == 0


# | get: a miss when the shell's binary is newer than the entry


def test_get_is_a_miss_when_the_binary_is_newer(daemon: Daemon, home: Path) -> None:
    binary = home / "zsh"
    binary.write_bytes(b"")
    os.utime(binary, ns=(0, 1_000_000_000))
    with daemon.cache(binary=binary) as before:
        before.put("_git", BLOB)
        assert before.get("_git") == BLOB
    os.utime(binary, ns=(0, 1_000_000_001))
    with daemon.cache(binary=binary) as after:
        assert after.get("_git") is None
        assert after.get_many(["_git"]) == {}
        after.put("_git", b"new")
        assert after.get("_git") == b"new"
    with daemon.cache(binary_mtime_ns=1_000_000_000) as older:
        assert older.get("_git") == b"new"


# | put_one


def test_put_one_costs_its_own_size(daemon: Daemon, cache: Cache) -> None:
    """Not a rewrite of the whole file: nothing but the journal grows, by little more than it."""
    cache.replace({f"function-{number}": os.urandom(2000) for number in range(4000)})
    daemon.restart()
    image = image_of(daemon).stat()
    assert image.st_size > 8_000_000
    cache.put("first", b"makes the journal")
    for size in (0, 100, 10_000):
        before = journal_bytes(daemon)
        cache.put("one", bytes(size), sync="fsync")
        assert size < journal_bytes(daemon) - before < size + 200
    after = image_of(daemon).stat()
    assert (after.st_ino, after.st_mtime_ns) == (image.st_ino, image.st_mtime_ns)


# | merge_in (backfill: one read, one write, even for 16,000)


def test_merge_in_of_sixteen_thousand(daemon: Daemon, cache: Cache) -> None:
    cache.put_many({"kept": b"kept", "function-7": b"old"})
    entries = {f"function-{number}": b"%d" % number * 50 for number in range(16_000)}
    generation = cache.count() and cache.stats()["generation"]
    assert cache.merge(entries) == generation + 1
    assert cache.count() == 16_001
    assert cache.get_many(entries) == entries
    daemon.kill()
    daemon.start()
    assert cache.get_many(entries) == entries
    assert cache.get("kept") == b"kept"


def test_missing_says_what_get_would_refuse(daemon: Daemon) -> None:
    """The old one listed names that its `get` then refused."""
    with daemon.cache(binary_mtime_ns=10) as cache:
        cache.put_many({"fresh": Entry(b"", None, 10), "stale": Entry(b"", None, 9)})
        cache.put("other", b"", fingerprint=b"then")
        assert cache.missing(["absent", "fresh", "stale"]) == ["absent", "stale"]
        assert cache.missing([("other", b"now", None), ("other", b"then", None)]) == ["other"]
        for name in ("absent", "stale"):
            assert cache.get(name) is None
        assert cache.get("other", fingerprint=b"now") is None


# | replace_all (bulk pre-warm: collected, then written once)


def test_replace_all_is_streamed_and_all_or_nothing(daemon: Daemon, cache: Cache) -> None:
    old = {f"old-{number}": BLOB for number in range(100)}
    new = {f"new-{number}": os.urandom(3000) for number in range(3000)}
    cache.replace(old)

    def interrupted() -> Iterator[tuple[str, bytes]]:
        yield from list(new.items())[:2000]
        assert cache.get_many(old) == old
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.replace(interrupted())
    assert {name for name, _ in cache.names()} == old.keys()
    cache.replace(new.items())
    assert cache.get_many([*new, *old]) == new
    daemon.kill()
    daemon.start()
    assert cache.get_many([*new, *old]) == new


# | entry_count, cached_names, stats, clear


def test_entry_count_cached_names_stats_and_clear(daemon: Daemon) -> None:
    with daemon.cache(binary_mtime_ns=10) as cache:
        stale = {f"stale-{number}": Entry(b"12", None, 9) for number in range(3)}
        fresh = {f"fresh-{number}": Entry(b"1", None, 10) for number in range(2000)}
        cache.merge({**stale, **fresh})
        assert cache.count() == 2003
        assert dict(cache.names()) == dict.fromkeys(stale, False) | dict.fromkeys(fresh, True)
        assert dict(cache.names("stale-")) == dict.fromkeys(stale, False)
        stats = cache.stats()
        assert (stats["entries"], stats["fresh"], stats["stale"]) == (2003, 2000, 3)
        assert stats["blob_bytes"] == 2006
        assert cache.clear() == 2003
        assert (cache.count(), list(cache.names())) == (0, [])
        daemon.restart()
        assert cache.count() == 0


# | atomic write: temporary file, fsync, rename


STEPS = [
    r"openat\(.*/image\.tmp\", .*O_CREAT.* = (?P<image>\d+)",
    r"fsync\((?P=image)\)",
    r"rename\(\".*/image\.tmp\", \".*/image\"",
    r"openat\(.*\"[^\"]*/(?P<shard>zsh[^/\"]*)\", .*O_DIRECTORY.* = (?P<directory>\d+)",
    r"fsync\((?P=directory)\)",
    r"unlink\(\".*/journal\.00000001\"",
]


def test_atomic_write_with_the_directory_synced(idle_daemon: Daemon) -> None:
    """What the daemon asks of the system, in this order: only then does the journal go."""
    trace = idle_daemon.directory / "trace"
    calls = "trace=openat,fsync,fdatasync,rename,unlink"
    idle_daemon.prefix = ["strace", "-f", "-qq", "-s", "256", "-e", calls, "-o", str(trace)]
    idle_daemon.start()
    with idle_daemon.cache() as cache:
        cache.put("_git", BLOB)
        cache.shutdown()
    assert idle_daemon.wait() == 0
    assert re.search(".*".join(STEPS), trace.read_text(), re.DOTALL)


def test_no_temporary_file_is_left_behind(daemon: Daemon, cache: Cache) -> None:
    """Also after kill -9 in the middle of a bulk, and of building an image."""
    shard = shard_directory(daemon)
    kept = {f"n{number}": os.urandom(100_000) for number in range(30)}
    for _ in range(4):
        cache.merge(kept)
        with daemon.connect() as client:
            client.hello()
            token = client.ok("bulk_begin", "merge")
            client.ok("bulk_add", token, {"lost": [BLOB]})
            assert any(path.name.startswith("staged.") for path in shard.iterdir())
            daemon.kill()
        (shard / "image.tmp").write_bytes(b"half of an image")
        (daemon.cache_dir / ".probe").write_bytes(b"whether the disk takes anything")
        daemon.start()
        left = {path.name.split(".")[0] for path in shard.iterdir() if path.name != "image.tmp"}
        assert left <= {"image", "journal", "bulk"}
        assert cache.get_many([*kept, "lost"]) == kept
    assert daemon.stop() == 0
    assert daemon.files == {f"{shard.name}/image"}
    assert {path.name for path in daemon.directory.iterdir()} == {"cache", "log"}


# | exclusive file lock around each write; no lock: the write was silently lost


WRITE = """
import sys
from autoloadd_client import Cache
with Cache("zsh/5.9/8", socket_path=sys.argv[1], timeout=20) as cache:
    for number in range(200):
        assert cache.put(f"{sys.argv[2]}-{number}", sys.argv[2].encode() * 100) is not None
"""


def test_no_write_is_lost_among_many_writers(daemon: Daemon, cache: Cache) -> None:
    arguments = [[WRITE, daemon.socket_path, str(writer)] for writer in range(6)]
    writers = [
        subprocess.Popen([sys.executable, "-c", *each], env=own_environment({}))
        for each in arguments
    ]
    assert [writer.wait(SECONDS * 3) for writer in writers] == [0] * 6
    expected = {f"{w}-{number}": b"%d" % w * 100 for w in range(6) for number in range(200)}
    assert cache.get_many(expected) == expected
    assert cache.stats()["generation"] == 1200
    daemon.kill()
    daemon.start()
    assert cache.get_many(expected) == expected


def test_a_write_is_refused_or_there_never_lost_silently(daemon: Daemon, cache: Cache) -> None:
    cache.put("before", BLOB)
    (journal,) = shard_directory(daemon).glob("journal.*")
    journal.unlink()
    with pytest.raises(NotDurableError):
        cache.put("refused", BLOB)
    assert cache.get("refused") is None
    assert cache.get("before") == BLOB
    cache.put("notified", BLOB, wait=False)
    wait_until(lambda: cache.status()["storage"]["state"] == "healthy", SECONDS, "storage to heal")
    flushed = cache.flush()
    told = flushed.refused == 1
    assert (cache.get("notified") is None) == told
    cache.put("after", BLOB)
    daemon.kill()
    daemon.start()
    assert cache.get_many(["before", "refused", "after"]) == {"before": BLOB, "after": BLOB}


# | corrupt file: nothing served, no crash


@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit", "other bytes"])
def test_corrupt_file_serves_nothing_and_is_set_aside(
    daemon: Daemon, cache: Cache, damage: str
) -> None:
    cache.put_many({f"n{number}": os.urandom(1000) for number in range(20)})
    with daemon.cache(NEWER) as newer:
        newer.put("_git", BLOB)
    assert daemon.stop() == 0
    image = image_of(daemon)
    data = bytearray(image.read_bytes())
    if damage == "one bit":
        data[-500] ^= 4
    damaged: dict[str, bytes] = {
        "truncated": bytes(data[:-1]), "emptied": b"", "one bit": bytes(data), "other bytes": BLOB
    }  # fmt: skip
    image.write_bytes(damaged[damage])
    daemon.start()
    assert cache.get_many([f"n{number}" for number in range(20)]) == {}
    with daemon.cache(NEWER) as newer:
        assert newer.get("_git") == BLOB
    (reported,) = cache.status()["storage"]["set_aside"]
    assert reported["reason"]
    cache.put("n0", b"new")
    daemon.restart()
    assert cache.get("n0") == b"new"
    assert (daemon.cache_dir / reported["file"]).read_bytes() == damaged[damage]


# | off switch by environment


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
@pytest.mark.parametrize("word", ["0", "false", "no", "FALSE"])
def test_off_switch_by_environment(
    daemon: Daemon, cache: Cache, monkeypatch: pytest.MonkeyPatch, variable: str, word: str
) -> None:
    cache.put("_git", BLOB)
    with monkeypatch.context() as switched_off:
        switched_off.setenv(variable, word)
        for call in (
            lambda: cache.get("_git"),
            lambda: cache.put("_git", b"new"),
            cache.clear,
            lambda: cache.merge({"_svn": b"new"}),
            cache.count,
        ):
            with pytest.raises(SwitchedOffError):
                call()
        facade.configure(PRODUCER, socket_path=daemon.socket_path)
        assert facade.try_load("_git") is None
        assert facade.try_save_one("_git", b"new") is False
        facade.close()
    monkeypatch.setenv(variable, "1")
    assert cache.get("_git") == BLOB


# | module functions that never raise


@pytest.fixture
def face(daemon: Daemon) -> Iterator[None]:
    assert facade.configure(PRODUCER, binary_mtime_ns=10, socket_path=daemon.socket_path)
    # Its deadlines are a shell's: on a busy machine the first call may be a miss.
    wait_until(lambda: facade.try_save_one("first", b""), SECONDS, "the facade to reach the daemon")
    yield
    facade.close()


@pytest.mark.usefixtures("face")
def test_module_functions(cache: Cache) -> None:
    def eventually(call: object, expected: object) -> None:
        wait_until(lambda: call() == expected, SECONDS, f"{call} to give {expected!r:.100}")  # type: ignore[operator]

    eventually(lambda: facade.try_replace_all({"a": b"1", "b": b"2"}), True)
    eventually(lambda: facade.try_load("a"), b"1")
    eventually(lambda: facade.try_load("first"), None)
    eventually(lambda: facade.try_save_one("c", b"3"), True)
    eventually(lambda: facade.try_merge_in({"d": b"4", "a": b"5"}.items()), True)
    cache.put_many({"stale": Entry(b"", None, 9)})
    eventually(facade.cached_names, {"a", "b", "c", "d"})
    eventually(facade.entry_count, 5)
    eventually(lambda: facade.stats().get("stale"), 1)
    eventually(facade.clear, True)
    assert cache.count() == 0


@pytest.mark.usefixtures("face")
def test_module_functions_never_raise_without_a_daemon(daemon: Daemon) -> None:
    daemon.kill()
    started = time.monotonic()
    assert facade.try_load("a") is None
    assert facade.try_save_one("a", b"1") is False
    assert facade.try_replace_all({"a": b"1"}) is False
    assert facade.try_merge_in({"a": b"1"}) is False
    assert (facade.cached_names(), facade.entry_count()) == (set(), 0)
    assert (facade.stats(), facade.clear()) == ({}, False)
    # None of them waited for its deadline of 30 s.
    assert time.monotonic() - started < 15


# | default path in the user's cache directory


def test_default_path_in_the_users_cache_directory(idle_daemon: Daemon, home: Path) -> None:
    own = {"HOME": str(home), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    command = [sys.executable, "-m", "autoloadd_daemon", "--socket", idle_daemon.socket_path]
    with subprocess.Popen(command, env=own_environment(own)) as process:
        wait_until(lambda: os.path.exists(idle_daemon.socket_path), SECONDS, "the daemon to serve")
        with Cache(PRODUCER, socket_path=idle_daemon.socket_path, timeout=SECONDS) as cache:
            cache.put("_git", BLOB)
            assert cache.status()["cache_dir"] == str(home / ".cache" / "autoloadd")
            cache.shutdown()
        assert process.wait(SECONDS) == 0
    assert (home / ".cache/autoloadd" / parse_producer(PRODUCER).shard_id() / "image").is_file()
