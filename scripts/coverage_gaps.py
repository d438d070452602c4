"""Check that every line and branch that no test runs has its reason in a list.

    python coverage_gaps.py REPORT.json GAPS.toml

The report is what `coverage json` writes. The list has tables like

    [[gap]]
    where = "daemon/autoloadd_daemon/server.py:Server.close"
    lines = ["except OSError:", "return", "if self._open: -> exit"]
    reason = "close() of a socket fails only where the kernel is out of memory"

`where` is file:function ("" for a module's own lines), a line is its source text without
indentation, a branch is the text of its line, an arrow, and the text of the line it leads to or
`exit`: so the list survives moved lines. A text that is not covered twice is listed twice. A branch
to a line that is itself not covered is not listed: the line is.

Exits with 1 where something is not covered and not listed. What is listed and covered by now is
reported, and no failure: what depends on timing is covered in some runs only.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

Gap = tuple[str, str]
"""(where, line or branch)"""


class GapListError(Exception):
    """The list cannot be used. The message says which table is wrong and what was expected."""


def main(arguments: list[str]) -> int:
    """Compare report and list, say what differs, return the exit code."""
    if len(arguments) != 2:
        print("usage: coverage_gaps.py REPORT.json GAPS.toml", file=sys.stderr)
        return 2
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        listed = read_list(tomllib.loads(Path(arguments[1]).read_text(encoding="utf-8")))
    except (OSError, GapListError, tomllib.TOMLDecodeError) as error:
        print(f"{arguments[1]}: {error}", file=sys.stderr)
        return 1
    return compare(find_gaps(report), listed, report["totals"]["percent_covered"])


def compare(found: Counter[Gap], listed: Counter[Gap], percent: float) -> int:
    """Say which gaps are not listed and which are covered by now; return the exit code."""
    unlisted, stale = found - listed, listed - found
    for title, gaps in (
        ("not covered by any test, and without a reason in the list:", unlisted),
        ("listed as not covered, and covered in this run:", stale),
    ):
        if gaps:
            print(title)
            for where, text in gaps.elements():
                print(f"  {where}\n      {text}")
    print(
        f"coverage: {percent:.1f} % of lines and branches; "
        f"{(found - unlisted).total()} gaps with a reason, {unlisted.total()} without"
    )
    return 1 if unlisted else 0


def find_gaps(report: dict[str, Any]) -> Counter[Gap]:
    """Return what the report says was never run: with multiplicity, texts instead of numbers."""
    gaps: Counter[Gap] = Counter()
    for file, measured in report["files"].items():
        source = Path(file).read_text(encoding="utf-8").splitlines()
        missing = set(measured["missing_lines"])
        for function, part in measured["functions"].items():
            where = f"{file}:{function}"
            gaps.update((where, source[line - 1].strip()) for line in part["missing_lines"])
            gaps.update(
                (where, _describe_branch(source, start, end))
                for start, end in part["missing_branches"]
                if start not in missing and end not in missing
            )
    return gaps


def _describe_branch(source: list[str], start: int, end: int) -> str:
    # Coverage gives the end of a branch that leaves the function as a negative number.
    target = source[end - 1].strip() if end > 0 else "exit"
    return f"{source[start - 1].strip()} -> {target}"


def read_list(data: dict[str, Any]) -> Counter[Gap]:
    """Return the gaps of a parsed list. Raises GapListError."""
    gaps: Counter[Gap] = Counter()
    for number, table in enumerate(data.get("gap", ()), 1):
        if set(table) != {"where", "lines", "reason"} or not table["reason"].strip():
            raise GapListError(f"gap {number}: expected where, lines and a reason, got {table}")
        gaps.update((table["where"], line) for line in table["lines"])
    return gaps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
