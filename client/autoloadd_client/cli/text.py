"""Numbers, times and tables for people. Values in, text out; only Progress writes anything."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO

from .conventions import escape_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")

_MICROSECOND = 1_000
_MILLISECOND = 1_000 * _MICROSECOND
_SECOND = 1_000 * _MILLISECOND
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

_TWO_UNITS = (
    (_DAY, "d", _HOUR, "h"),
    (_HOUR, "h", _MINUTE, "min"),
    (_MINUTE, "min", _SECOND, "s"),
)

_DRAW_SECONDS = 0.05
_BAR_CELLS = 30


def format_size(size: int) -> str:
    """Return a number of bytes in decimal units: 532 B, 5.3 MB."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 1 if unit and value < 99.95 else 0
    return f"{value:.{digits}f} {_SIZE_UNITS[unit]}"


def format_mebibytes(size: int) -> str:
    """Return a number of bytes in the unit that sizes are configured in: 512 MiB."""
    return f"{round(size / 2**20, 1):,.10g} MiB"


def format_count(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: 1 entry, 1,242 entries."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def format_duration(ns: int) -> str:
    """Return a length of time in the two units that matter: 0.4 ms, 12 s, 2 h 5 min, 3 d 4 h."""
    if ns < _MILLISECOND:
        return f"{ns / _MICROSECOND:.0f} µs"
    if ns < _SECOND:
        return f"{ns / _MILLISECOND:.1f} ms"
    if ns < _MINUTE:
        return f"{ns / _SECOND:.{1 if ns < 10 * _SECOND else 0}f} s"
    unit, name, part, part_name = next(row for row in _TWO_UNITS if ns >= row[0])
    rest = ns % unit // part
    return f"{ns // unit} {name} {rest} {part_name}" if rest else f"{ns // unit} {name}"


def format_ago(ns: int) -> str:
    """Return how long ago something was, in one unit: 3 min ago. Under a second: just now."""
    if ns < _SECOND:
        return "just now"
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if ns >= unit:
            return f"{ns // unit} {name} ago"
    return f"{ns // _SECOND} s ago"


def format_table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Return rows as aligned lines, each ended; the columns in `right` are aligned to the right."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def make_printable(text: str) -> str:
    r"""Return text that a terminal shows and does not obey: control characters become \xNN."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in escape_bytes(text)
    )


def has_colour(stream: TextIO) -> bool:
    """Tell whether colour is wanted: on a terminal without NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


class Palette:
    """Paints text where the stream shows colour, and leaves it alone where not."""

    def __init__(self, stream: TextIO) -> None:
        self._on = has_colour(stream)

    def good(self, text: str) -> str:
        """Return what is as it should be."""
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        """Return what needs a look."""
        return self._paint("31", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text


class Progress:
    """A bar on a terminal; nothing anywhere else. Redrawn at most 20 times a second.

    A context: at its end the bar is taken away, since the lines that follow say what came of it.
    """

    def __init__(self, stream: TextIO, label: str, total: int) -> None:
        self._stream = stream
        self._label = label
        self._total = total
        self._on = stream.isatty() and total > 0
        self._drawn_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def show(self, done: int) -> None:
        """Draw how far it is."""
        now = time.monotonic()
        if not self._on or (now - self._drawn_at < _DRAW_SECONDS and done < self._total):
            return
        self._drawn_at = now
        cells = _BAR_CELLS * min(done, self._total) // self._total
        bar = "█" * cells + "░" * (_BAR_CELLS - cells)
        self._stream.write(f"\r{self._label} {bar} {done:,} of {self._total:,}\x1b[K")
        self._stream.flush()
