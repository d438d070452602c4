"""autoloadctl's arguments: what every command understands, and the help that teaches it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from autoloadd_protocol import __version__
from autoloadd_protocol.producer import parse_producer

from .context import EXAMPLE_PRODUCER, Context
from .conventions import PROGRAM, READ_SECONDS, WRITE_SECONDS, error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from autoloadd_protocol.producer import Producer

    Subparsers = argparse._SubParsersAction["Parser"]

_MAX_TIME = 2**63 - 1

_DESCRIPTION = """\
Talk to autoloadd, the daemon that caches what shells compile and what slow tools print.
"""

_EPILOG = f"""\
examples:
  {PROGRAM} status
  {PROGRAM} warm zsh
  {PROGRAM} get _git --producer {EXAMPLE_PRODUCER} > _git.zwc
  {PROGRAM} ls _git --producer {EXAMPLE_PRODUCER} --binary /bin/zsh

exit status:
  0  found, or done
  1  miss: the cache does not have it, or only what is stale, or it is switched off
  2  the command line is wrong, or a file cannot be read
  3  the daemon cannot be reached (the message says where it was looked for)
  4  the daemon refused (the message says why)

environment:
  AUTOLOADD_SOCKET    the daemon's socket; without it, `{PROGRAM} version` says where it is
  AUTOLOADD_PRODUCER  whose entries: NAME/VERSION/WIDTH, as for --producer
  AUTOLOADD_CACHE     0, false or no switches the cache off: every get is a miss
  NO_COLOR            no colour on the terminal
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors point at the help instead of printing usage.

    A command's operands may stand before, between and behind its options (`takes_mixed`); behind
    `--` everything is an operand.
    """

    takes_mixed = False

    _takes_all: str | None = None
    """An option that is there and takes all that follows it."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an operand that may be left out is also found behind an option."""
        if not self.takes_mixed:
            return super().parse_known_args(args, namespace)
        # It comes back here twice, for the options and for the operands.
        self.takes_mixed = False
        self._takes_all = "--fpath" if "--fpath" in (args or ()) else None
        try:
            found, rest = self.parse_known_intermixed_args(_shield(args or ()), namespace)
        finally:
            self.takes_mixed = True
            self._takes_all = None
        if rest:
            self.error(f"unrecognized arguments: {' '.join(map(_unshield, rest))}")
        for name, value in vars(found).items():
            setattr(found, name, _unshield(value))
        return found, rest

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        if self._takes_all is not None and "are required" in message:
            message += f": what stands behind {self._takes_all} is taken for its own: put "
            message += "them before it"
        self.exit(2, error_line(f"{message} (see `{self.prog} --help`)"))

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise argparse.ArgumentError(None, _describe_unknown(str(value), action.choices))
        super()._check_value(action, value)


_SHIELD = "\0"
"""No argument holds this byte: one behind `--` that gets it is taken for an option no more."""


def _shield(arguments: Sequence[str]) -> list[str]:
    # argparse itself forgets between its two passes what stood behind `--`.
    if "--" not in arguments:
        return list(arguments)
    end = arguments.index("--")
    operands = (
        _SHIELD + argument if argument.startswith("-") and argument != "-" else argument
        for argument in arguments[end + 1 :]
    )
    return [*arguments[:end], *operands]


def _unshield(value: Any) -> Any:
    if isinstance(value, list):
        return [_unshield(item) for item in value]
    return value.removeprefix(_SHIELD) if isinstance(value, str) else value


def _describe_unknown(command: str, known: Iterable[str]) -> str:
    # Only who mistyped waits for this import.
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(command, list(known), n=1)
    return f"there is no command {command!r}" + (f"; did you mean {near[0]}?" if near else "")


def build_parser(groups: Sequence[Callable[[Subparsers], None]]) -> Parser:
    """Return the parser with the commands that each group adds."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [OPTION]... COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__}",
        help="show autoloadctl's version and exit",
    )
    _add_options(parser, data=True)
    subparsers: Subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", prog=PROGRAM, required=True, parser_class=Parser
    )
    for add_commands in groups:
        add_commands(subparsers)
    return parser


def default_options() -> argparse.Namespace:
    """Return the value of each common option that is not given."""
    return argparse.Namespace(
        socket=None, timeout=None, json=False, producer=None, binary=None, mtime=None
    )


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[Context], int],
    *,
    summary: str,
    operands: str = "",
    examples: str,
    data: bool = True,
    usual_timeout: float = READ_SECONDS,
    more: str = "",
) -> Parser:
    """Add a command: `summary` is its line in the list, `examples` the end of its own help.

    `operands` is what its usage line shows behind the options; they are added by the caller.
    `data` says that it works on one producer's entries. `usual_timeout` is in seconds. `more` is
    what its own help says besides the summary.
    """
    parser: Parser = subparsers.add_parser(
        name,
        usage=f"{PROGRAM} {name} [OPTION]... {operands}".rstrip(),
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{more}",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, usual_timeout=usual_timeout)
    parser.takes_mixed = True
    _add_options(parser, data=data)
    return parser


def add_sync(parser: Parser) -> None:
    """Add --sync."""
    parser.add_argument(
        "--sync",
        choices=("memory", "write", "fsync"),
        default="write",
        help="when it counts as stored: applied, handed to the system (survives a crash of the "
        "daemon; the default), or on stable storage (survives power loss)",
    )


def add_fingerprint(parser: Parser, purpose: str) -> None:
    """Add --fingerprint-file."""
    parser.add_argument("--fingerprint-file", metavar="PATH", help=purpose)


def _add_options(parser: Parser, *, data: bool) -> None:
    """Add the options that every command takes; those it makes no use of are not in its help."""
    common = parser.add_argument_group("options everywhere")
    # SUPPRESS: an option given before the command must not be reset by the command's own default.
    absent = argparse.SUPPRESS
    common.add_argument("--socket", metavar="PATH", default=absent, help="the daemon's socket")
    common.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_read_seconds,
        default=absent,
        help=f"the longest wait for an answer (default: {READ_SECONDS:g}, for writes "
        f"{WRITE_SECONDS:g})",
    )
    common.add_argument(
        "--json", action="store_true", default=absent, help="print JSON: exact numbers, raw names"
    )
    shown = "whose entries, such as {} (default: AUTOLOADD_PRODUCER, or the only one there is)"
    common.add_argument(
        "--producer",
        metavar="NAME/VERSION/WIDTH[/BUILD]",
        type=_read_producer,
        default=absent,
        help=shown.format(EXAMPLE_PRODUCER) if data else absent,
    )
    times = common.add_mutually_exclusive_group()
    times.add_argument(
        "--binary",
        metavar="PATH",
        default=absent,
        help="the shell's program: entries older than it are stale" if data else absent,
    )
    times.add_argument(
        "--mtime",
        metavar="NS",
        type=_read_time,
        default=absent,
        help="the same as a time, in ns since 1970" if data else absent,
    )


def _read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from exc
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} s is no time to wait; it must be over 0")
    return seconds


def _read_time(text: str) -> int:
    try:
        time_ns = int(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of ns") from exc
    if abs(time_ns) > _MAX_TIME:
        raise argparse.ArgumentTypeError(f"{text} does not fit 64 bits")
    return time_ns


def _read_producer(text: str) -> Producer:
    try:
        return parse_producer(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
