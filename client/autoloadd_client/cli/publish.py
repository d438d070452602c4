"""The command `publish`: its arguments, and the short way of it where nothing has changed.

What it does where something has is in `publish_zsh.py`, loaded when it is run.
"""

from __future__ import annotations

import os
import sys
import time

from autoloadd_client.outputs.question import find_in_path
from autoloadd_client.publishing.watching import find_unchanged, note_observation
from autoloadd_protocol.errors import RendezvousError
from autoloadd_protocol.rendezvous import is_switched_off, socket_path

from .conventions import WRITE_SECONDS
from .descriptors import STDOUT, write_all
from .statuses import FOUND, INTERRUPTED

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from .context import Context
    from .parser import Subparsers

_EXAMPLES = """\
  autoloadctl publish zsh --fpath $fpath
  autoloadctl publish zsh --dry-run
  autoloadctl publish zsh --print-dir --fpath $fpath
"""

_MORE = """

Compiles and caches what is missing (as `warm` does), and lays all of it out as files that zsh maps:
a directory to stand first in fpath and the digest beside it, and another one, `completions` beside
the first, for names that begin with `_`. zsh itself falls back to the sources where a digest is
missing, older than a source, or of another version.

Each fpath has a directory of its own; the 4 that were used last are kept.

Nothing is done, in a few ms, while the files of fpath are as they were when it was published. Each
may differ in path, size, inode or time: newer is not asked for.

What is compiled was read without aliases (as by `autoload -U`) and with zsh's default options. A
function that fpath has only in compiled form is left to zsh."""

NOTHING_CHANGED = "nothing has changed in fpath since it was published"


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    from .parser import add_command  # noqa: PLC0415  the short way does without

    publish = add_command(
        subparsers,
        "publish",
        run_publish,
        summary="lay the cached functions out for zsh, as one compiled file",
        operands="zsh",
        examples=_EXAMPLES,
        usual_timeout=WRITE_SECONDS,
        more=_MORE,
    )
    publish.add_argument("shell", metavar="zsh", choices=("zsh",), help="which shell")
    publish.add_argument(
        "--fpath",
        metavar="DIR",
        nargs="+",
        help="where functions are, in zsh's order (default: the fpath that zsh has without "
        "startup files)",
    )
    publish.add_argument(
        "--print-dir",
        action="store_true",
        help="print the directory for this --fpath, and do nothing",
    )
    publish.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )


def run_publish(context: Context) -> int:
    """Publish zsh's functions."""
    from .publish_zsh import run_publish as run  # noqa: PLC0415

    return run(context)


def run_fast(arguments: list[str]) -> None:
    """Answer `publish zsh --fpath DIR...` and end the process where nothing has changed.

    Returns where it has, and where the arguments are others. `arguments` are those behind
    `publish`.
    """
    if arguments[:2] != ["zsh", "--fpath"] or _has_options(arguments[2:]):
        return
    if sys.stdout is None or is_switched_off(os.environ):
        return
    try:
        is_done = _say_what_is_unchanged(arguments[2:])
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except (OSError, RendezvousError):
        return  # the long way has words for it
    if is_done:
        os._exit(FOUND)


def _say_what_is_unchanged(fpath: list[str]) -> bool:
    """Tell whether nothing has changed, having said so. Raises OSError or RendezvousError."""
    path = socket_path(os.environ, os.geteuid(), os.lstat)
    now_ns = time.time_ns()
    zsh = find_in_path("zsh", os.environ)
    place = None if zsh is None else find_unchanged(path, zsh, fpath, now_ns)
    if place is None:
        return False
    note_observation(place, now_ns)
    write_all(STDOUT, f"zsh: {NOTHING_CHANGED}\n".encode())
    return True


def _has_options(arguments: list[str]) -> bool:
    return not arguments or any(argument.startswith("-") for argument in arguments)
