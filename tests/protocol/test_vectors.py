"""Our encoders give the bytes of the test vectors, which they had no part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]
import pytest

from autoloadd_protocol import encoding
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.framing import FrameDecoder, encode_frame
from autoloadd_protocol.messages import (
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
from autoloadd_protocol.producer import producer_from_map
from autoloadd_protocol.record import encode_record, parse_record
from autoloadd_protocol.requests import (
    encode_producer,
    get_request,
    is_fill,
    is_success,
    lease_request,
    parse_get_answer,
    parse_get_times,
    put_request,
    request_frame,
)

from ..vectors.generate import write_all
from ..vectors.loading import VECTORS, data_of, frozen, load, value_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("requests", "answers", "boundaries", "refused", "dialogue")


def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    write_all(tmp_path)
    for name in NAMES:
        frozen_bytes = (VECTORS / f"{name}.json").read_bytes()
        assert frozen_bytes == (tmp_path / f"{name}.json").read_bytes()


def payload_of(frame: bytes) -> bytes:
    """Return the one payload that a frame holds."""
    decoder = FrameDecoder()
    decoder.receive_data(frame)
    payload = decoder.next_payload()
    assert payload is not None
    assert decoder.buffered_bytes == 0
    return bytes(payload)


def test_requests() -> None:
    for case in load("requests"):
        frame, params = data_of(case["frame"]), value_of(case["params"])
        message: Request | Notification
        if case["id"] is None:
            payload = encode_notification(case["method"], params)
            message = Notification(case["method"], frozen(params))
        else:
            payload = encode_request(case["id"], case["method"], params)
            message = Request(case["id"], case["method"], frozen(params))
        assert encode_frame(payload) == frame
        assert decode_request(payload_of(frame)) == message
        encoded = (msgpack.packb(param) for param in params)
        assert request_frame(case["id"], case["method"].encode(), *encoded) == frame


def test_every_method_has_a_request_with_all_its_parameters_and_with_none_to_spare() -> None:
    counts: dict[str, set[int]] = {}
    for case in load("requests"):
        counts.setdefault(case["method"], set()).add(len(case["params"]))
    assert {method: (min(found), max(found)) for method, found in counts.items()} == {
        **dict.fromkeys(("ping", "status", "shutdown", "shards", "count", "flush"), (0, 0)),
        "hello": (1, 3),
        "drop_shard": (1, 1),
        "get": (1, 3),
        "get_many": (1, 2),
        "put": (2, 5),
        "put_many": (1, 3),
        "bulk_begin": (1, 3),
        "bulk_add": (2, 2),
        "bulk_commit": (1, 2),
        "bulk_abort": (1, 1),
        "delete": (1, 2),
        "clear": (0, 1),
        "names": (0, 4),
        "missing": (1, 2),
        "stats": (0, 1),
        "attach": (2, 2),
        "lease": (1, 6),
        "unlease": (1, 1),
        "watch": (0, 1),
    }


def test_answers() -> None:
    for case in load("answers"):
        frame = data_of(case["frame"])
        result, error = value_of(case["result"]), value_of(case["error"])
        if error is None:
            payload = encode_answer(case["id"], result)
        else:
            payload = encode_error(case["id"], *error)
        assert encode_frame(payload) == frame
        expected = Answer(case["id"], frozen(error), frozen(result))
        assert decode_answer(payload_of(frame)) == expected


def test_every_code_has_an_answer() -> None:
    codes = {value_of(case["error"])[0] for case in load("answers") if case["error"]}
    assert codes == {
        *("bad_request", "bad_frame", "unknown_method", "unsupported_protocol", "no_producer"),
        *("too_large", "not_durable", "busy", "shutting_down", "internal"),
    }
    assert max(map(len, codes)) <= 31


def encode(value: object) -> bytes:
    """Return a scalar by our own encoders."""
    match value:
        case int():
            return encoding.encode_int(value)
        case str():
            return encoding.encode_str(value.encode())
        case bytes():
            return encoding.encode_optional_bin(value)
        case _:
            raise TypeError(value)


def test_boundaries_of_values_and_headers() -> None:
    headers: dict[str, Callable[[int], bytes]] = {
        "array_header": encoding.array_header,
        "map_header": encoding.map_header,
    }
    seen = set()
    for case in load("boundaries"):
        if "value" in case:
            assert encode(value_of(case["value"])) == data_of(case["hex"])
            seen.add(data_of(case["hex"])[0])
        for key in headers.keys() & case.keys():
            assert headers[key](case[key]) == data_of(case["hex"])
            seen.add(data_of(case["hex"])[0])
    unused_or_not_ours = {0xC1, *range(0xC7, 0xCC), *range(0xD4, 0xD9), 0xC0, 0xC2, 0xC3}
    assert {*range(0xC0, 0xE0)} - unused_or_not_ours <= seen


def test_boundaries_of_entries() -> None:
    for case in load("boundaries"):
        if "entry" not in case:
            continue
        name, blob, fingerprint, mtime, cached_at = value_of(case["entry"])
        raw = name.encode()
        put = put_request(
            0x10000, raw, blob, binary_mtime_ns=mtime, fingerprint=fingerprint, sync="write"
        )
        # Ours names the durability that the vector leaves to the server.
        sent = decode_request(payload_of(data_of(case["put"])))
        assert decode_request(payload_of(put)).params == (*sent.params, "write")
        get = get_request(0x10000, raw)
        assert decode_request(payload_of(get)).params == (name, None, None)
        answer = data_of(case["get_answer"])
        assert is_success(answer, get)
        span = parse_get_answer(answer, raw)
        assert span is not None
        assert answer[slice(*span)] == blob
        assert parse_get_times(answer, span[1]) == (fingerprint, mtime, cached_at)
        record = encode_record(raw, blob, fingerprint, mtime, cached_at)
        body = bytes(record.buffer[record.start : record.end])
        assert encode_frame(answer_head(0x10000) + body) == answer
        assert parse_record(body, 0, len(body)).blob_end == record.blob_end - record.start
        many = decode_request(payload_of(data_of(case["put_many"])))
        assert many.params == ({name: (blob, fingerprint, mtime, cached_at)},)


def test_leases() -> None:
    """What `lease_request` leaves to nobody: it writes every parameter."""
    complete = [case for case in load("requests") if case["method"] == "lease"]
    written = 0
    for case in complete:
        name, mtime, fingerprint, wait, hold, stale = [*value_of(case["params"]), *[None] * 5][:6]
        if wait is None or stale is None:
            continue
        frame = lease_request(
            case["id"],
            name.encode(),
            binary_mtime_ns=mtime,
            fingerprint=fingerprint,
            wait_ms=wait,
            hold_ms=hold,
            stale_ok=stale,
        )
        assert frame == data_of(case["frame"])
        written += 1
    assert written == 9
    fills = [case["result"] for case in load("answers") if is_fill(data_of(case["frame"]))]
    assert fills == ["fill"]


def test_producers_of_the_requests() -> None:
    for case in load("requests"):
        params = value_of(case["params"])
        if case["method"] != "hello" or len(params) < 2 or params[1] is None:
            continue
        producer = producer_from_map(params[1])
        expected = {key: value for key, value in params[1].items() if value is not None}
        assert producer.as_map() == expected
        assert encode_producer(producer) == msgpack.packb(expected)


def outcome(sent: bytes) -> tuple[str, int | None] | Request | Notification:
    """Return what the protocol package alone says of a frame: a refusal, or the message."""
    decoder = FrameDecoder()
    decoder.receive_data(sent)
    try:
        payload = decoder.next_payload()
        assert payload is not None
        message = decode_request(payload)
        refuse_unusual(message.params, request_id=getattr(message, "id", None))
    except (FrameError, InvalidMessageError) as exc:
        return exc.code, exc.request_id
    return message


IN_MESSAGES = [case for case in load("refused") if case["code"] == "bad_frame"]


@pytest.mark.parametrize("case", IN_MESSAGES, ids=[case["why"] for case in IN_MESSAGES])
def test_every_bad_frame_is_found_without_a_server(case: dict[str, Any]) -> None:
    assert outcome(data_of(case["send"])) == ("bad_frame", case["id"])


def test_nothing_else_that_is_refused_is_a_bad_frame() -> None:
    for case in load("refused"):
        if case["code"] != "bad_frame":
            found = outcome(data_of(case["send"]))
            assert isinstance(found, Request) or found == (case["code"], case["id"])
