"""Leases under any order of requests, puts, ends and time: what must hold after each of them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .test_leases import FILL, NIL, SHARD, Desk

OWNERS = st.sampled_from(["ann", "bob", "cy", "dee", "eve"])
NAMES = st.sampled_from(["a", "b"])
BLOBS = st.sampled_from([b"v1", b"v2"])
TIMES = st.integers(1, 40)


@dataclass
class Waits:
    """What a client waits for, how it was asked, and until when."""

    name: str
    wanted: bytes
    hold: int
    until: int
    stale_ok: bool


class Clients(RuleBasedStateMachine):
    """Five clients, two entries of two versions each; times of 1 to 40."""

    @initialize()
    def begin(self) -> None:
        self.desk = Desk()
        self.waits: dict[str, Waits] = {}
        self.held: dict[str, tuple[str, int]] = {}
        """Of each name: who makes the entry, and until when."""

    @rule(owner=OWNERS, name=NAMES, wanted=BLOBS, wait=TIMES, hold=TIMES, stale_ok=st.booleans())
    def ask(
        self, owner: str, name: str, wanted: bytes, wait: int, hold: int, *, stale_ok: bool
    ) -> None:
        if owner in self.waits:
            return  # it is answered in order
        holder = self.held.get(name, ("", 0))[0]
        answer = self.desk.ask(owner, name, wanted, wait=wait, hold=hold, stale_ok=stale_ok)
        there = self.desk.stored.get(name)
        if there == wanted or (there is not None and stale_ok and holder not in ("", owner)):
            assert answer == there
        elif holder in ("", owner):
            assert answer == FILL
            self.held[name] = (owner, self.desk.now + hold)
        else:
            assert answer is None
            self.waits[owner] = Waits(name, wanted, hold, self.desk.now + wait, stale_ok)

    @rule(name=NAMES, blob=BLOBS)
    def put(self, name: str, blob: bytes) -> None:
        self.held.pop(name, None)
        self.desk.put(name, blob)
        self.take_answers()

    @rule(owner=OWNERS, name=NAMES)
    def give_back(self, owner: str, name: str) -> None:
        if self.held.get(name, ("",))[0] == owner:
            del self.held[name]
        self.desk.leases.give_back(owner, SHARD, name.encode(), self.desk.now)
        self.take_answers()

    @rule(owner=OWNERS)
    def leave(self, owner: str) -> None:
        self.waits.pop(owner, None)
        self.held = {name: held for name, held in self.held.items() if held[0] != owner}
        self.desk.leave(owner)
        self.take_answers()

    @precondition(lambda self: self.waits or self.held)
    @rule(steps=TIMES)
    def pass_time(self, steps: int) -> None:
        """One by one: then the order of what is over is that of the model."""
        for _ in range(steps):
            now = self.desk.now + 1
            self.held = {name: held for name, held in self.held.items() if held[1] > now}
            self.desk.pass_time(1)
            self.take_answers()

    def take_answers(self) -> None:
        """Check what those who waited were told, against how they had asked."""
        told, self.desk.told = self.desk.told, {}
        for owner, answers in told.items():
            waited = self.waits.pop(owner)
            assert len(answers) == 1
            there = self.desk.stored.get(waited.name)
            if answers == [NIL]:
                assert waited.until <= self.desk.now
            elif answers == [FILL]:
                assert there != waited.wanted
                assert waited.name not in self.held, "two make the same"
                self.held[waited.name] = (owner, self.desk.now + waited.hold)
            else:
                assert answers == [there]
                assert there == waited.wanted or waited.stale_ok

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        for owner, waited in self.waits.items():
            assert waited.name in self.held
            assert self.held[waited.name][0] != owner
            assert self.desk.stored.get(waited.name) != waited.wanted
            assert waited.until > self.desk.now

    @invariant()
    def the_table_says_the_same(self) -> None:
        leases = self.desk.leases
        assert (leases.held, leases.waiting) == (len(self.held), len(self.waits))
        assert len(leases.deadlines) == len(self.held) + len(self.waits)
        times = [until for _, until in self.held.values()]
        times += [waited.until for waited in self.waits.values()]
        assert leases.deadlines.next_ns == min(times, default=None)
        holders = {owner for owner, _ in self.held.values()}
        for owner in ("ann", "bob", "cy", "dee", "eve"):
            assert leases.is_held_by(owner) == (owner in holders)


Clients.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestClients = Clients.TestCase
