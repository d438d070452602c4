"""Bugs to plant where one client makes what many ask for: see `mutations`."""

from __future__ import annotations

from .mutation import Mutation

_DAEMON = "daemon/autoloadd_daemon"
_CLIENT = "client/autoloadd_client"
TABLE = "tests/daemon/test_leases.py"
DEADLINES = "tests/daemon/test_deadlines.py"
TIMER = "tests/daemon/test_lease_timer.py"
SESSIONS = "tests/daemon/test_lease_sessions.py"
CLIENT = "tests/client/test_leasing.py"
LEASES = "tests/e2e/test_daemon_leases.py"

LEASE_MUTATIONS: tuple[Mutation, ...] = (
    # Who makes it
    Mutation(
        "leases: given to everybody",
        f"{_DAEMON}/leases.py",
        "        if lease is None:\n            return self._give",
        "        if True:\n            return self._give",
        (TABLE,),
    ),
    Mutation(
        "leases: its own holder waits for itself",
        f"{_DAEMON}/leases.py",
        "        if lease is not None and not is_anothers:\n",
        "        if False:\n",
        (TABLE,),
    ),
    Mutation(
        "leases: stale entry served to who waits",
        f"{_DAEMON}/methods/leases.py",
        "record.is_fresh(mtime_ns, encoded) or (is_held and takes_old)",
        "record.is_fresh(mtime_ns, None) or (is_held and takes_old)",
        (SESSIONS,),
    ),
    Mutation(
        "leases: old entry also where nobody makes the new one",
        f"{_DAEMON}/methods/leases.py",
        "or (is_held and takes_old)",
        "or takes_old",
        (SESSIONS,),
    ),
    Mutation(
        "leases: two heirs at once",
        f"{_DAEMON}/leases.py",
        "            if found is None and lease.owner is not None:\n                continue\n",
        "",
        (TABLE,),
    ),
    Mutation(
        "leases: one name in all shards",
        f"{_DAEMON}/leases.py",
        "        leases = self._by_shard.get(shard_id)\n",
        "        leases = next(iter(self._by_shard.values()), None)\n",
        (SESSIONS,),
    ),
    # What ends one
    Mutation(
        "leases: bulk commit wakes nobody",
        f"{_DAEMON}/writes.py",
        "        return self.staged.records.keys()\n",
        "        return ()\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: put of many wakes those of its first name",
        f"{_DAEMON}/writes.py",
        "        return [name for name, _ in self.entries]\n",
        "        return [name for name, _ in self.entries[:1]]\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: who waits is answered before the journal has the entry",
        f"{_DAEMON}/writer.py",
        "        if wants_sync:\n            self._sync(",
        "        if wants_sync:\n            self._end_leases(appended)\n            self._sync(",
        (SESSIONS,),
    ),
    Mutation(
        "leases: end of the connection ends nothing",
        f"{_DAEMON}/session.py",
        "        self._context.writer.leases.forget(self, time.monotonic_ns())\n",
        "",
        (SESSIONS,),
    ),
    Mutation(
        "leases: hold never over",
        f"{_DAEMON}/leases.py",
        "        lease.deadline = self.deadlines.add(now_ns + request.hold_ns, lease)\n",
        "        lease.deadline = self.deadlines.add(now_ns + (1 << 60), lease)\n",
        (TABLE,),
    ),
    Mutation(
        "leases: waits seen only at the next tick",
        f"{_DAEMON}/lease_timer.py",
        "        deadlines.on_nearer = nearer.set\n",
        "        deadlines.on_nearer = lambda: None\n",
        (TIMER,),
    ),
    Mutation(
        "leases: answers of what is over not brought out",
        f"{_DAEMON}/lease_timer.py",
        "            settle()\n",
        "            pass\n",
        (LEASES,),
    ),
    Mutation(
        "leases: stop lets them wait",
        f"{_DAEMON}/app.py",
        "        self._writer.leases.close()\n",
        "",
        (LEASES,),
    ),
    Mutation(
        "leases: what storage refused is waited for",
        f"{_DAEMON}/writer.py",
        "            self.leases.note_refused(write.producer.shard_id(), write.stored_names)\n",
        "            pass\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: asked to make what cannot be stored",
        f"{_DAEMON}/methods/leases.py",
        "    takes_writes = not context.metrics.health.is_degraded\n",
        "    takes_writes = True\n",
        (SESSIONS,),
    ),
    # Order and bounds
    Mutation(
        "leases: requests behind a wait pass it",
        f"{_DAEMON}/session.py",
        "            self._pending_writes += 1\n            self._is_blocked = True\n",
        "            self._pending_writes += 1\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: read on while it waits",
        f"{_DAEMON}/session.py",
        "        if self.is_closing or self.input_ended or self._is_blocked:\n",
        "        if self.is_closing or self.input_ended:\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: any number for one connection",
        f"{_DAEMON}/leases.py",
        "        if len(self._by_owner.get(request.owner, ())) >= LEASES_PER_CONNECTION:\n",
        "        if False:\n",
        (TABLE,),
    ),
    Mutation(
        "leases: any number for all",
        f"{_DAEMON}/leases.py",
        "        if self.held >= LEASES:\n",
        "        if False:\n",
        (TABLE,),
    ),
    Mutation(
        "leases: what was called off piles up",
        f"{_DAEMON}/deadlines.py",
        "        if len(self._heap) > 2 * len(self._items) + _SPARE:\n",
        "        if False:\n",
        (DEADLINES,),
    ),
    Mutation(
        "leases: holder taken for idle",
        f"{_DAEMON}/session.py",
        "        return self._pending_writes > 0 or self._context.writer.leases.is_held_by(self)\n",
        "        return self._pending_writes > 0\n",
        (SESSIONS,),
    ),
    Mutation(
        "leases: wait over, and still in the line",
        f"{_DAEMON}/leases.py",
        "        del lease.waiting[request]\n",
        "        lease.waiting.pop(None, None)\n",
        (TABLE,),
    ),
    # The client
    Mutation(
        "leases: a wait takes the timeout's time",
        f"{_CLIENT}/leasing.py",
        "monotonic() + wait_ms / _MS + timeout)",
        "monotonic() + timeout)",
        (CLIENT,),
    ),
    Mutation(
        "leases: forked child gives its parent's back",
        f"{_CLIENT}/leasing.py",
        "        return self._pid == os.getpid()\n",
        "        return True\n",
        (CLIENT,),
    ),
    Mutation(
        "leases: given back without waiting for the answer",
        f"{_CLIENT}/leasing.py",
        "                self._call.give_back(monotonic() + self._timeout)\n",
        "                pass\n",
        (CLIENT,),
    ),
    Mutation(
        "leases: kept after a put that failed",
        f"{_CLIENT}/leasing.py",
        "        finally:\n            self._end()\n\n    def release",
        "        finally:\n            pass\n\n    def release",
        (CLIENT,),
    ),
)
