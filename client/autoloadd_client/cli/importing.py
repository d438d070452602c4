"""`autoloadctl import`: read a file, check all of it, merge what is newer than what is there."""

from __future__ import annotations

import os
import stat
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from autoloadd_client.entry import Entry
from autoloadd_client.merging import Incoming, LeftOut, Offer, carry_out, plan_merge
from autoloadd_client.zshrs.errors import DamagedFileError
from autoloadd_client.zshrs.place import default_path
from autoloadd_client.zshrs.reading import read_shard_file
from autoloadd_protocol.errors import PortableError
from autoloadd_protocol.limits import BLOB_BYTES, NAME_BYTES
from autoloadd_protocol.portable import MAGIC, read_portable
from autoloadd_protocol.producer import Producer

from .context import open_stdin
from .conventions import UsageError
from .statuses import FOUND
from .text import (
    Progress,
    format_count,
    format_duration,
    format_mebibytes,
    make_printable,
)

if TYPE_CHECKING:
    from autoloadd_client.cache import Cache
    from autoloadd_client.merging import Plan
    from autoloadd_client.zshrs.reading import ShardFile, StoredEntry
    from autoloadd_protocol.portable import Portable, PortableEntry

    from .context import Context

_STDIN = "-"
_CHUNK_BYTES = 1024 * 1024
_SECOND = 10**9
_ZSHRS_ROOT_BYTES = 48
_NOTHING = "nothing was imported"


def import_file(context: Context, path: str | None, *, is_zshrs: bool) -> int:
    """Import a file; say what was done. Nothing is imported of a file that is not whole."""
    started = time.monotonic_ns()
    path = default_path(os.environ) if path is None else path
    with context.open_daemon() as daemon:
        most = daemon.status()["max_bytes"]
    incoming = _read_zshrs(path, most) if is_zshrs else _read_portable(path, most)
    with context.open_cache(incoming.producer) as cache:
        plan = _plan(cache, incoming)
        is_dry = context.arguments.dry_run
        generation = None if is_dry or not plan.changes else _store(context, cache, incoming, plan)
    _report(context, path, incoming, plan, generation, time.monotonic_ns() - started)
    return FOUND


def _read_zshrs(path: str, most: int) -> Incoming:
    data = _read_file(path, most)
    if data.startswith(MAGIC):
        raise UsageError(
            f"{path}: this is autoloadd's own form: `autoloadctl import {path}` reads it"
        )
    try:
        found = read_shard_file(data)
    except DamagedFileError as exc:
        raise UsageError(f"{path}: {_NOTHING}: {exc}") from exc
    header = found.header
    left_out = {entry: reason for entry in found.entries if (reason := _find_excess(entry))}
    return Incoming(
        Producer("zshrs", header.zshrs_version, header.pointer_width),
        header.built_at_secs * _SECOND,
        [
            Offer(entry.name, entry.cached_at_secs * _SECOND, partial(_load_zshrs, found, entry))
            for entry in found.entries
            if entry not in left_out
        ],
        [LeftOut(entry.name, reason) for entry, reason in left_out.items()],
    )


def _find_excess(entry: StoredEntry) -> str | None:
    """Return why the cache cannot hold an entry that zshrs could; None: it can."""
    name_bytes, blob_bytes = len(entry.name.encode()), entry.end - entry.start
    if not 0 < name_bytes <= NAME_BYTES:
        return f"a name has 1 to {NAME_BYTES:,} bytes, this one {name_bytes:,}"
    if blob_bytes > BLOB_BYTES:
        return f"{blob_bytes:,} bytes; an entry has {BLOB_BYTES:,} at most"
    return None


def _load_zshrs(found: ShardFile, entry: StoredEntry) -> Entry:
    return Entry(
        found.blob(entry),
        binary_mtime_ns=entry.binary_mtime_secs * _SECOND,
        cached_at_ns=entry.cached_at_secs * _SECOND,
    )


def _read_portable(path: str, most: int) -> Incoming:
    data = _read_file(path, most)
    try:
        found = read_portable(data)
    except PortableError as exc:
        hint = ""
        if not data.startswith(MAGIC) and b"LARZ" in data[-_ZSHRS_ROOT_BYTES:]:
            hint = f"; `autoloadctl import zshrs {path}` reads zshrs's own file"
        raise UsageError(f"{path}: {_NOTHING}: {exc}{hint}") from exc
    return Incoming(
        found.header.producer,
        found.header.built_at_ns,
        [
            Offer(entry.name, entry.cached_at_ns, partial(_load_portable, found, entry))
            for entry in found.entries
        ],
    )


def _load_portable(found: Portable, entry: PortableEntry) -> Entry:
    return Entry(*found.load(entry))


def _read_file(path: str, most: int) -> bytes:
    """Return all bytes of a file or pipe. Raises UsageError, also where it has more than `most`."""
    try:
        if path == _STDIN:
            return _read_all(open_stdin().fileno(), path, most)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(descriptor, path, most)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc


def _read_all(descriptor: int, path: str, most: int) -> bytes:
    status = os.fstat(descriptor)
    is_file = stat.S_ISREG(status.st_mode)
    if not (is_file or stat.S_ISFIFO(status.st_mode)):
        raise UsageError(f"{path} is neither a file nor a pipe")
    _check_size(status.st_size, path, most)
    # A file is read in one piece, which is not copied once more.
    chunks = [os.read(descriptor, status.st_size)] if is_file else []
    total = status.st_size
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        chunks.append(chunk)
        total += len(chunk)
        _check_size(total, path, most)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_size(size: int, path: str, most: int) -> None:
    if size > most:
        raise UsageError(
            f"{path} has more than {format_mebibytes(most)}, which is all that the daemon keeps: "
            "start it with a larger --max-bytes"
        )


def _plan(cache: Cache, incoming: Incoming) -> Plan:
    with Progress(sys.stderr, "comparing", len(incoming.offers)) as progress:
        return plan_merge(cache, incoming, progress.show)


def _store(context: Context, cache: Cache, incoming: Incoming, plan: Plan) -> int:
    sync = context.arguments.sync
    with Progress(sys.stderr, "storing", len(plan.new) + len(plan.replaced)) as progress:
        return carry_out(cache, incoming, plan, sync=sync, on_progress=progress.show)


def _report(
    context: Context,
    path: str,
    incoming: Incoming,
    plan: Plan,
    generation: int | None,
    took_ns: int,
) -> None:
    done: dict[str, Any] = {
        "file": path,
        "producer": str(incoming.producer),
        "built_at_ns": incoming.built_at_ns,
        "entries": len(incoming.offers) + len(incoming.left_out),
        "new": len(plan.new),
        "replaced": len(plan.replaced),
        "kept": plan.kept,
        "left_out": [left._asdict() for left in incoming.left_out],
        "dry_run": context.arguments.dry_run,
        "generation": generation,
        "ns": took_ns,
    }
    context.report(done, _summarise(done, changes=plan.changes))
    if not context.wants_json:
        for left in incoming.left_out:
            context.say(f"left out '{make_printable(left.name)}': {left.reason}")


def _summarise(done: dict[str, Any], *, changes: bool) -> str:
    whose = f"of {done['producer']}"
    if not changes:
        entries = format_count(done["kept"], "entry", "entries")
        return f"nothing to import: {entries} {whose}, and the cache has each as new or newer"
    sent = done["new"] + done["replaced"]
    parts = [f"{done['new']:,} new"]
    if done["replaced"]:
        parts.append(f"{done['replaced']:,} in place of older ones")
    if done["kept"]:
        parts.append(f"{done['kept']:,} not needed: the cache has them as new or newer")
    verb = "would import" if done["dry_run"] else "imported"
    took = "" if done["dry_run"] else f" in {format_duration(done['ns'])}"
    return f"{verb} {format_count(sent, 'entry', 'entries')} {whose}{took}: {', '.join(parts)}"
