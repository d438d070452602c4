"""The real daemon answers the test vectors byte for byte."""

from __future__ import annotations

import re
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import FrameDecoder, encode_frame
from autoloadd_protocol.messages import Answer, Notification, decode_answer, encode_request

from ..vectors.loading import data_of, frozen, load, value_of

SECONDS = 20.0
ID = 0x10000
PING = encode_frame(encode_request(7, "ping", []))
PONG = bytes.fromhex("00000009 94 01 07 c0 a4706f6e67")
HELLO = encode_frame(
    encode_request(ID, "hello", [[1, 0], {"name": "refused", "version": "1", "pointer_width": 8}])
)


class Daemon(Protocol):
    """The part of the fixture that is used here."""

    @property
    def socket_path(self) -> str | Path: ...


class Peer:
    """A client that knows nothing but bytes."""

    def __init__(self, path: str | Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(str(path))

    def send(self, data: bytes) -> None:
        """Send everything; a server that has closed already is for `receive` to find."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def receive(self, count: int) -> bytes:
        """Return so many bytes, or fewer if the server ends the connection before."""
        found = b""
        while len(found) < count and (more := self._read(count - len(found))):
            found += more
        return found

    def _read(self, count: int) -> bytes:
        try:
            return self._socket.recv(count)
        except ConnectionResetError:
            return b""

    def receive_frame(self) -> bytes:
        """Return one whole frame; empty where the server ended the connection."""
        length = self.receive(4)
        return length + self.receive(int.from_bytes(length, "big"))

    def receive_answer(self) -> Answer:
        """Return one answer, decoded."""
        decoder = FrameDecoder()
        decoder.receive_data(self.receive_frame())
        payload = decoder.next_payload()
        assert payload is not None, "the server ended the connection"
        answer = decode_answer(payload)
        assert not isinstance(answer, Notification)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def answer_of(frame: bytes) -> object:
    """Return what a frame says, for people: bytes where it says nothing."""
    try:
        return decode_answer(frame[4:])
    except FrameError:
        return frame


class Conversation:
    """One dialogue's connection, and the token that the server gave out in it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._token = b""

    def step(self, step: dict[str, Any]) -> None:
        """Send what a step sends, and check what comes back."""
        self._peer.send(data_of(step["send"], token=self._token))
        if "receive" in step:
            expected = data_of(step["receive"])
            received = self._peer.receive(len(expected))
            assert received == expected, (answer_of(received), answer_of(expected))
            return
        answer = self._peer.receive_answer()
        match step:
            case {"receive_error": {"id": request_id, "code": code}}:
                assert answer.error is not None, answer
                assert (answer.id, answer.error[0]) == (request_id, code)
            case {"receive_uint": request_id}:
                self._check_number(answer, request_id, 0)
            case {"receive_token": request_id}:
                self._check_number(answer, request_id, 1)
                self._token = b"\xce" + answer.result.to_bytes(4, "big")
            case {"receive_map": {"id": request_id, "includes": includes}}:
                assert (answer.id, answer.error) == (request_id, None)
                assert answer.result | frozen(value_of(includes)) == answer.result
            case {"receive_flush": flushed}:
                generation, refused, error = answer.result
                found = {"id": answer.id, "generation": generation, "refused": refused}
                assert found == flushed
                assert isinstance(error, str)
            case _:
                raise ValueError(step)

    def _check_number(self, answer: Answer, request_id: int, least: int) -> None:
        assert (answer.id, answer.error) == (request_id, None)
        assert type(answer.result) is int
        assert answer.result >= least


DIALOGUES = load("dialogue")


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=[each["name"] for each in DIALOGUES])
def test_dialogue(daemon: Daemon, dialogue: dict[str, Any]) -> None:
    with closing(Peer(daemon.socket_path)) as peer:
        conversation = Conversation(peer)
        for number, step in enumerate(dialogue["steps"]):
            try:
                conversation.step(step)
            except AssertionError as exc:
                exc.add_note(f"step {number}: {step}")
                raise
        # Nothing was left over, so no notification was answered.
        peer.send(PING)
        assert peer.receive(len(PONG)) == PONG


@pytest.mark.parametrize("split", [1, 3, 7])
def test_dialogue_in_small_pieces(daemon: Daemon, split: int) -> None:
    """However a request is cut on its way, the answer is the same."""
    (forms,) = (each for each in DIALOGUES if each["name"] == "every form of a value")
    with closing(Peer(daemon.socket_path)) as peer:
        for step in forms["steps"]:
            sent = data_of(step["send"])
            for at in range(0, len(sent), split):
                peer.send(sent[at : at + split])
            received = peer.receive_frame()
            assert "receive" not in step or received == data_of(step["receive"])


def test_a_whole_dialogue_may_be_sent_before_any_answer_is_read(daemon: Daemon) -> None:
    (sizes,) = (each for each in DIALOGUES if each["name"] == "put and get")
    with closing(Peer(daemon.socket_path)) as peer:
        peer.send(b"".join(data_of(step["send"]) for step in sizes["steps"]))
        for step in sizes["steps"]:
            if "receive" in step:
                expected = data_of(step["receive"])
                assert peer.receive(len(expected)) == expected
            else:
                peer.receive_answer()


def examples() -> list[tuple[str, bytes]]:
    """Return the frames of docs/protocol.md's worked example, each with its direction."""
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    found: list[tuple[str, bytes]] = []
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines = re.split("([→←])", block)[1:]
        directions, frames = lines[::2], map(bytes.fromhex, lines[1::2])
        found += zip(directions, frames, strict=True)
    return found


def test_the_published_example(daemon: Daemon) -> None:
    frames = examples()
    assert [direction for direction, _ in frames] == list("→→←→←→←→→←")
    with closing(Peer(daemon.socket_path)) as peer:
        for direction, frame in frames:
            assert int.from_bytes(frame[:4], "big") == len(frame) - 4
            if direction == "→":
                peer.send(frame)
                if frame is frames[0][1]:
                    assert peer.receive_answer().error is None
            else:
                assert peer.receive_frame() == frame


def outcome_of(case: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return what the daemon does with a frame that it must refuse, in the words of the vectors."""
    with closing(Peer(path)) as peer:
        if case["after_hello"]:
            peer.send(HELLO)
            assert peer.receive_answer().error is None
        peer.send(data_of(case["send"]))
        answer = peer.receive_answer()
        code, message, detail = answer.error or (None, "", None)
        assert answer.result is None or code is None
        assert "\n" not in message
        peer.send(PING)
        after = peer.receive(len(PONG))
        found = {"code": code, "id": answer.id, "stays_open": after == PONG}
        if after != PONG:
            assert after == b""
        return found | {"detail": detail} if "detail" in case else found


def test_what_is_refused(daemon: Daemon) -> None:
    """All in one daemon: whatever was sent before, the next is answered."""
    differences = {}
    for case in load("refused"):
        expected = {key: case[key] for key in ("code", "id", "stays_open", "detail") if key in case}
        found = outcome_of(case, daemon.socket_path)
        if found != expected:
            differences[case["why"]] = (found, expected)
    assert differences == {}


def test_refused_writes_left_nothing_behind(daemon: Daemon) -> None:
    for case in load("refused"):
        outcome_of(case, daemon.socket_path)
    with closing(Peer(daemon.socket_path)) as peer:
        peer.send(HELLO + encode_frame(encode_request(ID, "count", [])))
        hello, count = peer.receive_answer(), peer.receive_answer()
    assert hello.result["epoch"] == 0
    assert count.result == 0
