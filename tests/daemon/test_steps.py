"""Requests on many names: others are served between their steps, and see no half of them."""

from __future__ import annotations

import pytest

from autoloadd_daemon.methods.steps import STEP, done_at_once, in_steps, merged
from autoloadd_protocol.errors import BAD_REQUEST
from autoloadd_protocol.limits import NAMES

from .engine import Engine, Talk

MANY = [f"n{number}" for number in range(NAMES)]


@pytest.fixture
def talk(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Talk:
    # However quick the machine: a turn that is over when it begins has one step.
    monkeypatch.setattr("autoloadd_daemon.session._NS_PER_TURN", 0)
    talk = Talk(engine)
    # Enough for many steps, too little for an image.
    talk.call("put_many", {name: [b"1", None, 7] for name in MANY[:5000]})
    return talk


def begin(talk: Talk, method: str, *params: object) -> int:
    """Have a request's first turn; it must not be answered in it. Return its id."""
    request_id = talk.send(method, *params)
    talk.send("ping")
    talk.session.advance()
    assert talk.answers() == []
    assert talk.session.has_more
    assert talk.session.is_stalled
    assert not talk.session.is_finished
    return request_id


@pytest.mark.parametrize("method", ["missing", "get_many"])
def test_a_long_read_is_of_one_moment(talk: Talk, method: str) -> None:
    """What changes between its steps is seen wholly, or not at all."""
    other = Talk(talk.engine)
    assert other.call("put_many", {MANY[0]: [b"2"], MANY[4999]: [b"2"]}).error is None
    begin(talk, method, MANY)
    turns = 0
    while not (answers := talk.answers()):
        turns += 1
        # Both at once, in turn there and gone.
        if turns % 2:
            assert other.call("delete", [MANY[0], MANY[4999]]).result == 2
        else:
            both = {MANY[0]: [b"%d" % turns], MANY[4999]: [b"%d" % turns]}
            assert other.call("put_many", both).error is None
        talk.session.advance()
    assert turns > 5
    result = answers[0].result
    if method == "missing":
        assert (MANY[0] in result) == (MANY[4999] in result)
        assert set(result) - {MANY[0], MANY[4999]} == set(MANY[5000:])
    else:
        found, left = result
        assert left == ()
        assert found.get(MANY[0]) == found.get(MANY[4999]) or (
            found[MANY[0]][0] == found[MANY[4999]][0]
        )
        assert set(found) - {MANY[0], MANY[4999]} == set(MANY[1:4999])
    assert [answer.result for answer in answers[1:] + talk.run()] == ["pong"]


def test_counting_the_stale_is_done_in_steps(talk: Talk) -> None:
    other = Talk(talk.engine)
    begin(talk, "stats", 8)
    other.call("clear")
    stats, ping = talk.run()
    assert (stats.result["entries"], stats.result["fresh"], stats.result["stale"]) == (
        5000,
        0,
        5000,
    )
    assert ping.result == "pong"
    assert talk.call("stats", 8).result["stale"] == 0


@pytest.mark.parametrize("method", ["put_many", "delete"])
def test_a_long_write_is_one_write(talk: Talk, method: str) -> None:
    names = [*MANY[:4000], "last"]
    params: dict[str, object] = {"put_many": {name: [b"2"] for name in names}, "delete": names}
    other = Talk(talk.engine)
    talk.send(method, params[method])
    talk.send("get", "n0")
    turns = 0
    while not talk.session.is_owed:
        talk.session.advance()
        if not talk.session.is_owed:
            found = [other.call("get", name).result for name in (MANY[0], MANY[3999])]
            assert [each[1] for each in found] == [b"1", b"1"]
        turns += 1
    assert turns > 1
    write, get = talk.answers() + talk.run()
    if method == "put_many":
        assert write.error is None
        assert get.result[1] == b"2"
        assert other.call("get", "last").result[1] == b"2"
    else:
        assert write.result == 4000
        assert get.result is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("missing", [[*MANY[:3000], 5]]),
        ("get_many", [[*MANY[:3000], 5]]),
        ("delete", [[*MANY[:3000], 5]]),
        ("put_many", [{**{name: [b""] for name in MANY[:3000]}, "odd": [5]}]),
    ],
)
def test_what_is_wrong_at_the_end_refuses_all_of_it(
    talk: Talk, method: str, params: list[object]
) -> None:
    answer = talk.call(method, *params)
    assert answer.error is not None
    assert answer.error[0] == BAD_REQUEST
    assert talk.call("count").result == 5000


def test_a_bulk_takes_many_entries_in_steps(talk: Talk) -> None:
    token = talk.call("bulk_begin", "merge").result
    assert talk.call("bulk_add", token, {name: [b"3"] for name in MANY[4000:6000]}).result == 2000
    assert talk.call("bulk_commit", token).error is None
    assert talk.call("count").result == 6000


def test_a_client_that_goes_in_the_middle_leaves_nothing(talk: Talk) -> None:
    begin(talk, "missing", MANY)
    talk.session.abandon()
    talk.session.is_closing = True
    talk.session.advance()
    assert talk.answers() == []
    assert talk.session._steps is None


def test_few_are_done_at_once() -> None:
    assert done_at_once(in_steps(range(STEP), str), STEP) == [str(each) for each in range(STEP)]
    steps = in_steps(range(STEP + 1), str)
    assert done_at_once(steps, STEP + 1) is steps


def test_parts_are_joined_between_views() -> None:
    view = memoryview(b"view")
    assert merged([b"a", b"b", view, view, b"c"]) == [b"ab", view, view, b"c"]
    assert merged([]) == []
