"""What a payload means; and that no payload, however hostile, takes more than its share."""

from __future__ import annotations

import math
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.limits import FRAME_BYTES, NAMES
from autoloadd_protocol.messages import (
    MAX_ID,
    Answer,
    InvalidMessageError,
    Notification,
    Request,
    answer_head,
    decode_answer,
    decode_request,
    encode_answer,
    encode_error,
    encode_notification,
    encode_request,
    refuse_unusual,
)

from ..vectors.loading import frozen

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(max_size=20),
    st.binary(max_size=20),
)
TEXTS = st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
PARAMS = st.lists(VALUES, max_size=5)
IDS = st.integers(0, MAX_ID)


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


@given(IDS, st.text(), PARAMS)
def test_a_request_comes_back(request_id: int, method: str, params: list[Any]) -> None:
    payload = encode_request(request_id, method, params)
    assert payload == pack([0, request_id, method, params])
    assert decode_request(payload) == Request(request_id, method, frozen(params))


@given(st.text(), PARAMS)
def test_a_notification_comes_back(method: str, params: list[Any]) -> None:
    payload = encode_notification(method, params)
    assert payload == pack([2, method, params])
    assert decode_request(payload) == Notification(method, frozen(params))
    assert decode_answer(payload) == Notification(method, frozen(params))


@given(IDS, VALUES)
def test_an_answer_comes_back(request_id: int, result: Any) -> None:
    payload = encode_answer(request_id, result)
    assert payload == pack([1, request_id, None, result]) == answer_head(request_id) + pack(result)
    assert decode_answer(payload) == Answer(request_id, None, frozen(result))


@given(st.none() | IDS, st.text(), st.text(), st.none() | st.dictionaries(st.text(), SCALARS))
def test_a_refusal_comes_back(
    request_id: int | None, code: str, message: str, detail: dict[str, Any] | None
) -> None:
    payload = encode_error(request_id, code, message, detail)
    assert payload == pack([1, request_id, [code, message, detail], None])
    assert decode_answer(payload) == Answer(request_id, (code, message, detail), None)


def test_the_shortest_answer_has_9_bytes_with_an_id_of_5() -> None:
    assert encode_answer(0x10000, None) == bytes.fromhex("94 01 ce00010000 c0 c0")


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), min_size=513, max_size=700), st.binary(max_size=40))
def test_a_large_request_means_what_a_small_one_means(names: list[str], blob: bytes) -> None:
    """Both beyond the small path: by its number of items, and by its bytes."""
    entries = {name: [blob, blob, 2**40, None] for name in names}
    for params in ([names, 5], [entries, None, "write"]):
        payload = encode_request(7, "m", params)
        assert decode_request(payload) == Request(7, "m", frozen(params))
        assert decode_request(bytearray(payload)) == Request(7, "m", frozen(params))


def test_the_largest_useful_request_passes() -> None:
    entries = {f"f{number}": [b"", b"p", number, number] for number in range(NAMES)}
    message = decode_request(encode_request(1, "put_many", [entries, 1, "write"]))
    assert message == Request(1, "put_many", (frozen(entries), 1, "write"))
    wanted = [[f"f{number}", b"p", number] for number in range(NAMES)]
    assert decode_request(encode_request(1, "missing", [wanted, 1])).params == (frozen(wanted), 1)


def test_a_blob_of_a_whole_frame_passes() -> None:
    blob = b"\0" * (FRAME_BYTES - 100)
    assert decode_request(encode_request(1, "put", ["f", blob])).params == ("f", blob)


WRONG: list[tuple[object, int | None, bool]] = [
    (None, None, False),
    (5, None, False),
    (True, None, False),
    ("ping", None, False),
    (b"ping", None, False),
    ({}, None, False),
    ({0: 1}, None, False),
    ([], None, False),
    ([0], None, False),
    ([0, 5], 5, False),
    ([0, 5, "ping"], 5, False),
    ([0, 5, "ping", [], None], 5, False),
    ([0, 5, "ping", None], 5, False),
    ([0, 5, "ping", {}], 5, False),
    ([0, 5, b"ping", []], 5, False),
    ([0, 5, None, []], 5, False),
    ([0, -1, "ping", []], None, False),
    ([0, MAX_ID + 1, "ping", []], None, False),
    ([0, True, "ping", []], None, False),
    ([0, None, "ping", []], None, False),
    ([0, "5", "ping", []], None, False),
    ([False, 5, "ping", []], None, False),
    ([1, 5, None, None], None, False),
    ([3, 5, "ping", []], None, False),
    (["0", 5, "ping", []], None, False),
    ([2], None, True),
    ([2, "put"], None, True),
    ([2, "put", None], None, True),
    ([2, 5, []], None, True),
    ([2, "put", [], None], None, True),
]


@pytest.mark.parametrize(("value", "request_id", "is_notification"), WRONG, ids=repr)
def test_a_value_that_is_no_message_is_refused_and_the_stream_goes_on(
    value: object, request_id: int | None, is_notification: bool
) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        decode_request(pack(value))
    assert (caught.value.code, caught.value.request_id) == ("bad_request", request_id)
    assert caught.value.is_notification is is_notification
    assert caught.value.detail is None


FILLED = [None, ["n"] * 600, "x" * 5000]
"""Parameters that keep a request on the small path, or make it large by its items or its bytes."""


@pytest.mark.parametrize("filling", FILLED, ids=["small", "many items", "many bytes"])
@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"\xa2\xc3\x28", "a str is not UTF-8"),
        (b"\xa3\xed\xa0\x80", "a str is not UTF-8"),
        (b"\xa2\xc0\x80", "a str is not UTF-8"),
        (b"\x91\xa1\xff", "a str is not UTF-8"),
        (b"\x81\xa1\xff\xc0", "a str is not UTF-8"),
        (b"\x82\xa1a\xc0\xa1a\xc0", "a map has a key twice"),
        (b"\x91\x82\xa1a\xc0\xa1a\xc0", "a map has a key twice"),
        (b"\x82\x00\xc0\xc2\xc0", "a map has a key twice"),
        (b"\x81\x80\xc0", "a map has a map as a key"),
        (b"\x91\x81\x91\x80\xc0", "a map has a map as a key"),
    ],
    ids=repr,
)
def test_text_and_keys_that_are_wrong_are_refused_with_the_id(
    encoded: bytes, message: str, filling: object
) -> None:
    request = b"\x94\x00\x05\xa1m\x92" + pack(filling) + encoded
    with pytest.raises(InvalidMessageError) as caught:
        decode_request(request)
    assert (caught.value.message, caught.value.request_id) == (message, 5)
    assert not caught.value.is_notification
    notification = b"\x93\x02\xa1m\x92" + pack(filling) + encoded
    with pytest.raises(InvalidMessageError) as caught:
        decode_request(notification)
    assert (caught.value.message, caught.value.request_id) == (message, None)
    assert caught.value.is_notification


EXT = {
    "fixext 1": b"\xd4\x05" + bytes(1),
    "fixext 2": b"\xd5\x05" + bytes(2),
    "fixext 4": b"\xd6\x05" + bytes(4),
    "fixext 4, a timestamp": b"\xd6\xff" + bytes(4),
    "fixext 8": b"\xd7\x05" + bytes(8),
    "fixext 8, a timestamp": b"\xd7\xff" + bytes(8),
    "fixext 16": b"\xd8\x05" + bytes(16),
    "ext 8": b"\xc7\x01\x05x",
    "ext 8, a timestamp": b"\xc7\x0c\xff" + bytes(12),
    "ext 16": b"\xc8\x00\x01\x05x",
    "ext 32": b"\xc9\x00\x00\x00\x01\x05x",
    "ext 8 of zero length": b"\xc7\x00\x05",
    "ext 8 of zero length, a timestamp": b"\xc7\x00\xff",
    "ext 16 of zero length": b"\xc8\x00\x00\x05",
    "ext 32 of zero length": b"\xc9\x00\x00\x00\x00\x05",
}
BROKEN = EXT | {
    "never used": b"\xc1",
    "a str that is not there": b"\xdb\xff\xff\xff\xff",
    "a bin that is not there": b"\xc6\xff\xff\xff\xff",
    "an array that is not there": b"\xdd\xff\xff\xff\xff",
    "a map that is not there": b"\xdf\xff\xff\xff\xff",
    "half a str": b"\xa5abc",
    "half a number": b"\xce\x00",
}


@pytest.mark.parametrize("filling", FILLED, ids=["small", "many items", "many bytes"])
@pytest.mark.parametrize("encoded", BROKEN.values(), ids=BROKEN.keys())
def test_what_the_protocol_does_not_know_ends_the_stream(encoded: bytes, filling: object) -> None:
    for wrapped in (encoded, b"\x91" + encoded, b"\x81\xa1k" + encoded):
        with pytest.raises(FrameError) as caught:
            decode_request(b"\x94\x00\x05\xa1m\x92" + pack(filling) + wrapped)
        assert caught.value.request_id == 5
        assert caught.value.code == "bad_frame"


@pytest.mark.parametrize("payload", [b"\xc1", b"\x94", b"\x94\x00", b"\x94\x02\x05", *EXT.values()])
def test_without_an_id_the_error_has_none(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        decode_request(payload)
    assert caught.value.request_id is None


def test_every_truncation_is_a_frame_error() -> None:
    small = encode_request(5, "put", ["f", b"x" * 40, {"k": [1, None]}])
    large = encode_request(5, "put", ["f", b"x" * 5000, {"k": [1, None]}])
    for payload in (small, large):
        for end in (*range(40), *range(len(payload) - 20, len(payload))):
            with pytest.raises(FrameError):
                decode_request(payload[:end])


@pytest.mark.parametrize("filling", FILLED, ids=["small", "many items", "many bytes"])
@pytest.mark.parametrize("rest", [b"\xc0", b"\x00" * 9, b"\xc1", pack([0, 6, "ping", []])])
def test_trailing_bytes_are_a_frame_error(rest: bytes, filling: object) -> None:
    with pytest.raises(FrameError, match="after the value") as caught:
        decode_request(encode_request(5, "m", [filling]) + rest)
    assert caught.value.request_id == 5


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_the_outcome_is_one_of_three(payload: bytes) -> None:
    try:
        message = decode_request(payload)
    except (FrameError, InvalidMessageError):
        return
    assert isinstance(message, Request | Notification)


@given(PARAMS, st.data())
def test_whatever_byte_is_damaged_the_outcome_is_one_of_three(
    params: list[Any], data: st.DataObject
) -> None:
    payload = bytearray(encode_request(70_000, "method", params))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode_request(payload)
    except (FrameError, InvalidMessageError):
        return
    assert isinstance(message, Request | Notification)


# What decoding lets through, and refuse_unusual finds


def nested(levels: int, innermost: object = None) -> list[Any]:
    """Return params whose innermost array is at this level; params themselves are level 2."""
    value: list[Any] = [] if innermost is None else [innermost]
    for _ in range(levels - 2):
        value = [value]
    return value


@pytest.mark.parametrize(
    "params",
    [
        [1.5],
        [math.nan],
        [[1.5]],
        [{"a": 1.5}],
        [{1.5: "a"}],
        ["f", [["a", [None, 1.5]]]],
        nested(8, 1.5),
        nested(9),
        nested(9, 1),
        nested(40),
        [{"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}],
        [None] * 17,
        [[[None] * 17]],
        [[dict.fromkeys(range(17))]],
    ],
    ids=lambda params: repr(params)[:40],
)
def test_floats_depth_and_width_are_found_in_parameters(params: list[Any]) -> None:
    with pytest.raises(FrameError) as caught:
        refuse_unusual(frozen(params), request_id=5)
    assert caught.value.request_id == 5
    with pytest.raises(FrameError) as caught:
        refuse_unusual((7, 5, "m", frozen(params)), level=1)
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    "params",
    [
        [],
        [None] * 16,
        [["n"] * 600],
        [dict.fromkeys(map(str, range(600)))],
        [{"f": [b"", None, 1, 2]}],
        nested(8),
        nested(8, 1),
        [{"a": {"b": {"c": {"d": {"e": {}}}}}}],
        [[[None] * 16]],
    ],
    ids=lambda params: repr(params)[:40],
)
def test_what_is_allowed_is_let_through(params: list[Any]) -> None:
    refuse_unusual(frozen(params))
    message = decode_request(encode_request(5, "m", params))
    assert message == Request(5, "m", frozen(params))


@pytest.mark.parametrize(
    ("value", "request_id"),
    [
        ([0.0, 5, "ping", []], None),
        ([0, 5.0, "ping", []], None),
        ([2.0, "put", []], None),
        ([0, 5, 1.5, []], 5),
        ([0, 5, "ping", {"a": 1.5}], 5),
        ([0, 5, "ping", [], 1.5], 5),
        (1.5, None),
        ({"a": 1.5}, None),
        ([3, [[[[[[[[]]]]]]]]], None),
        ([3] * 17, None),
    ],
    ids=repr,
)
def test_floats_depth_and_width_end_the_stream_where_there_is_no_message(
    value: object, request_id: int | None
) -> None:
    with pytest.raises(FrameError) as caught:
        decode_request(pack(value))
    assert caught.value.request_id == request_id


# A client's side

WRONG_KEYS = (b"\xa1\xff", b"\x82\x00\x00\x00\x00", b"\x81\x80\x00")
"""Text that is not UTF-8, a key twice, a map as a key."""


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [1, 5, None],
        [1, 5, None, None, None],
        [1, 5, "busy", None],
        [1, 5, ["busy"], None],
        [1, 5, ["busy", "later", []], None],
        [1, -1, None, None],
        [1, MAX_ID + 1, None, None],
        [1, True, None, None],
        [1, "5", None, None],
        [True, 5, None, None],
        [1.0, 5, None, None],
        [0, 5, "ping", []],
        [2, "event", None],
    ],
    ids=repr,
)
def test_what_is_no_answer_is_refused(value: object) -> None:
    with pytest.raises(FrameError, match="no message of this protocol"):
        decode_answer(pack(value))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\xc1", b"\x94\x01\x05\xc0", b"\x94\x01\x05\xc0\xc0\xc0"),
        *(b"\x94\x01\x05\xc0" + encoded for encoded in BROKEN.values()),
        *(b"\x94\x01\x05\xc0" + encoded for encoded in WRONG_KEYS),
    ],
    ids=repr,
)
def test_bytes_that_are_no_answer_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match="no message of this protocol") as caught:
        decode_answer(payload)
    assert caught.value.__cause__ is not None
