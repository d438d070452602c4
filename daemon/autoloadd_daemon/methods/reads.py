"""Methods that change nothing."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from autoloadd_protocol.encoding import (
    NIL,
    array_header,
    encode_optional_bin,
    encode_str,
    encode_uint,
    map_header,
)
from autoloadd_protocol.errors import too_large
from autoloadd_protocol.limits import BLOB_BYTES, FRAME_BYTES, LISTED_NAMES
from autoloadd_protocol.messages import pack
from autoloadd_protocol.parameters import (
    bad_request,
    read_fingerprint,
    read_name,
    read_names,
    read_params,
    read_time,
    read_wanted,
)

from .steps import STEP, Steps, done_at_once, in_steps, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoloadd_daemon.session import Session
    from autoloadd_daemon.shard import Frozen, Shard
    from autoloadd_protocol.record import Record

    from .context import Context

    Params = tuple[Any, ...]
    Parts = list[bytes | memoryview]

_COPIED_BYTES = 4096
"""Up to here a copy costs less than a view."""

_MISS: Parts = [NIL]
_STR_HEADER_BYTES = 3
_ANSWER_HEAD_BYTES = 64
_MAX_WANTED_BYTES = FRAME_BYTES - BLOB_BYTES - 64 * 1024
"""Names in one `get_many`, in bytes: beside them, an entry of any size fits the answer's frame."""


def get(context: Context, session: Session, params: Params) -> Parts:
    """Return one entry if it is there and fresh."""
    name, mtime, fingerprint = read_params(params, 1, 2)
    name_bytes = read_name(name)
    mtime_ns = read_time(mtime)
    shard = context.shard_of(session)
    encoded = None if fingerprint is None else encode_optional_bin(read_fingerprint(fingerprint))
    if shard is None:
        return _MISS
    record = shard.look_up(name_bytes)
    if record is None or not record.is_fresh(mtime_ns, encoded):
        shard.misses += 1
        return _MISS
    shard.hits += 1
    return parts_of(record)


def get_many(context: Context, session: Session, params: Params) -> Parts | Steps[Parts]:
    """Return the entries that are there and fresh, as far as they fit one frame."""
    names, mtime = read_params(params, 1, 1)
    items = read_names(names)
    return done_at_once(_get_many(context, session, items, read_time(mtime)), len(items))


def _get_many(
    context: Context, session: Session, items: Sequence[object], mtime: int | None
) -> Steps[Parts]:
    wanted = yield from in_steps(items, partial(_read_wanted_with, default_mtime=mtime))
    # Whatever does not fit is named in the answer: room for all names is kept from the start.
    names_bytes = sum([len(name) + _STR_HEADER_BYTES for name, _, _ in wanted])
    if names_bytes > _MAX_WANTED_BYTES:
        raise too_large("wanted_bytes", _MAX_WANTED_BYTES, names_bytes)
    room = FRAME_BYTES - _ANSWER_HEAD_BYTES - names_bytes
    shard = _seen(context.shard_of(session), len(wanted))
    found: set[bytes] = set()
    pairs: Parts = []
    left: list[bytes] = []
    for start in range(0, len(wanted), STEP):
        step: Parts = []
        for name, mtime_ns, encoded in wanted[start : start + STEP]:
            record = _fresh(shard, name, mtime_ns, encoded)
            if record is None or name in found:
                continue
            key, size = encode_str(name), record.stored_bytes
            if size > room:
                left.append(key)
                continue
            found.add(name)
            step += _as_pair(key, record)
            room -= size
        pairs += merged(step)
        yield
    return [b"\x92" + map_header(len(found)), *pairs, array_header(len(left)) + b"".join(left)]


def list_names(context: Context, session: Session, params: Params) -> Parts:
    """Return a page of names, and whether each is fresh where a time is given."""
    prefix, after, limit, mtime = read_params(params, 0, 4)
    prefix_bytes = b"" if prefix in (None, "") else read_name(prefix)
    after_bytes = b"" if after in (None, "") else read_name(after)
    count = LISTED_NAMES if limit is None else limit
    if type(count) is not int or not 1 <= count <= LISTED_NAMES:
        raise bad_request(f"limit: expected 1 to {LISTED_NAMES:,}")
    mtime_ns = read_time(mtime)
    shard = context.shard_of(session)
    context.wait_for_images()
    page = [] if shard is None else shard.list_names(prefix_bytes, after_bytes, count)
    freshness = (NIL, b"\xc2", b"\xc3")
    parts: Parts = [array_header(len(page))]
    for name, record in page:
        fresh = 0 if mtime_ns is None else 1 + record.is_fresh(mtime_ns, None)
        parts.append(b"\x92" + encode_str(name) + freshness[fresh])
    return [b"".join(parts)]


def missing(context: Context, session: Session, params: Params) -> Parts | Steps[Parts]:
    """Return those of the names that are absent or stale, in the given order."""
    names, mtime = read_params(params, 1, 1)
    items = read_names(names)
    return done_at_once(_missing(context, session, items, read_time(mtime)), len(items))


def _missing(
    context: Context, session: Session, items: Sequence[object], mtime: int | None
) -> Steps[Parts]:
    wanted = yield from in_steps(items, partial(_read_wanted_with, default_mtime=mtime))
    shard = _seen(context.shard_of(session), len(wanted))
    # It fits a frame: it holds a part of the request's own bytes.
    absent: list[bytes] = []
    for start in range(0, len(wanted), STEP):
        absent += [
            encode_str(name)
            for name, mtime_ns, encoded in wanted[start : start + STEP]
            if _fresh(shard, name, mtime_ns, encoded) is None
        ]
        yield
    return [array_header(len(absent)) + b"".join(absent)]


def count_entries(context: Context, session: Session, params: Params) -> Parts:
    """Return how many entries the shard has."""
    read_params(params, 0)
    shard = context.shard_of(session)
    context.wait_for_images()
    return [encode_uint(0 if shard is None else shard.entries)]


def stats(context: Context, session: Session, params: Params) -> Parts | Steps[Parts]:
    """Return what is known of the shard; fresh and stale are nil where no time is given."""
    (mtime,) = read_params(params, 0, 1)
    mtime_ns = read_time(mtime)
    shard = context.shard_of(session)
    context.wait_for_images()
    if shard is None or mtime_ns is None:
        return [pack(_describe(shard, None if mtime_ns is None else 0))]
    return done_at_once(_stats(shard, mtime_ns), shard.entries)


def _stats(shard: Shard, mtime_ns: int) -> Steps[Parts]:
    described = _describe(shard, 0)
    older = shard.frozen().records_older_than(mtime_ns)
    stale = 0
    while step := list(islice(older, STEP)):
        stale += sum(step)
        yield
    described["stale"] = stale
    described["fresh"] = (described["entries"] or 0) - stale
    return [pack(described)]


def _describe(shard: Shard | None, stale: int | None) -> dict[str, int | None]:
    entries = 0 if shard is None else shard.entries
    return {
        "entries": entries,
        "fresh": None if stale is None else entries - stale,
        "stale": stale,
        "blob_bytes": 0 if shard is None else shard.blob_bytes,
        "generation": 0 if shard is None else shard.generation,
        "hits": 0 if shard is None else shard.hits,
        "misses": 0 if shard is None else shard.misses,
        "evicted": 0 if shard is None else shard.evicted,
    }


def _read_wanted_with(
    item: object, default_mtime: int | None
) -> tuple[bytes, int | None, bytes | None]:
    # As `read_wanted` has it: nearly all are names alone, and this is done for each of thousands.
    if type(item) is str:
        return read_name(item), default_mtime, None
    name, fingerprint, mtime = read_wanted(item)
    encoded = None if fingerprint is None else encode_optional_bin(fingerprint)
    return name, default_mtime if mtime is None else mtime, encoded


def _seen(shard: Shard | None, count: int) -> Shard | Frozen | None:
    """Return what so many names are looked up in: for many, the shard as it is now."""
    return shard if shard is None or count <= STEP else shard.frozen()


def _fresh(
    shard: Shard | Frozen | None, name: bytes, mtime_ns: int | None, encoded: bytes | None
) -> Record | None:
    if shard is None:
        return None
    record = shard.look_up(name)
    return record if record is not None and record.is_fresh(mtime_ns, encoded) else None


def _buffer_of(record: Record) -> bytes | memoryview:
    """Return the record's buffer; large slices of it take no memory for clients that are slow."""
    small = record.end - record.start <= _COPIED_BYTES
    return record.buffer if small else memoryview(record.buffer)


def parts_of(record: Record) -> Parts:
    """Return an entry as `get` answers it."""
    return [_buffer_of(record)[record.start : record.end]]


def _as_pair(key: bytes, record: Record) -> Parts:
    """Return `name: [blob, fingerprint, binary_mtime_ns, cached_at_ns]`; the key is the name."""
    behind_name = record.start + 1 + len(key)
    return [key + b"\x94", _buffer_of(record)[behind_name : record.end]]


READS = {
    "get": get,
    "get_many": get_many,
    "names": list_names,
    "missing": missing,
    "count": count_entries,
    "stats": stats,
}
