"""A plain put is read as the general way reads it, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_protocol.errors import FrameError, RequestError
from autoloadd_protocol.framing import LENGTH_BYTES, encode_frame
from autoloadd_protocol.limits import BLOB_BYTES
from autoloadd_protocol.messages import (
    Request,
    answer_head,
    decode_request,
    encode_answer,
    encode_request,
)
from autoloadd_protocol.parameters import (
    read_blob,
    read_fingerprint,
    read_name,
    read_params,
    read_sync,
    read_time,
)
from autoloadd_protocol.plain_put import answer_to_put, read_plain_put
from autoloadd_protocol.record import Record, encode_record
from autoloadd_protocol.requests import FIRST_ID, LAST_ID, put_request

NOW_NS = 1_700_000_000_123_456_789
TIMES = st.none() | st.integers(-(2**63), 2**63 - 1)
FINGERPRINTS = st.none() | st.binary(min_size=1, max_size=230)
SYNCS = st.sampled_from(["memory", "write", "fsync"])
IDS = st.integers(FIRST_ID, LAST_ID)

Found = tuple[bytes, bytes, Record, str]


def read_in_general(frame: bytes) -> Found | None:
    """Return what `methods.changes.put` makes of a frame; None where it is refused."""
    try:
        request = decode_request(frame[4:])
        if not isinstance(request, Request) or request.method != "put":
            return None
        name, blob, mtime, fingerprint, sync = read_params(request.params, 2, 3)
        record = encode_record(
            read_name(name),
            read_blob(blob),
            read_fingerprint(fingerprint),
            read_time(mtime) or 0,
            NOW_NS,
        )
        return request.id.to_bytes(4, "big"), name.encode(), record, read_sync(sync)
    except (FrameError, RequestError):
        return None


@given(
    IDS,
    st.text(st.characters(max_codepoint=127), min_size=1, max_size=31),
    st.binary(max_size=70_000),
    TIMES,
    FINGERPRINTS,
    SYNCS,
)
def test_what_our_clients_send_is_plain(
    request_id: int,
    name: str,
    blob: bytes,
    mtime: int | None,
    fingerprint: bytes | None,
    sync: str,
) -> None:
    frame = put_request(
        request_id,
        name.encode(),
        blob,
        binary_mtime_ns=mtime,
        fingerprint=fingerprint,
        sync=sync,
    )
    found = read_plain_put(frame, NOW_NS)
    assert found is not None
    assert found == read_in_general(frame)


@given(st.data())
def test_a_frame_that_was_changed_is_read_as_in_general_or_not_at_all(data: st.DataObject) -> None:
    frame = bytearray(
        put_request(
            FIRST_ID,
            data.draw(st.text(min_size=1, max_size=33)).encode(),
            data.draw(st.binary(max_size=300)),
            binary_mtime_ns=data.draw(TIMES),
            fingerprint=data.draw(FINGERPRINTS),
            sync=data.draw(SYNCS | st.just("never")),
        )
    )
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["change", "cut", "add"])):
            case "change":
                frame[at] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[at : at + data.draw(st.integers(1, 4))]
            case _:
                frame[at:at] = data.draw(st.binary(max_size=4))
        frame = frame or bytearray(1)
    if data.draw(st.booleans()) and len(frame) > 4:
        frame[:4] = (len(frame) - 4).to_bytes(4, "big")
    found = read_plain_put(bytes(frame), NOW_NS)
    if found is not None:
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        assert found == read_in_general(bytes(frame))


def test_longer_forms_are_stored_in_the_shortest() -> None:
    """Any form of a blob's length is valid on the wire; there is one on disk."""
    frame = put_request(FIRST_ID, b"name", b"blob", binary_mtime_ns=7)
    at = frame.index(b"\xc4\x04blob")
    longer = frame[4:at] + b"\xc6\0\0\0\x04" + frame[at + 2 :]
    found = read_plain_put(encode_frame(longer), NOW_NS)
    assert found is not None
    assert found == read_plain_put(frame, NOW_NS)


def framed(*params: object, request_id: int = FIRST_ID, method: str = "put") -> bytes:
    return encode_frame(encode_request(request_id, method, params))


PLAIN = framed("name", b"blob", None, None, None)
NIL_AS_NAME = b"\x94\x00\xce\x00\x01\x00\x00\xa3put\x95\xc0" + b"n" * 32 + b"\xc4\x00\xc0\xc0\xc0"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0",
        framed("name", b"blob"),
        framed("n" * 32, b"blob", None, None, None),
        framed("ä", b"blob", None, None, None),
        framed("", b"blob", None, None, None),
        framed(b"name", b"blob", None, None, None),
        framed("name", "blob", None, None, None),
        framed("name", b"blob", None, None, "never"),
        framed("name", b"blob", None, b"", None),
        framed("name", b"blob", None, bytes(300), None),
        framed("name", b"blob", True, None, None),
        framed("name", b"blob", 2**63, None, None),
        framed("name", b"blob", None, None, None, request_id=5),
        framed("name", b"blob", None, None, None, method="get"),
        PLAIN + b"\0",
        PLAIN[:-1],
        (len(PLAIN) - LENGTH_BYTES + 1).to_bytes(4, "big") + PLAIN[LENGTH_BYTES:],
        encode_frame(NIL_AS_NAME),
        framed("name", bytes(BLOB_BYTES + 1), None, None, None),
    ],
    ids=[
        "nothing",
        "no head",
        "two parameters",
        "long name",
        "not ASCII",
        "no name",
        "bin as name",
        "str as blob",
        "unknown sync",
        "empty fingerprint",
        "long fingerprint",
        "bool as time",
        "time too late",
        "short id",
        "get",
        "more behind",
        "not whole",
        "more to come",
        "nil as name",
        "blob too large",
    ],
)
def test_everything_else_is_not_plain(frame: bytes) -> None:
    assert read_plain_put(frame, NOW_NS) is None


def test_left_out_times_and_syncs_are_those_of_the_general_way() -> None:
    frame = framed("name", b"blob", None, None, None)
    found = read_plain_put(frame, NOW_NS)
    assert found is not None
    assert found == read_in_general(frame)
    assert found[3] == "write"


@given(IDS, st.integers(0, 2**64 - 1))
def test_the_answer_is_that_of_the_general_way(request_id: int, generation: int) -> None:
    answer = answer_to_put(request_id.to_bytes(4, "big"), generation)
    assert answer == encode_frame(encode_answer(request_id, generation))
    assert answer[4:].startswith(answer_head(request_id))
