"""A run: what fails is named and left out, and the exit status says whether there is a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.running import exit_status, judge_all, run, write_json
from bench.setting import Setting, in_turn, medians_in_turn
from bench.table import format_table, say_verdict
from bench.verdicts import Figures, Goal, PeerFailedError, Row, Verdict, WrongBytesError

if TYPE_CHECKING:
    from bench.servers import Servers
    from bench.setting import Experiment

NOWHERE: Any = None
SETTING = Setting(NOWHERE, Path("load"))


class Steady:
    """A peer that is twice as slow as ours, always."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=2, what="steady", ours="a", peer="b", unit="µs", at_most=0.7),
    )
    closed: ClassVar[list[str]] = []

    def __init__(self, _setting: Setting) -> None:
        pass

    def close(self) -> None:
        self.closed.append("steady")

    def run_round(self, _number: int, figures: Figures) -> None:
        figures.add("a", 1.0)
        figures.add("b", 2.0)


class Breaks:
    """Wrong bytes in the third round."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=1, what="breaks", ours="c", unit="µs", at_most=9),
    )

    def __init__(self, _setting: Setting) -> None:
        pass

    def close(self) -> None:
        Steady.closed.append("breaks")

    def run_round(self, number: int, figures: Figures) -> None:
        if number == 2:
            raise WrongBytesError("x: a miss")
        figures.add("c", 1.0)


class NeverStarts(Steady):
    """A peer that is not there."""

    GOALS: ClassVar[tuple[Goal, ...]] = ()

    def __init__(self, _setting: Setting) -> None:
        raise PeerFailedError("nobody listens")


def rows_of(*verdicts: Verdict) -> list[Row]:
    return [Row(Steady.GOALS[0], verdict) for verdict in verdicts]


def test_figures_of_all_rounds_are_judged() -> None:
    figures = Figures()
    assert run([Steady], SETTING, 4, figures) == []
    assert figures.rounds == {"a": [1.0] * 4, "b": [2.0] * 4}
    (row,) = judge_all([Steady], frozenset(), figures)
    assert (row.ratio, row.verdict) == (0.5, Verdict.MET)


def test_what_fails_is_named_and_its_earlier_rounds_are_not_judged() -> None:
    Steady.closed.clear()
    figures = Figures()
    reasons = run([Breaks, NeverStarts, Steady], SETTING, 4, figures)
    assert reasons == ["NeverStarts: nobody listens", "Breaks: x: a miss"]
    assert sorted(Steady.closed) == ["breaks", "steady"]
    rows = judge_all([Steady, Breaks], frozenset(), figures)
    assert [row.verdict for row in rows] == [Verdict.NOT_MEASURED, Verdict.MET]
    assert exit_status(rows, reasons) == 2


def test_only_asked_goals_are_judged_in_their_order() -> None:
    kinds: list[type[Experiment]] = [Steady, Breaks]
    assert [r.goal.number for r in judge_all(kinds, frozenset(), Figures())] == [1, 2]
    assert [r.goal.number for r in judge_all(kinds, frozenset({2}), Figures())] == [2]


def test_exit_status() -> None:
    met, missed = Verdict.MET, Verdict.NOT_MET
    assert exit_status(rows_of(met, met), []) == 0
    assert exit_status(rows_of(met, missed), []) == 1
    assert exit_status(rows_of(met, Verdict.UNDECIDED), []) == 2
    assert exit_status(rows_of(missed, Verdict.NOT_MEASURED), []) == 2
    assert exit_status(rows_of(met), ["redis-py: gone"]) == 2
    assert exit_status([], []) == 2


def test_json_has_every_round_and_says_whether_it_is_valid(tmp_path: Path) -> None:
    figures = Figures()
    run([Steady], SETTING, 3, figures)
    rows = judge_all([Steady], frozenset(), figures)
    path = tmp_path / "out.json"
    write_json(path, {"cores": "2"}, rows, [], figures, {"costs": {"put": {1000: 1.5}}})
    found = json.loads(path.read_text())
    assert found["valid"] is True
    assert found["rounds"] == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert found["goals"][0]["ratio"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert found["goals"][0]["verdict"] == "met"
    assert found["series"] == {"costs": {"put": {"1000": 1.5}}}
    write_json(path, {}, rows, ["x: a miss"], figures, {})
    assert json.loads(path.read_text())["valid"] is False


def test_table_shows_ratio_spread_and_verdict() -> None:
    figures = Figures({"a": [1.0, 1.2, 1.0], "b": [2.0, 2.0, 2.0]})
    rows = judge_all([Steady, Breaks], frozenset(), figures)
    head, breaks, steady = format_table(rows).splitlines()
    assert head.split() == [
        "goal", "what", "ours", "peer", "ratio", "middle", "half", "wanted", "verdict"
    ]  # fmt: skip
    assert breaks.split() == ["1", "breaks", "<=", "9", "invalid:", "not", "measured"]
    assert steady.split() == [
        "2", "steady", "1", "µs", "2", "µs", "0.5", "0.5", "to", "0.6", "<=", "0.7", "met"
    ]  # fmt: skip
    assert say_verdict(rows, ["y"]) == "1 met, 0 not met, 1 invalid\ninvalid: y"


def test_each_comes_first_as_often_as_last() -> None:
    orders = [in_turn("abc", number) for number in range(6)]
    assert [order[0] for order in orders].count("a") == 2
    assert sorted(order[0] for order in orders) == sorted(order[-1] for order in orders)


def test_a_figure_of_a_round_is_the_median_of_what_was_measured_in_turn() -> None:
    values = {"a": iter([9.0, 1.0, 2.0]), "b": iter([5.0, 4.0, 6.0])}
    asked: list[str] = []

    def measure(kind: str) -> float:
        asked.append(kind)
        return next(values[kind])

    figures = Figures()
    figures.add_all(medians_in_turn(values, measure, number=1, times=3))
    assert figures.rounds == {"a": [2.0], "b": [5.0]}
    assert asked == [*in_turn("ab", 1), *in_turn("ab", 2), *in_turn("ab", 3)]


def test_a_quick_run_does_less_but_never_less_than_thrice() -> None:
    servers: Servers = NOWHERE
    quick = Setting(servers, Path("load"), 0.35)
    assert (quick.seconds(2.0), quick.times(100), quick.times(3)) == (0.7, 35, 3)
