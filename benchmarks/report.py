"""The report's lines: rates, percentiles, and units that people read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shells import Outcome

HEADING = f"{'':<24}{'gets/s':>10}{'p50':>9}{'p99':>9}{'puts/s':>12}{'p50':>9}{'p99':>9}"


@dataclass(frozen=True)
class Rate:
    """How often one kind of call came back: calls per second, and ns per call."""

    per_second: float
    p50_ns: int
    p99_ns: int

    def __str__(self) -> str:
        """Return the three columns of the report."""
        return f"{self.per_second:>10,.0f}{say_time(self.p50_ns):>9}{say_time(self.p99_ns):>9}"


def measure(times: Sequence[int], seconds: float) -> Rate | None:
    """Return the rate of calls that took these times (ns); None where there were none."""
    if not times:
        return None
    ordered = sorted(times)
    return Rate(
        len(ordered) / seconds, ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    )


def measure_gets(outcomes: Sequence[Outcome], seconds: float) -> Rate | None:
    """Return the rate of all shells' gets together."""
    return measure([time for outcome in outcomes for time in outcome.gets], seconds)


def measure_puts(outcomes: Sequence[Outcome], seconds: float) -> Rate | None:
    """Return the rate of all shells' puts together."""
    return measure([time for outcome in outcomes for time in outcome.puts], seconds)


def say_line(label: str, gets: Rate | None, puts: Rate | None) -> str:
    """Return one line under HEADING."""
    return f"{label:<24}{gets or ''!s:<28}  {puts or ''}".rstrip()


def say_time(ns: int) -> str:
    """Return a time in the unit that people would choose."""
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} µs"
    return f"{ns / 1e6:.1f} ms" if ns < 100_000_000 else f"{ns / 1e6:,.0f} ms"


def say_bytes(count: int) -> str:
    """Return a size in the unit that people would choose."""
    if count < 1_000_000:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB"


def show_progress(text: str) -> None:
    """Show what is going on, on a terminal only; an empty text removes it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
