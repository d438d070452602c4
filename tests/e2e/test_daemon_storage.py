"""What happens to the daemon's storage while it runs: removed, full, more than may be kept."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

import pytest

from autoloadd_client.errors import CacheError, NotDurableError

from ..faults.disks import fill, small_tmpfs
from ..running import Daemon, private_directory, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autoloadd_client import Cache

SECONDS = 20.0
MIB = 1024 * 1024
OTHER = "fish/3.7/8"


def names_of(cache: Cache) -> set[str]:
    return {name for name, _ in cache.names()}


def storage(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["storage"]
    return found


def test_the_cache_directory_is_removed_while_it_runs(daemon: Daemon, cache: Cache) -> None:
    cache.put_many({"a": b"1", "b": b"2"})
    with daemon.cache(OTHER) as other:
        shutil.rmtree(daemon.cache_dir)
        with pytest.raises(NotDurableError):
            cache.put("a", b"new")
        with pytest.raises(NotDurableError):
            other.put("a", b"new")
        with pytest.raises(NotDurableError):
            cache.merge({f"n{number}": bytes(MIB) for number in range(3)})
        assert cache.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}
        assert other.get("a") is None
        found = storage(daemon)
        assert found["state"] == "degraded"
        assert str(daemon.cache_dir) in found["error"]
        assert found["since_ns_ago"] > 0
    cache.put("lost", b"1", wait=False)
    assert cache.get("lost") is None
    assert daemon.stop() == 1
    assert daemon.log.endswith("restart autoloadd to begin anew there\n")
    assert not daemon.cache_dir.exists()


def test_a_shutdown_says_what_is_not_stored(daemon: Daemon, cache: Cache) -> None:
    cache.put("a", b"1")
    daemon.cache_dir.rename(daemon.directory / "elsewhere")
    daemon.cache_dir.mkdir(mode=0o700)
    with pytest.raises(NotDurableError, match="was removed or replaced while the daemon ran"):
        cache.shutdown()
    assert daemon.wait() == 1
    assert list(daemon.cache_dir.iterdir()) == []


def test_a_cache_directory_that_another_daemon_has_now_is_left_to_it(
    daemon: Daemon, cache: Cache
) -> None:
    cache.put("a", b"1")
    shutil.rmtree(daemon.cache_dir)
    with private_directory() as directory:
        successor = Daemon(directory, options=["--cache-dir", str(daemon.cache_dir)]).start()
        with successor.cache() as theirs:
            theirs.put("b", b"2")
            with pytest.raises(NotDurableError):
                cache.put("c", b"3")
            assert daemon.stop() == 1
            assert theirs.get_many(["a", "b", "c"]) == {"b": b"2"}
        assert successor.stop() == 0


def test_a_shard_directory_that_is_removed_comes_back(daemon: Daemon, cache: Cache) -> None:
    cache.put("a", b"1")
    (shard,) = [path for path in daemon.cache_dir.iterdir() if path.is_dir()]
    shutil.rmtree(shard)
    with pytest.raises(NotDurableError):
        cache.put("b", b"2")
    wait_until(lambda: storage(daemon)["state"] == "healthy", SECONDS, "a new image")
    cache.put("b", b"2")
    daemon.kill()
    daemon.start()
    assert cache.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}


def test_a_full_disk(idle_daemon: Daemon) -> None:
    with small_tmpfs(idle_daemon.cache_dir, "24m"):
        idle_daemon.start()
        with idle_daemon.cache() as cache:
            check_full_disk(idle_daemon, cache)
        assert idle_daemon.stop() == 0


def check_full_disk(daemon: Daemon, cache: Cache) -> None:
    kept = {f"n{number}": os.urandom(50_000) for number in range(40)}
    cache.merge(kept)
    # Into an image now: one that was built later would make room.
    daemon.restart()
    for _ in range(2):
        filler = fill(daemon.cache_dir)
        # The journal's last page may have room for a few small ones.
        with pytest.raises(NotDurableError):
            cache.put("refused", os.urandom(50_000))
        with pytest.raises(NotDurableError):
            cache.put("refused", os.urandom(50_000), sync="fsync")
        with pytest.raises(NotDurableError):
            cache.replace({"refused": bytes(50_000)})
        cache.put("refused", os.urandom(50_000), wait=False)
        assert cache.get_many([*kept, "refused"]) == kept
        found = storage(daemon)
        assert (found["state"], "No space left" in found["error"]) == ("degraded", True)
        assert cache.flush().refused == 1
        daemon.kill()
        daemon.start()
        assert cache.get_many([*kept, "refused"]) == kept
        with pytest.raises(NotDurableError):
            cache.put("refused", os.urandom(50_000))
        filler.unlink()
        wait_until(lambda: puts(cache, kept), 2, "writes to work again")
        wait_until(lambda: storage(daemon)["state"] == "healthy", 2, "storage to be healthy")
        assert storage(daemon)["error"] is None
    daemon.restart()
    assert cache.get_many([*kept, "refused"]) == kept


def puts(cache: Cache, kept: dict[str, bytes]) -> bool:
    name, blob = f"again-{len(kept)}", os.urandom(50_000)
    try:
        cache.put(name, blob, sync="fsync")
    except NotDurableError:
        return False
    kept[name] = blob
    return True


def test_a_full_disk_becomes_healthy_without_any_write(idle_daemon: Daemon) -> None:
    with small_tmpfs(idle_daemon.cache_dir, "4m"):
        idle_daemon.start()
        with idle_daemon.cache() as cache:
            cache.put("a", b"1")
            filler = fill(idle_daemon.cache_dir)
            with pytest.raises(NotDurableError):
                cache.put("b", os.urandom(50_000))
            filler.unlink()
        wait_until(lambda: storage(idle_daemon)["state"] == "healthy", 2, "storage to heal")
        assert idle_daemon.stop() == 0


# Its size


def test_over_full_evicts_the_oldest_and_refuses_nothing(idle_daemon: Daemon) -> None:
    idle_daemon.start("--max-bytes", "16 MiB")
    with idle_daemon.cache() as cache:
        blob = os.urandom(100_000)
        last = None
        for number in range(500):
            last = cache.put(f"n{number:03}", blob)
        assert last == 500
        wait_until(
            lambda: idle_daemon.status()["shard_bytes"] <= 16 * MIB, SECONDS, "room to be made"
        )
        kept = sorted(names_of(cache))
        # What is kept is the newest, without a gap.
        assert kept == [f"n{number:03}" for number in range(500 - len(kept), 500)]
        assert 100 <= len(kept) < 168
        assert cache.stats()["evicted"] == 500 - len(kept)
        idle_daemon.restart("--max-bytes", "16 MiB")
        assert sorted(names_of(cache)) == kept
        assert cache.get(kept[0]) == blob


def test_over_full_gives_up_the_shard_that_was_least_recently_used(idle_daemon: Daemon) -> None:
    idle_daemon.start("--max-bytes", "16 MiB")
    shells = ("zsh/1/8", "zsh/2/8", "zsh/3/8")
    with ExitStack() as stack:
        check_least_recently_used(
            [stack.enter_context(idle_daemon.cache(shell)) for shell in shells]
        )


def check_least_recently_used(caches: list[Cache]) -> None:
    entries = {f"n{number}": os.urandom(100_000) for number in range(60)}
    for cache in caches[:2]:
        cache.merge(entries)
    # A shard that waits for its image is not given up.
    wait_until(
        lambda: not any(shard["journal_bytes"] for shard in caches[0].shards()), SECONDS, "images"
    )
    # The first one was used last.
    assert caches[0].get("n0") == entries["n0"]
    caches[2].merge(entries)
    wait_until(lambda: len(caches[2].shards()) == 2, SECONDS, "a shard to go")
    assert [cache.count() for cache in caches] == [60, 0, 60]
    assert caches[0].get_many(entries) == entries


def test_a_merge_larger_than_the_bound(idle_daemon: Daemon) -> None:
    """A bulk that passes `max_bytes` by itself is refused; nothing that was there goes."""
    idle_daemon.start("--max-bytes", "16 MiB")
    with idle_daemon.cache() as cache:
        cache.put("a", b"1")
        with pytest.raises(CacheError, match="max_bytes"):
            cache.merge((f"n{number}", bytes(MIB)) for number in range(20))
        assert names_of(cache) == {"a"}
        cache.merge((f"n{number}", bytes(MIB)) for number in range(10))
        assert cache.count() == 11


class Watch:
    """Looks at a daemon all the time, and keeps the most that it took, in bytes."""

    def __init__(self, daemon: Daemon) -> None:
        self.disk = self.memory = 0
        self._daemon = daemon
        self._before = daemon.status()["memory_bytes"]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(0.01):
            self.disk = max(self.disk, disk_use(self._daemon.cache_dir))
            self.memory = max(self.memory, self._daemon.status()["memory_bytes"] - self._before)


def disk_use(directory: Path) -> int:
    found = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.lstat(os.path.join(root, name)).st_blocks * 512
    return found


def fill_with_puts(daemon: Daemon) -> None:
    with daemon.cache("zsh/1/8") as cache:
        for number in range(300):
            cache.put(f"n{number}", os.urandom(100_000), wait=number % 10 == 0)
        for number in range(300):
            cache.put("same", os.urandom(100_000), wait=number % 10 == 0)
        assert cache.flush().refused == 0


def fill_with_bulks(daemon: Daemon) -> None:
    with daemon.cache("zsh/2/8") as cache:
        for _ in range(4):
            cache.replace({f"n{number}": os.urandom(100_000) for number in range(140)})
        assert cache.count() == 140


def fill_with_tiny_entries(daemon: Daemon) -> None:
    """Their places in the index take more than they do."""
    with daemon.cache("zsh/3/8") as cache:
        for part in range(4):
            cache.merge({f"n{part}-{number}": b"x" for number in range(20_000)})
        assert cache.count() > 0


def fill_with_shards(daemon: Daemon) -> None:
    for number in range(300):
        with daemon.cache(f"shell/{number}/8") as cache:
            cache.put("a", os.urandom(60_000))
    with daemon.connect() as client:
        assert 0 < len(client.ok("shards")) < 300


@pytest.mark.parametrize(
    "fill_up", [fill_with_puts, fill_with_bulks, fill_with_tiny_entries, fill_with_shards]
)
def test_an_over_full_cache_stays_within_its_bounds(
    fill_up: Callable[[Daemon], None], idle_daemon: Daemon
) -> None:
    """docs/storage.md, "Its size": what has been measured is up to 4.1 times, measured daemons."""
    idle_daemon.start("--max-bytes", "16 MiB")
    with Watch(idle_daemon) as watch:
        fill_up(idle_daemon)
    # A build takes its time, and five times that where the daemon is measured.
    wait_until(lambda: idle_daemon.status()["shard_bytes"] <= 16 * MIB, 120, "room to be made")
    assert watch.disk <= 4.5 * 16 * MIB
    assert watch.memory <= 4 * 16 * MIB + 32 * MIB
    assert storage(idle_daemon)["state"] == "healthy"
    assert idle_daemon.status()["counters"].get("refused_writes", 0) == 0


def test_a_bulk_that_is_given_up_has_cost_nobody_anything(idle_daemon: Daemon) -> None:
    idle_daemon.start("--max-bytes", "16 MiB")
    with idle_daemon.cache(OTHER) as other, idle_daemon.connect() as client:
        kept = {f"n{number}": os.urandom(100_000) for number in range(80)}
        other.merge(kept)
        client.hello()
        token = client.ok("bulk_begin", "merge")
        for number in range(14):
            client.ok("bulk_add", token, {f"n{number}": [os.urandom(MIB)]})
        other.put("more", b"1")
        client.ok("bulk_abort", token)
        assert other.get_many(kept) == kept
        assert [shard["producer"]["name"] for shard in other.shards()] == ["fish"]
        assert len([path for path in idle_daemon.cache_dir.iterdir() if path.is_dir()]) == 1


def test_hundreds_of_producers_are_no_fault_of_storage(idle_daemon: Daemon) -> None:
    idle_daemon.prefix = ["prlimit", "--nofile=128:128"]
    idle_daemon.start()
    for blob in (b"1", b"2"):
        for number in range(200):
            with idle_daemon.cache(f"shell/{number}/8") as cache:
                cache.put("a", blob)
    found = idle_daemon.status()
    assert found["shards"] == 200
    assert found["storage"]["state"] == "healthy"
    assert found["counters"].get("refused_writes", 0) == 0
    idle_daemon.kill()
    idle_daemon.start()
    for number in range(0, 200, 7):
        with idle_daemon.cache(f"shell/{number}/8") as cache:
            assert cache.get("a") == b"2"
            assert cache.flush().refused == 0


def test_a_shard_directory_that_is_moved_away_takes_nothing_more(
    daemon: Daemon, cache: Cache
) -> None:
    cache.put("a", b"1")
    (shard,) = daemon.cache_dir.iterdir()
    shard.rename(daemon.directory / "elsewhere")
    with pytest.raises(NotDurableError, match="removed or replaced"):
        cache.put("b", b"2")
    found = storage(daemon)
    assert found["state"] == "degraded"
    assert found["next_try_ns"] >= 0
    wait_until(lambda: storage(daemon)["state"] == "healthy", SECONDS, "a new image")
    cache.put("b", b"2")
    daemon.kill()
    daemon.start()
    assert cache.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}
