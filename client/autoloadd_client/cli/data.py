"""The commands that work on entries: get, put, ls, missing, rm."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, BinaryIO

from autoloadd_protocol.limits import BLOB_BYTES

from .context import check_name, check_names, open_stdin, read_fingerprint
from .conventions import WRITE_SECONDS, FailedError, UsageError
from .parser import add_command, add_fingerprint, add_sync
from .statuses import FOUND, MISS, REFUSED
from .text import format_count, format_size, make_printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from autoloadd_client.cache import Cache
    from autoloadd_client.entry import Entry

    from .context import Context
    from .parser import Subparsers

_STDIN = "-"

_GET_EXAMPLES = """\
  autoloadctl get _git --producer zsh/5.9/8 --binary /bin/zsh > _git.zwc
  autoloadctl get _git --fingerprint-file /usr/share/zsh/functions/Completion/Unix/_git | wc -c
  autoloadctl get _git _ls --json
"""

_PUT_EXAMPLES = """\
  pip completion --zsh | autoloadctl put pip --producer tool-output/1/8
  autoloadctl put pip pip.zsh --producer tool-output/1/8 --fingerprint-file /usr/bin/pip
  autoloadctl put _git _git.zwc --producer zsh/5.9/8 --binary /bin/zsh --sync fsync
"""

_LS_EXAMPLES = """\
  autoloadctl ls
  autoloadctl ls _git --producer zsh/5.9/8
  autoloadctl ls --binary /bin/zsh | grep stale
"""

_MISSING_EXAMPLES = """\
  autoloadctl missing _git _ls --producer zsh/5.9/8 --binary /bin/zsh
  ls /usr/share/zsh/functions/Completion/Unix | autoloadctl missing --producer zsh/5.9/8
"""

_RM_EXAMPLES = """\
  autoloadctl rm _git
  autoloadctl rm _git _ls --producer zsh/5.9/8
"""


def add_commands(subparsers: Subparsers) -> None:
    """Add these commands to autoloadctl's."""
    get = add_command(
        subparsers,
        "get",
        run_get,
        summary="write entries to stdout",
        operands="NAME...",
        examples=_GET_EXAMPLES,
    )
    get.add_argument("names", metavar="NAME", nargs="+", help="written one after the other")
    add_fingerprint(get, "only what was stored with the fingerprint of this file as it is now")
    put = add_command(
        subparsers,
        "put",
        run_put,
        summary="store an entry from a file or stdin",
        operands="NAME [FILE]",
        examples=_PUT_EXAMPLES,
        usual_timeout=WRITE_SECONDS,
    )
    put.add_argument("name", metavar="NAME")
    put.add_argument("file", metavar="FILE", nargs="?", default=_STDIN, help="-, or none: stdin")
    add_fingerprint(put, "store it with the fingerprint of this file: stale when the file changes")
    add_sync(put)
    ls = add_command(
        subparsers,
        "ls",
        run_ls,
        summary="list the names that are there",
        operands="[PREFIX]",
        examples=_LS_EXAMPLES,
    )
    ls.add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="only names that begin so"
    )
    missing = add_command(
        subparsers,
        "missing",
        run_missing,
        summary="list those of the given names that are absent or stale",
        operands="[NAME...]",
        examples=_MISSING_EXAMPLES,
    )
    missing.add_argument(
        "names", metavar="NAME", nargs="*", help="-, or none: one in each line of stdin"
    )
    rm = add_command(
        subparsers,
        "rm",
        run_rm,
        summary="remove entries",
        operands="NAME...",
        examples=_RM_EXAMPLES,
        usual_timeout=WRITE_SECONDS,
        more=" Names that are not there are no failure: the exit status is 0.",
    )
    rm.add_argument("names", metavar="NAME", nargs="+")
    add_sync(rm)


def run_get(context: Context) -> int:
    """Write the blobs to stdout, one after the other; a miss if any of them is missing."""
    names = check_names(context.arguments.names)
    fingerprint = read_fingerprint(context.arguments.fingerprint_file)
    with context.open_cache() as cache:
        if context.wants_json:
            return _get_as_json(context, cache, names, fingerprint)
        missed = [name for name in names if not _write_blob(context, cache, name, fingerprint)]
    if missed and len(names) > 1:
        context.warn(f"missing: {', '.join(map(make_printable, missed))}")
    return MISS if missed else FOUND


def _write_blob(context: Context, cache: Cache, name: str, fingerprint: bytes | None) -> bool:
    blob = cache.get(name, fingerprint=fingerprint)
    if blob is None:
        return False
    context.write_bytes(blob)
    return True


def _get_as_json(
    context: Context, cache: Cache, names: Iterable[str], fingerprint: bytes | None
) -> int:
    found = [(name, cache.get_entry(name, fingerprint=fingerprint)) for name in names]
    context.write_json([_entry_as_map(name, entry) for name, entry in found])
    return MISS if any(entry is None for _name, entry in found) else FOUND


def _entry_as_map(name: str, entry: Entry | None) -> dict[str, object]:
    if entry is None:
        return {"name": name, "found": False}
    fingerprint = entry.fingerprint
    return {
        "name": name,
        "found": True,
        "blob": b64encode(entry.blob).decode(),
        "fingerprint": None if fingerprint is None else b64encode(fingerprint).decode(),
        "binary_mtime_ns": entry.binary_mtime_ns,
        "cached_at_ns": entry.cached_at_ns,
    }


def run_put(context: Context) -> int:
    """Store one entry, as durable as --sync says."""
    arguments = context.arguments
    name = check_name(arguments.name)
    fingerprint = read_fingerprint(arguments.fingerprint_file)
    blob = _read_blob(arguments.file)
    with context.open_cache() as cache:
        generation = cache.put(name, blob, fingerprint=fingerprint, sync=arguments.sync)
    context.report(
        {"generation": generation, "blob_bytes": len(blob)},
        f"stored {make_printable(name)}: {format_size(len(blob))}",
    )
    return FOUND


def _read_blob(path: str) -> bytes:
    try:
        if path == _STDIN:
            blob = _read_limited(open_stdin())
        else:
            with open(path, "rb") as file:
                blob = _read_limited(file)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if len(blob) > BLOB_BYTES:
        what = "stdin" if path == _STDIN else path
        reason = f"{what} has more than {BLOB_BYTES:,} bytes, which is the most for one entry"
        raise FailedError(REFUSED, f"nothing was stored: {reason}")
    return blob


def _read_limited(file: BinaryIO) -> bytes:
    """Read one byte more than may be: enough to tell, also where the input has no end."""
    return file.read(BLOB_BYTES + 1)


def run_ls(context: Context) -> int:
    """List names as they come, page by page; with a time to compare, say which are stale."""
    prefix = context.arguments.prefix
    with context.open_cache() as cache:
        names = cache.names(check_name(prefix) if prefix else "")
        if context.wants_json:
            any_there = _write_names_as_json(names)
        else:
            any_there = _write_names(context, names)
        if not any_there:
            context.note_absence(cache)
    return FOUND


def _write_names(context: Context, names: Iterator[tuple[str, bool | None]]) -> bool:
    """Write a line for each name; tell whether there was any."""
    show = _name_form()
    labels = {
        None: "",
        True: context.palette.good("fresh") + "  ",
        False: context.palette.bad("stale") + "  ",
    }
    any_there = False
    for name, fresh in names:
        sys.stdout.write(f"{labels[fresh]}{show(name)}\n")
        any_there = True
    return any_there


def _name_form() -> Callable[[str], str]:
    """Return what to make of a name: as it is, or where a terminal would obey it, escaped."""
    return make_printable if sys.stdout.isatty() else str


def _write_names_as_json(names: Iterator[tuple[str, bool | None]]) -> bool:
    """Write an array with a map for each name; tell whether there was any."""
    before = "["
    for name, fresh in names:
        item = json.dumps({"name": name, "fresh": fresh})
        sys.stdout.write(f"{before}\n  {item}")
        before = ","
    any_there = before != "["
    sys.stdout.write("\n]\n" if any_there else "[]\n")
    return any_there


def run_missing(context: Context) -> int:
    """List which of the names a warm-up would still have to make."""
    given: list[str] = context.arguments.names
    names = check_names(_read_lines() if given in ([], [_STDIN]) else given)
    with context.open_cache() as cache:
        missing = cache.missing(names)
    if context.wants_json:
        context.write_json(missing)
    else:
        show = _name_form()
        for name in missing:
            context.say(show(name))
    return FOUND


def _read_lines() -> list[str]:
    # fsdecode's error handler, as for names that come as arguments: check_names tells then.
    text = open_stdin().read().decode(errors="surrogateescape")
    return [line for line in text.split("\n") if line]


def run_rm(context: Context) -> int:
    """Remove entries; those that are not there are no error."""
    names = check_names(context.arguments.names)
    with context.open_cache() as cache:
        removed = cache.delete(names, sync=context.arguments.sync)
    context.report(
        {"removed": removed}, f"removed {removed:,} of {format_count(len(set(names)), 'name')}"
    )
    return FOUND
