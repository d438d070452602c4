"""Methods of leases: of many clients that miss an entry at once, one makes it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from autoloadd_daemon.leases import Request
from autoloadd_protocol.encoding import NIL, encode_optional_bin
from autoloadd_protocol.parameters import (
    read_fingerprint,
    read_flag,
    read_hold,
    read_name,
    read_params,
    read_time,
    read_wait,
)

from .reads import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_daemon.session import Session

    from .context import Context

    Params = tuple[Any, ...]
    Parts = list[bytes | memoryview]

_NS_PER_MS = 1_000_000


def lease(
    context: Context, session: Session, params: Params, done: Callable[[Parts], None]
) -> Parts | None:
    """Return one entry, or that the client makes it; None: the answer comes by `done`."""
    name, mtime, fingerprint, wait, hold, stale_ok = read_params(params, 1, 5)
    name_bytes = read_name(name)
    mtime_ns = read_time(mtime)
    encoded = None if fingerprint is None else encode_optional_bin(read_fingerprint(fingerprint))
    wait_ns, hold_ns = read_wait(wait) * _NS_PER_MS, read_hold(hold) * _NS_PER_MS
    takes_old = read_flag(stale_ok, "stale_ok")
    shard_id = context.producer_of(session).shard_id()
    now = time.monotonic_ns()
    request = Request(
        session,
        shard_id,
        name_bytes,
        hold_ns,
        now + wait_ns if session.may_wait else now,
        partial(_find, context, shard_id, name_bytes, mtime_ns, encoded, takes_old=takes_old),
        done,
    )
    takes_writes = not context.metrics.health.is_degraded
    return context.writer.leases.ask(request, now, is_worth_it=takes_writes)


def _find(
    context: Context,
    shard_id: str,
    name: bytes,
    mtime_ns: int | None,
    encoded: bytes | None,
    is_held: bool,
    *,
    takes_old: bool,
) -> Parts | None:
    shard = context.catalog.find(shard_id)
    record = None if shard is None else shard.look_up(name)
    if record is None:
        return None
    is_wanted = record.is_fresh(mtime_ns, encoded) or (is_held and takes_old)
    return parts_of(record) if is_wanted else None


def unlease(context: Context, session: Session, params: Params) -> Parts:
    """Give a lease back; nothing happens where the connection does not have it."""
    (name,) = read_params(params, 1)
    name_bytes = read_name(name)
    shard_id = context.producer_of(session).shard_id()
    context.writer.leases.give_back(session, shard_id, name_bytes, time.monotonic_ns())
    return [NIL]


READS = {"unlease": unlease}
WAITS = {"lease": lease}
