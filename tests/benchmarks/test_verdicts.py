"""When a goal is met, when it is not, and when nothing may be said."""

from __future__ import annotations

import pytest

from bench.verdicts import Goal, Verdict, judge, middle_half

AT_MOST = Goal(number=1, what="time", ours="ours", peer="peer", unit="µs", at_most=0.7)
AT_LEAST = Goal(number=2, what="rate", ours="ours", peer="peer", unit="/s", at_least=1.3)
FASTER = Goal(number=1, what="x", ours="ours", peer="peer", unit="µs", at_least=40, inverted=True)
ALONE = Goal(number=7, what="gap", ours="ours", unit="ms", at_most=10)


def verdict(goal: Goal, ours: list[float], peer: list[float] | None = None) -> Verdict:
    return judge(goal, {"ours": ours, "peer": peer or []}).verdict


@pytest.mark.parametrize(
    ("goal", "ours", "peer", "expected"),
    [
        (AT_MOST, 0.7, 1.0, Verdict.MET),
        (AT_MOST, 0.71, 1.0, Verdict.NOT_MET),
        (AT_LEAST, 1.3, 1.0, Verdict.MET),
        (AT_LEAST, 1.29, 1.0, Verdict.NOT_MET),
        (FASTER, 1.0, 40.0, Verdict.MET),
        (FASTER, 1.0, 39.0, Verdict.NOT_MET),
    ],
)
def test_ratio_is_held_against_the_limit(
    goal: Goal, ours: float, peer: float, expected: Verdict
) -> None:
    assert verdict(goal, [ours] * 5, [peer] * 5) is expected


def test_goal_without_a_peer_is_held_against_its_figure() -> None:
    assert verdict(ALONE, [9.0, 10.0, 9.5]) is Verdict.MET
    assert verdict(ALONE, [11.0, 11.0, 11.0]) is Verdict.NOT_MET


def test_ratio_is_that_of_one_round_not_of_the_medians() -> None:
    # The machine became ten times slower half-way: each round's ratio is the same.
    row = judge(AT_MOST, {"ours": [0.5, 0.5, 5, 5, 5], "peer": [1, 1, 10, 10, 10]})
    assert (row.ratio, row.low, row.high, row.verdict) == (0.5, 0.5, 0.5, Verdict.MET)


def test_row_has_the_medians_and_the_middle_half() -> None:
    row = judge(ALONE, {"ours": [1.0, 2.0, 3.0, 4.0, 100.0]})
    assert (row.ours, row.peer, row.ratio, row.low, row.high) == (3.0, None, 3.0, 2.0, 4.0)


def test_limit_within_a_wide_middle_half_is_undecided() -> None:
    assert verdict(ALONE, [5.0, 8.0, 9.0, 12.0, 15.0]) is Verdict.UNDECIDED


def test_wide_spread_on_one_side_of_the_limit_is_decided() -> None:
    assert verdict(ALONE, [1.0, 2.0, 5.0, 7.0, 9.0]) is Verdict.MET
    assert verdict(ALONE, [11.0, 20.0, 30.0, 90.0, 150.0]) is Verdict.NOT_MET


def test_narrow_spread_around_the_limit_is_decided_by_the_median() -> None:
    assert verdict(ALONE, [9.5, 9.8, 9.9, 10.1, 10.2]) is Verdict.MET
    assert verdict(ALONE, [9.5, 9.9, 10.05, 10.1, 10.2]) is Verdict.NOT_MET


@pytest.mark.parametrize(
    ("ours", "peer"),
    [([], []), ([1.0], []), ([1.0, 1.0], [1.0]), ([1.0], [0.0]), ([-1.0], [1.0])],
)
def test_figures_that_cannot_be_compared_are_not_measured(
    ours: list[float], peer: list[float]
) -> None:
    row = judge(AT_MOST, {"ours": ours, "peer": peer})
    assert (row.verdict, row.ratio) == (Verdict.NOT_MEASURED, None)


def test_no_time_at_all_is_not_infinitely_fast() -> None:
    assert verdict(FASTER, [0.0] * 3, [1.0] * 3) is Verdict.NOT_MEASURED


def test_only_met_and_not_met_are_valid() -> None:
    assert [v for v in Verdict if v.is_valid] == [Verdict.MET, Verdict.NOT_MET]


def test_middle_half_of_few_values_is_all_of_them() -> None:
    assert middle_half([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert middle_half([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


def test_what_may_come_on_top_is_taken_off_first() -> None:
    goal = Goal(number=4, what="x", ours="ours", peer="peer", unit="ms", at_most=1.15, plus=10)
    assert goal.wanted == "<= 1.15 + 10 ms"
    assert verdict(goal, [33.0] * 5, [20.0] * 5) is Verdict.MET
    assert verdict(goal, [33.1] * 5, [20.0] * 5) is Verdict.NOT_MET
    # Below what may come on top there is no negative time.
    assert judge(goal, {"ours": [9.0] * 5, "peer": [20.0] * 5}).ratio == 0


def test_a_figure_that_is_enough_whatever_the_ratio() -> None:
    goal = Goal(
        number=1, what="x", ours="ours", peer="peer", unit="ms", at_most=0.05, or_at_most=10
    )
    assert goal.wanted == "<= 0.05, or 10 ms"
    assert verdict(goal, [10.0] * 5, [20.0] * 5) is Verdict.MET
    assert verdict(goal, [11.0] * 5, [220.0] * 5) is Verdict.MET
    assert verdict(goal, [11.0] * 5, [219.0] * 5) is Verdict.NOT_MET
    assert verdict(goal, [5.0, 8.0, 11.0, 12.0, 15.0], [20.0] * 5) is Verdict.UNDECIDED
