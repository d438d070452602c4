"""The sans-IO connection, whole, byte by byte, at every split, and past errors."""

from __future__ import annotations

import pytest

from autoloadd_protocol.connection import Connection
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import (
    Answer,
    InvalidMessageError,
    Message,
    Notification,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_error,
    encode_notification,
    encode_request,
)

REQUESTS = [
    Request(1, "ping", ()),
    Notification("put", ("_git", b"\x00\xff")),
    Request(0xFFFFFFFF, "get_many", (("a", "b"), None)),
]
STREAM = b"".join(
    map(
        encode_frame,
        (
            encode_request(1, "ping", []),
            encode_notification("put", ["_git", b"\x00\xff"]),
            encode_request(0xFFFFFFFF, "get_many", [["a", "b"], None]),
        ),
    )
)


def received(*parts: bytes) -> list[Message]:
    connection = Connection(decode_request)
    found: list[Message] = []
    for part in parts:
        connection.receive_data(part)
        while (message := connection.next_message()) is not None:
            found.append(message)
    assert connection.buffered_bytes == 0
    return found


def test_messages_in_one_piece() -> None:
    assert received(STREAM) == REQUESTS


def test_messages_byte_by_byte() -> None:
    assert received(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == REQUESTS


def test_messages_split_at_every_place() -> None:
    for at in range(len(STREAM) + 1):
        assert received(STREAM[:at], STREAM[at:]) == REQUESTS


def test_an_unfinished_message_is_counted_and_waited_for() -> None:
    connection = Connection(decode_request)
    connection.receive_data(STREAM[:-1])
    assert [connection.next_message() for _ in REQUESTS] == [*REQUESTS[:-1], None]
    assert (
        connection.buffered_bytes
        == len(encode_frame(encode_request(2**32 - 1, "get_many", [["a", "b"], None]))) - 1
    )


def test_a_refused_message_does_not_end_the_stream() -> None:
    connection = Connection(decode_request)
    connection.receive_data(encode_frame(encode_answer(1, None)) + STREAM)
    with pytest.raises(InvalidMessageError):
        connection.next_message()
    assert [connection.next_message() for _ in REQUESTS] == REQUESTS
    assert connection.next_message() is None


def test_a_payload_with_bytes_behind_its_value_is_a_frame_error() -> None:
    connection = Connection(decode_request)
    connection.receive_data(encode_frame(encode_request(9, "ping", []) + b"\xc0"))
    with pytest.raises(FrameError, match="after the value"):
        connection.next_message()


def test_a_bad_length_is_a_frame_error() -> None:
    connection = Connection(decode_request, max_frame_bytes=64)
    connection.receive_data(STREAM[:20] + bytes(4))
    assert connection.next_message() == REQUESTS[0]
    connection = Connection(decode_request, max_frame_bytes=4)
    connection.receive_data(STREAM)
    with pytest.raises(FrameError, match="1 to 4"):
        connection.next_message()


def test_a_client_receives_answers() -> None:
    connection = Connection(decode_answer)
    connection.receive_data(
        encode_frame(encode_answer(7, "pong")) + encode_frame(encode_error(8, "busy", "later"))
    )
    assert connection.next_message() == Answer(7, None, "pong")
    assert connection.next_message() == Answer(8, ("busy", "later", None), None)
    assert connection.next_message() is None
