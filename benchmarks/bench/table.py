"""The table of goals, the machine it was made on, and the JSON of a run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .verdicts import Row

TITLES = ("goal", "what", "ours", "peer", "ratio", "middle half", "wanted", "verdict")
_RIGHT = (0, 2, 3, 4)
_PACKAGES = ("autoloadd", "trio", "lmdb", "redis", "hiredis", "pymemcache", "pylibmc", "diskcache")


def format_table(rows: Sequence[Row]) -> str:
    """Return the table: one line for each goal, columns as wide as they need."""
    return align(TITLES, [_cells(row) for row in rows], right=_RIGHT)


def align(titles: Sequence[str], lines: Sequence[Sequence[str]], *, right: Collection[int]) -> str:
    """Return lines under their titles; the columns `right` end at one place."""
    cells = [titles, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    return "\n".join(_line(line, widths, right) for line in cells)


def short(value: float) -> str:
    """Return a figure with as many digits as one reads."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say_verdict(rows: Sequence[Row], reasons: Sequence[str]) -> str:
    """Return what the run says as a whole. `reasons` are those for which it is invalid."""
    invalid = [row for row in rows if not row.verdict.is_valid]
    met = sum(row.verdict.value == "met" for row in rows)
    said = f"{met} met, {len(rows) - met - len(invalid)} not met, {len(invalid)} invalid"
    return "\n".join([said, *(f"invalid: {reason}" for reason in reasons)])


def as_json(row: Row) -> dict[str, Any]:
    """Return a row for the JSON file."""
    goal = row.goal
    return {
        "goal": goal.number,
        "what": goal.what,
        "unit": goal.unit,
        "ours": {"figure": goal.ours, "median": row.ours},
        "peer": None if goal.peer is None else {"figure": goal.peer, "median": row.peer},
        "ratio": {"median": row.ratio, "low": row.low, "high": row.high},
        "wanted": goal.wanted,
        "verdict": row.verdict.value,
    }


def describe_machine(place: Path) -> dict[str, str]:
    """Return what the figures depend on: processor, kernel, file system, versions."""
    found = {
        "processor": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "file system": _run("stat", "--file-system", "--format=%T", str(place)),
        "python": platform.python_version(),
        "redis-server": _run("redis-server", "--version"),
        "memcached": _run("memcached", "--version"),
    }
    return {**found, **{name: version(name) for name in _PACKAGES}}


def format_machine(machine: Mapping[str, str]) -> str:
    """Return it on one line."""
    return ", ".join(f"{what} {value}" for what, value in machine.items())


def _cells(row: Row) -> tuple[str, ...]:
    half = "" if row.low is None or row.high is None else f"{_short(row.low)} to {_short(row.high)}"
    goal = row.goal
    return (
        str(goal.number), goal.what, _figure(row.ours, goal.unit), _figure(row.peer, goal.unit),
        _short(row.ratio), half, goal.wanted, row.verdict.value,
    )  # fmt: skip


def _line(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    pairs = enumerate(zip(cells, widths, strict=True))
    aligned = [cell.rjust(w) if column in right else cell.ljust(w) for column, (cell, w) in pairs]
    return "  ".join(aligned).rstrip()


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_short(value)} {unit}".rstrip()


def _short(value: float | None) -> str:
    return "" if value is None else short(value)


def _first(path: str, key: str) -> str | None:
    with Path(path).open(encoding="utf-8") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), None)


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "missing"
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip().partition(" sha=")[0]
