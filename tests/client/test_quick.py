"""One get without the library: a clean answer, or an error without words."""

from __future__ import annotations

import _socket
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.cli import quick
from autoloadd_client.peer import peer_uid
from autoloadd_protocol.errors import FrameError, RendezvousError
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.limits import BLOB_BYTES, FRAME_BYTES
from autoloadd_protocol.messages import encode_answer
from autoloadd_protocol.producer import Producer

from .scripted import HELLO, PATIENCE_SECONDS, Peer, entry_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .scripted import Script

    Serve = Callable[..., str]

PRODUCER = Producer("zsh", "5.9")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to ask once more."""
    monkeypatch.setattr(quick, "_SECONDS", PATIENCE_SECONDS)


def ask(path: str | None, mtime: int | None = None) -> bytes | None:
    return quick.ask(PRODUCER, b"name", socket=path, binary_mtime_ns=mtime)


def answering(make: Callable[[int, int], bytes], piece: int = 1 << 30) -> Script:
    """Return a script that reads both requests, and sends what `make` returns for their ids."""

    def script(peer: Peer) -> None:
        hello, get = peer.read_request("hello"), peer.read_request("get")
        stream = make(hello.id, get.id)
        for start in range(0, len(stream), piece):
            peer.send(stream[start : start + piece])
        peer.socket.shutdown(1)
        peer.wait_for_rest()

    return script


def answers(hello_id: int, get_id: int, result: object) -> bytes:
    greeting = encode_frame(encode_answer(hello_id, HELLO))
    return greeting + encode_frame(encode_answer(get_id, result))


def found(blob: bytes, name: str = "name") -> Callable[[int, int], bytes]:
    return lambda hello, get: answers(hello, get, entry_answer(name, blob))


@pytest.mark.parametrize("size", [0, 3000, BLOB_BYTES])
def test_a_blob_of_any_size(serve: Serve, size: int) -> None:
    blob = os.urandom(size)
    assert ask(serve(answering(found(blob)))) == blob


def test_an_answer_that_comes_byte_by_byte(serve: Serve) -> None:
    assert ask(serve(answering(found(b"blob"), piece=1))) == b"blob"


def test_one_that_sends_in_drips_is_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "_SECONDS", 0.2)

    def drip(peer: Peer) -> None:
        peer.read_request("hello")
        # Each wait is shorter than what all of them may take.
        peer.socket.settimeout(0.05)
        for byte in answers(1, 2, entry_answer("name", bytes(3000))):
            try:
                peer.socket.sendall(bytes((byte,)))
                peer.socket.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                return

    path = serve(drip)
    began = monotonic()
    with pytest.raises((TimeoutError, BlockingIOError)):
        ask(path)
    assert monotonic() - began < PATIENCE_SECONDS


def test_a_miss(serve: Serve) -> None:
    assert ask(serve(answering(lambda hello, get: answers(hello, get, None)))) is None


def test_what_is_asked(serve: Serve) -> None:
    asked: list[object] = []

    def script(peer: Peer) -> None:
        hello = peer.greet()
        asked.append(hello.params[1])
        get = peer.read_request("get")
        asked.append(get.params)
        peer.answer(get, None)
        peer.wait_for_end()

    assert ask(serve(script), mtime=-5) is None
    assert asked == [PRODUCER.as_map(), ("name", -5)]


def no_hello(_hello: int, get: int) -> bytes:
    return encode_frame(encode_answer(get, entry_answer("name", b"blob")))


def refused_hello(hello: int, get: int) -> bytes:
    refusal = b"\x94\x01\xce" + hello.to_bytes(4, "big") + b"\x93\xa4busy\xa2no\xc0\xc0"
    return encode_frame(refusal) + no_hello(hello, get)


def refused_get(hello: int, get: int) -> bytes:
    refusal = b"\x94\x01\xce" + get.to_bytes(4, "big") + b"\x93\xa4busy\xa2no\xc0\xc0"
    return encode_frame(encode_answer(hello, HELLO)) + encode_frame(refusal)


def cut(hello: int, get: int) -> bytes:
    return answers(hello, get, entry_answer("name", b"blob"))[:-1]


def followed(hello: int, get: int) -> bytes:
    return answers(hello, get, None) + b"\0"


def too_large(_hello: int, _get: int) -> bytes:
    return (FRAME_BYTES + 1).to_bytes(4, "big")


def nothing(_hello: int, _get: int) -> bytes:
    return b""


UNUSUAL = [no_hello, refused_hello, refused_get, cut, followed, too_large, nothing]


@pytest.mark.parametrize("make", [*UNUSUAL, found(b"blob", "other")])
def test_whatever_is_unusual_is_an_error(serve: Serve, make: Callable[[int, int], bytes]) -> None:
    with pytest.raises((FrameError, OSError)):
        ask(serve(answering(make)))


def test_a_daemon_that_says_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        ask(serve(Peer.wait_for_rest))


def test_another_users_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "peer_uid", lambda _socket: os.geteuid() + 1)
    with pytest.raises(FrameError, match="another user"):
        ask(serve(Peer.wait_for_rest))


def test_a_system_that_does_not_tell_who_it_is(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "peer_uid", lambda _socket: None)
    assert ask(serve(answering(found(b"blob")))) == b"blob"


def test_such_a_system_is_told_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()
        monkeypatch.delattr(_socket, "SO_PEERCRED")
        assert peer_uid(ours) is None


def test_a_directory_that_others_can_reach(run_directory: Path) -> None:
    run_directory.chmod(0o755)
    with pytest.raises(RendezvousError):
        ask(str(run_directory / "socket"))


def test_nobody_listens(run_directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask(str(run_directory / "socket"))
    with pytest.raises(FileNotFoundError):
        ask(None)
    with pytest.raises(RendezvousError):
        ask("relative")


def test_a_cache_that_is_switched_off_is_not_asked(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOLOADD_CACHE", "0")
    with pytest.raises(FrameError):
        ask(str(run_directory / "socket"))
