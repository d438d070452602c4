"""Bugs to plant in a copy of the code, one at a time: the tests must catch each of them.

With each come the tests that should notice. `scripts/mutations` runs them; a bug that no test
notices survives, and is a gap in the tests.
"""

from __future__ import annotations

from .mutation import Mutation
from .mutations_at_a_start import START_MUTATIONS
from .mutations_in_files import FILE_MUTATIONS
from .mutations_in_leases import LEASE_MUTATIONS
from .mutations_in_plugin import PLUGIN_MUTATIONS
from .mutations_in_puts import PUT_MUTATIONS
from .mutations_in_shared_reads import SHARED_READS_MUTATIONS
from .mutations_in_shells import SHELL_MUTATIONS
from .mutations_in_storage import STORAGE_MUTATIONS

WRITER = "tests/daemon/test_writer.py"
SESSION = "tests/daemon/test_session.py"
CONNECTION = "tests/client/test_connection.py"
WIRE = "tests/client/test_wire.py"
SHARING = "tests/client/test_sharing.py"
HOSTILE = "tests/e2e/test_daemon_hostile.py"
LIMITS = "tests/e2e/test_daemon_limits.py"
ACCESS = "tests/e2e/test_daemon_access.py"
LISTENING = "tests/daemon/test_listening.py"
START = "tests/e2e/test_daemon_start.py"
LIFECYCLE = "tests/e2e/test_daemon_lifecycle.py"
STORAGE = "tests/e2e/test_daemon_storage.py"
VECTORS = "tests/e2e/test_vectors.py"

_DAEMON = "daemon/autoloadd_daemon"
_CLIENT = "client/autoloadd_client"
_PROTOCOL = "protocol/autoloadd_protocol"

MUTATIONS: tuple[Mutation, ...] = (
    *FILE_MUTATIONS,
    *STORAGE_MUTATIONS,
    *SHARED_READS_MUTATIONS,
    *PUT_MUTATIONS,
    # Plain gets
    Mutation(
        "plain get answered before a write of its own connection",
        f"{_DAEMON}/session.py",
        "            or self._pending_writes\n            or self._stalled\n",
        "            or self._stalled\n",
        ("tests/e2e/test_daemon_order.py",),
    ),
    Mutation(
        "plain get of a stale entry answered",
        f"{_DAEMON}/plain_requests.py",
        "        if mtime_ns < oldest_ns or size > _ANSWER_BYTES:",
        "        if size > _ANSWER_BYTES:",
        ("tests/daemon/test_plain_requests.py",),
    ),
    *LEASE_MUTATIONS,
    *PLUGIN_MUTATIONS,
    *START_MUTATIONS,
    *SHELL_MUTATIONS,
    # One daemon, one user
    Mutation(
        "directory not locked",
        f"{_DAEMON}/listening.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        (LISTENING, START),
    ),
    Mutation(
        "socket unlinked although it is another's",
        f"{_DAEMON}/listening.py",
        "if self.identity is not None and _identity(self.path) == self.identity:",
        "if self.identity is not None:",
        (LISTENING, LIFECYCLE),
    ),
    Mutation(
        "directory's mode not checked",
        f"{_PROTOCOL}/rendezvous.py",
        "    if mode & 0o077:\n",
        "    if False:\n",
        ("tests/protocol/test_rendezvous.py", ACCESS),
    ),
    Mutation(
        "daemon serves every user",
        f"{_DAEMON}/peers.py",
        "        return uid == os.geteuid()\n",
        "        return True\n",
        ("tests/daemon/test_peers.py", ACCESS),
    ),
    Mutation(
        "client talks to any user's server",
        f"{_CLIENT}/reaching.py",
        "    if uid not in (None, os.geteuid()):\n",
        "    if False:\n",
        (CONNECTION, "tests/client/test_unreachable.py", ACCESS),
    ),
    # Clients
    Mutation(
        "forked child uses its parent's connection",
        f"{_CLIENT}/process.py",
        "        connection = self._by_pid.get(os.getpid())\n",
        "        connection = next(iter(self._by_pid.values()), None)\n",
        (SHARING,),
    ),
    Mutation(
        "threads of a client not kept apart",
        f"{_CLIENT}/connection.py",
        "        self._lock = _thread.allocate_lock()\n",
        "        from threading import Semaphore\n\n        self._lock = Semaphore(64)\n",
        (SHARING, CONNECTION),
    ),
    Mutation(
        "answer's id not compared",
        f"{_CLIENT}/connection.py",
        "            if wire.rest or not answer.startswith(answer_id(request), LENGTH_BYTES):\n",
        "            if wire.rest:\n",
        (CONNECTION,),
    ),
    Mutation(
        "connection goes on after a deadline",
        f"{_CLIENT}/connection.py",
        "        error = self._meaning_of(cause)\n        self._drop()\n",
        "        error = self._meaning_of(cause)\n",
        (CONNECTION,),
    ),
    Mutation(
        "connection goes on after an interrupted exchange",
        f"{_CLIENT}/connection.py",
        "            self._drop()\n            raise\n        # One connection",
        "            raise\n        # One connection",
        (CONNECTION,),
    ),
    Mutation(
        "deadline of an earlier call taken for this one's",
        f"{_CLIENT}/wire.py",
        "        if deadline - monotonic() < self._patience:\n",
        "        if self._patience == float('inf'):\n",
        (WIRE,),
    ),
    Mutation(
        "call ended by the deadline of an earlier one",
        f"{_CLIENT}/wire.py",
        "            except TimeoutError:\n"
        "                self._set_patience(time_left(deadline))\n",
        "            except TimeoutError:\n                raise\n",
        (WIRE,),
    ),
    Mutation(
        "descriptor closed by both of its objects",
        f"{_CLIENT}/wire.py",
        'it could be another\'s."""\n        self._at_once.detach()\n',
        'it could be another\'s."""\n',
        (WIRE,),
    ),
    Mutation(
        "stale entry served: time not compared",
        f"{_PROTOCOL}/record.py",
        "if binary_mtime_ns is not None and self.binary_mtime_ns < binary_mtime_ns:",
        "if False:",
        ("tests/protocol/test_record.py", VECTORS),
    ),
    Mutation(
        "stale entry served: fingerprint not compared",
        f"{_PROTOCOL}/record.py",
        "        return self.buffer[self.blob_end : end] == encoded_fingerprint\n",
        "        return end > 0\n",
        ("tests/protocol/test_record.py", VECTORS),
    ),
    Mutation(
        "read passes an earlier write of its connection",
        f"{_DAEMON}/session.py",
        "        if self._context.writer.is_full if write is not None else self._pending_writes:\n",
        "        if self._context.writer.is_full and write is not None:\n",
        (SESSION, "tests/e2e/test_daemon_order.py"),
    ),
    # Bounds
    Mutation(
        "queue of writes unbounded",
        f"{_DAEMON}/writer.py",
        "return len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES",
        "return False",
        (WRITER, LIMITS, HOSTILE, STORAGE),
    ),
    Mutation(
        "frame's length not bounded",
        f"{_PROTOCOL}/framing.py",
        "        if not 0 < size <= self._max_frame_bytes:\n",
        "        if not 0 < size:\n",
        ("tests/protocol/test_framing.py", HOSTILE),
    ),
    Mutation(
        "unfinished frame waited for without end",
        f"{_DAEMON}/peers.py",
        "            (rest and now_ns - rest > FRAME_SECONDS * _NS)\n            or ",
        "            ",
        ("tests/daemon/test_peers.py", HOSTILE),
    ),
    Mutation(
        "unsent answers unbounded",
        f"{_DAEMON}/session.py",
        "        if self.output_bytes >= self._context.room.output_per_turn:\n",
        "        if False:\n",
        (SESSION, HOSTILE, LIMITS),
    ),
    Mutation(
        "requests of all clients together unbounded",
        f"{_DAEMON}/room.py",
        "if self.received < RECEIVED_BYTES or peer is self._favoured:",
        "if True:",
        ("tests/daemon/test_room.py", "tests/e2e/test_daemon_memory.py"),
    ),
    Mutation(
        "client that takes nothing kept for ever",
        f"{_DAEMON}/peers.py",
        "\n            or (blocked and now_ns - blocked > UNSENT_SECONDS * _NS)",
        "",
        ("tests/daemon/test_peers.py", HOSTILE),
    ),
)
