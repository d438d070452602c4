"""`Cache.lease`: who makes an entry, what the others get, and that no failure holds anybody up."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import (
    BadRequestError,
    BusyError,
    Cache,
    ConnectionLostError,
    DeadlineError,
    Entry,
    ForgedError,
    Lease,
    NoProducerError,
    NotDurableError,
    SwitchedOffError,
    TooLargeError,
    UnreachableError,
)
from autoloadd_protocol.limits import LEASES_PER_CONNECTION

from ..running import ANSWER_SECONDS, wait_until
from .scripted import Peer, entry_answer
from .test_imports import loaded_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..running import Daemon

    Serve = Callable[..., str]

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SECONDS = 20.0


def given(cache: Cache, name: str = "a", **options: Any) -> Lease:
    """Ask for a lease, which has to be given."""
    lease = cache.lease(name, **options)
    assert isinstance(lease, Lease)
    return lease


def counts(daemon: Daemon) -> tuple[int, int]:
    leases = daemon.status()["leases"]
    return leases["held"], leases["waiting"]


def test_made_once_and_found_by_all(shard_cache: Cache) -> None:
    with given(shard_cache, fingerprint=b"v1") as lease:
        assert shard_cache.lease("a", fingerprint=b"v1") is None, "another makes it"
        assert lease.fill(b"blob") == 1
    entry = shard_cache.lease("a", fingerprint=b"v1")
    assert isinstance(entry, Entry)
    assert (entry.blob, entry.fingerprint) == (b"blob", b"v1")
    assert shard_cache.get_entry("a", fingerprint=b"v1") == entry
    with given(shard_cache, fingerprint=b"v2"):
        assert shard_cache.lease("a", fingerprint=b"v2", stale_ok=True) == entry


def test_filled_with_what_it_was_asked_with(served: Daemon, producer: str) -> None:
    with served.cache(producer, binary_mtime_ns=5) as cache:
        given(cache).fill(bytearray(b"blob"), sync="fsync")
        entry = cache.lease("a")
        assert isinstance(entry, Entry)
        assert (entry.blob, entry.fingerprint, entry.binary_mtime_ns) == (b"blob", None, 5)
    with served.cache(producer, binary_mtime_ns=6) as newer:
        given(newer).release()


def test_who_waits_gets_what_is_made(served: Daemon, shard_cache: Cache) -> None:
    lease = given(shard_cache)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(shard_cache.lease("a", wait=10.0)))
    thread.start()
    wait_until(lambda: counts(served) == (1, 1), SECONDS, "somebody to wait")
    lease.fill(b"blob")
    thread.join(ANSWER_SECONDS)
    assert found == [shard_cache.get_entry("a")]


def test_a_wait_is_not_the_timeout(served: Daemon, producer: str) -> None:
    """Nor does it hold up other threads of the same cache."""
    found: list[object] = []
    with (
        served.cache(producer) as maker,
        served.cache(producer, timeout=1.0) as cache,
        given(maker),
    ):
        began = time.monotonic()
        thread = threading.Thread(target=lambda: found.append(cache.lease("a", wait=1.5)))
        thread.start()
        wait_until(lambda: counts(served) == (1, 1), SECONDS, "somebody to wait")
        assert cache.get("b") is None
        assert counts(served) == (1, 1)
        thread.join(ANSWER_SECONDS)
        assert time.monotonic() - began >= 1.5
    assert found == [None]


def test_given_back_it_is_the_next_ones(served: Daemon, shard_cache: Cache) -> None:
    for _ in range(20):
        lease = given(shard_cache)
        lease.release()
        lease.release()
    with pytest.raises(ZeroDivisionError), given(shard_cache):
        raise ZeroDivisionError
    given(shard_cache).fill(b"blob")
    wait_until(lambda: counts(served) == (0, 0), SECONDS, "all leases to end")
    wait_until(lambda: served.status()["connections"] == 1, SECONDS, "their connections to end")


def test_what_is_over_cannot_be_filled(shard_cache: Cache) -> None:
    lease = given(shard_cache)
    with pytest.raises(TooLargeError):
        lease.fill(bytes(5 << 20))
    with pytest.raises(BadRequestError):
        lease.fill(b"blob", sync="disk")
    assert shard_cache.lease("a") is None, "it can be filled still"
    lease.fill(b"blob")
    with pytest.raises(ConnectionLostError, match="the lease is over"):
        lease.fill(b"again")
    assert shard_cache.get("a") == b"blob"


def test_held_too_long_it_is_anothers_and_what_was_made_is_stored(shard_cache: Cache) -> None:
    late = given(shard_cache, hold=0.001)
    heir = shard_cache.lease("a", wait=10.0)
    assert isinstance(heir, Lease)
    late.fill(b"late")
    assert shard_cache.get("a") == b"late"
    heir.release()


def test_a_forked_child_has_no_part_in_it(served: Daemon, shard_cache: Cache) -> None:
    lease = given(shard_cache)
    child = os.fork()
    if child == 0:
        status = 99
        try:
            with pytest.raises(ConnectionLostError, match="parent"):
                lease.fill(b"child's")
            lease.release()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts(served) == (1, 0)
    lease.fill(b"parent's")
    assert shard_cache.get("a") == b"parent's"


def test_a_forked_child_that_gives_back_ends_nothing(served: Daemon, shard_cache: Cache) -> None:
    lease = given(shard_cache)
    child = os.fork()
    if child == 0:
        lease.release()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts(served) == (1, 0)
    lease.release()
    assert counts(served) == (0, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wait": -1.0}, "wait: expected 0 to 10 (s)"),
        ({"wait": 10.1}, "wait: expected 0 to 10 (s)"),
        ({"wait": float("nan")}, "wait: expected 0 to 10 (s)"),
        ({"wait": float("inf")}, "wait: expected 0 to 10 (s)"),
        ({"hold": 0.0}, "hold_ms: expected 1 to 120,000"),
        ({"hold": 120.1}, "hold: expected 0.001 to 120 (s)"),
        ({"hold": -float("inf")}, "hold: expected 0.001 to 120 (s)"),
        ({"name": ""}, "a name"),
        ({"fingerprint": b""}, "a fingerprint"),
    ],
)
def test_what_is_refused_is_not_asked(shard_cache: Cache, options: Any, said: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        shard_cache.lease(**{"name": "a", **options})
    assert str(caught.value).startswith(said)


def test_the_limits_are_allowed(shard_cache: Cache) -> None:
    given(shard_cache, wait=10.0, hold=120.0).release()
    given(shard_cache, wait=0.001, hold=0.001).release()


def test_errors_are_typed(daemon: Daemon, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(None, socket_path=daemon.socket_path) as nobody, pytest.raises(NoProducerError):
        nobody.lease("a")
    nowhere = str(daemon.directory / "nowhere")
    with Cache("a/1/8", socket_path=nowhere) as lost, pytest.raises(UnreachableError):
        lost.lease("a")
    monkeypatch.setenv("AUTOLOADD_CACHE", "0")
    with pytest.raises(SwitchedOffError):
        cache.lease("a")


def test_each_has_a_connection_of_its_own(shard_cache: Cache) -> None:
    """One connection may have fewer than this."""
    leases = [given(shard_cache, str(number)) for number in range(LEASES_PER_CONNECTION + 1)]
    for number, lease in enumerate(leases):
        lease.fill(b"%d" % number)
    assert shard_cache.count() == len(leases)


# Servers that are not ours, or not well


def asked(peer: Peer) -> Any:
    """Return the request for a lease, after a greeting."""
    peer.greet()
    return peer.read_request("lease")


def answers_with(result: object) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.answer(asked(peer), result)
        peer.wait_for_rest()

    return script


def refuses(method: str, code: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        request = asked(peer)
        if method != "lease":
            peer.answer(request, "fill")
            request = peer.read_request(method)
        peer.refuse(request.id, code)
        peer.wait_for_end()

    return script


def cache_of(path: str, **options: Any) -> Cache:
    return Cache("zsh/5.9/8", socket_path=path, timeout=SECONDS, **options)


def test_what_is_sent(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        request = asked(peer)
        assert request.params == ("a", 7, b"v1", 2_500, 60_000, True)
        peer.answer(request, "fill")
        put = peer.read_request("put")
        assert put.params == ("a", b"blob", 7, b"v1", "memory")
        peer.answer(put, 3)
        peer.wait_for_end()

    with cache_of(serve(script), binary_mtime_ns=7) as cache:
        lease = given(cache, fingerprint=b"v1", wait=2.5, hold=60.0, stale_ok=True)
        assert lease.fill(b"blob", sync="memory") == 3


def test_an_older_daemon_has_no_leases(serve: Serve) -> None:
    with cache_of(serve(refuses("lease", "unknown_method"))) as cache:
        assert cache.lease("a") is None


def test_a_busy_daemon(serve: Serve) -> None:
    with cache_of(serve(refuses("lease", "busy"))) as cache, pytest.raises(BusyError):
        cache.lease("a")


@pytest.mark.parametrize(
    "result", ["full", b"fill", 7, True, entry_answer("b", b"blob"), ("a", b"blob", None, "x", 8)]
)
def test_answers_that_are_none(serve: Serve, result: object) -> None:
    with cache_of(serve(answers_with(result))) as cache, pytest.raises(ForgedError):
        cache.lease("a")


def test_an_entry_of_another_daemon(serve: Serve) -> None:
    with cache_of(serve(answers_with(entry_answer("a", b"blob")))) as cache:
        assert cache.lease("a") == Entry(b"blob", None, 7, 8)


def test_a_daemon_that_hangs(serve: Serve) -> None:
    """The deadline is that of the wait and the timeout, and then the connection is closed."""

    def script(peer: Peer) -> None:
        asked(peer)
        peer.wait_for_end()

    began = time.monotonic()
    with Cache("zsh/5.9/8", socket_path=serve(script), timeout=0.1) as cache:
        with pytest.raises(DeadlineError):
            cache.lease("a", wait=0.2)
        assert time.monotonic() - began >= 0.3


def test_a_put_that_is_refused_ends_the_lease(serve: Serve) -> None:
    with cache_of(serve(refuses("put", "not_durable"))) as cache:
        lease = given(cache)
        with pytest.raises(NotDurableError):
            lease.fill(b"blob")
        with pytest.raises(ConnectionLostError):
            lease.fill(b"blob")


def test_a_put_that_is_answered_with_nonsense(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.answer(asked(peer), "fill")
        peer.answer(peer.read_request("put"), "stored")
        peer.wait_for_end()

    with cache_of(serve(script)) as cache, pytest.raises(ForgedError):
        given(cache).fill(b"blob")


def test_a_daemon_that_was_restarted_takes_the_entry(serve: Serve) -> None:
    """The lease is gone with the daemon, what was made is not."""

    def first(peer: Peer) -> None:
        peer.answer(asked(peer), "fill")

    def second(peer: Peer) -> None:
        peer.greet()
        put = peer.read_request("put")
        peer.answer(put, 1)
        peer.wait_for_end()

    with cache_of(serve(first, second)) as cache:
        assert given(cache).fill(b"blob") == 1


def test_giving_back_never_fails(serve: Serve) -> None:
    def gone(peer: Peer) -> None:
        peer.answer(asked(peer), "fill")

    path = serve(gone, refuses("unlease", "internal"))
    with cache_of(path) as cache:
        given(cache).release()
        given(cache).release()


def test_it_loads_nothing_heavy(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.answer(asked(peer), "fill")
        peer.answer(peer.read_request("put"), 1)
        peer.wait_for_end()

    code = f"""
from autoloadd_client import Cache
with Cache("zsh/5.9/8", socket_path={serve(script)!r}) as cache:
    with cache.lease("a") as lease:
        assert lease.fill(b"blob") == 1
"""
    assert loaded_by(code) == "[]"
