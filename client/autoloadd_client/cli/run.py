"""One run of autoloadctl: arguments in, exit code out. The one place where errors become codes."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING

from autoloadd_client.errors import CacheError
from autoloadd_client.shells.errors import ShellError

from . import cached, control, data, exchange, publish, shard, shell, verify, warming, why
from .context import Context
from .conventions import FailedError, UsageError, describe_failure, error_line
from .parser import build_parser, default_options
from .statuses import BROKEN_PIPE, INTERRUPTED, USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .parser import Parser

_GROUPS = (
    data.add_commands,
    shard.add_commands,
    warming.add_commands,
    exchange.add_commands,
    publish.add_commands,
    cached.add_commands,
    shell.add_commands,
    why.add_commands,
    control.add_commands,
    verify.add_commands,
)


def make_parser() -> Parser:
    """Return the parser with all commands."""
    return build_parser(_GROUPS)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is on stderr.

    Raises SystemExit for --help, --version and what the parser does not understand.
    """
    _open_closed_streams()
    _use_utf8()
    try:
        return _run_and_flush(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE  # the reader has what it wanted
    except OSError as exc:
        # Reading files has its own errors: this is stdout, or the place for temporary files.
        return _tell(USAGE, f"{exc.filename or 'stdout'}: {exc.strerror}")
    finally:
        _drop_unwritable()


def _run_and_flush(arguments: Sequence[str]) -> int:
    try:
        status = _run_command(arguments)
    except FailedError as exc:
        status = _tell(exc.status, str(exc))
    sys.stdout.flush()
    return status


def _run_command(arguments: Sequence[str]) -> int:
    """Run the command. Raises FailedError for everything that has a message for the user."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    options = make_parser().parse_args(arguments, default_options())
    try:
        status: int = options.run(Context(options))
    except (UsageError, ShellError) as exc:
        raise FailedError(USAGE, str(exc)) from exc
    except CacheError as exc:
        raise FailedError(*describe_failure(exc)) from exc
    return status


def _tell(status: int, message: str) -> int:
    try:
        sys.stderr.write(error_line(message))
    except OSError:
        return status  # there is no one to tell
    return status


def _drop_unwritable() -> None:
    """Forget what could not be written: Python tries once more at its end, and exits with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_closed_streams() -> None:
    """Give the numbers 0 to 2 to /dev/null where they are free.

    Otherwise the socket gets one of them, and the daemon what is meant for stdout. `sys.stdin`
    stays None: who reads from it has to say so.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  open until the end


def _use_utf8() -> None:
    """Names are UTF-8, whatever the locale says; bytes of paths that are not pass unchanged."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
