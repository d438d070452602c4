"""What is measured of shells: the line on the screen, and that a wrong one is no figure."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client.cache import Cache
from autoloadd_client.errors import UnreachableError
from bench.running import judge_all
from bench.setting import Setting
from bench.shells import suite, terminals
from bench.shells.comparing import Comparison, format_comparisons
from bench.shells.place import InPlace
from bench.shells.screen import last_line
from bench.shells.starts import _plain
from bench.shells.terminals import start_bash
from bench.verdicts import CannotMeasureError, Figures, Goal, PeerFailedError, Row, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.shells.terminals import Shell


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"> flask rou", "> flask rou"),
        (b"> f\bflask rou\x1b[32mtes\x1b[0m ", "> flask routes"),
        (b"\x1b]ready\x07> flask", "> flask"),
        (b"first\r\n> second", "> second"),
        (b"> flask x\x1b[D\x1b[K", "> flask"),
        (b"> old text\r> new\x1b[K", "> new"),
        (b"> \x1b[5Gab\x1b[2Ccd", ">   ab  cd"),
        (b"> abcd\x1b[3D\x1b[2P", "> ad"),
        (b"\x1b(B\x1b[m> \xc3\xa4", "> ä"),
        (b"", ""),
    ],
)
def test_the_last_line(sent: bytes, shown: str) -> None:
    assert last_line(sent) == shown


GOAL = Goal(number=1, what="tab", ours="after", peer="before", unit="ms", at_most=0.05)


def test_the_table_shows_before_and_after() -> None:
    lines = [
        Comparison(what="tab", before="before", after="after", goal=GOAL, wanted="1/20"),
        Comparison(what="git", before="slow", after="fast"),
        Comparison(what="gone", before="no", after="none"),
    ]
    rounds = {
        "before": [100.0, 200.0, 400.0], "after": [4.0, 8.0, 20.0], "slow": [9.0], "fast": [3.0],
    }  # fmt: skip
    row = Row(GOAL, Verdict.MET)
    head, tab, git, gone = format_comparisons(lines, [row], rounds).splitlines()
    assert head.split() == [
        "what", "before", "after", "after", "/", "before", "middle", "half", "wanted", "verdict"
    ]  # fmt: skip
    assert tab.split() == [
        "tab", "200", "ms", "8", "ms", "0.04", "0.04", "to", "0.05", "1/20", "met"
    ]  # fmt: skip
    assert git.split() == ["git", "9", "ms", "3", "ms", "0.333", "0.333", "to", "0.333"]
    assert gone.split() == ["gone"]
    # A goal that was not asked for has no line.
    assert "tab" not in format_comparisons(lines, [], rounds)


def test_every_goal_of_the_shells_has_a_line() -> None:
    rows = judge_all(suite.EXPERIMENTS, frozenset(), Figures())
    assert {row.goal.number for row in rows} == {1, 2, 3, 4, 5, 6}
    shown = suite.format_table(rows, {})
    assert shown.count("not measured") == len(rows) == 10


def test_a_shell_is_compared_without_what_is_ours() -> None:
    plain = "_comps=( flask _flask_completion )\nalias ll=ls\n"
    ours = (
        "_comps=( flask '_autoloadd_tab flask _flask_completion' )\nSHLVL=2\nalias ll=ls\n"
        "alias autoloadd-eval='builtin source x :autoloadd-eval:'\n"
    )
    assert _plain(ours) == plain
    assert _plain("OTHER=2\n" + ours) != plain


class NeverStarts(InPlace):
    """It finds out late that it cannot be measured."""

    NAME = "never-starts"
    TIMES = 3
    socket_path = ""

    def start(self) -> None:
        NeverStarts.socket_path = self.place.environment["AUTOLOADD_SOCKET"]
        with Cache(None, socket_path=self.socket_path) as cache:
            cache.ping()
        raise CannotMeasureError("late")


def test_what_cannot_start_leaves_no_daemon(home: Path) -> None:
    servers: Any = SimpleNamespace(directory=home.joinpath)
    (home / NeverStarts.NAME).mkdir(mode=0o700)
    with pytest.raises(CannotMeasureError, match="late"):
        NeverStarts(Setting(servers, Path("load")))
    gone = Cache(None, socket_path=NeverStarts.socket_path)
    with pytest.raises(UnreachableError):
        gone.ping()


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Shell]:
    """A bash that completes `tool`."""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    with start_bash(tmp_path / "rc", "complete -W 'routes run' tool", environment) as shell:
        yield shell


def test_a_tab_is_timed_again_and_again(bash: Shell) -> None:
    assert bash.start_ms > 0
    assert all(bash.time_tab("tool rou", "tool routes") > 0 for _ in range(3))
    assert bash.time_tab("tool ru", "tool run") > 0


def test_another_completion_is_no_figure(bash: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "SECONDS", 1.0)
    with pytest.raises(PeerFailedError, match="waited for '> tool routing'"):
        bash.time_tab("tool rou", "tool routing")


def test_a_shell_that_ends_is_no_figure(bash: Shell) -> None:
    with pytest.raises(PeerFailedError, match="the shell ended"):
        bash.run("exit")
