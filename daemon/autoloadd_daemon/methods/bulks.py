"""Bulk writes: begin, add, add, commit. Staged until the commit; then all of it is visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.writes import CommitBulk
from autoloadd_protocol.encoding import NIL, encode_uint
from autoloadd_protocol.errors import BUSY, RequestError, too_large
from autoloadd_protocol.limits import BULKS
from autoloadd_protocol.parameters import (
    BULK_MODES,
    bad_request,
    read_entries,
    read_params,
    read_sync,
    read_time,
    read_token,
)

from .changes import records_in_steps
from .context import Context, OpenBulk
from .steps import Steps, done_at_once

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoloadd_daemon.session import Session
    from autoloadd_daemon.writes import Done

    Params = tuple[Any, ...]
    Parts = list[bytes | memoryview]


def bulk_begin(context: Context, session: Session, params: Params) -> Parts:
    """Open a bulk; the result is its token, which is of this connection."""
    mode, mtime, built_at = read_params(params, 1, 2)
    if mode not in BULK_MODES:
        raise bad_request('mode: expected "merge" or "replace"')
    mtime_ns = read_time(mtime)
    built_at_ns = read_time(built_at)
    producer = context.producer_of(session)
    context.wait_for_images()
    if session.bulk is not None:
        raise RequestError(BUSY, "this connection has a bulk open already")
    if len(context.catalog.open_bulks) >= BULKS:
        raise RequestError(BUSY, f"{BULKS} bulks are open, try again later")
    try:
        staged = context.catalog.stage(producer, mode, built_at_ns)
    except StorageError as exc:
        raise context.writer.note_failure(exc) from exc
    token = context.next_token
    context.next_token = token % 0xFFFFFFFF + 1
    context.catalog.open_bulks[token] = producer.shard_id()
    session.bulk = OpenBulk(token, producer, staged, mtime_ns)
    return [encode_uint(token)]


def bulk_add(context: Context, session: Session, params: Params) -> Parts | Steps[Parts]:
    """Stage entries; the result is how many are staged. Nothing is visible."""
    token, entries = read_params(params, 2)
    bulk = _bulk_of(session, token)
    found = read_entries(entries)
    return done_at_once(_add(context, session, bulk, found), len(found))


def _add(
    context: Context, session: Session, bulk: OpenBulk, entries: Mapping[Any, Any]
) -> Steps[Parts]:
    records = yield from records_in_steps(entries, bulk.binary_mtime_ns)
    added = sum(record.stored_bytes for _, record in records)
    total = context.catalog.staged_bytes + added
    if total > context.catalog.max_bytes:
        raise too_large("max_bytes", context.catalog.max_bytes, total)
    try:
        count = bulk.staged.add(records)
    except StorageError as exc:
        # A part of the frame may be in the file: it cannot be gone on with.
        context.discard_bulk(session)
        refusal = context.writer.note_failure(exc)
        raise RequestError(
            refusal.code, f"{refusal.message}; the bulk is given up", refusal.detail
        ) from exc
    context.catalog.staged_bytes += added
    return [encode_uint(count)]


def bulk_abort(context: Context, session: Session, params: Params) -> Parts:
    """Give a bulk up."""
    (token,) = read_params(params, 1)
    _bulk_of(session, token)
    context.discard_bulk(session)
    return [NIL]


def bulk_commit(context: Context, session: Session, params: Params, done: Done) -> None:
    """Make a bulk visible; the result is the generation."""
    token, sync = read_params(params, 1, 1)
    bulk = _bulk_of(session, token)
    level = read_sync(sync)
    session.bulk = None

    def committed(outcome: object) -> None:
        # In the books until then: while it waits for the disk it takes memory.
        context.forget_bulk(bulk)
        done(outcome)

    context.writer.submit(CommitBulk(bulk.producer, level, committed, bulk.staged))


def _bulk_of(session: Session, token: object) -> OpenBulk:
    number = read_token(token)
    if session.bulk is None or session.bulk.token != number:
        raise bad_request(f"token {number} is of no bulk of this connection")
    return session.bulk


READS = {"bulk_begin": bulk_begin, "bulk_add": bulk_add, "bulk_abort": bulk_abort}
WRITES = {"bulk_commit": bulk_commit}
