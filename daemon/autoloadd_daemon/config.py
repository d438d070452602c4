"""The configuration: made once from command line, environment and file, in this precedence."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from autoloadd_protocol import __version__
from autoloadd_protocol.errors import RendezvousError
from autoloadd_protocol.rendezvous import (
    cache_directory,
    check_socket_path,
    config_file,
    socket_path,
)

from .errors import ConfigError
from .log import LEVELS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
MIN_MAX_BYTES = 16 * 1024 * 1024
DEFAULT_SYNC_INTERVAL = 1.0

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = r"(\d+)\s*([kmgt]?)(?:i?b)?"
_EPILOG = """\
Each option can also be set by an environment variable (AUTOLOADD_SOCKET, AUTOLOADD_CACHE_DIR,
AUTOLOADD_MAX_BYTES, AUTOLOADD_SYNC_INTERVAL, AUTOLOADD_LOG_LEVEL) or in the configuration file:

  max_bytes = "256 MiB"
  sync_interval = 0.5

The command line wins over the environment, the environment over the file.

exit status:
  0  stopped cleanly
  1  could not start, for a reason that the log gives
  2  an option or the configuration cannot be used
  3  another autoloadd serves this cache directory or socket; nothing was touched

signals: TERM and INT stop cleanly, with everything flushed. HUP reads the configuration again:
max_bytes, sync_interval and log_level change at once, socket and cache_dir at the next start.

examples:
  autoloadd                                 serve at the usual place
  autoloadd --check-config                  say where each setting comes from
  autoloadd --socket ~/t/s --cache-dir ~/t/cache --log-level debug
"""


AT_ONCE = ("max_bytes", "sync_interval", "log_level")
"""Settings that SIGHUP changes in a running daemon."""

AT_START = ("socket", "cache_dir")
"""Settings that only a start reads: what is locked and served now stays."""

_OTHER_VARIABLES = frozenset(
    {
        "AUTOLOADD_CONFIG", "AUTOLOADD_SERVING",
        "AUTOLOADD_CACHE", "AUTOLOADD_PRODUCER", "AUTOLOADD_WAIT_MS",
    }
)  # fmt: skip
"""Variables besides the settings' own; those of the second line are for clients."""


class Settings(NamedTuple):
    """Everything that can be set. `max_bytes` in bytes, `sync_interval` in seconds.

    `sources` says for each setting where its value came from.
    """

    socket: str
    cache_dir: str
    max_bytes: int
    sync_interval: float
    log_level: str
    sources: Mapping[str, str]

    def differing(self, other: Settings, names: Sequence[str]) -> list[str]:
        """Return `NAME: OLD -> NEW` for each of these settings that `other` has otherwise."""
        both = [(name, getattr(other, name), getattr(self, name)) for name in names]
        return [f"{name}: {old} -> {new}" for name, old, new in both if old != new]

    def describe(self) -> str:
        """Return a line for each setting: its value and where it came from."""
        rows = [(name, str(getattr(self, name)), source) for name, source in self.sources.items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows
        )


class CommandLine:
    """The options as they were given; None for those that were not."""

    def __init__(self) -> None:
        self.socket: str | None = None
        self.cache_dir: str | None = None
        self.config: str | None = None
        self.max_bytes: str | None = None
        self.sync_interval: str | None = None
        self.log_level: str | None = None
        self.check_config = False


def read_command_line(argv: Sequence[str] | None = None) -> CommandLine:
    """Parse the command line; leaves with 2 and says why if it cannot be used."""
    given = sys.argv[1:] if argv is None else argv
    return read_plain(given) or make_parser().parse_args(given, namespace=CommandLine())


def read_plain(argv: Sequence[str]) -> CommandLine | None:
    """Return what the parser would, of options with a value each; None for anything unusual.

    argparse costs 3 ms of each start, and a start has such options or none.
    """
    found = CommandLine()
    words = iter(argv)
    for word in words:
        option, has_value, value = word.partition("=")
        if not has_value:
            value = next(words, "-")
        if value == "--" or (value.startswith("-") and not has_value):
            return None
        name = option.removeprefix("--").replace("-", "_")
        if option != f"--{name.replace('_', '-')}" or name not in _WITH_VALUE:
            return None
        setattr(found, name, value)
    return found


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    import argparse  # noqa: PLC0415  most starts do without

    parser = argparse.ArgumentParser(
        prog="autoloadd",
        description="A cache daemon, one per user, for what shells have already compiled.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--socket", metavar="PATH", help="Unix socket to serve")
    parser.add_argument("--cache-dir", metavar="DIR", help="where the shards are kept")
    parser.add_argument("--config", metavar="FILE", help="TOML file to read settings from")
    parser.add_argument(
        "--max-bytes", metavar="SIZE", help="bound of all shards together (default: 512 MiB)"
    )
    parser.add_argument(
        "--sync-interval",
        metavar="SECONDS",
        help="what a power loss may take of writes that were not synced (default: 1)",
    )
    parser.add_argument("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    parser.add_argument(
        "--check-config", action="store_true", help="say where each setting comes from, and exit"
    )
    parser.add_argument("--version", action="version", version=f"autoloadd {__version__}")
    return parser


def load_settings(arguments: CommandLine, environment: Mapping[str, str]) -> Settings:
    """Return the settings. Raises ConfigError that names the source, and what was expected."""
    file_values = _read_file(arguments.config, environment)
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, (parse, default) in _SETTINGS.items():
        value, source = _choose(name, arguments, environment, file_values)
        try:
            chosen[name] = default(environment) if value is None else parse(value)
        except (ValueError, RendezvousError) as exc:
            raise ConfigError(f"{source}: {name}: {exc}") from exc
        sources[name] = source
    return Settings(**chosen, sources=sources)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that looks like a setting and is none."""
    known = {f"AUTOLOADD_{name.upper()}" for name in _SETTINGS} | _OTHER_VARIABLES
    unknown = sorted(name for name in environment if name.startswith("AUTOLOADD_"))
    return [
        f"environment {name}: there is no such setting, it is ignored; known: "
        + ", ".join(sorted(known))
        for name in unknown
        if name not in known
    ]


class _FileValues(NamedTuple):
    path: str
    values: Mapping[str, object]
    lines: Mapping[str, int]


def _choose(
    name: str,
    arguments: CommandLine,
    environment: Mapping[str, str],
    file_values: _FileValues | None,
) -> tuple[object, str]:
    value: object = getattr(arguments, name)
    if value is not None:
        return value, f"command line --{name.replace('_', '-')}"
    variable = f"AUTOLOADD_{name.upper()}"
    if environment.get(variable):
        return environment[variable], f"environment {variable}"
    if file_values is not None and name in file_values.values:
        return file_values.values[name], f"{file_values.path}:{file_values.lines[name]}"
    return None, "default"


def _read_file(chosen: str | None, environment: Mapping[str, str]) -> _FileValues | None:
    path = chosen or config_file(environment)
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except FileNotFoundError as exc:
        if chosen or environment.get("AUTOLOADD_CONFIG"):
            raise ConfigError(f"{path}: there is no such configuration file") from exc
        return None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8, expected a TOML file") from exc
    if not text.strip():
        return None
    import tomllib  # noqa: PLC0415  3 ms, and most have no such file

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f'{path}: {exc}; expected TOML, such as max_bytes = "256 MiB"') from exc
    lines = {name: _line_of(name, text) for name in values}
    for name in values:
        if name not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise ConfigError(f"{path}:{lines[name]}: unknown setting {name!r}; known: {known}")
    return _FileValues(path, values, lines)


def _line_of(name: str, text: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[*\s*[\"']?{re.escape(name)}\b", line):
            return number
    return 1


def _parse_path(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a path")
    return os.path.abspath(os.path.expanduser(value))


def _parse_socket(value: object) -> str:
    return check_socket_path(_parse_path(value))


def _parse_size(value: object) -> int:
    text = str(value).strip() if isinstance(value, str | int) else ""
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value!r}: expected a size, such as 512 MiB or 536870912")
    size = int(match[1]) * _UNITS[match[2].lower()]
    if size < MIN_MAX_BYTES:
        raise ValueError(f"{value!r}: expected at least {MIN_MAX_BYTES // 1024**2} MiB")
    return size


def _parse_seconds(value: object) -> float:
    try:
        seconds = float(str(value).strip().removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if isinstance(value, bool) or not 0.01 <= seconds <= 3600:
        raise ValueError(f"{value!r}: expected seconds from 0.01 to 3600")
    return seconds


def _parse_level(value: object) -> str:
    if value not in LEVELS:
        raise ValueError(f"{value!r}: expected one of {', '.join(LEVELS)}")
    return str(value)


def _default_socket(environment: Mapping[str, str]) -> str:
    return socket_path(environment, os.geteuid(), os.lstat)


_SETTINGS: dict[str, tuple[Callable[[object], Any], Callable[[Mapping[str, str]], Any]]] = {
    "socket": (_parse_socket, _default_socket),
    "cache_dir": (_parse_path, cache_directory),
    "max_bytes": (_parse_size, lambda _environment: DEFAULT_MAX_BYTES),
    "sync_interval": (_parse_seconds, lambda _environment: DEFAULT_SYNC_INTERVAL),
    "log_level": (_parse_level, lambda _environment: "info"),
}

_WITH_VALUE = frozenset({"config", *_SETTINGS})
