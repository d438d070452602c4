"""The commands that work on all entries of one producer: count, stats, clear, flush."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .conventions import WRITE_SECONDS
from .parser import add_command, add_sync
from .statuses import FOUND
from .text import format_count, format_size, format_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .context import Context
    from .parser import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    """Add these commands to autoloadctl's."""
    add_command(
        subparsers,
        "count",
        run_count,
        summary="count the entries",
        examples="  autoloadctl count --producer zsh/5.9/8\n",
    )
    add_command(
        subparsers,
        "stats",
        run_stats,
        summary="show entries, sizes, hits and misses",
        examples="  autoloadctl stats --producer zsh/5.9/8 --binary /bin/zsh\n",
    )
    clear = add_command(
        subparsers,
        "clear",
        run_clear,
        summary="remove all entries of a producer, without asking",
        examples="  autoloadctl clear --producer zsh/5.9/8\n",
        usual_timeout=WRITE_SECONDS,
    )
    add_sync(clear)
    add_command(
        subparsers,
        "flush",
        run_flush,
        summary="wait until everything is on stable storage",
        examples="  autoloadctl flush --producer zsh/5.9/8\n",
        usual_timeout=WRITE_SECONDS,
    )


def run_count(context: Context) -> int:
    """Print the number of entries, fresh and stale."""
    with context.open_cache() as cache:
        entries = cache.count()
        if not entries:
            context.note_absence(cache)
    context.report({"entries": entries}, f"{entries}")
    return FOUND


def run_stats(context: Context) -> int:
    """Show what the shard holds and how it was used."""
    with context.open_cache() as cache:
        stats = cache.stats()
        if not stats["entries"]:
            context.note_absence(cache)
    if context.wants_json:
        context.write_json(stats)
    else:
        sys.stdout.write(_describe_stats(stats))
    return FOUND


def _describe_stats(stats: Mapping[str, Any]) -> str:
    rows = [("entries", f"{stats['entries']:,}")]
    if stats["fresh"] is not None:
        rows += [("  fresh", f"{stats['fresh']:,}"), ("  stale", f"{stats['stale']:,}")]
    rows += [
        ("blobs", format_size(stats["blob_bytes"])),
        ("hits", f"{stats['hits']:,}{_describe_share(stats['hits'], stats['misses'])}"),
        ("misses", f"{stats['misses']:,}"),
        ("evicted", f"{stats['evicted']:,}"),
        ("generation", f"{stats['generation']:,}"),
    ]
    return format_table(rows)


def _describe_share(hits: int, misses: int) -> str:
    return f" ({hits / (hits + misses):.0%} of gets)" if hits + misses else ""


def run_clear(context: Context) -> int:
    """Remove every entry of the producer."""
    with context.open_cache() as cache:
        removed = cache.clear(sync=context.arguments.sync)
    context.report({"removed": removed}, f"removed {format_count(removed, 'entry', 'entries')}")
    return FOUND


def run_flush(context: Context) -> int:
    """Wait until every write that was acknowledged before is on stable storage."""
    with context.open_cache() as cache:
        flushed = cache.flush()
    context.report(
        flushed._asdict(),
        f"everything up to generation {flushed.generation:,} is on stable storage",
    )
    return FOUND
