"""Calls on many names: each takes as many round trips as the limits of a frame make it.

`ask` makes one round trip, `(method, *params)`, and bounds all of them together.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from autoloadd_protocol.limits import LISTED_NAMES, NAME_BYTES, NAMES

from .calls import notify, require_int, require_items, require_map
from .checks import check_fingerprint, check_name, check_time
from .entry import Entry
from .errors import ForgedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .cache import Wanted
    from .connection import Connection

    Ask = Callable[..., Any]

_REQUEST_BYTES = 2 * 1024 * 1024
"""Names (and fingerprints) of one request, in bytes: an answer then has room for the largest blob
beside all the names, should they be left over."""

_CHARACTER_BYTES = 4
_SURE_CHARACTERS = NAME_BYTES // _CHARACTER_BYTES
_SURE_TOTAL = _REQUEST_BYTES // _CHARACTER_BYTES
"""Characters of a name, and of one request's names, that are within the limits in any case."""


def get_many(ask: Ask, names: Iterable[str], binary_mtime_ns: int | None) -> dict[str, bytes]:
    """Return the blobs of those names that are present and fresh."""
    found: dict[str, bytes] = {}
    for batch in name_batches(list(dict.fromkeys(names))):
        for entries in _get_all(ask, batch, binary_mtime_ns):
            found.update(_blobs_of(entries))
    return found


def get_entries(
    ask: Ask, names: Iterable[str], binary_mtime_ns: int | None
) -> Iterator[tuple[str, Entry]]:
    """Yield (name, Entry) of those names that are present and fresh, in the order of the names."""
    remaining = iter(names)
    while page := list(islice(remaining, LISTED_NAMES)):
        found: dict[str, Any] = {}
        for batch in batches(dict.fromkeys(page), lambda name: len(check_name(name))):
            for entries in _get_all(ask, batch, binary_mtime_ns):
                found.update(entries)
        yield from ((name, _read_entry(found[name])) for name in page if name in found)


def _get_all(ask: Ask, wanted: list[str], binary_mtime_ns: int | None) -> Iterator[dict[str, Any]]:
    """Yield maps of entries until none of the names is left over."""
    while wanted:
        answer = require_items(ask("get_many", wanted, binary_mtime_ns), 2)
        entries, left = require_map(answer[0]), list(require_items(answer[1]))
        _check_progress(wanted, entries, left)
        yield entries
        wanted = left


def missing(ask: Ask, names: Iterable[Wanted], binary_mtime_ns: int | None) -> list[str]:
    """Return the names, in their order, that are absent or stale."""
    absent: list[str] = []
    for batch in batches(names, _wanted_bytes):
        absent += require_items(ask("missing", batch, binary_mtime_ns))
    return absent


def delete(ask: Ask, names: Iterable[str], sync: str) -> int:
    """Delete entries; return how many there were."""
    return sum(
        require_int(ask("delete", batch, sync))
        for batch in batches(names, lambda name: len(check_name(name)))
    )


def delete_later(connection: Connection, names: Iterable[str], sync: str, deadline: float) -> None:
    """Delete entries without waiting for an answer."""
    for batch in batches(names, lambda name: len(check_name(name))):
        notify(connection, "delete", (batch, sync), deadline)


def list_names(
    ask: Ask, prefix: str, binary_mtime_ns: int | None
) -> Iterator[tuple[str, bool | None]]:
    """Yield (name, fresh) in the order of the names' bytes."""
    after: str | None = None
    while page := require_items(ask("names", prefix or None, after, None, binary_mtime_ns)):
        for item in page:
            match item:
                case (str(name), None | bool() as fresh) if after is None or _is_behind(
                    name, after
                ):
                    after = name
                    yield name, fresh
                case _:
                    raise ForgedError(f"expected [name, fresh] in order, got {item!r:.80}")


def name_batches(names: list[str]) -> Iterable[list[str]]:
    """Return lists of names, each small enough for one request.

    A few usual names are looked at together: one by one that takes a fifth of a `get_many`.
    """
    if 0 < len(names) <= NAMES and set(map(type, names)) == {str}:
        lengths = tuple(map(len, names))
        if min(lengths) and max(lengths) <= _SURE_CHARACTERS and sum(lengths) <= _SURE_TOTAL:
            with suppress(UnicodeEncodeError):
                "".join(names).encode()
                return [names]
    return batches(names, lambda name: len(check_name(name)))


def batches(items: Iterable[Any], size_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Yield lists of items, each small enough for one request."""
    batch: list[Any] = []
    size = 0
    for item in items:
        size += size_of(item)
        batch.append(item)
        if size >= _REQUEST_BYTES or len(batch) == NAMES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _wanted_bytes(item: Wanted) -> int:
    if isinstance(item, str):
        return len(check_name(item))
    name, fingerprint, binary_mtime_ns = item
    check_time(binary_mtime_ns)
    return len(check_name(name)) + len(check_fingerprint(fingerprint) or b"")


def _check_progress(wanted: list[str], entries: dict[str, Any], left: list[Any]) -> None:
    # Without this a server that leaves everything over would be asked for ever.
    if not entries.keys() <= set(wanted):
        raise ForgedError("the daemon sent entries that were not asked for")
    if left and not (len(left) < len(wanted) and set(left) <= set(wanted)):
        raise ForgedError("the daemon leaves over what was not asked for")


def _blobs_of(entries: dict[str, Any]) -> dict[str, bytes]:
    if not set(map(type, entries.values())) <= {tuple}:
        raise ForgedError("expected entries")
    blobs = {name: entry[0] for name, entry in entries.items() if entry}
    if len(blobs) < len(entries) or not set(map(type, blobs.values())) <= {bytes}:
        raise ForgedError("expected entries, each with a blob")
    return blobs


def _read_entry(entry: object) -> Entry:
    match entry:
        case (bytes(blob), None | bytes() as fingerprint, int(mtime_ns), int(cached_at_ns)):
            return Entry(blob, fingerprint, mtime_ns, cached_at_ns)
        case _:
            raise ForgedError(f"expected an entry, got {entry!r:.80}")


def _is_behind(name: str, after: str) -> bool:
    return name.encode() > after.encode()
