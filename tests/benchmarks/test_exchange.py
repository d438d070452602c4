"""benchmarks/exchange.py runs, checks what it writes, and has a verdict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import exchange

if TYPE_CHECKING:
    import pytest


def test_a_table_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    # Of so few entries the interpreter itself is more than the file: the limit is not kept.
    assert exchange.main(["--entries", "50", "--rounds", "1"]) == 1
    first, _, *rows, limits = capsys.readouterr().out.splitlines()
    assert first.startswith("50 entries, a file of 0.")
    assert [re.split("  +", row)[0] for row in rows] == [
        "import zshrs", "import zshrs (again)", "export zshrs", "export", "import",
    ]  # fmt: skip
    assert limits == "limits: 2 s, 3 times the file"


def test_within_the_limits_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    series = exchange.Series([1.9], [1.0], [1.0], [2_900_000])
    assert exchange._report({"import": series}, 5, 1_000_000) == 0
    series.seconds[0] = 2.1
    assert exchange._report({"import": series}, 5, 1_000_000) == 1
    assert "import" in capsys.readouterr().out
