"""Results of the wrong shape: a ForgedError, never another exception and never a wrong value."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import Cache, Entry, ForgedError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scripted import Peer

    Serve = Callable[..., str]


def answering(method: str, result: object) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request(method), result)
        peer.wait_for_end()

    return script


CASES: list[tuple[str, object, Callable[[Cache], Any]]] = [
    ("ping", "pang", lambda cache: cache.ping()),
    ("status", (), lambda cache: cache.status()),
    ("shards", {}, lambda cache: cache.shards()),
    ("shards", (1,), lambda cache: cache.shards()),
    ("count", "1", lambda cache: cache.count()),
    ("count", True, lambda cache: cache.count()),
    ("clear", None, lambda cache: cache.clear()),
    ("stats", 1, lambda cache: cache.stats()),
    ("put", None, lambda cache: cache.put("name", b"")),
    ("put", -1, lambda cache: cache.put("name", b"")),
    ("put", (1,), lambda cache: cache.put("name", b"")),
    ("put_many", "1", lambda cache: cache.put_many({})),
    ("bulk_begin", "token", lambda cache: cache.replace({})),
    ("flush", (1, 2), lambda cache: cache.flush()),
    ("flush", (1, None, None), lambda cache: cache.flush()),
    ("delete", {}, lambda cache: cache.delete("name")),
    ("missing", "name", lambda cache: cache.missing(["name"])),
    ("names", None, lambda cache: list(cache.names())),
    ("names", ("name",), lambda cache: list(cache.names())),
    ("names", (("name", 1),), lambda cache: list(cache.names())),
    ("names", (("b", None), ("a", None)), lambda cache: list(cache.names())),
    ("names", (("a", None), ("a", None)), lambda cache: list(cache.names())),
    ("get_many", {}, lambda cache: cache.get_many(["name"])),
    ("get_many", ({},), lambda cache: cache.get_many(["name"])),
    ("get_many", ((), ()), lambda cache: cache.get_many(["name"])),
    ("get_many", ({"name": b"blob"}, ()), lambda cache: cache.get_many(["name"])),
    ("get_many", ({"name": ("text",)}, ()), lambda cache: cache.get_many(["name"])),
    ("get_many", ({"other": (b"",)}, ()), lambda cache: cache.get_many(["name"])),
    ("get_many", ({"name": (b"",)}, ()), lambda cache: list(cache.get_entries(["name"]))),
    ("get_many", ({"name": ("", None, 1, 2)}, ()), lambda cache: list(cache.get_entries(["name"]))),
    ("get_many", ({}, ("name",)), lambda cache: cache.get_many(["name"])),
    ("get_many", ({}, ("other",)), lambda cache: cache.get_many(["name", "more"])),
]


@pytest.mark.parametrize(
    ("method", "result", "call"),
    [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(CASES)],
)
def test_a_result_of_the_wrong_shape_is_not_used(
    serve: Serve, method: str, result: object, call: Callable[[Cache], Any]
) -> None:
    with (
        Cache("zsh/5.9/8", socket_path=serve(answering(method, result)), timeout=10) as cache,
        pytest.raises(ForgedError),
    ):
        call(cache)


def test_a_result_that_is_no_messagepack_is_not_used(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        asked = peer.read_request("count")
        peer.send(b"\0\0\0\x09\x94\x01\xce" + asked.id.to_bytes(4, "big") + b"\xc0\xc1")
        peer.wait_for_end()

    with Cache("zsh/5.9/8", socket_path=serve(script)) as cache, pytest.raises(ForgedError):
        cache.count()


def test_entries_are_frozen_values() -> None:
    entry = Entry(b"blob", b"print", 7, 8)
    assert entry == Entry(b"blob", fingerprint=b"print", binary_mtime_ns=7, cached_at_ns=8)
    assert entry != Entry(b"blob")
    assert (Entry(b"blob").fingerprint, Entry(b"blob").cached_at_ns) == (None, None)
    with pytest.raises(AttributeError):
        entry.blob = b"other"
    assert copy.copy(entry) == pickle.loads(pickle.dumps(entry)) == entry


def test_refusals_can_be_copied_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(TooLargeError("too_large", "no", {"max": 1})))
    assert type(error) is TooLargeError
    assert (error.code, error.message, error.detail) == ("too_large", "no", {"max": 1})
    assert str(error) == "no (too_large)"
