"""The commands `import` and `export`: their arguments. What they do is loaded when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conventions import WRITE_SECONDS, UsageError
from .parser import add_command, add_sync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .context import Context
    from .parser import Parser, Subparsers

ZSHRS = "zshrs"

_IMPORT_EXAMPLES = """\
  autoloadctl import zshrs --dry-run
  autoloadctl import zshrs ~/backup/autoloads.rkyv
  autoloadctl import zsh.autoloadd
  ssh otherhost autoloadctl export - --producer zsh/5.9/8 | autoloadctl import -
"""

_IMPORT_MORE = """

  import zshrs [FILE]   zshrs's own cache file (without FILE: $ZSHRS_HOME/autoloads.rkyv, or
                        ~/.zshrs/autoloads.rkyv)
  import FILE           what `autoloadctl export FILE` wrote; - is stdin

The file says whose entries they are, and when each was cached. An entry goes in where the cache has
none of that name, or one that was cached earlier; so a second import changes nothing. The whole
file is checked first: of one that is damaged, nothing is imported."""

_EXPORT_EXAMPLES = """\
  autoloadctl export zsh.autoloadd --producer zsh/5.9/8
  autoloadctl export zshrs ~/.zshrs/autoloads.rkyv
  autoloadctl export - --producer zsh/5.9/8 | gzip > zsh.autoloadd.gz
"""

_EXPORT_MORE = """

  export FILE           any producer's entries, for `autoloadctl import FILE` here or elsewhere
  export zshrs FILE     zshrs's own cache file, which zshrs uses as if it had written it

FILE is replaced when everything is on disk, never before (- is stdout). With --binary or --mtime,
stale entries are not written. zshrs knows no fingerprints: entries that have one are left out of
its file, and counted."""


def add_commands(subparsers: Subparsers) -> None:
    """Add these commands to autoloadctl's."""
    importing = add_command(
        subparsers,
        "import",
        run_import,
        summary="take entries over from a file",
        operands="[zshrs] FILE",
        examples=_IMPORT_EXAMPLES,
        data=False,
        usual_timeout=WRITE_SECONDS,
        more=_IMPORT_MORE,
    )
    _add_operands(importing)
    importing.add_argument(
        "--dry-run", action="store_true", help="say what would be imported, and change nothing"
    )
    add_sync(importing)
    exporting = add_command(
        subparsers,
        "export",
        run_export,
        summary="write a producer's entries to a file",
        operands="[zshrs] FILE",
        examples=_EXPORT_EXAMPLES,
        usual_timeout=WRITE_SECONDS,
        more=_EXPORT_MORE,
    )
    _add_operands(exporting)
    exporting.add_argument(
        "--layout",
        choices=("1.95", "1.63"),
        help="the order of fields in zshrs's file: that of the rustc it was built with "
        "(default: 1.95)",
    )


def _add_operands(parser: Parser) -> None:
    parser.add_argument(
        "operands", metavar="FILE", nargs="+", help="the file; behind `zshrs`, zshrs's own"
    )


def run_import(context: Context) -> int:
    """Take entries over."""
    arguments = context.arguments
    if arguments.producer or arguments.binary is not None or arguments.mtime is not None:
        raise UsageError(
            "the file says whose entries it has, and their times: leave out --producer, --binary "
            "and --mtime"
        )
    is_zshrs, path = _read_operands(arguments.operands)
    from .importing import import_file  # noqa: PLC0415  no other command needs it

    return import_file(context, path, is_zshrs=is_zshrs)


def run_export(context: Context) -> int:
    """Write entries out."""
    arguments = context.arguments
    is_zshrs, path = _read_operands(arguments.operands)
    if path is None:
        raise UsageError(
            "where to? `autoloadctl export zshrs FILE`, or `autoloadctl export FILE`; "
            "a file of that name is ./zshrs"
        )
    if arguments.layout is not None and not is_zshrs:
        raise UsageError("--layout is for `autoloadctl export zshrs FILE`")
    from .exporting import export_file  # noqa: PLC0415  no other command needs it

    return export_file(context, path, is_zshrs=is_zshrs)


def _read_operands(operands: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether it is zshrs's own file, and its path; None where there is not one."""
    is_zshrs = operands[0] == ZSHRS
    paths = operands[1:] if is_zshrs else operands
    if len(paths) > 1:
        raise UsageError(f"one FILE at a time, not {len(paths)}: {' '.join(paths)}")
    return is_zshrs, paths[0] if paths else None
