"""`autoloadctl warm zsh`: have zsh compile what is missing or stale, and cache it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from autoloadd_client.entry import Entry
from autoloadd_client.publishing.watching import without_farms
from autoloadd_client.reaching import find_socket
from autoloadd_client.shells.zsh import LeftOut, find_functions, find_zsh
from autoloadd_client.shells.zsh_compile import compile_functions

from .conventions import UsageError
from .ending import end_cleanly_on_signals
from .statuses import FOUND, MISS
from .text import Progress, format_count, format_duration, format_size, make_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoloadd_client.cache import Cache
    from autoloadd_client.shells.zsh import Found, Function, Zsh

    from .context import Context


@dataclass(slots=True)
class Outcome:
    """What a warm-up has done so far. `fresh` counts what needed nothing."""

    fresh: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def blob_bytes(self) -> int:
        return sum(len(entry.blob) for entry in self.entries.values())


def run_warm(context: Context) -> int:
    """Find, ask what is missing, compile just that, store it in one go, and say what was done."""
    refuse_foreign_options(context, "warm")
    end_cleanly_on_signals()
    started = time.monotonic_ns()
    directories = _check_directories(context)
    zsh = find_zsh(context.arguments.binary)
    socket = find_socket(context.socket_path)
    found = find_functions(without_farms(socket, directories or zsh.fpath))
    outcome = Outcome(left_out=list(found.left_out))
    with context.open_cache(zsh.producer, binary_mtime_ns=zsh.mtime_ns) as cache:
        wanted = ask_what_is_missing(cache, found.functions, zsh)
        outcome.fresh = len(found.functions) - len(wanted)
        compile_into(zsh, wanted, outcome)
        store(cache, outcome)
    _report(context, zsh, found, outcome, time.monotonic_ns() - started)
    return FOUND if outcome.fresh or outcome.entries or not outcome.left_out else MISS


def refuse_foreign_options(context: Context, command: str) -> None:
    """Raise UsageError where the user says what only zsh knows."""
    arguments = context.arguments
    if arguments.producer is not None or arguments.mtime is not None:
        raise UsageError(
            f"{command} asks zsh itself for producer and time: leave out --producer and --mtime; "
            "--binary PATH takes another zsh than the one in PATH"
        )


def _check_directories(context: Context) -> Sequence[str]:
    """Return those of the given directories that can be listed, having named the others.

    Raises UsageError where that leaves none: an fpath may well name some that are not there.
    """
    given: Sequence[str] = context.arguments.directories
    problems = {}
    for directory in given:
        try:
            os.scandir(directory).close()
        except OSError as exc:
            problems[directory] = f"{directory}: {exc.strerror}"
    usable = [directory for directory in given if directory not in problems]
    if given and not usable:
        raise UsageError("; ".join(problems.values()))
    for problem in problems.values():
        context.warn(f"passed over {problem}")
    return usable


def ask_what_is_missing(cache: Cache, functions: Sequence[Function], zsh: Zsh) -> list[Function]:
    """Return those functions that the cache does not have as their files are now."""
    items = [(function.name, function.fingerprint, zsh.mtime_ns) for function in functions]
    missing = frozenset(cache.missing(items))
    return [function for function in functions if function.name in missing]


def compile_into(zsh: Zsh, functions: Sequence[Function], outcome: Outcome) -> None:
    """Have zsh compile functions, and add what comes of them to the outcome."""
    with Progress(sys.stderr, "compiling", len(functions)) as progress:
        for done, result in enumerate(compile_functions(zsh, functions), start=1):
            if isinstance(result, LeftOut):
                outcome.left_out.append(result)
            else:
                function = result.function
                outcome.entries[function.name] = Entry(
                    result.blob, fingerprint=function.fingerprint, binary_mtime_ns=zsh.mtime_ns
                )
            progress.show(done)


def store(cache: Cache, outcome: Outcome) -> None:
    """Cache what was compiled, in one go."""
    if not outcome.entries:
        return
    with Progress(sys.stderr, "storing", len(outcome.entries)) as progress:
        cache.merge(outcome.entries, on_progress=progress.show)


def _report(context: Context, zsh: Zsh, found: Found, outcome: Outcome, took_ns: int) -> None:
    if context.wants_json:
        context.write_json(
            {
                "producer": str(zsh.producer),
                "binary": zsh.real,
                "directories": found.directories,
                "functions": _count_functions(found),
                "compiled": len(outcome.entries),
                "fresh": outcome.fresh,
                "blob_bytes": outcome.blob_bytes,
                "ns": took_ns,
                "left_out": [asdict(left) for left in outcome.left_out],
            }
        )
        return
    context.say(_summarise(zsh, found, outcome, took_ns))
    say_left_out(context, outcome.left_out)


def say_left_out(context: Context, left_out: Sequence[LeftOut]) -> None:
    """Name the files that are not cached."""
    for left in left_out:
        context.say(f"left out {make_printable(left.path)}: {make_printable(left.reason)}")


def _count_functions(found: Found) -> int:
    return len(found.functions) + len(found.left_out)


def _summarise(zsh: Zsh, found: Found, outcome: Outcome, took_ns: int) -> str:
    total = _count_functions(found)
    functions = format_count(total, "function")
    directories = format_count(found.directories, "directory", "directories")
    parts = []
    if outcome.entries:
        parts.append(f"{len(outcome.entries):,} compiled")
    if outcome.fresh:
        parts.append(f"{'all ' if outcome.fresh == total else ''}{outcome.fresh:,} fresh")
    if outcome.left_out:
        parts.append(f"{len(outcome.left_out):,} left out")
    if outcome.entries:
        parts.append(f"{format_size(outcome.blob_bytes)} stored in {format_duration(took_ns)}")
    else:
        parts.append("nothing to store")
    return f"zsh {zsh.version}: {functions} in {directories}; {', '.join(parts)}"
