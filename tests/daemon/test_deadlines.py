"""What is due when, against a list that is searched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoloadd_daemon.deadlines import Deadlines

STEPS = st.lists(
    st.tuples(st.just("add"), st.integers(0, 50))
    | st.tuples(st.just("call off"), st.integers(0, 1000))
    | st.tuples(st.just("take"), st.integers(0, 50)),
    max_size=200,
)


@given(STEPS)
def test_like_a_list_that_is_searched(steps: list[tuple[str, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    known: dict[int, tuple[int, int]] = {}
    for item, (what, number) in enumerate(steps):
        if what == "add":
            known[deadlines.add(number, item)] = (number, item)
        elif what == "call off" and known:
            chosen = list(known)[number % len(known)]
            deadlines.call_off(chosen)
            del known[chosen]
        elif what == "take":
            due = sorted((each for each in known.items() if each[1][0] <= number), key=_order)
            assert list(deadlines.take_due(number)) == [item for _, (_, item) in due]
            for each, _ in due:
                del known[each]
        assert len(deadlines) == len(known)
        assert deadlines.next_ns == min((at for at, _ in known.values()), default=None)


def _order(item: tuple[int, tuple[int, int]]) -> tuple[int, int]:
    return item[1][0], item[0]


def test_the_first_of_all_is_announced_and_no_other() -> None:
    deadlines: Deadlines[str] = Deadlines()
    heard: list[int | None] = []
    deadlines.on_nearer = lambda: heard.append(deadlines.next_ns)
    for at in (50, 60, 50, 40, 45):
        deadlines.add(at, "")
    assert heard == [50, 40]


def test_what_is_called_off_does_not_pile_up() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for at in range(10):
        deadlines.add(at, "stays")
    for at in range(100, 10_100):
        deadlines.call_off(deadlines.add(at, "goes"))
    assert len(deadlines._heap) < 200
    assert list(deadlines.take_due(10_100)) == ["stays"] * 10


def test_what_becomes_due_while_others_are_taken_is_taken_too() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.add(1, "first")
    third = deadlines.add(3, "third")
    taken = []
    for item in deadlines.take_due(3):
        taken.append(item)
        if item == "first":
            deadlines.add(2, "second")
            deadlines.call_off(third)
    assert taken == ["first", "second"]
