"""Reads the test vectors: JSON in, bytes and values out. README.md describes the form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent


def load(name: str) -> list[dict[str, Any]]:
    """Return the cases of one file, such as `requests`."""
    cases: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text())
    return cases


def data_of(parts: str | list[Any], **placeholders: bytes) -> bytes:
    """Return the bytes that hex, or a list of its parts, stands for."""
    if isinstance(parts, str):
        return bytes.fromhex(parts)
    return b"".join(_part(part, placeholders) for part in parts)


def _part(part: str | dict[str, Any], placeholders: dict[str, bytes]) -> bytes:
    match part:
        case str():
            return bytes.fromhex(part)
        case {"placeholder": name}:
            return placeholders[str(name)]
        case {"repeat": once, "times": times}:
            return bytes.fromhex(str(once)) * int(times)
        case _:
            raise ValueError(f"{part!r} is no part of a vector")


def value_of(typed: Any) -> Any:
    """Return the value that typed JSON stands for."""
    match typed:
        case {"bin": parts}:
            return data_of(parts)
        case {"str": parts}:
            return data_of(parts).decode()
        case {"int": digits}:
            return int(digits)
        case {"map": pairs}:
            return {value_of(key): value_of(value) for key, value in pairs}
        case list():
            return [value_of(item) for item in typed]
        case dict():
            raise ValueError(f"{typed!r} is no value of a vector")
        case _:
            return typed


def frozen(value: Any) -> Any:
    """Return a value as decoding gives it: arrays are tuples."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {frozen(key): frozen(item) for key, item in value.items()}
    return value
