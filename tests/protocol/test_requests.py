"""The hot path's frames are those that msgpack gives, and answers are taken apart or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_answer, encode_error, encode_request
from autoloadd_protocol.producer import Producer
from autoloadd_protocol.requests import (
    FIRST_ID,
    LAST_ID,
    answer_id,
    get_request,
    hello_request,
    is_fill,
    is_success,
    lease_request,
    parse_get_answer,
    parse_get_times,
    parse_uint_answer,
    put_request,
    request_frame,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = st.text(min_size=1, max_size=300)
TIMES = st.integers(-(2**63), 2**63 - 1)
FINGERPRINTS = st.none() | st.binary(min_size=1, max_size=300)
IDS = st.integers(FIRST_ID, LAST_ID)


def request(request_id: int, method: str, params: Sequence[object]) -> bytes:
    return encode_frame(encode_request(request_id, method, params))


def answer(result: object, request_id: int = FIRST_ID) -> bytes:
    return encode_frame(encode_answer(request_id, result))


def test_ids_always_take_five_bytes() -> None:
    assert {len(msgpack.packb(number)) for number in (FIRST_ID, LAST_ID)} == {5}


@pytest.mark.parametrize(
    "producer", [None, Producer("zsh", "5.9"), Producer("é" * 20, "v" * 40, 4, "b" * 128)], ids=str
)
def test_hello(producer: Producer | None) -> None:
    client = {"name": "autoloadd-python", "version": "0.1.0", "pid": 70_000}
    params = [[1, 0], producer and producer.as_map(), client]
    frame = hello_request(FIRST_ID, producer, version="0.1.0", pid=70_000)
    assert frame == request(FIRST_ID, "hello", params)


@given(IDS, NAMES, st.none() | TIMES, FINGERPRINTS)
def test_get(request_id: int, name: str, mtime: int | None, fingerprint: bytes | None) -> None:
    raw = name.encode()
    frame = get_request(request_id, raw, binary_mtime_ns=mtime, fingerprint=fingerprint)
    assert frame == request(request_id, "get", [name, mtime, fingerprint])


@given(st.none() | IDS, NAMES, st.binary(max_size=300), st.none() | TIMES, FINGERPRINTS)
def test_put(
    request_id: int | None,
    name: str,
    blob: bytes,
    mtime: int | None,
    fingerprint: bytes | None,
) -> None:
    frame = put_request(
        request_id, name.encode(), blob, binary_mtime_ns=mtime, fingerprint=fingerprint
    )
    head = [2] if request_id is None else [0, request_id]
    message = [*head, "put", [name, blob, mtime, fingerprint, "write"]]
    assert frame == encode_frame(msgpack.packb(message))


@given(IDS, NAMES, st.binary(max_size=300), FINGERPRINTS, TIMES, TIMES)
def test_a_hit_is_taken_apart(
    request_id: int,
    name: str,
    blob: bytes,
    fingerprint: bytes | None,
    mtime: int,
    cached_at: int,
) -> None:
    asked = get_request(request_id, name.encode())
    hit = answer([name, blob, fingerprint, mtime, cached_at], request_id)
    assert hit[4:].startswith(answer_id(asked))
    assert is_success(hit, asked)
    span = parse_get_answer(hit, name.encode())
    assert span is not None
    assert hit[slice(*span)] == blob
    assert parse_get_times(hit, span[1]) == (fingerprint, mtime, cached_at)


def test_a_miss() -> None:
    asked = get_request(FIRST_ID, b"f")
    assert is_success(answer(None), asked)
    assert parse_get_answer(answer(None), b"f") is None


def test_a_refusal_and_a_crossed_answer_are_no_success() -> None:
    asked = get_request(FIRST_ID, b"f")
    refusal = encode_frame(encode_error(FIRST_ID, "busy", "later"))
    assert not is_success(refusal, asked)
    assert refusal[4:].startswith(answer_id(asked))
    assert not is_success(answer(None, FIRST_ID + 1), asked)
    assert not is_success(asked, asked)


ENTRY = ["f", b"blob", b"p", 1, 2]


@pytest.mark.parametrize(
    "result",
    [
        ["g", *ENTRY[1:]],
        ["ff", *ENTRY[1:]],
        ["f", "blob", None, 1, 2],
        ["f", None, None, 1, 2],
        ENTRY[:4],
        [b"f", *ENTRY[1:]],
        "f",
        [],
        7,
        True,
    ],
    ids=repr,
)
def test_what_is_no_entry_of_that_name_is_refused(result: object) -> None:
    with pytest.raises(FrameError, match="no entry of the name"):
        parse_get_answer(answer(result), b"f")


def test_a_hit_that_ends_within_its_blob_is_refused() -> None:
    hit = answer(ENTRY)
    blob_end = hit.index(b"blob") + 4
    for end in range(12, blob_end + 1):
        with pytest.raises(FrameError):
            parse_get_answer(hit[:end], b"f")


@pytest.mark.parametrize(
    "tail", [b"", b"\xc4", b"\xc0", b"\xc0\xc0\x01", b"\xc0\x01\xa1a", b"\xc0\x01"]
)
def test_a_hit_with_a_wrong_end_is_refused(tail: bytes) -> None:
    with pytest.raises(FrameError, match="ends badly"):
        parse_get_times(tail, 0)


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_read(value: int) -> None:
    assert parse_uint_answer(answer(value)) == value


@pytest.mark.parametrize("result", [None, True, -1, "1", b"1", [1], 1.5], ids=repr)
def test_what_is_no_number_is_refused(result: object) -> None:
    with pytest.raises(FrameError, match="expected a number"):
        parse_uint_answer(answer(result))


def test_a_number_with_something_behind_it_or_nothing_at_all_is_refused() -> None:
    for frame in (answer(1) + b"\0", answer(1)[:-1]):
        with pytest.raises(FrameError, match="expected a number"):
            parse_uint_answer(frame)


def test_a_frame_of_encoded_parameters() -> None:
    frame = request_frame(None, b"delete", msgpack.packb(["f"]))
    assert frame == encode_frame(msgpack.packb([2, "delete", [["f"]]]))


@given(IDS, NAMES, TIMES, FINGERPRINTS, st.integers(0, 10_000), st.none() | st.integers(1, 120_000))
def test_lease(
    request_id: int,
    name: str,
    mtime: int,
    fingerprint: bytes | None,
    wait: int,
    hold: int | None,
) -> None:
    for stale_ok in (False, True):
        frame = lease_request(
            request_id,
            name.encode(),
            binary_mtime_ns=mtime,
            fingerprint=fingerprint,
            wait_ms=wait,
            hold_ms=hold,
            stale_ok=stale_ok,
        )
        params = [name, mtime, fingerprint, wait, hold, stale_ok]
        assert frame == request(request_id, "lease", params)
    bare = [name, None, None, 0, None, False]
    assert lease_request(request_id, name.encode()) == request(request_id, "lease", bare)


def test_only_fill_is_fill() -> None:
    assert is_fill(answer("fill"))
    for other in (None, "full", b"fill", ["fill"], "fill ", ["fill", b"", None, 0, 0]):
        assert not is_fill(answer(other))
