"""scripts/fault_table.py: what the fault cases wrote, as a table and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PASSED: dict[str, Any] = {
    "name": "power loss",
    "unit": "states",
    "explored": 1500,
    "lost": 0,
    "wrong": 0,
    "worst_recovery": 0.25,
    "not_run": None,
    "verdict": "passed",
}


def run(directory: Path, *rows: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Return exit code and output for a report of these rows."""
    report = directory / "report"
    report.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts/fault_table.py", *options, report],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert not ran.stderr
    return ran.returncode, ran.stdout


def test_tests_of_one_case_add_up(tmp_path: Path) -> None:
    slower = {**PASSED, "explored": 700, "worst_recovery": 0.5}
    code, table = run(tmp_path, PASSED, slower)
    assert code == 0
    assert "power loss  2,200 states  0     0      500 ms          passed" in table
    assert table.count("power loss") == 1


def test_a_failure_is_the_verdict_of_its_case(tmp_path: Path) -> None:
    code, table = run(tmp_path, PASSED, {**PASSED, "verdict": "failed"}, PASSED)
    assert (code, "failed" in table) == (1, True)


def test_a_lost_write_is_no_success_whatever_the_verdict(tmp_path: Path) -> None:
    assert run(tmp_path, {**PASSED, "lost": 1})[0] == 1
    assert run(tmp_path, {**PASSED, "wrong": 1})[0] == 1


def test_what_did_not_run_is_not_passed_and_says_why(tmp_path: Path) -> None:
    missing = {**PASSED, "name": "loop devices", "verdict": "not run", "not_run": "no /dev/loop0"}
    code, table = run(tmp_path, PASSED, missing)
    assert code == 0
    assert "1 passed, 1 not run" in table
    assert table.endswith("not run: loop devices: no /dev/loop0\n")


def test_an_empty_report_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 1


def test_json(tmp_path: Path) -> None:
    code, text = run(tmp_path, PASSED, PASSED, options=("--json",))
    assert (code, json.loads(text)) == (0, [{**PASSED, "explored": 3000}])


def test_the_worst_of_each_figure_is_shown(tmp_path: Path) -> None:
    measured = [{**PASSED, "figures": {"p99, ms": value}} for value in (2.5, 7.25, 1.0)]
    _, table = run(tmp_path, PASSED, *measured)
    assert table.endswith("measured: power loss: p99, ms: 7.25\n")
