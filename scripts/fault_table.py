"""Print what the fault cases found.

    python fault_table.py [--json] REPORT

REPORT has the lines of JSON that `pytest --fault-report` writes, one for each test. Cases of one
name are one row: their counts add up, the worst recovery is the longest, and one failure is the
row's verdict. Exits with 1 if a case failed, lost a write or served a wrong byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_WORST_FIRST = ("failed", "not run", "passed")
_TITLES = ("case", "explored", "lost", "wrong", "worst recovery", "verdict")


def main(arguments: list[str]) -> int:
    """Print the table, return the exit code."""
    as_json = arguments[:1] == ["--json"]
    paths = arguments[as_json:]
    if len(paths) != 1:
        print("usage: fault_table.py [--json] REPORT", file=sys.stderr)
        return 2
    lines = Path(paths[0]).read_text(encoding="utf-8").splitlines()
    rows = add_up([json.loads(line) for line in lines])
    print(json.dumps(rows, indent=2) if as_json else format_table(rows))
    return 1 if not rows or any(map(_is_bad, rows)) else 0


def add_up(tests: list[Row]) -> list[Row]:
    """Return one row for each case, in the order in which they ran."""
    rows: dict[str, Row] = {}
    for test in tests:
        row = rows.setdefault(test["name"], {**test, "explored": 0, "lost": 0, "wrong": 0})
        for count in ("explored", "lost", "wrong"):
            row[count] += test[count]
        times = [t for t in (row["worst_recovery"], test["worst_recovery"]) if t is not None]
        row["worst_recovery"] = max(times, default=None)
        row["verdict"] = min(row["verdict"], test["verdict"], key=_WORST_FIRST.index)
        row["not_run"] = row["not_run"] or test["not_run"]
        for what, value in test.get("figures", {}).items():
            figures = row.setdefault("figures", {})
            figures[what] = max(figures.get(what, value), value)
    return list(rows.values())


def format_table(rows: list[Row]) -> str:
    """Return the table for people: columns as wide as they need, and what did not run below."""
    cells = [_TITLES, *map(_cells, rows), _totals(rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_TITLES))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    notes = [f"not run: {row['name']}: {row['not_run']}" for row in rows if row["not_run"]]
    for row in rows:
        figures = row.get("figures", {}).items()
        notes += [f"measured: {row['name']}: {what}: {value:.3g}" for what, value in figures]
    return "\n".join([*lines, *notes])


def _cells(row: Row) -> tuple[str, ...]:
    recovery = row["worst_recovery"]
    return (
        row["name"],
        f"{row['explored']:,} {row['unit']}",
        f"{row['lost']}",
        f"{row['wrong']}",
        "" if recovery is None else f"{recovery * 1000:,.0f} ms",
        row["verdict"],
    )


def _totals(rows: list[Row]) -> tuple[str, ...]:
    verdicts = [row["verdict"] for row in rows]
    counted = [f"{verdicts.count(v)} {v}" for v in reversed(_WORST_FIRST) if v in verdicts]
    lost, wrong = (sum(row[count] for row in rows) for count in ("lost", "wrong"))
    return (f"{len(rows)} cases", "", f"{lost}", f"{wrong}", "", ", ".join(counted))


def _is_bad(row: Row) -> bool:
    return bool(row["verdict"] == "failed" or row["lost"] or row["wrong"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
