"""A plain get means what the general decoder says it means; everything else is left to that."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoloadd_protocol.encoding import encode_int
from autoloadd_protocol.errors import FrameError, RequestError
from autoloadd_protocol.framing import LENGTH_BYTES, encode_frame
from autoloadd_protocol.messages import (
    Request,
    decode_request,
    encode_answer,
    encode_request,
    pack,
)
from autoloadd_protocol.parameters import read_fingerprint, read_params, read_time
from autoloadd_protocol.plain_frame import answer_head
from autoloadd_protocol.plain_get import ANY_TIME, read_plain_get
from autoloadd_protocol.requests import FIRST_ID, LAST_ID, get_request

NAMES = st.text(min_size=1, max_size=40).filter(lambda name: len(name.encode()) <= 40)
TIMES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 127, 128, 2**32])
IDS = st.integers(FIRST_ID, LAST_ID)


def is_meant(data: bytes, found: tuple[bytes, bytes, int]) -> bool:
    """Tell whether the general decoder reads the same out of a frame."""
    request_id, name, oldest_ns = found
    message = decode_request(data[LENGTH_BYTES:])
    assert isinstance(message, Request)
    params = read_params(message.params, 1, 2)
    mtime_ns = read_time(params[1])
    return (
        message.id.to_bytes(4, "big") == request_id
        and message.method == "get"
        and params[0].encode() == name
        and read_fingerprint(params[2]) is None
        and (ANY_TIME if mtime_ns is None else mtime_ns) == oldest_ns
    )


@given(IDS, NAMES, TIMES, st.sampled_from([0, 1, 2]))
def test_what_clients_send_is_read(
    request_id: int, name: str, mtime_ns: int | None, nils: int
) -> None:
    params = [name, mtime_ns, None][: 1 + nils]
    data = encode_frame(encode_request(request_id, "get", params))
    found = read_plain_get(data)
    assert (found is not None) == (len(name.encode()) <= 31)
    assert found is None or is_meant(data, found)
    if nils == 2:
        assert data == get_request(request_id, name.encode(), binary_mtime_ns=mtime_ns)


FRAME = get_request(FIRST_ID, b"name", binary_mtime_ns=2**40)


@given(st.integers(0, len(FRAME) - 1), st.integers(0, 255), st.integers(-3, 3))
@example(LENGTH_BYTES + 12, 0xBF, 0)
@example(LENGTH_BYTES + 12, 0xA0, 0)
@example(len(FRAME) - 1, 0xC4, 0)
@example(len(FRAME) - 10, 0xCF, 0)
def test_a_damaged_frame_is_read_as_the_general_decoder_does_or_not_at_all(
    at: int, value: int, longer: int
) -> None:
    data = bytearray(FRAME + b"\xc0" * max(longer, 0))
    data[at] = value
    damaged = bytes(data[: len(data) + min(longer, 0)])
    found = read_plain_get(damaged)
    if found is None:
        return
    assert int.from_bytes(damaged[:LENGTH_BYTES], "big") == len(damaged) - LENGTH_BYTES
    try:
        assert is_meant(damaged, found)
    except (FrameError, RequestError):
        # A name that is no UTF-8 is stored nowhere; nothing else may be wrong with it.
        with pytest.raises(UnicodeDecodeError):
            found[1].decode()


@pytest.mark.parametrize(
    "params",
    [
        ["name", None, b"fingerprint"],
        ["name", 1.5],
        ["name", 2**64 - 1],
        ["name", "1"],
        ["name", None, None, None],
        [b"name"],
        ["", None],
        ["n" * 32],
        [],
    ],
)
def test_what_is_not_plain_is_left_alone(params: list[object]) -> None:
    payload = pack([0, FIRST_ID, "get", params])
    assert read_plain_get(encode_frame(payload)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FRAME[:-1],
        FRAME + FRAME,
        encode_frame(encode_request(FIRST_ID - 1, "get", ["name"])),
        encode_frame(encode_request(FIRST_ID, "put", ["name", b"blob"])),
        encode_frame(b"\x93\x02\xa3get\x91\xa4name"),
        # A length that wants more than the name has.
        encode_frame(b"\x94\x00\xce\0\1\0\0\xa3get\x92\xa4name\xd3" + bytes(7)),
    ],
)
def test_what_is_no_whole_get_is_left_alone(data: bytes) -> None:
    assert read_plain_get(data) is None


@given(IDS, st.integers(0, 70_000))
def test_the_head_is_that_of_the_general_answer(request_id: int, size: int) -> None:
    result = encode_int(0) * size
    answer = encode_answer(request_id, None)[:-1] + result
    head = answer_head(request_id.to_bytes(4, "big"), size)
    assert head + result == encode_frame(answer)
