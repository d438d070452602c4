"""A stream is cut into the same payloads, however it was split on its way."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import LENGTH_BYTES, FrameDecoder, encode_frame
from autoloadd_protocol.limits import FRAME_BYTES

PAYLOADS = [b"a", b"bc" * 200, b"\x00" * 4, b"end"]
STREAM = b"".join(map(encode_frame, PAYLOADS))


def payloads_of(decoder: FrameDecoder) -> list[bytes]:
    found = []
    while (payload := decoder.next_payload()) is not None:
        found.append(bytes(payload))
    return found


def fed(*parts: bytes) -> list[bytes]:
    decoder = FrameDecoder()
    found = []
    for part in parts:
        decoder.receive_data(part)
        found += payloads_of(decoder)
    assert decoder.buffered_bytes == 0
    return found


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_a_stream_in_one_piece() -> None:
    assert fed(STREAM) == PAYLOADS


def test_a_stream_byte_by_byte() -> None:
    assert fed(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == PAYLOADS


def test_a_stream_split_at_every_place() -> None:
    for at in range(len(STREAM) + 1):
        assert fed(STREAM[:at], STREAM[at:]) == PAYLOADS


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400)))
def test_any_stream_split_anywhere(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, payloads))
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    parts = [stream[a:b] for a, b in pairwise(places)]
    assert fed(*parts) == payloads


def test_what_follows_a_frame_stays_for_the_next() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(encode_frame(b"first") + b"\x00\x00\x00\x06sec")
    assert payloads_of(decoder) == [b"first"]
    assert decoder.buffered_bytes == LENGTH_BYTES + 3
    decoder.receive_data(b"ond")
    assert payloads_of(decoder) == [b"second"]
    assert decoder.buffered_bytes == 0


def test_payloads_may_be_taken_long_after_they_came() -> None:
    decoder = FrameDecoder()
    for at in range(0, len(STREAM), 7):
        decoder.receive_data(STREAM[at : at + 7])
    assert decoder.buffered_bytes == len(STREAM)
    assert payloads_of(decoder) == PAYLOADS


def test_a_payload_stays_as_it_was_when_more_comes() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(encode_frame(b"first") + encode_frame(b"second")[:5])
    first = decoder.next_payload()
    decoder.receive_data(encode_frame(b"second")[5:])
    assert first == b"first"


@pytest.mark.parametrize("size", [0, FRAME_BYTES + 1, 0xFFFFFFFF])
def test_a_length_out_of_range_is_refused_at_its_fourth_byte(size: int) -> None:
    decoder = FrameDecoder()
    length = size.to_bytes(LENGTH_BYTES, "big")
    decoder.receive_data(length[:3])
    assert decoder.next_payload() is None
    decoder.receive_data(length[3:])
    with pytest.raises(FrameError, match=f"{size:,} bytes") as caught:
        decoder.next_payload()
    assert caught.value.code == "bad_frame"
    assert caught.value.request_id is None


def test_frames_before_a_bad_one_are_handed_out_and_none_after_it() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(STREAM + bytes(4) + STREAM)
    found = [decoder.next_payload() for _ in PAYLOADS]
    assert found == PAYLOADS
    with pytest.raises(FrameError) as first:
        decoder.next_payload()
    decoder.receive_data(STREAM)
    with pytest.raises(FrameError) as second:
        decoder.next_payload()
    assert second.value is first.value


def test_the_largest_frame_passes() -> None:
    payload = b"\x00" * FRAME_BYTES
    assert fed(encode_frame(payload)) == [payload]


def test_the_limit_can_be_set_lower() -> None:
    decoder = FrameDecoder(max_frame_bytes=3)
    decoder.receive_data(encode_frame(b"abc") + encode_frame(b"abcd"))
    assert decoder.next_payload() == b"abc"
    with pytest.raises(FrameError, match="1 to 3"):
        decoder.next_payload()


def test_nothing_is_allocated_for_an_announced_length() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        decoder.receive_data(FRAME_BYTES.to_bytes(4, "big"))
        assert decoder.next_payload() is None
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_large_frame_comes_in_small_reads() -> None:
    payload = bytes(range(256)) * (FRAME_BYTES // 256)
    frame = encode_frame(payload)
    assert fed(*(frame[at : at + 4096] for at in range(0, len(frame), 4096))) == [payload]


def test_what_is_still_to_come_is_told_once_the_length_is_there() -> None:
    decoder = FrameDecoder()
    steps = ((b"\0\0", 0), (b"\0", 0), (b"\5", 5), (b"abc", 2), (b"de\0", 0))
    for data, wanted in steps:
        decoder.receive_data(data)
        assert decoder.wanted_bytes == wanted
    assert decoder.next_payload() == b"abcde"
    assert decoder.payload_bytes == 5
    assert decoder.next_payload() is None
    assert decoder.buffered_bytes == 1


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_nothing_is_kept_of_what_was_handed_out(pieces: int) -> None:
    frame = encode_frame(bytes(1_000_000))
    size = len(frame) // pieces + 1
    decoder = FrameDecoder()
    for start in range(0, len(frame), size):
        decoder.receive_data(frame[start : start + size])
    assert decoder.next_payload() == bytes(1_000_000)
    assert len(decoder._buffer) == 0
    decoder.receive_data(encode_frame(b"a") * 1000 + b"\0")
    assert len(payloads_of(decoder)) == 1000
    assert decoder._buffer == b"\0"
