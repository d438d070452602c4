"""Methods that change one shard in one request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from autoloadd_daemon.writes import Clear, Delete, Flush, Put
from autoloadd_protocol.errors import RequestError
from autoloadd_protocol.parameters import (
    read_blob,
    read_entries,
    read_entry,
    read_fingerprint,
    read_name,
    read_names,
    read_params,
    read_sync,
    read_time,
)
from autoloadd_protocol.record import Record, encode_record

from .steps import Steps, done_at_once, in_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoloadd_daemon.session import Session
    from autoloadd_daemon.writes import Done

    from .context import Context

    Params = tuple[Any, ...]


def put(context: Context, session: Session, params: Params, done: Done) -> None:
    """Store one entry; the result is the generation."""
    name, blob, mtime, fingerprint, sync = read_params(params, 2, 3)
    record = encode_record(
        read_name(name),
        read_blob(blob),
        read_fingerprint(fingerprint),
        read_time(mtime) or 0,
        time.time_ns(),
    )
    producer = context.producer_of(session)
    context.writer.submit(Put(producer, read_sync(sync), done, [(name.encode(), record)]))


def put_many(context: Context, session: Session, params: Params, done: Done) -> Steps[None] | None:
    """Store entries, all visible at once; the result is the generation."""
    entries, mtime, sync = read_params(params, 1, 2)
    found, mtime_ns = read_entries(entries), read_time(mtime)

    def steps() -> Steps[None]:
        records = yield from records_in_steps(found, mtime_ns)
        producer = context.producer_of(session)
        context.writer.submit(Put(producer, read_sync(sync), done, records))

    return done_at_once(steps(), len(found))


def delete(context: Context, session: Session, params: Params, done: Done) -> Steps[None] | None:
    """Remove entries; the result is how many there were."""
    names, sync = read_params(params, 1, 1)
    items = read_names(names)

    def steps() -> Steps[None]:
        wanted = yield from in_steps(items, read_name)
        producer = context.producer_of(session)
        context.writer.submit(Delete(producer, read_sync(sync), done, wanted))

    return done_at_once(steps(), len(items))


def clear(context: Context, session: Session, params: Params, done: Done) -> None:
    """Remove all entries; the result is how many there were."""
    (sync,) = read_params(params, 0, 1)
    producer = context.producer_of(session)
    context.writer.submit(Clear(producer, read_sync(sync), done))


def flush(context: Context, session: Session, params: Params, done: Done) -> None:
    """Bring everything to stable storage; report, and forget, refused notifications."""
    read_params(params, 0)
    producer = context.producer_of(session)

    def report(outcome: object) -> None:
        if isinstance(outcome, RequestError):
            done(outcome)
            return
        refused, session.refused = session.refused, 0
        error, session.first_error = session.first_error, None
        done([outcome, refused, error])

    context.writer.submit(Flush(producer, "fsync", report))


def records_in_steps(
    entries: Mapping[Any, Any], default_mtime: int | None
) -> Steps[list[tuple[bytes, Record]]]:
    """Return (name, record) of each entry in a request's map. Raises RequestError."""
    now = time.time_ns()

    def read(item: tuple[object, object]) -> tuple[bytes, Record]:
        name = read_name(item[0])
        blob, fingerprint, mtime, cached_at = read_entry(item[1])
        mtime_ns = (default_mtime or 0) if mtime is None else mtime
        cached_at_ns = now if cached_at is None else cached_at
        return name, encode_record(name, blob, fingerprint, mtime_ns, cached_at_ns)

    return in_steps(list(entries.items()), read)


WRITES = {
    "put": put,
    "put_many": put_many,
    "delete": delete,
    "clear": clear,
    "flush": flush,
}
