"""`python -m autoloadd_daemon.verify`: checks every file of a cache; `autoloadctl verify` runs it.

It reads, and changes nothing. A daemon may run meanwhile or not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .catalog import DROPPED, PROBE
from .config import load_settings, read_command_line
from .errors import ConfigError
from .storage.checking import FileReport, Verdict, check_shard, report_unknown
from .storage.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

PROGRAM = "autoloadctl verify"

EXIT_GOOD = 0
EXIT_DAMAGED = 1
EXIT_USAGE = 2
EXIT_UNREADABLE = 4
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_QUIET_SECONDS = 0.2

_ADVICE = {
    Verdict.DAMAGED: "the next start of autoloadd sets such files aside; what was only in them is "
    "compiled again (`autoloadctl warm zsh` does it for zsh at once)",
    Verdict.UNREADABLE: "look at owner and mode of what cannot be read; autoloadd does not start "
    "before it can read them",
    Verdict.UNKNOWN: "autoloadd leaves files alone that are none of its own",
}


class VerifyError(Exception):
    """Nothing can be checked. The message says why; `status` is the exit status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a cache directory. Sizes in bytes."""

    cache_dir: str
    files: Sequence[FileReport]

    def count(self, verdict: Verdict) -> int:
        """Return how many files have a verdict."""
        return sum(file.verdict is verdict for file in self.files)

    @property
    def status(self) -> int:
        """The exit status that says it."""
        if self.count(Verdict.DAMAGED):
            return EXIT_DAMAGED
        return EXIT_UNREADABLE if self.count(Verdict.UNREADABLE) else EXIT_GOOD

    def as_json(self) -> str:
        """Return one JSON map; paths' bytes that are no UTF-8 are lone surrogates."""
        counts = {verdict.value: self.count(verdict) for verdict in Verdict}
        files = [asdict(file) for file in self.files]
        return json.dumps({"cache_dir": self.cache_dir, "verdicts": counts, "files": files})

    def as_text(self) -> str:
        """Return a line for each file, then what is to be done."""
        rows = [_describe(file, self.cache_dir) for file in self.files]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] or [0] * 3
        lines = [
            f"{path:<{widths[0]}}  {size:>{widths[1]}}  {entries:>{widths[2]}}  {verdict}"
            for path, size, entries, verdict in rows
        ]
        size = sum(file.size for file in self.files)
        there = ", ".join(f"{n} {verdict}" for verdict in Verdict if (n := self.count(verdict)))
        files = "1 file" if len(rows) == 1 else f"{len(rows):,} files"
        lines.append(f"{self.cache_dir}: {files}, {size:,} B: {there or 'empty'}")
        lines += [f"{v}: {advice}" for v, advice in _ADVICE.items() if self.count(v)]
        return "\n".join(lines)


def _describe(file: FileReport, cache_dir: str) -> tuple[str, str, str, str]:
    what = str(file.verdict)
    if file.at is not None:
        what += f" at byte {file.at:,}"
    if file.problem is not None:
        # A journal's problem begins with the place itself.
        what += f": {file.problem.removeprefix(f'at byte {file.at or 0:,}: ')}"
    one, many = ("frame", "frames") if file.kind == "journal" else ("entry", "entries")
    unit = one if file.entries == 1 else many
    entries = "" if file.entries is None else f"{file.entries:,} {unit}"
    path = _printable(file.path.removeprefix(f"{cache_dir}/"))
    return path, f"{file.size:,} B", entries, _printable(what)


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1].replace("\\udc", "\\x")
        for letter in text
    )


def check_cache(
    cache_dir: str, shards: Sequence[str] = (), *, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Return what there is in a cache directory, or in some of its shards. Raises VerifyError.

    `tell` is called with what is looked at next.
    """
    files = Files()
    names = _names_in(cache_dir)
    missing = [shard for shard in shards if shard not in names]
    if missing:
        there = ", ".join(name for name in names if os.path.isdir(f"{cache_dir}/{name}"))
        raise VerifyError(
            EXIT_USAGE, f"there is no shard {missing[0]} in {cache_dir}; there are: {there or '-'}"
        )
    found: list[FileReport] = []
    for name in shards or names:
        tell(name)
        found += _check_entry(files, f"{cache_dir}/{name}")
    return Report(cache_dir, found)


def _names_in(cache_dir: str) -> list[str]:
    try:
        return sorted(os.listdir(cache_dir))
    except OSError as exc:
        why = "autoloadd makes it when it first starts; --cache-dir DIR checks another one"
        hint = f"; {why}" if isinstance(exc, FileNotFoundError) else ""
        raise VerifyError(EXIT_UNREADABLE, f"{cache_dir}: {exc.strerror}{hint}") from exc


def _check_entry(files: Files, path: str) -> Iterable[FileReport]:
    name = os.path.basename(path)
    try:
        if not os.path.isdir(path):
            return [_report_file(path, name)]
        if name.startswith(DROPPED):
            return [
                FileReport(path, "shard", Verdict.SPARE, 0, problem="dropped; removal was cut off")
            ]
        return check_shard(files, path)
    except FileNotFoundError:
        return []  # gone meanwhile
    except OSError as exc:
        return [FileReport(path, "shard", Verdict.UNREADABLE, 0, problem=exc.strerror)]


def _report_file(path: str, name: str) -> FileReport:
    if name == PROBE:
        size = os.lstat(path).st_size
        return FileReport(path, "left over", Verdict.SPARE, size, problem="a try of the disk")
    return report_unknown(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print, return the exit status."""
    try:
        return _run(argv)
    except VerifyError as exc:
        return _fail(exc.status, str(exc))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as exc:
        # Python tries once more at its end to write what is left, and exits with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):
            return EXIT_BROKEN_PIPE  # the reader has what it wanted
        return _fail(EXIT_UNREADABLE, f"{exc.filename or 'stdout'}: {exc.strerror}")


def _run(argv: Sequence[str] | None) -> int:
    arguments = _make_parser().parse_args(argv)
    tell = Progress(sys.stderr)
    try:
        report = check_cache(_find_cache(arguments.cache_dir), arguments.shards, tell=tell.show)
    finally:
        tell.clear()
    sys.stdout.write((report.as_json() if arguments.json else report.as_text()) + "\n")
    sys.stdout.flush()
    return report.status


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("--cache-dir", metavar="DIR", help="another cache than the usual one")
    parser.add_argument("--json", action="store_true", help="print one JSON map")
    parser.add_argument("shards", metavar="SHARD", nargs="*", help="just these shards")
    return parser


def _find_cache(chosen: str | None) -> str:
    """Return the cache directory: the one that a daemon would use. Raises VerifyError."""
    options = [] if chosen is None else [f"--cache-dir={chosen}"]
    try:
        return load_settings(read_command_line(options), os.environ).cache_dir
    except ConfigError as exc:
        raise VerifyError(EXIT_USAGE, str(exc)) from exc


class Progress:
    """One line on a terminal that says what is looked at, once it takes longer than `quiet`."""

    def __init__(self, stream: TextIO, *, quiet: float = _QUIET_SECONDS) -> None:
        self._stream = stream
        self._on = stream.isatty()
        self._drawn = False
        self._quiet_until = time.monotonic() + quiet

    def show(self, name: str) -> None:
        """Say what comes next."""
        if self._on and time.monotonic() >= self._quiet_until:
            self._drawn = True
            self._stream.write(f"\rchecking {_printable(name)}\x1b[K")
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _fail(status: int, message: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {_printable(message)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
