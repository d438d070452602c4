"""The scripts: the main job's report, wrong bytes that are seen, gaps that need a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from values import WrongAnswerError, make_value, read_counter

ROOT = Path(__file__).parents[2]
REPORT = (
    "at write",
    "at fsync",
    "puts only, at fsync",
    "Python file cache: lock, rewrite, fsync per put",
    "autoloadd does ",
    "answers checked byte for byte: ",
    "after SIGTERM and a new start: ",
    "stopped, exit code 0",
)


def run_main_job(home: Path, path: str | None = None) -> list[str]:
    environment = {**os.environ, "HOME": str(home), "TMPDIR": "/tmp"}
    if path is not None:
        environment["PATH"] = path
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks/main_job.py", "--seconds", "0.3"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def assert_reported(lines: list[str]) -> None:
    for beginning in REPORT:
        assert any(line.startswith(beginning) for line in lines), (beginning, lines)


def test_main_job_on_the_functions_of_this_machines_zsh(tmp_path: Path) -> None:
    lines = run_main_job(tmp_path)
    assert_reported(lines)
    assert any("entries of zsh/" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_main_job_without_zsh_says_how_to_get_it_and_uses_our_own_functions(tmp_path: Path) -> None:
    lines = run_main_job(tmp_path, path=str(Path(sys.executable).parent))
    assert_reported(lines)
    assert any("apt install zsh" in line for line in lines)
    assert any("warmed 12 entries of autoloadd-functions/1/8" in line for line in lines)


def test_own_functions_are_valid_zsh() -> None:
    functions = sorted((ROOT / "benchmarks/functions").iterdir())
    assert len(functions) == 12
    for function in functions:
        subprocess.run(["zsh", "-fn", function], check=True)


def test_every_flipped_bit_of_a_value_is_seen() -> None:
    value = make_value("_git", 7, 100)
    assert read_counter("_git", value) == 7
    for bit in range(len(value) * 8):
        torn = bytearray(value)
        torn[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WrongAnswerError, match="checksum"):
            read_counter("_git", bytes(torn))


def test_the_value_of_another_name_is_seen() -> None:
    with pytest.raises(WrongAnswerError, match="another name"):
        read_counter("_git", make_value("_gitk", 7, 100))


PROGRAM = """\
def choose(number):
    if number:
        return "some"
    return "none"

print(choose(0))
"""
GAP = """
[[gap]]
where = "program.py:choose"
lines = ['return "some"']
reason = "an example"
"""


def check_gaps(directory: Path, program: str, gaps: str) -> subprocess.CompletedProcess[str]:
    """Measure a program and run the gap checker on it, as scripts/test does."""
    (directory / "program.py").write_text(program)
    (directory / "gaps.toml").write_text(gaps)
    clean = {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}
    for command in (
        ["-m", "coverage", "run", "--branch", "program.py"],
        ["-m", "coverage", "json", "-q"],
    ):
        subprocess.run(
            [sys.executable, *command], cwd=directory, env=clean, check=True, capture_output=True
        )
    return subprocess.run(
        [sys.executable, ROOT / "scripts/coverage_gaps.py", "coverage.json", "gaps.toml"],
        cwd=directory, env=clean, check=False, capture_output=True, text=True,
    )  # fmt: skip


def test_a_gap_without_a_reason_fails(tmp_path: Path) -> None:
    ran = check_gaps(tmp_path, PROGRAM, "")
    assert ran.returncode == 1
    assert 'program.py:choose\n      return "some"\n' in ran.stdout


def test_a_gap_with_a_reason_passes_wherever_its_line_has_moved(tmp_path: Path) -> None:
    ran = check_gaps(tmp_path, "# moved\n\n" + PROGRAM, GAP)
    assert (ran.returncode, "1 gaps with a reason, 0 without" in ran.stdout) == (0, True)


def test_a_second_gap_of_the_same_text_fails(tmp_path: Path) -> None:
    again = '    if number == 2:\n        return "some"\n'
    ran = check_gaps(tmp_path, PROGRAM.replace("    if", f"{again}    if", 1), GAP)
    assert ran.returncode == 1
    assert "1 gaps with a reason, 1 without" in ran.stdout


def test_a_branch_never_taken_is_a_gap(tmp_path: Path) -> None:
    program = "def leave(number):\n    if number:\n        print(number)\n\nleave(1)\n"
    ran = check_gaps(tmp_path, program, "")
    assert ran.returncode == 1
    assert "      if number: -> exit\n" in ran.stdout


def test_a_listed_gap_that_is_covered_by_now_is_reported(tmp_path: Path) -> None:
    ran = check_gaps(tmp_path, PROGRAM.replace("choose(0)", "choose(0), choose(1)"), GAP)
    assert ran.returncode == 0
    assert ran.stdout.startswith("listed as not covered, and covered in this run:")


def test_a_gap_list_without_reasons_is_refused(tmp_path: Path) -> None:
    ran = check_gaps(tmp_path, PROGRAM, GAP.replace("an example", " "))
    assert ran.returncode == 1
    assert "gap 1: expected where, lines and a reason" in ran.stderr
