"""Attaching to a server that refuses, breaks off or shares what cannot be used: gets go on."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import Cache, errors
from autoloadd_client.reading import NOTHING
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_answer, encode_error

from .scripted import HELLO, Peer, entry_answer
from .test_shared_reads import attach, is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_client.reading import Lookup

    from ..running import Daemon

    Serve = Callable[..., str]

ATTACH_AFTER = 16
SHARED = {"image_version": 1, "page_version": 1, "epoch": 1, "generation": 1}


def greet_sharing(peer: Peer) -> None:
    peer.answer(peer.read_request("hello"), {**HELLO, "features": ("attach",)})


def answer_gets(peer: Peer, count: int) -> None:
    for _ in range(count):
        peer.answer(peer.read_request("get"), entry_answer("name", b"blob"))


def get_often(path: str, count: int, *, timeout: float = 10.0) -> None:
    with Cache("zsh/5.9/8", socket_path=path, timeout=timeout) as cache:
        for _ in range(count):
            assert cache.get("name") == b"blob"


@pytest.mark.parametrize("code", ["busy", "unknown_method", "shutting_down", "internal"])
def test_a_refusal_is_not_asked_for_again_at_once(serve: Serve, code: str) -> None:
    def script(peer: Peer) -> None:
        greet_sharing(peer)
        answer_gets(peer, ATTACH_AFTER)
        peer.refuse(peer.read_request("attach").id, code)
        answer_gets(peer, 20)
        peer.wait_for_end()

    get_often(serve(script), ATTACH_AFTER + 20)


def test_a_server_that_does_not_share_is_not_asked_to(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        answer_gets(peer, 2 * ATTACH_AFTER)
        peer.wait_for_end()

    get_often(serve(script), 2 * ATTACH_AFTER)


def send_with(peer: Peer, data: bytes, *descriptors: int) -> None:
    socket.send_fds(peer.socket, [data], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def breaks_off(peer: Peer, request_id: int, *descriptors: int) -> None:
    send_with(peer, encode_frame(encode_answer(request_id, SHARED))[:-1], *descriptors)


def refuses(peer: Peer, request_id: int, *descriptors: int) -> None:
    send_with(peer, encode_frame(encode_error(request_id, "busy", "no")), *descriptors)


def shares_what_is_no_memory(peer: Peer, request_id: int, *descriptors: int) -> None:
    send_with(peer, encode_frame(encode_answer(request_id, SHARED)), *descriptors)


def shares_in_pieces(peer: Peer, request_id: int, *descriptors: int) -> None:
    frame = encode_frame(encode_answer(request_id, {**SHARED, "more": bytes(100_000)}))
    send_with(peer, frame[:3], *descriptors)
    peer.send(frame[3:])


@pytest.mark.parametrize(
    "answer", [breaks_off, refuses, shares_what_is_no_memory, shares_in_pieces]
)
@pytest.mark.parametrize("count", [1, 2])
def test_descriptors_that_are_of_no_use_are_closed(
    serve: Serve, answer: Callable[..., None], count: int
) -> None:
    ends: list[int] = []

    def script(peer: Peer) -> None:
        greet_sharing(peer)
        answer_gets(peer, ATTACH_AFTER)
        ours, theirs = os.pipe()
        ends.append(ours)
        answer(peer, peer.read_request("attach").id, *[os.dup(theirs) for _ in range(count)])
        os.close(theirs)

    def again(peer: Peer) -> None:
        peer.greet()
        answer_gets(peer, 1)
        peer.wait_for_end()

    get_often(serve(script, again), ATTACH_AFTER + 1)
    # The end of a pipe that nobody can write to any more.
    assert os.read(ends[0], 1) == b""
    os.close(ends[0])


def test_one_that_does_not_answer_costs_no_more_than_the_deadline(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        greet_sharing(peer)
        answer_gets(peer, ATTACH_AFTER)
        peer.read_request("attach")
        peer.wait_for_end()

    started = time.monotonic()
    get_often(serve(script), ATTACH_AFTER, timeout=1.0)
    assert time.monotonic() - started < 20


def test_what_is_late_already_does_not_attach(serve: Serve) -> None:
    """It would only close the connection."""

    def script(peer: Peer) -> None:
        greet_sharing(peer)
        answer_gets(peer, ATTACH_AFTER - 1)
        peer.wait_for_end()

    with Cache("zsh/5.9/8", socket_path=serve(script), timeout=10) as cache:
        for _ in range(ATTACH_AFTER - 1):
            cache.get("name")
        cache._shared.asked(cache._connections.own(), time.monotonic() - 1)


def test_a_connection_that_ends_while_it_is_attached_to(daemon: Daemon) -> None:
    with daemon.cache() as cache:
        cache.put("a", b"one")
        use, ended = cache._shared._use, 0

        def use_and_end(lookup: Lookup) -> None:
            nonlocal ended
            use(lookup)
            if lookup is not NOTHING and not ended:
                ended += 1
                cache._connections.own().close(time.monotonic() + 10)
                use(lookup)

        cache._shared._use = use_and_end
        while not ended:
            cache.get("a")
        assert not is_local(cache, "a")
        attach(cache)


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_answer_that_ends_too_early_is_not_used(serve: Serve, cut: int) -> None:
    """Its frame is whole, what is in it is not."""

    def script(peer: Peer) -> None:
        peer.greet()
        asked = peer.read_request("get")
        payload = encode_answer(asked.id, ["name", b"", None, 7, 8])
        peer.send(encode_frame(payload[:-cut]))
        peer.wait_for_end()

    with (
        Cache("zsh/5.9/8", socket_path=serve(script), timeout=10) as cache,
        pytest.raises(errors.ForgedError),
    ):
        cache.get_entry("name")
