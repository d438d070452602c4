"""All that `scripts/bench --shells` measures."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from shell_tools import PACKAGES

from .comparing import format_comparisons
from .functions import FirstGitTab, Functions
from .reading import Reading
from .starts import ZshStart
from .tabs import BashTab, FishTab, ZshTabs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.setting import Experiment
    from bench.verdicts import Row

KINDS = (ZshTabs, BashTab, FishTab, Reading, ZshStart, FirstGitTab, Functions)
EXPERIMENTS: tuple[type[Experiment], ...] = KINDS
COMPARISONS = tuple(comparison for kind in KINDS for comparison in kind.COMPARISONS)

_PROGRAMS = ("zsh", "bash", "fish", "git")
_NUMBER = re.compile(r"\d+(\.\d+)+")


def format_table(rows: Sequence[Row], rounds: Mapping[str, Sequence[float]]) -> str:
    """Return the table of what was measured, before and after."""
    chosen = [each for each in COMPARISONS if each.goal is not None or each.after in rounds]
    return format_comparisons(chosen, rows, rounds)


def describe_machine(found: Mapping[str, str]) -> dict[str, str]:
    """Return what the figures depend on: the machine, and versions of programs."""
    kept = ("processor", "cores", "load before", "kernel", "python", "autoloadd")
    machine = {name: found[name] for name in kept}
    return {
        **machine,
        **{program: _version(program) for program in _PROGRAMS},
        "tools": " ".join(PACKAGES),
    }


def _version(program: str) -> str:
    try:
        ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return "missing"
    number = _NUMBER.search(ran.stdout)
    return number[0] if number else "unknown"
