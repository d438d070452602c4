"""`autoloadctl export`: a producer's entries as a file, in the portable form or in zshrs's."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoloadd_client.zshrs.errors import InexpressibleError
from autoloadd_client.zshrs.layout import LAYOUTS, Header
from autoloadd_client.zshrs.writing import EntryToWrite, encode_shard_file
from autoloadd_protocol.portable import PortableHeader, encode_portable

from .beside import write_batches, write_beside
from .conventions import FailedError, UsageError
from .descriptors import STDOUT
from .statuses import FOUND, MISS, REFUSED
from .text import Progress, format_count, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from autoloadd_client.cache import Cache
    from autoloadd_client.entry import Entry
    from autoloadd_protocol.portable import EntryValues
    from autoloadd_protocol.producer import Producer

    from .context import Context

_STDOUT = "-"
_SECOND = 10**9
_ZSHRS = "zshrs"
_NOTHING = "nothing was written"


@dataclass(slots=True)
class _Export:
    """What is known of an export, as it goes on."""

    producer: Producer
    built_at_ns: int
    entries: int = 0
    left_out: list[str] = field(default_factory=list)


def export_file(context: Context, path: str, *, is_zshrs: bool) -> int:
    """Write a producer's entries to a file or stdout; say what was written."""
    started = time.monotonic_ns()
    if path == _STDOUT:
        _check_stdout(context)
    producer = context.find_producer(_ZSHRS if is_zshrs else None)
    if is_zshrs:
        _check_zshrs(producer)
    with context.open_cache(producer) as cache:
        export = _begin(cache, producer)
        make = _encode_zshrs if is_zshrs else _encode_portable
        parts = make(context, cache, export)
        if path == _STDOUT:
            sys.stdout.flush()
            written = write_batches(STDOUT, parts)
        else:
            written = write_beside(path, parts)
    _report(context, path, export, written, time.monotonic_ns() - started)
    return FOUND


def _check_stdout(context: Context) -> None:
    if context.wants_json:
        raise UsageError("--json and - both mean stdout: give a FILE")
    if sys.__stdout__ is None or sys.__stdout__.isatty():
        raise UsageError("- means stdout, which is a terminal or closed: send it elsewhere")


def _check_zshrs(producer: Producer) -> None:
    if producer.name != _ZSHRS or producer.build is not None:
        raise UsageError(
            f"zshrs's file is for what zshrs compiled (zshrs/VERSION/WIDTH), not {producer}; "
            "`autoloadctl export FILE` writes any producer's entries"
        )


def _begin(cache: Cache, producer: Producer) -> _Export:
    identity = producer.as_map()
    for shard in cache.shards():
        if shard["producer"] == identity:
            return _Export(producer, shard["built_at_ns"])
    raise FailedError(
        MISS,
        f"there are no entries of {producer}, and {_NOTHING}; "
        "`autoloadctl shards` lists whose there are",
    )


def _read_entries(cache: Cache) -> Iterator[tuple[str, Entry]]:
    """Yield what the cache has, in the order of the names' bytes, with a bar on a terminal."""
    with Progress(sys.stderr, "reading", cache.count()) as progress:
        names = (name for name, _ in cache.names())
        for done, found in enumerate(cache.get_entries(names), start=1):
            yield found
            progress.show(done)


def _encode_portable(_context: Context, cache: Cache, export: _Export) -> Iterator[bytes]:
    header = PortableHeader(export.producer, export.built_at_ns)
    return encode_portable(header, _count_values(_read_entries(cache), export))


def _count_values(
    entries: Iterable[tuple[str, Entry]], export: _Export
) -> Iterator[tuple[str, EntryValues]]:
    for name, entry in entries:
        export.entries += 1
        yield (
            name,
            (
                entry.blob,
                entry.fingerprint,
                entry.binary_mtime_ns or 0,
                entry.cached_at_ns or 0,
            ),
        )


def _encode_zshrs(context: Context, cache: Cache, export: _Export) -> Iterator[bytes]:
    entries: dict[bytes, EntryToWrite] = {}
    for name, entry in _read_entries(cache):
        if entry.fingerprint is None:
            entries[name.encode()] = EntryToWrite(
                entry.blob,
                (entry.binary_mtime_ns or 0) // _SECOND,
                (entry.cached_at_ns or 0) // _SECOND,
            )
        else:
            # zshrs would go on using it after what it was made from has changed.
            export.left_out.append(name)
    export.entries = len(entries)
    producer = export.producer
    header = Header(producer.version, producer.pointer_width, export.built_at_ns // _SECOND)
    try:
        return encode_shard_file(header, entries, LAYOUTS[context.arguments.layout or "1.95"])
    except InexpressibleError as exc:
        raise FailedError(REFUSED, f"{_NOTHING}: {exc}") from exc


def _report(context: Context, path: str, export: _Export, written: int, took_ns: int) -> None:
    done: dict[str, Any] = {
        "file": path,
        "producer": str(export.producer),
        "built_at_ns": export.built_at_ns,
        "entries": export.entries,
        "left_out": export.left_out,
        "bytes": written,
        "ns": took_ns,
    }
    entries = format_count(export.entries, "entry", "entries")
    summary = (
        f"wrote {entries} of {export.producer} to {path} in {format_duration(took_ns)}: "
        f"{format_size(written)}"
    )
    if path != _STDOUT:
        context.report(done, summary)
    if export.left_out:
        left = format_count(len(export.left_out), "entry", "entries")
        context.warn(f"left out {left} with a fingerprint, which zshrs does not know")
