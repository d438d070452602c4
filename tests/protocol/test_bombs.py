"""No payload, however hostile, makes decoding take more memory than the largest useful request."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]
import pytest

from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.limits import FRAME_BYTES, NAMES
from autoloadd_protocol.messages import OversizedMessageError, decode_request, encode_request

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


HEAD = b"\x94\x00\x05\xa1m"


def many(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


NAMES_HEAD = HEAD + b"\x91" + many(NAMES)
BOMBS = {
    "3 kB of array headers": b"\xdc\xff\xff" * 1024,
    "3 kB of array headers in params": HEAD + b"\xdc\xff\xff" * 1024,
    "array headers that each fit": b"\xdc\x01\xff" * 1300,
    "array headers that fit, in params": HEAD + b"\xdc\x01\xff" * 1300,
    "map headers": b"\xde\xff\xff" * 1024,
    "map headers that each fit": HEAD + b"\xde\x01\xff" * 1300,
    "map headers in keys": HEAD + b"\x91" + b"\xdf\x00\x00\x01\xff" * 800,
    "1,000,000 empty arrays": many(MIB - 10) + b"\x90" * (MIB - 10),
    "1,000,000 empty arrays as params": HEAD + many(MIB - 10) + b"\x90" * (MIB - 10),
    "1,000,000 empty arrays as names": HEAD + b"\x91" + many(MIB - 20) + b"\x90" * (MIB - 20),
    "1,000,000 empty arrays in names": HEAD
    + b"\x91"
    + many(NAMES)
    + (b"\x9f" + b"\x90" * 15) * NAMES,
    "1,000,000 empty maps in names": HEAD
    + b"\x91"
    + many(NAMES)
    + (b"\x9f" + b"\x80" * 15) * NAMES,
    "65,536 maps of 15": NAMES_HEAD + pack(dict.fromkeys(range(15), 0)) * NAMES,
    "65,536 empty maps": NAMES_HEAD + b"\x80" * NAMES,
    "16 times 65,536 names": HEAD + b"\xdc\x00\x10" + (many(NAMES) + b"\xa2\xc4\x80" * NAMES) * 16,
    "8 MiB of numbers": many(FRAME_BYTES - 5) + b"\x00" * (FRAME_BYTES - 5),
    "8 MiB of numbers as params": HEAD + many(FRAME_BYTES - 20) + b"\x00" * (FRAME_BYTES - 20),
    "8 MiB of nesting": HEAD + b"\x91" * (FRAME_BYTES - 20) + b"\x90",
    "5,000 levels": b"\x91" * 5000 + b"\x90",
    "5,000 levels of maps": HEAD + b"\x91" + b"\x81\x00" * 5000 + b"\x00",
    "maps of maps of maps": HEAD + b"\x91" + many(4000) + b"\x88\x00\x81\x00\x80" * 4000,
}


@pytest.fixture(name="peak")
def _peak() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_takes_less_than_16_mib(payload: bytes, peak: Any) -> None:
    with pytest.raises((FrameError, OversizedMessageError)):
        decode_request(payload)
    assert peak() < 16 * MIB


def test_no_shape_takes_more_than_the_largest_useful_request(peak: Any) -> None:
    """Arrays of 4 short texts outside Latin-1, where msgpack makes most of a byte."""
    payload = NAMES_HEAD + (b"\x94" + b"\xa2\xc4\x80" * 4) * NAMES
    decode_request(payload)
    assert peak() < 32 * MIB


@pytest.mark.parametrize(
    ("payload", "request_id", "is_notification"),
    [
        (HEAD + b"\x91" + many(NAMES + 1) + b"\xa1a" * (NAMES + 1), 5, False),
        (HEAD + b"\x92" + b"\x91\xa1a" + many(NAMES) + b"\xa1a" * NAMES, 5, False),
        (b"\x93\x02\xa1m\x91" + many(NAMES + 1) + b"\xa1a" * (NAMES + 1), None, True),
        (
            encode_request(5, "m", [dict.fromkeys(map(str, range(NAMES + 1)))]),
            5,
            False,
        ),
    ],
    ids=["an array", "two arrays", "a notification", "a map"],
)
def test_more_names_than_65536_are_too_large_and_the_stream_goes_on(
    payload: bytes, request_id: int | None, is_notification: bool
) -> None:
    with pytest.raises(OversizedMessageError) as caught:
        decode_request(payload)
    assert caught.value.code == "too_large"
    assert caught.value.detail == {"limit": "names", "max": NAMES, "got": NAMES + 1}
    assert caught.value.request_id == request_id
    assert caught.value.is_notification is is_notification
