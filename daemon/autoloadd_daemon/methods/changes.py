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

if TYPE_CHECKING:
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


def put_many(context: Context, session: Session, params: Params, done: Done) -> None:
    """Store entries, all visible at once; the result is the generation."""
    entries, mtime, sync = read_params(params, 1, 2)
    records = read_records(entries, read_time(mtime))
    producer = context.producer_of(session)
    context.writer.submit(Put(producer, read_sync(sync), done, records))


def delete(context: Context, session: Session, params: Params, done: Done) -> None:
    """Remove entries; the result is how many there were."""
    names, sync = read_params(params, 1, 1)
    wanted = [read_name(name) for name in read_names(names)]
    producer = context.producer_of(session)
    context.writer.submit(Delete(producer, read_sync(sync), done, wanted))


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


def read_records(entries: object, default_mtime: int | None) -> list[tuple[bytes, Record]]:
    """Return (name, record) of each entry in a request's map. Raises RequestError."""
    now = time.time_ns()
    records: list[tuple[bytes, Record]] = []
    for key, value in read_entries(entries).items():
        name = read_name(key)
        blob, fingerprint, mtime, cached_at = read_entry(value)
        mtime_ns = (default_mtime or 0) if mtime is None else mtime
        cached_at_ns = now if cached_at is None else cached_at
        records.append((name, encode_record(name, blob, fingerprint, mtime_ns, cached_at_ns)))
    return records


WRITES = {
    "put": put,
    "put_many": put_many,
    "delete": delete,
    "clear": clear,
    "flush": flush,
}
