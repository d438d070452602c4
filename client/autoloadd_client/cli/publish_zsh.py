"""`autoloadctl publish zsh`: see `publish.py`."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from autoloadd_client.asking import refuse_switched_off
from autoloadd_client.publishing.farm import (
    FarmBusyError,
    Plan,
    lock,
    part_of,
    place_of,
    put_in_place,
    time_of_digest,
)
from autoloadd_client.publishing.selection import select_functions
from autoloadd_client.publishing.watching import (
    FARM,
    PARTS,
    absolute,
    note_observation,
    observe,
    read_state,
    without_farms,
)
from autoloadd_client.reaching import find_socket
from autoloadd_client.shells.errors import BytecodeError
from autoloadd_client.shells.zsh import LeftOut, find_functions, find_zsh
from autoloadd_client.shells.zwc import MAX_DIGEST_BYTES, build_digest, read_function

from .conventions import FailedError, UsageError
from .ending import end_cleanly_on_signals
from .publish import NOTHING_CHANGED
from .statuses import FOUND, REFUSED, USAGE
from .text import format_count, format_duration, format_size
from .warm import (
    Outcome,
    ask_what_is_missing,
    compile_into,
    refuse_foreign_options,
    say_left_out,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from autoloadd_client.cache import Cache
    from autoloadd_client.shells.zsh import Function, Zsh
    from autoloadd_client.shells.zwc import Bytecode

    from .context import Context


@dataclass(slots=True)
class _Published:
    """What came of it. `digests` (by part) has none where nothing was to do, or should be done."""

    functions: list[Function] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)
    compiled: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    changed: bool = True

    @property
    def size(self) -> int:
        """How many bytes all digests have."""
        return sum(map(len, self.digests.values()))


def run_publish(context: Context) -> int:
    """Look whether anything has changed; compile, build and change over where it has."""
    refuse_foreign_options(context, "publish")
    end_cleanly_on_signals()
    started = time.monotonic_ns()
    zsh = find_zsh(context.arguments.binary)
    socket = find_socket(context.socket_path)
    directories = absolute(without_farms(socket, context.arguments.fpath or zsh.fpath))
    if context.arguments.fpath and not any(map(os.path.exists, directories)):
        raise UsageError("--fpath: none of these is there: give directories from / on")
    place = place_of(socket, zsh.version, directories)
    if context.arguments.print_dir:
        context.report({"directory": f"{place}/{FARM}"}, f"{place}/{FARM}")
        return FOUND
    refuse_switched_off()
    try:
        published = _publish(context, zsh, place, directories)
    except FarmBusyError as exc:
        message = f"{exc} by another autoloadctl publish: try again, or end that one"
        raise FailedError(REFUSED, message) from exc
    except OSError as exc:
        raise FailedError(USAGE, f"{exc.filename or place}: {exc.strerror}") from exc
    _report(context, zsh, place, published, time.monotonic_ns() - started)
    return FOUND


def _publish(context: Context, zsh: Zsh, place: str, directories: list[str]) -> _Published:
    dry = context.arguments.dry_run
    with context.open_cache(zsh.producer, binary_mtime_ns=zsh.mtime_ns) as cache:
        if not dry:
            cache.ping()  # no daemon: no directory for the lock either
        with nullcontext() if dry else lock(place, on_wait=_tell_of_wait):
            now_ns = time.time_ns()
            observed = observe(zsh.real, directories, now_ns)
            if read_state(place) == observed:
                if not dry:
                    note_observation(place, now_ns)
                return _Published(changed=False)
            found = find_functions(directories)
            selected = select_functions(found, directories, version=zsh.version)
            if dry:
                missing = ask_what_is_missing(cache, selected, zsh)
                return _Published(list(selected), {}, len(missing), list(found.left_out))
            published = _collect(cache, zsh, selected, list(found.left_out))
            put_in_place(place, _plan(published, directories, observed, now_ns))
    return published


def _tell_of_wait(path: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"another autoloadctl publish is at work: waiting for {path}\n")


def _plan(published: _Published, directories: list[str], observed: bytes, now_ns: int) -> Plan:
    mtimes = [os.stat(function.path).st_mtime_ns for function in published.functions]
    mtime_ns = time_of_digest(mtimes, now_ns)
    functions, digests = published.functions, published.digests
    return Plan(functions, digests, mtime_ns, directories, observed, now_ns)


def _collect(
    cache: Cache, zsh: Zsh, functions: Sequence[Function], left_out: list[LeftOut]
) -> _Published:
    """Return the functions and their digests, compiled as far as the cache did not have them."""
    outcome = Outcome(left_out=left_out)
    compile_into(zsh, ask_what_is_missing(cache, functions, zsh), outcome)
    store(cache, outcome)
    found = _read_bytecode(cache, zsh, functions)
    # What another client stored under the name, whatever it is, is compiled anew once.
    failed = {left.path for left in outcome.left_out}
    unusable = [
        function
        for function in functions
        if function.name not in found and function.path not in failed
    ]
    if unusable:
        again = Outcome(left_out=left_out)
        compile_into(zsh, unusable, again)
        store(cache, again)
        found |= _read_bytecode(cache, zsh, unusable)
        outcome.entries.update(again.entries)
    published = _Published(compiled=len(outcome.entries), left_out=left_out)
    for part in PARTS:
        here = [function for function in functions if part_of(function.name) == part]
        if chosen := _fit(here, found, left_out):
            codes = [found[function.name] for function in chosen]
            published.functions += chosen
            published.digests[part] = build_digest(codes, version=zsh.version)
    return published


def _read_bytecode(cache: Cache, zsh: Zsh, functions: Iterable[Function]) -> dict[str, Bytecode]:
    """Return the bytecode of those functions that the cache has as their files are."""
    by_name = {function.name: function for function in functions}
    found = {}
    for name, entry in cache.get_entries(by_name):
        if entry.fingerprint != by_name[name].fingerprint:
            continue
        try:
            found[name] = read_function(entry.blob, name=os.fsencode(name), version=zsh.version)
        except BytecodeError:
            continue
    return found


def _fit(
    functions: Sequence[Function], found: dict[str, Bytecode], left_out: list[LeftOut]
) -> list[Function]:
    """Return the functions that a digest has room for; the others are left out."""
    chosen: list[Function] = []
    size = 0
    for function in functions:
        bytecode = found.get(function.name)
        if bytecode is None:
            continue
        # The head with its share of what comes before the first one.
        size += len(bytecode.code) + 4 * bytecode.head_words
        if size + 1024 > MAX_DIGEST_BYTES:
            reason = f"a digest has no room for more than {MAX_DIGEST_BYTES:,} bytes"
            left_out.append(LeftOut(function.path, reason))
        else:
            chosen.append(function)
    return chosen


def _report(context: Context, zsh: Zsh, place: str, published: _Published, took_ns: int) -> None:
    if context.wants_json:
        context.write_json(
            {
                "producer": str(zsh.producer),
                "binary": zsh.real,
                "directory": f"{place}/{FARM}",
                "changed": published.changed,
                "published": not context.arguments.dry_run and published.changed,
                "functions": len(published.functions),
                "compiled": published.compiled,
                "digest_bytes": published.size,
                "ns": took_ns,
                "left_out": [asdict(left) for left in published.left_out],
            }
        )
        return
    context.say(_summarise(context, zsh, place, published, took_ns))
    say_left_out(context, published.left_out)


def _summarise(context: Context, zsh: Zsh, place: str, published: _Published, took_ns: int) -> str:
    if not published.changed:
        return f"zsh: {NOTHING_CHANGED}"
    functions = format_count(len(published.functions), "function")
    if context.arguments.dry_run:
        return (
            f"zsh {zsh.version}: would publish {functions} in {place}/{FARM}, "
            f"{published.compiled:,} of them compiled anew"
        )
    return (
        f"zsh {zsh.version}: {functions} published in {place}/{FARM}: "
        f"{format_size(published.size)}, {published.compiled:,} compiled, "
        f"{format_duration(took_ns)}"
    )
