"""Makes boundaries.json."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from .shapes import CACHED_AT, TIME, Case, answer, frame, hexed, pack, request, typed


def boundaries() -> list[Case]:
    """Return values on both sides of each width, alone and as name and blob of an entry."""
    numbers = [
        number
        for bits in (5, 7, 8, 15, 16, 31, 32, 63, 64)
        for number in (2**bits - 1, 2**bits, -(2**bits), -(2**bits) - 1)
        if -(2**63) <= number < 2**64
    ]
    cases = [_value(number) for number in numbers]
    cases += [_value("a" * size) for size in (0, 1, 31, 32, 255, 256, 1024, 65535, 65536)]
    cases += [_value(b"\x00" * size) for size in (0, 1, 255, 256, 65535, 65536)]
    for size in (0, 1, 15, 16, 65535, 65536):
        header = msgpack.Packer()
        cases.append({"array_header": size, "hex": header.pack_array_header(size).hex()})
        cases.append({"map_header": size, "hex": header.pack_map_header(size).hex()})
    cases += [_value(text) for text in ("\x00", "\n", "é", "\U0001f41a", "_git\x00\n")]
    cases += [_entry("n" * size, b"x") for size in (1, 31, 32, 255, 256, 1024)]
    cases += [_entry("é" * 512, b"x")]
    cases += [_entry("f", b"\xff" * size) for size in (0, 255, 256, 65535, 65536)]
    cases += [_entry("f", b"", fingerprint=b"p" * size) for size in (1, 255, 256, 1024)]
    return cases


def _value(value: object) -> Case:
    return {"value": typed(value), "hex": hexed(pack(value))}


def _entry(name: str, blob: bytes, fingerprint: bytes | None = None) -> Case:
    entry = [blob, fingerprint, TIME, CACHED_AT]
    return {
        "entry": typed([name, *entry]),
        "put": frame(request("put", name, blob, TIME, fingerprint)),
        "put_many": frame(request("put_many", {name: entry})),
        "get": frame(request("get", name)),
        "get_answer": frame(answer([name, *entry])),
    }
