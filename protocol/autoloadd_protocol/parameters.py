"""Checking a request's parameters: a MessagePack value in, a value of the right type and size out.

Each function raises RequestError (`bad_request` or `too_large`) that says which parameter is wrong
and what was expected.
"""

from __future__ import annotations

from .errors import BAD_REQUEST, RequestError, too_large
from .limits import (
    BLOB_BYTES,
    FINGERPRINT_BYTES,
    LEASE_HOLD_MS,
    LEASE_USUAL_HOLD_MS,
    LEASE_WAIT_MS,
    NAME_BYTES,
    NAMES,
)

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SYNC_LEVELS = ("memory", "write", "fsync")
BULK_MODES = ("merge", "replace")

_MIN_TIME = -(2**63)
_MAX_TIME = 2**63 - 1


def bad_request(message: str) -> RequestError:
    """Return the error for a request of the wrong shape: a bug in the client."""
    return RequestError(BAD_REQUEST, message)


def kind_of(value: object) -> str:
    """Return what MessagePack calls a value's type, for people who write clients."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS = {type(None): "nil", tuple: "an array", dict: "a map", bytes: "a bin", str: "a str"}


def read_params(params: Sequence[Any], required: int, optional: int = 0) -> list[Any]:
    """Return exactly `required + optional` parameters; those left out are None."""
    if not required <= len(params) <= required + optional:
        expected = str(required) if not optional else f"{required} to {required + optional}"
        raise bad_request(f"expected {expected} parameters, got {len(params)}")
    return _fill_up(params, required + optional)


def _fill_up(items: Sequence[Any], count: int) -> list[Any]:
    return [*items, *[None] * (count - len(items))]


def read_name(value: object) -> bytes:
    """Return a name's UTF-8 bytes: 1 to 1,024 of them."""
    if not isinstance(value, str):
        raise bad_request(f"a name: expected a str, got {kind_of(value)}")
    name = value.encode()
    if not 0 < len(name) <= NAME_BYTES:
        if not name:
            raise bad_request("a name must have at least one byte")
        raise too_large("name_bytes", NAME_BYTES, len(name))
    return name


def read_blob(value: object) -> bytes:
    """Return a blob: a bin of at most 4 MiB."""
    if not isinstance(value, bytes):
        raise bad_request(f"a blob: expected a bin, got {kind_of(value)}")
    if len(value) > BLOB_BYTES:
        raise too_large("blob_bytes", BLOB_BYTES, len(value))
    return value


def read_fingerprint(value: object) -> bytes | None:
    """Return a fingerprint: None, or a bin of 1 to 1,024 bytes."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise bad_request(f"a fingerprint: expected a bin or nil, got {kind_of(value)}")
    if not value:
        raise bad_request("a fingerprint must have at least one byte")
    if len(value) > FINGERPRINT_BYTES:
        raise too_large("fingerprint_bytes", FINGERPRINT_BYTES, len(value))
    return value


def read_time(value: object) -> int | None:
    """Return a time: None, or ns since the epoch as a signed 64-bit number."""
    if value is None:
        return None
    if type(value) is not int or not _MIN_TIME <= value <= _MAX_TIME:
        raise bad_request("a time: expected a signed 64-bit integer (ns) or nil")
    return value


def read_token(value: object) -> int:
    """Return a bulk token: a u32, at least 1."""
    if type(value) is not int or not 1 <= value <= 0xFFFFFFFF:
        raise bad_request("a token: expected a u32 of at least 1")
    return value


def read_sync(value: object) -> str:
    """Return the durability that a write asks for; `write` is the default."""
    if value is None:
        return "write"
    if value not in SYNC_LEVELS:
        raise bad_request('sync: expected "memory", "write" or "fsync"')
    return str(value)


def read_wait(value: object) -> int:
    """Return how long a lease may be waited for, in ms; not at all is the default."""
    return 0 if value is None else _read_ms(value, "wait_ms", 0, LEASE_WAIT_MS)


def read_hold(value: object) -> int:
    """Return how long a lease lasts at most, in ms; 30,000 is the default."""
    return LEASE_USUAL_HOLD_MS if value is None else _read_ms(value, "hold_ms", 1, LEASE_HOLD_MS)


def _read_ms(value: object, what: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise bad_request(f"{what}: expected {least} to {most:,} (ms) or nil")
    return value


def read_flag(value: object, what: str) -> bool:
    """Return a bool; nil is false."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise bad_request(f"{what}: expected a bool or nil, got {kind_of(value)}")


def read_names(value: object) -> tuple[Any, ...]:
    """Return an array of at most 65,536 items, each still to be read."""
    if not isinstance(value, tuple):
        raise bad_request(f"names: expected an array, got {kind_of(value)}")
    if len(value) > NAMES:
        raise too_large("names", NAMES, len(value))
    return value


def read_entries(value: object) -> dict[Any, Any]:
    """Return a map of at most 65,536 pairs, each still to be read."""
    if not isinstance(value, dict):
        raise bad_request(f"entries: expected a map, got {kind_of(value)}")
    if len(value) > NAMES:
        raise too_large("names", NAMES, len(value))
    return value


def read_entry(value: object) -> tuple[bytes, bytes | None, int | None, int | None]:
    """Return (blob, fingerprint, binary_mtime_ns, cached_at_ns); what was left out is None."""
    if not isinstance(value, tuple) or not 1 <= len(value) <= 4:
        raise bad_request(
            "an entry: expected [blob, fingerprint, binary_mtime_ns, cached_at_ns], "
            "of which all but the blob may be left out"
        )
    blob, fingerprint, mtime, cached_at = _fill_up(value, 4)
    return read_blob(blob), read_fingerprint(fingerprint), read_time(mtime), read_time(cached_at)


def read_wanted(value: object) -> tuple[bytes, bytes | None, int | None]:
    """Return (name, fingerprint, binary_mtime_ns) of an item where a list of names is asked."""
    if isinstance(value, str):
        return read_name(value), None, None
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        raise bad_request("a name: expected a str or [name, fingerprint, binary_mtime_ns]")
    name, fingerprint, mtime = _fill_up(value, 3)
    return read_name(name), read_fingerprint(fingerprint), read_time(mtime)
