"""The checker of histories says yes to what can have happened, and no to what cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .linearizability import Operation, first_misfit

if TYPE_CHECKING:
    from collections.abc import Hashable

    State = tuple[str | None, str | None]

NOTHING = (None, None)


def write(began: int, ended: int, a: str | None, b: str | None = "", **more: bool) -> Operation:
    """Store a value as `a`, and as `b` too unless that is empty; None deletes."""

    def effect(state: Hashable) -> Hashable:
        assert isinstance(state, tuple)
        return (a, state[1] if b == "" else b)

    return Operation(f"write {a} {b}", began, ended, effect, **more)


def read(began: int, ended: int, a: str | None, b: str | None = "") -> Operation:
    """Find a value as `a`, and as `b` too unless that is empty."""

    def effect(state: Hashable) -> Hashable | None:
        assert isinstance(state, tuple)
        return state if state == (a, state[1] if b == "" else b) else None

    return Operation(f"read {a} {b}", began, ended, effect, read=True)


GOOD = {
    "nothing happened": [],
    "one after another": [write(1, 2, "x"), read(3, 4, "x"), write(5, 6, None), read(7, 8, None)],
    "a read during a write, before it": [write(1, 4, "x"), read(2, 3, None)],
    "a read during a write, after it": [write(1, 4, "x"), read(2, 3, "x")],
    "two writes at once, either last": [write(1, 4, "x"), write(2, 3, "y"), read(5, 6, "x")],
    "a write that touches another's end": [write(1, 2, "x"), read(2, 3, None)],
    "no answer, and it happened": [write(1, 9, "x", certain=False), read(3, 4, "x")],
    "no answer, and it did not": [write(1, 9, "x", certain=False), read(10, 11, None)],
    "no answer, and it happened late": [
        write(1, 9, "x", certain=False),
        read(3, 4, None),
        read(5, 6, "x"),
    ],
    "a delete of nothing that deleted something later": [
        write(1, 9, None),
        write(2, 3, "x"),
        read(4, 5, "x"),
        read(6, 7, None),
    ],
    "two names at once": [write(1, 4, "x", "x"), read(2, 3, "x", "x"), read(5, 6, "x", "x")],
    "six at once": [
        *(write(1, 20, str(n)) for n in range(6)),
        *(read(2 + n, 3 + n, str(n)) for n in (3, 1, 5, 0)),
    ],
}

BAD = {
    "a write is lost": ([write(1, 2, "x"), read(3, 4, None)], 1),
    "a value that nobody wrote": ([write(1, 2, "x"), read(3, 4, "y")], 1),
    "a delete is taken back": ([write(1, 2, "x"), write(3, 4, None), read(5, 6, "x")], 2),
    "an older value comes back": ([write(1, 2, "x"), write(3, 4, "y"), read(5, 6, "x")], 2),
    "seen, then not": ([write(1, 9, "x"), read(2, 3, "x"), read(4, 5, None)], 2),
    "seen by one, then not by another": (
        [write(1, 9, "x", certain=False), read(2, 3, "x"), read(4, 5, None)],
        2,
    ),
    "no answer, and it happened after its end": (
        [write(1, 3, "x", certain=False), read(4, 5, None), read(6, 7, "x")],
        2,
    ),
    "it happened twice": (
        [write(1, 9, "x", certain=False), read(2, 3, "x"), write(4, 5, "y"), read(6, 7, "x")],
        3,
    ),
    "half of two names": ([write(1, 4, "x", "x"), read(2, 3, "x", None)], 1),
    "half of two names is lost": ([write(1, 2, "x", "x"), read(3, 4, "x", None)], 1),
    "two names in two orders": (
        [
            write(1, 20, "x", "x"),
            write(1, 20, "y", "y"),
            read(2, 3, "x", "x"),
            read(4, 5, "y", "y"),
            read(6, 7, "x", "x"),
        ],
        4,
    ),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_what_can_have_happened_fits(history: list[Operation]) -> None:
    assert first_misfit(history, NOTHING) is None


@pytest.mark.parametrize(("history", "misfit"), BAD.values(), ids=BAD.keys())
def test_what_cannot_have_happened_is_found(history: list[Operation], misfit: int) -> None:
    assert first_misfit(history, NOTHING) is history[misfit]
    # In whatever order the clients' notes are put together.
    assert first_misfit(history[::-1], NOTHING) is history[misfit]
