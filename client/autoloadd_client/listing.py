"""Calls on many names: each takes as many round trips as the limits of a frame make it.

`ask` makes one round trip, `(method, *params)`, and bounds all of them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoloadd_protocol.limits import NAMES

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


def get_many(ask: Ask, names: Iterable[str], binary_mtime_ns: int | None) -> dict[str, Entry]:
    """Return the entries of those names that are present and fresh."""
    found: dict[str, Entry] = {}
    for batch in batches(dict.fromkeys(names), lambda name: len(check_name(name))):
        wanted = batch
        while wanted:
            answer = require_items(ask("get_many", wanted, binary_mtime_ns), 2)
            entries, left = require_map(answer[0]), list(require_items(answer[1]))
            _check_progress(wanted, entries, left)
            found.update((name, _entry_of(entry)) for name, entry in entries.items())
            wanted = left
    return found


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


def _entry_of(entry: object) -> Entry:
    match entry:
        case (bytes(blob), None | bytes() as fingerprint, int(mtime_ns), int(cached_at_ns)):
            return Entry(blob, fingerprint, mtime_ns, cached_at_ns)
        case _:
            raise ForgedError(f"expected an entry, got {entry!r:.80}")


def _is_behind(name: str, after: str) -> bool:
    return name.encode() > after.encode()
