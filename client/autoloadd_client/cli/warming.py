"""The command `warm`: its arguments. What it does is in `warm.py`, loaded when it is run."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from .conventions import WRITE_SECONDS
from .parser import add_command

if TYPE_CHECKING:
    from .context import Context
    from .parser import Subparsers

_EXAMPLES = """\
  autoloadctl warm zsh
  autoloadctl warm zsh $fpath
  autoloadctl warm zsh ~/.zsh/functions /usr/local/share/zsh/site-functions
  autoloadctl warm zsh --binary ~/src/zsh/Src/zsh
"""

_MORE = """
Only the files that are missing from the cache or stale are compiled.

Your startup files (.zshenv, .zshrc) are not read, so what they add to fpath is not known here:
from your own zsh, `autoloadctl warm zsh $fpath` takes it along.

A directory that is not there is passed over. A file that zsh cannot compile is left out and named;
that alone is no failure (exit status 0) unless nothing at all could be compiled (1)."""


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    warm = add_command(
        subparsers,
        "warm",
        run_warm,
        summary="compile and cache a shell's autoload functions",
        operands="zsh [DIR...]",
        examples=_EXAMPLES,
        usual_timeout=WRITE_SECONDS,
        more=_MORE,
    )
    warm.add_argument("shell", metavar="zsh", type=_read_shell, help="which shell")
    warm.add_argument(
        "directories",
        metavar="DIR",
        nargs="*",
        default=[],
        help="where functions are (default: the fpath that zsh has without startup files)",
    )


def _read_shell(text: str) -> str:
    if text != "zsh":
        raise ArgumentTypeError(f"zsh is the only shell so far, not {text!r}")
    return text


def run_warm(context: Context) -> int:
    """Warm the cache."""
    # It loads subprocess and tempfile, which no other command needs.
    from .warm import run_warm as run  # noqa: PLC0415

    return run(context)
