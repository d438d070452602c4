"""`autoloadctl verify`: the files of the cache, checked without the daemon.

What reads them is the daemon's own code, which the client never imports: it is run as a program.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

from .conventions import FailedError
from .parser import add_command
from .statuses import REFUSED

if TYPE_CHECKING:
    from .context import Context
    from .parser import Subparsers

_PACKAGE = "autoloadd_daemon"

_MORE = """ It reads image, journals and bulk
files and compares every checksum; it changes nothing, needs no daemon, and works beside one.

verdicts: ok; torn tail (a crash cut off what was not promised: no damage); not needed; set aside
(damaged once, kept, never served); unknown (no file of autoloadd's); damaged; cannot be read.

exit status: 0 nothing is damaged, 1 something is, 2 usage, 4 something cannot be read.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Add this command to autoloadctl's."""
    parser = add_command(
        subparsers,
        "verify",
        run_verify,
        summary="check every file of the cache, without the daemon",
        operands="[SHARD]...",
        examples="  autoloadctl verify\n"
        "  autoloadctl verify --cache-dir /mnt/backup/autoloadd\n"
        "  autoloadctl verify --json | jq '.files[] | select(.verdict == \"damaged\")'\n",
        data=False,
        more=_MORE,
    )
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="the cache to check (default: the daemon's usual one)"
    )
    parser.add_argument(
        "shards", metavar="SHARD", nargs="*", help="just these, as `autoloadctl shards` lists them"
    )


def run_verify(context: Context) -> int:
    """Run the check; its output and its exit status are this command's."""
    if importlib.util.find_spec(_PACKAGE) is None:
        message = f"{_PACKAGE} is not installed beside this program: install autoloadd again"
        raise FailedError(REFUSED, message)
    # -P: what lies in the current directory is none of our code.
    command = [sys.executable, "-P", "-m", f"{_PACKAGE}.verify"]
    if context.arguments.cache_dir is not None:
        command.append(f"--cache-dir={context.arguments.cache_dir}")
    if context.wants_json:
        command.append("--json")
    return subprocess.run([*command, "--", *context.arguments.shards], check=False).returncode  # noqa: S603  our own program
