"""The table of leases: who makes an entry, who waits, and how long. Times are given, not passed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from autoloadd_daemon.leases import NOBODYS, YOURS, Leases, Request
from autoloadd_protocol.errors import BUSY, RequestError
from autoloadd_protocol.limits import LEASES, LEASES_PER_CONNECTION

HOLD_NS = 30_000
WAIT_NS = 1_000
SHARD = "zsh-5.9-8"


@dataclass
class Desk:
    """A table, what is stored, and what each client was told. A blob is its own fingerprint."""

    leases: Leases = field(default_factory=Leases)
    stored: dict[str, bytes] = field(default_factory=dict)
    told: dict[str, list[bytes]] = field(default_factory=dict)
    now: int = 100
    looked: int = 0

    def ask(
        self,
        owner: str,
        name: str = "a",
        wanted: bytes = b"new",
        *,
        wait: int = 0,
        hold: int = HOLD_NS,
        stale_ok: bool = False,
        shard: str = SHARD,
    ) -> bytes | None:
        """Ask for a lease; return the answer, or None: it comes later."""

        def find(is_held: bool) -> list[bytes | memoryview] | None:
            self.looked += 1
            blob = self.stored.get(name)
            if blob is None or not (blob == wanted or (is_held and stale_ok)):
                return None
            return [blob]

        def done(parts: list[bytes | memoryview]) -> None:
            self.told.setdefault(owner, []).append(b"".join(parts))

        request = Request(owner, shard, name.encode(), hold, self.now + wait, find, done)
        answer = self.leases.ask(request, self.now)
        return None if answer is None else b"".join(answer)

    def put(self, name: str = "a", blob: bytes = b"new", shard: str = SHARD) -> None:
        """Store an entry."""
        self.stored[name] = blob
        self.leases.note_stored(shard, [name.encode()], self.now)

    def leave(self, owner: str) -> None:
        """End a client's connection."""
        self.leases.forget(owner, self.now)

    def pass_time(self, ns: int) -> bool:
        """Let time pass; tell whether anything was over."""
        self.now += ns
        return self.leases.expire(self.now)

    @property
    def counts(self) -> tuple[int, int]:
        """How many leases are held, and how many clients wait."""
        return self.leases.held, self.leases.waiting

    def assert_empty(self) -> None:
        """Check that nothing of what was is kept."""
        assert self.counts == (0, 0)
        assert len(self.leases.deadlines) == 0
        assert not self.leases._by_shard
        assert not self.leases._by_owner


FILL = b"".join(YOURS)
NIL = b"".join(NOBODYS)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def waiting(desk: Desk, count: int) -> list[str]:
    """Have somebody hold `a`, and clients wait for it."""
    assert desk.ask("holder") == FILL
    owners = [f"waiter {number}" for number in range(count)]
    assert [desk.ask(owner, wait=WAIT_NS) for owner in owners] == [None] * count
    return owners


def test_the_first_makes_it_and_the_others_get_it(desk: Desk) -> None:
    owners = waiting(desk, 9)
    assert desk.counts == (1, 9)
    desk.put()
    assert desk.told == {owner: [b"new"] for owner in owners}
    desk.assert_empty()
    assert desk.leases.given == 1


def test_an_entry_that_is_there_is_the_answer(desk: Desk) -> None:
    desk.put()
    assert desk.ask("one") == b"new"
    assert desk.ask("two", wanted=b"newer") == FILL
    assert desk.ask("three") == b"new", "also while somebody makes another"


def test_who_does_not_wait_goes_without(desk: Desk) -> None:
    waiting(desk, 0)
    assert desk.ask("other") == NIL
    assert desk.counts == (1, 0)


def test_names_and_shards_have_leases_of_their_own(desk: Desk) -> None:
    assert desk.ask("one") == FILL
    assert desk.ask("two", "b") == FILL
    assert desk.ask("three", shard="bash-5.2-8") == FILL
    assert desk.ask("four", wait=1) is None
    desk.put("b")
    desk.put(shard="bash-5.2-8")
    assert desk.told == {}
    assert desk.counts == (1, 1)


def test_an_old_entry_is_taken_at_once_while_another_makes_it(desk: Desk) -> None:
    desk.put(blob=b"old")
    assert desk.ask("one", stale_ok=True) == FILL, "nobody makes it yet"
    assert desk.ask("two", stale_ok=True, wait=WAIT_NS) == b"old"
    assert desk.ask("three", wait=WAIT_NS) is None
    assert desk.ask("one", stale_ok=True) == FILL, "it is its own task"


def test_without_an_old_entry_one_waits(desk: Desk) -> None:
    waiting(desk, 0)
    assert desk.ask("other", stale_ok=True, wait=WAIT_NS) is None
    desk.put()
    assert desk.told == {"other": [b"new"]}


@pytest.mark.parametrize("end", ["leave", "give back", "hold"])
def test_a_lease_that_ends_without_an_entry_goes_to_the_next(desk: Desk, end: str) -> None:
    assert desk.ask("holder", hold=10) == FILL
    for owner in ("first", "second"):
        assert desk.ask(owner, wait=WAIT_NS) is None
    if end == "leave":
        desk.leave("holder")
    elif end == "give back":
        desk.leases.give_back("holder", SHARD, b"a", desk.now)
    else:
        assert not desk.pass_time(9)
        assert desk.pass_time(1)
    assert desk.told == {"first": [FILL]}
    assert desk.counts == (1, 1)
    assert desk.leases.expired == (end == "hold")
    desk.put()
    assert desk.told == {"first": [FILL], "second": [b"new"]}
    desk.assert_empty()


def test_the_heir_holds_it_for_its_own_time(desk: Desk) -> None:
    assert desk.ask("holder", hold=500) == FILL
    assert desk.ask("heir", wait=WAIT_NS, hold=50) is None
    desk.pass_time(400)
    desk.leave("holder")
    assert desk.ask("last", wait=WAIT_NS) is None
    assert not desk.pass_time(49)
    assert desk.pass_time(1)
    assert desk.told == {"heir": [FILL], "last": [FILL]}


def test_only_who_has_it_gives_it_back(desk: Desk) -> None:
    waiting(desk, 1)
    for owner, name in (("waiter 0", b"a"), ("stranger", b"a"), ("holder", b"b")):
        desk.leases.give_back(owner, SHARD, name, desk.now)
    desk.leases.give_back("holder", "bash-5.2-8", b"a", desk.now)
    assert desk.counts == (1, 1)


def test_a_wait_ends_in_its_own_time(desk: Desk) -> None:
    waiting(desk, 0)
    assert desk.ask("patient", wait=300) is None
    assert desk.ask("hasty", wait=100) is None
    assert not desk.pass_time(99)
    assert desk.pass_time(1)
    assert desk.told == {"hasty": [NIL]}
    assert desk.pass_time(200)
    assert desk.told == {"hasty": [NIL], "patient": [NIL]}
    assert desk.counts == (1, 0)
    desk.put()
    assert desk.told == {"hasty": [NIL], "patient": [NIL]}, "answered once"


def test_what_is_over_is_over_in_the_order_of_the_times(desk: Desk) -> None:
    """A loop that comes late finds a hold and a wait over; who waited longer has the lease."""
    assert desk.ask("holder", hold=50) == FILL
    assert desk.ask("short", wait=40) is None
    assert desk.ask("long", wait=60) is None
    desk.pass_time(1_000)
    assert desk.told == {"short": [NIL], "long": [FILL]}


def test_who_wants_another_version_makes_it_next(desk: Desk) -> None:
    waiting(desk, 1)
    assert desk.ask("two", wanted=b"v2", wait=WAIT_NS) is None
    assert desk.ask("two as well", wanted=b"v2", wait=WAIT_NS) is None
    assert desk.ask("any", wanted=b"v3", wait=WAIT_NS, stale_ok=True) is None
    desk.put()
    assert desk.told == {"waiter 0": [b"new"], "two": [FILL], "any": [b"new"]}
    desk.put(blob=b"v2")
    assert desk.told["two as well"] == [b"v2"]
    desk.assert_empty()


def test_a_put_of_another_name_changes_nothing(desk: Desk) -> None:
    waiting(desk, 1)
    desk.put("b")
    assert desk.counts == (1, 1)


def test_of_many_names_those_that_are_leased_are_found(desk: Desk) -> None:
    waiting(desk, 1)
    assert desk.ask("holder", "b") == FILL
    desk.stored["a"] = b"new"
    many = {b"%d" % number: None for number in range(1000)} | {b"a": None}
    desk.leases.note_stored(SHARD, many.keys(), desk.now)
    assert desk.told == {"waiter 0": [b"new"]}
    assert desk.counts == (1, 0)


def test_asked_again_its_holder_has_it_for_longer(desk: Desk) -> None:
    assert desk.ask("holder", hold=100) == FILL
    assert desk.ask("other", wait=1_000) is None
    desk.pass_time(90)
    assert desk.ask("holder", hold=100, wait=WAIT_NS) == FILL
    assert not desk.pass_time(99)
    assert desk.told == {}
    assert desk.pass_time(1)
    assert desk.told == {"other": [FILL]}


def test_who_goes_while_it_waits_is_forgotten(desk: Desk) -> None:
    first, second = waiting(desk, 2)
    desk.leave(first)
    assert desk.counts == (1, 1)
    desk.leave("holder")
    assert desk.told == {second: [FILL]}
    desk.leave(second)
    desk.assert_empty()


def test_who_holds_and_waits_goes_at_once(desk: Desk) -> None:
    waiting(desk, 1)
    assert desk.ask("both", "b") == FILL
    assert desk.ask("both", wait=WAIT_NS) is None
    assert desk.ask("third", "b", wait=WAIT_NS) is None
    assert desk.leases.is_held_by("both")
    desk.leave("both")
    assert not desk.leases.is_held_by("both")
    assert desk.told == {"third": [FILL]}
    desk.put()
    assert desk.told == {"third": [FILL], "waiter 0": [b"new"]}


def refused(desk: Desk, owner: str, name: str, *, wait: int = 0) -> str:
    with pytest.raises(RequestError) as caught:
        desk.ask(owner, name, wait=wait)
    return caught.value.code


def test_a_connection_holds_so_many(desk: Desk) -> None:
    names = [str(number) for number in range(LEASES_PER_CONNECTION)]
    assert {desk.ask("greedy", name) for name in names} == {FILL}
    waiting(desk, 0)
    assert refused(desk, "greedy", "one more") == BUSY
    assert refused(desk, "greedy", "a", wait=WAIT_NS) == BUSY, "it might become its task"
    assert desk.ask("greedy", "0") == FILL, "it has that already"
    assert desk.ask("other", "one more") == FILL
    desk.leases.give_back("greedy", SHARD, b"0", desk.now)
    assert desk.ask("greedy", "one less") == FILL
    desk.put("there")
    assert desk.ask("greedy", "there") == b"new"


def test_all_together_hold_so_many(desk: Desk) -> None:
    for number in range(LEASES):
        assert desk.ask(f"client {number // 50}", f"name {number}") == FILL
    assert desk.counts == (LEASES, 0)
    assert refused(desk, "one more", "other") == BUSY
    assert desk.ask("one more", "name 0", wait=WAIT_NS) is None, "one that is given may pass on"
    desk.leave("client 0")
    assert desk.told == {"one more": [FILL]}
    assert desk.counts == (LEASES - 49, 0)
    for number in range(LEASES // 50 + 1):
        desk.leave(f"client {number}")
    desk.leave("one more")
    desk.assert_empty()


def test_a_daemon_that_stops_lets_nobody_wait(desk: Desk) -> None:
    owners = waiting(desk, 3)
    desk.leases.close()
    assert desk.told == {owner: [NIL] for owner in owners}
    assert desk.ask("other") == NIL
    assert desk.ask("third", "b", wait=WAIT_NS) == NIL
    assert desk.ask("holder") == NIL
    desk.put()
    assert desk.ask("other") == b"new"
    desk.assert_empty()


def test_what_cannot_be_stored_is_nobodys_to_make(desk: Desk) -> None:
    owners = waiting(desk, 2)
    assert desk.ask("holder", "b") == FILL
    assert desk.ask("other", "b", wait=WAIT_NS) is None
    desk.leases.note_refused("bash-5.2-8", [b"a"])
    desk.leases.note_refused(SHARD, [b"c"])
    assert desk.told == {}
    desk.leases.note_refused(SHARD, [b"a", b"c"])
    assert desk.told == {owner: [NIL] for owner in owners}
    assert desk.counts == (1, 1)
    desk.leases.note_refused(SHARD, [b"b"])
    desk.assert_empty()


def test_a_thousand_give_up_one_after_another_in_short_time(desk: Desk) -> None:
    """Each looks at the next one only: nothing has changed for those behind."""
    owners = waiting(desk, 1_000)
    before = desk.looked
    for owner in ("holder", *owners):
        desk.leave(owner)
    assert desk.told == {owner: [FILL] for owner in owners}
    assert desk.looked - before == 1_000
