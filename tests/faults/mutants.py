"""Requests with something wrong in them: made from good ones, by structure and by bytes.

A mutant is a whole frame, its length right unless that is what is wrong. Which ones come is decided
by the generator that is given: a seed is enough to have one again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from autoloadd_protocol.framing import encode_frame

from ..vectors.loading import load, value_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Damage = Callable[[bytes, random.Random], bytes]

ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    127,
    128,
    2**32,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    0.5,
    float("nan"),
    "",
    "a",
    "é" * 600,
    "n" * 1025,
    b"",
    b"b",
    bytes(1025),
    bytes(5 * 1024 * 1024),
    [],
    [[]],
    [[[[[[[[[]]]]]]]]],
    [None] * 17,
    ["a"] * 3000,
    [["a", b"f", 1]] * 3,
    {},
    {"a": [b""]},
    {"a": [b"", None, None, None, None]},
    {b"a": [b""]},
    {1: 2},
    {"a" * 1025: [b"x"]},
    {"name": "zsh", "version": "1", "pointer_width": 16},
    msgpack.ExtType(1, b"ext"),
    msgpack.Timestamp(1),
]

ODD_ENCODINGS = [
    b"\xc1",  # what MessagePack never uses
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\xda\xff\xff",
    b"\xa2\xff\xfe",  # no UTF-8
    b"\xa3\xed\xa0\x80",  # a surrogate
    b"\xd9\x01a",  # no shortest form: good
    b"\xcf" + bytes(7) + b"\x01",
    b"\xd3" + bytes(7) + b"\x01",
    b"\xc4\x00",
    b"\xc7\x00\x05",
    b"\x91" * 40,
    b"\x82\xa1a\xc0\xa1a\xc0",  # a key twice
    b"\x81\x80\xc0",  # a map as a key
]


def good_requests() -> list[list[Any]]:
    """Return requests and notifications of each method, but for those that end the daemon."""
    found: list[list[Any]] = []
    for case in load("requests"):
        if case["method"] == "shutdown":
            continue
        head = [2] if case["id"] is None else [0, case["id"]]
        found.append([*head, case["method"], value_of(case["params"])])
    return found


def mutant(request: list[Any], generator: random.Random) -> bytes:
    """Return a frame made of a good request, with one to three things wrong with it."""
    value: Any = request
    for _ in range(generator.randint(0, 2)):
        value = _with_an_odd_value(value, generator)
    payload: bytes = msgpack.packb(value)
    if generator.random() < 0.5:
        payload = generator.choice(_DAMAGES)(payload, generator)
    frame = encode_frame(payload)
    if generator.random() < 0.05:
        length = generator.choice((0, 1, len(payload) - 1, len(payload) + 1, 2**23 + 1, 2**32 - 1))
        frame = struct.pack(">I", max(length, 0)) + payload
    return frame


def _with_an_odd_value(value: Any, generator: random.Random) -> Any:
    """Return a copy in which one item, at any depth, is replaced, doubled, removed or added."""
    if isinstance(value, list) and value and generator.random() < 0.8:
        at = generator.randrange(len(value))
        return generator.choice(
            (
                [*value[:at], _with_an_odd_value(value[at], generator), *value[at + 1 :]],
                [*value[:at], _with_an_odd_value(value[at], generator), *value[at + 1 :]],
                [*value[:at], *value[at + 1 :]],
                [*value[:at], value[at], *value[at:]],
                [*value, generator.choice(ODD_VALUES)],
            )
        )
    if isinstance(value, dict) and value and generator.random() < 0.8:
        key = generator.choice(list(value))
        rest = {other: item for other, item in value.items() if other != key}
        odd_key = generator.choice(("a", "name", b"a", 1, "x" * 2000))
        return generator.choice(
            (
                {**value, key: _with_an_odd_value(value[key], generator)},
                rest,
                {**rest, odd_key: value[key]},
            )
        )
    return generator.choice(ODD_VALUES)


def _flip_a_bit(payload: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(payload))
    return payload[:at] + bytes([payload[at] ^ 1 << generator.randrange(8)]) + payload[at + 1 :]


def _cut(payload: bytes, generator: random.Random) -> bytes:
    return payload[: generator.randrange(1, len(payload) + 1)]


def _add(payload: bytes, generator: random.Random) -> bytes:
    return payload + generator.choice((b"\x00", b"\xc0", payload, bytes(5000)))


def _put_an_odd_encoding_in(payload: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(payload))
    return payload[:at] + generator.choice(ODD_ENCODINGS) + payload[at + generator.randint(0, 3) :]


def _repeat_a_part(payload: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(payload))
    part = payload[at : at + generator.randint(1, 8)]
    return payload[:at] + part * generator.choice((2, 20, 5000)) + payload[at:]


_DAMAGES: list[Damage] = [
    _flip_a_bit,
    _flip_a_bit,
    _cut,
    _add,
    _put_an_odd_encoding_in,
    _repeat_a_part,
]
