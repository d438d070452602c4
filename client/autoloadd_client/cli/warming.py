"""The command `warm`: its arguments. What it does is in `warm.py`, loaded when it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conventions import WRITE_SECONDS
from .parser import add_command

if TYPE_CHECKING:
    from .context import Context
    from .parser import Subparsers

_EXAMPLES = """\
  autoloadctl warm zsh
  autoloadctl warm zsh ~/.zsh/functions /usr/local/share/zsh/site-functions
  autoloadctl warm zsh --binary ~/src/zsh/Src/zsh
"""


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
    )
    warm.add_argument("shell", metavar="zsh", choices=("zsh",), help="which shell")
    warm.add_argument(
        "directories", metavar="DIR", nargs="*", help="where functions are (default: zsh's fpath)"
    )


def run_warm(context: Context) -> int:
    """Warm the cache."""
    # It loads subprocess and tempfile, which no other command needs.
    from .warm import run_warm as run  # noqa: PLC0415

    return run(context)
