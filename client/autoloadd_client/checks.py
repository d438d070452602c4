"""What a caller gives, checked before it is sent: the same rules as the daemon's, the same errors.

No server sets its limits lower, so what passes here is refused there only for other reasons, and
what does not pass costs no round trip. Each function raises BadRequestError or TooLargeError.
"""

from __future__ import annotations

from autoloadd_protocol import parameters
from autoloadd_protocol.encoding import (
    array_header,
    bin_header,
    encode_optional_bin,
    encode_optional_int,
    encode_str,
)
from autoloadd_protocol.errors import BAD_REQUEST, RequestError
from autoloadd_protocol.limits import LEASE_HOLD_MS, LEASE_WAIT_MS

from .entry import Entry
from .errors import BadRequestError, refusal

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    Value = TypeVar("Value")


_NONE = type(None)
_MS = 1000


def checked(
    read: Callable[[object], Value], value: object, kinds: tuple[type, ...], wanted: str
) -> Value:
    """Return what one of `parameters.read_*` makes of a value of one of the kinds."""
    if not isinstance(value, kinds):
        got = "None" if value is None else type(value).__name__
        raise refusal(BAD_REQUEST, f"{wanted}, got {got}")
    try:
        return read(value)
    except RequestError as exc:
        raise refusal(exc.code, exc.message, exc.detail) from exc
    except UnicodeEncodeError as exc:
        raise refusal(BAD_REQUEST, f"a name: {value!a:.80} has no UTF-8 form") from exc


def check_name(name: str) -> bytes:
    """Return a name's UTF-8 bytes: 1 to 1,024 of them."""
    return checked(parameters.read_name, name, (str,), "a name: expected str")


def check_blob(blob: bytes | bytearray | memoryview) -> bytes:
    """Return a blob as bytes: at most 4 MiB."""
    if isinstance(blob, (bytearray, memoryview)):
        blob = bytes(blob)
    return checked(parameters.read_blob, blob, (bytes,), "a blob: expected bytes")


def check_fingerprint(fingerprint: bytes | None) -> bytes | None:
    """Return a fingerprint: None, or 1 to 1,024 bytes."""
    wanted = "a fingerprint: expected bytes or None"
    return checked(parameters.read_fingerprint, fingerprint, (bytes, _NONE), wanted)


def check_time(time_ns: int | None) -> int | None:
    """Return a time: None, or a signed 64-bit number of ns."""
    wanted = "a time: expected a signed 64-bit int (ns) or None"
    try:
        return checked(parameters.read_time, time_ns, (int, _NONE), wanted)
    except BadRequestError as exc:
        raise refusal(BAD_REQUEST, f"{wanted}, got {time_ns!r:.40}") from exc


def check_sync(sync: str) -> str:
    """Return one of "memory", "write", "fsync"."""
    return checked(
        parameters.read_sync, sync, (str,), 'sync: expected "memory", "write" or "fsync"'
    )


def check_wait(seconds: float) -> int:
    """Return how long to wait for a lease, in ms: at most 10,000."""
    most = LEASE_WAIT_MS / _MS
    wanted = f"wait: expected 0 to {most:g} (s)"
    return checked(parameters.read_wait, _milliseconds(seconds, most), (int,), wanted)


def check_hold(seconds: float) -> int:
    """Return how long to hold a lease, in ms: 1 to 120,000."""
    most = LEASE_HOLD_MS / _MS
    wanted = f"hold: expected 0.001 to {most:g} (s)"
    return checked(parameters.read_hold, _milliseconds(seconds, most), (int,), wanted)


def _milliseconds(seconds: float, most: float) -> int | None:
    """Return seconds as ms; None where they are too many, or no number."""
    return round(seconds * _MS) if 0 <= seconds <= most else None


def check_list(names: Iterable[Value]) -> Iterable[Value]:
    """Return names that are not one str, whose letters would be taken for names."""
    if isinstance(names, str):
        raise refusal(BAD_REQUEST, f"names: give a list of names, not the str {names!r:.80}")
    return names


def encode_pair(name: str, entry: bytes | bytearray | memoryview | Entry) -> bytes:
    """Return a name and its entry as they stand in a map of entries."""
    key = encode_str(check_name(name))
    if not isinstance(entry, Entry):
        blob = check_blob(entry)
        return b"".join((key, array_header(1), bin_header(len(blob)), blob))
    blob = check_blob(entry.blob)
    return b"".join(
        (
            key,
            array_header(4),
            bin_header(len(blob)),
            blob,
            encode_optional_bin(check_fingerprint(entry.fingerprint)),
            encode_optional_int(check_time(entry.binary_mtime_ns)),
            encode_optional_int(check_time(entry.cached_at_ns)),
        )
    )
