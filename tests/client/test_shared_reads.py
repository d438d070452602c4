"""Reads out of the daemon's memory: when they happen, and that they are never wrong."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.errors import BadRequestError, CacheError, SwitchedOffError, TooLargeError
from autoloadd_protocol.page import LEASE_NS

from ..running import get_locally, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_client import Cache

    from ..running import Daemon

LEASE_SECONDS = LEASE_NS / 1e9
LONG = "long-" * 20
OTHER = "zsh/5.8/8"


def is_local(cache: Cache, name: str) -> bool:
    """Tell whether a name is answered without the daemon."""
    try:
        return get_locally(cache, name)[0]
    except CacheError:
        return False


def attach(cache: Cache, name: str = "a") -> None:
    """Get until the answer comes out of shared memory."""

    def is_attached() -> bool:
        cache.get(name)
        return is_local(cache, name)

    wait_until(is_attached, 20, "the client to attach")


@pytest.fixture
def attached(daemon: Daemon) -> Iterator[Cache]:
    """A client that has mapped a small shard."""
    with daemon.cache() as cache:
        cache.put_many({"a": b"one", "b": b"two", LONG: b"long"})
        attach(cache)
        yield cache


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Cache]:
    """Another client of the same shard."""
    with daemon.cache() as cache:
        yield cache


def test_it_attaches_by_itself_and_answers_the_same(attached: Cache) -> None:
    assert [attached.get(name) for name in ("a", "b", "c", LONG)] == [b"one", b"two", None, b"long"]
    assert [is_local(attached, name) for name in ("a", "b", "c", LONG)] == [True, True, True, False]


def test_a_few_gets_do_not_attach(daemon: Daemon) -> None:
    with daemon.cache() as cache:
        cache.put("a", b"one")
        cache.get("a")
        assert daemon.status()["counters"].get("builds", 0) == 0


@pytest.mark.parametrize("name", ["", "\ud800", 7, b"a", "x" * 1025])
def test_what_is_no_name_is_refused_as_ever(attached: Cache, name: str) -> None:
    with pytest.raises((BadRequestError, TooLargeError)):
        attached.get(name)


def test_a_write_by_anyone_is_seen_at_once(attached: Cache, other: Cache) -> None:
    for number in range(200):
        other.put("a", b"%d" % number)
        assert attached.get("a") == b"%d" % number
    assert is_local(attached, "b")
    other.delete("b")
    assert attached.get("b") is None
    other.put("a-new-name", b"new")
    assert attached.get("a-new-name") == b"new"


def test_a_clear_and_a_replace_hide_everything(attached: Cache, other: Cache) -> None:
    other.clear()
    assert not is_local(attached, "a")
    assert attached.get("a") is None
    other.replace({"a": b"replaced"})
    assert attached.get("a") == b"replaced"
    attach(attached)
    assert (attached.get("a"), attached.get("b")) == (b"replaced", None)


def test_it_follows_new_images(attached: Cache, other: Cache) -> None:
    other.put("a", b"newer")
    assert not is_local(attached, "a")
    other.merge((f"n{number}", bytes(3000)) for number in range(2000))
    attach(attached)
    assert attached.get("a") == b"newer"


def test_own_writes_are_seen_that_nobody_waits_for(attached: Cache) -> None:
    for number in range(200):
        attached.put("a", b"%d" % number, wait=False)
        assert attached.get("a") == b"%d" % number
    attached.delete(["b"], wait=False)
    assert attached.get("b") is None
    assert is_local(attached, "c"), "an answer that came later settles what was sent before"


def test_stale_entries_are_misses(daemon: Daemon) -> None:
    with daemon.cache(binary_mtime_ns=100) as old, daemon.cache(binary_mtime_ns=200) as new:
        old.put("a", b"of the old binary")
        attach(old)
        attach(new)
        assert (old.get("a"), new.get("a")) == (b"of the old binary", None)
        new.put("a", b"of the new one")
        assert (old.get("a"), new.get("a")) == (b"of the new one", b"of the new one")


def test_a_fingerprint_is_compared_by_the_daemon(attached: Cache) -> None:
    attached.put("a", b"with", fingerprint=b"f1")
    assert attached.get("a", fingerprint=b"f2") is None
    assert attached.get("a", fingerprint=b"f1") == b"with"


def test_a_dropped_shard_is_gone_at_once(attached: Cache, other: Cache) -> None:
    (shard,) = other.shards()
    other.drop_shard(shard["id"])
    assert not is_local(attached, "a")
    assert attached.get("a") is None
    other.put("a", b"of the next life")
    assert attached.get("a") == b"of the next life"
    attach(attached)
    assert attached.get("a") == b"of the next life"


def test_a_clean_stop_ends_the_trust_at_once(daemon: Daemon, attached: Cache) -> None:
    assert is_local(attached, "a")
    assert daemon.stop() == 0
    assert not is_local(attached, "a")
    daemon.start()
    with daemon.cache() as other:
        other.put("a", b"after the restart")
    assert attached.get("a") == b"after the restart"
    attach(attached, "b")


def test_a_killed_daemon_is_trusted_for_one_lease_and_its_successor_waits(
    daemon: Daemon, attached: Cache
) -> None:
    """No write is acknowledged while a client may still trust the dead one's page."""
    assert (daemon.cache_dir / ".shared").exists()
    daemon.kill()
    killed = time.monotonic()
    daemon.start()
    with daemon.cache() as other:
        other.put("a", b"after the kill")
        assert time.monotonic() - killed > LEASE_SECONDS
        assert attached.get("a") == b"after the kill"
    assert daemon.stop() == 0
    assert not (daemon.cache_dir / ".shared").exists()


def test_without_an_attached_client_a_successor_does_not_wait(daemon: Daemon) -> None:
    with daemon.cache() as cache:
        cache.put("a", b"one")
    daemon.kill()
    daemon.start()
    assert not (daemon.cache_dir / ".shared").exists()


def test_a_stopped_daemon_is_asked_and_not_trusted(daemon: Daemon, attached: Cache) -> None:
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not is_local(attached, "a"), 20, "the lease to end")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert attached.get("a") == b"one"


def test_a_lease_ends_where_the_cache_is_switched_off(
    attached: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOLOADD_CACHE", "0")
    wait_until(lambda: not is_local(attached, "a"), 20, "the lease to end")
    with pytest.raises(SwitchedOffError):
        attached.get("a")


def test_a_forked_child_asks_for_itself(attached: Cache) -> None:
    """The mapping belongs to the parent's connection."""
    child = os.fork()
    if not child:
        good = not is_local(attached, "a") and attached.get("a") == b"one"
        attach(attached)
        os._exit(0 if good and attached.get("a") == b"one" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_local(attached, "a")
    assert attached.get("a") == b"one"


def test_a_part_of_a_delete_that_nobody_waits_for_counts(attached: Cache) -> None:
    """65,536 names are sent before the one that is refused is looked at."""
    with pytest.raises(TooLargeError):
        attached.delete(["b", *(f"n{number}" for number in range(65_535)), "x" * 1025], wait=False)
    assert not is_local(attached, "b")
    assert attached.get("b") is None


def test_a_connection_that_ends_ends_the_trust(attached: Cache) -> None:
    """Who answers next may be another daemon, with other entries."""
    attached._connections.own().close(time.monotonic() + 1)
    assert not is_local(attached, "a")
    attach(attached)
    assert attached.get("a") == b"one"


def test_a_killed_daemon_whose_cache_is_removed_leaves_a_mark(
    daemon: Daemon, attached: Cache
) -> None:
    daemon.kill()
    shutil.rmtree(daemon.cache_dir)
    killed = time.monotonic()
    daemon.start()
    with daemon.cache() as other:
        other.put("a", b"after the kill")
        assert time.monotonic() - killed > LEASE_SECONDS
    assert attached.get("a") == b"after the kill"


def test_own_writes_to_a_daemon_without_the_marks_are_seen(daemon: Daemon, attached: Cache) -> None:
    """Killed, and all it had removed: the next one does not wait."""
    daemon.kill()
    shutil.rmtree(daemon.cache_dir)
    Path(daemon.socket_path).with_name(".shared").unlink()
    daemon.start()
    attached.put("a", b"after the kill")
    assert attached.get("a") == b"after the kill"


def test_a_daemon_whose_directory_is_gone_is_not_trusted(daemon: Daemon, attached: Cache) -> None:
    """It goes on with what it has, but its successor finds no mark and acknowledges at once."""
    shutil.rmtree(daemon.cache_dir)
    wait_until(lambda: not is_local(attached, "a"), LEASE_SECONDS * 10, "the page to end")
    for _ in range(50):
        assert attached.get("a") == b"one"
        assert not is_local(attached, "a")
    assert daemon.stop() == 1, "it says that not everything is stored"


def test_closing_lets_go_of_the_memory(attached: Cache) -> None:
    attached.close()
    assert not is_local(attached, "a")
    assert attached.get("a") == b"one"


def test_another_producer_is_another_shard(daemon: Daemon, attached: Cache) -> None:
    with daemon.cache(OTHER) as other:
        other.put("a", b"another shell's")
        attach(other)
        assert (attached.get("a"), other.get("a")) == (b"one", b"another shell's")


@pytest.mark.parametrize("environment", [{"AUTOLOADD_SERVING": "tasks"}])
def test_the_portable_server_shares_too(idle_daemon: Daemon, environment: dict[str, str]) -> None:
    idle_daemon.environment.update(environment)
    with idle_daemon.start().cache() as cache:
        cache.put("a", b"one")
        attach(cache)
        assert cache.get("a") == b"one"
