"""Bugs of the short way that puts take, of gathering, and of room ahead of journals."""

from __future__ import annotations

from .mutation import Mutation

CRASHES = "tests/faults/test_crash_states.py"
FILES = "tests/daemon/storage/test_shard_files.py"
RECOVERY = "tests/daemon/storage/test_recovery.py"
GATHERING = "tests/daemon/test_gathering.py"
PLAIN = "tests/protocol/test_plain_put.py"
PUTS = "tests/daemon/test_plain_puts.py"
SERVING = "tests/daemon/test_serving.py"
WRITER = "tests/daemon/test_writer.py"

_DAEMON = "daemon/autoloadd_daemon"
_STORAGE = f"{_DAEMON}/storage"
_PLAIN = "protocol/autoloadd_protocol/plain_put.py"
_ROOMY = f"{CRASHES}::test_crash_states_of_journals_with_room"

PUT_MUTATIONS: tuple[Mutation, ...] = (
    # What is read without MessagePack
    Mutation(
        "plain put of a name that is no UTF-8",
        _PLAIN,
        "        or not name.isascii()\n",
        "",
        (PLAIN,),
    ),
    Mutation(
        "plain put of which more is to come",
        _PLAIN,
        "payload_size != len(data) - LENGTH_BYTES",
        "payload_size < len(data) - LENGTH_BYTES",
        (PLAIN,),
    ),
    Mutation(
        "plain put of a name that is longer",
        _PLAIN,
        "not NAME_AT < name_end <= _LONGEST_NAME_END",
        "not NAME_AT < name_end",
        (PLAIN,),
    ),
    Mutation(
        "plain put's sync not read",
        _PLAIN,
        "return mtime_ns, stored, read_sync(sync)",
        'return mtime_ns, stored, "write"',
        (PLAIN, PUTS),
    ),
    # Order on one connection
    Mutation(
        "connection quiet while its put is under way",
        f"{_DAEMON}/plain_puts.py",
        "        del self._quiet[peer.descriptor]\n",
        "",
        (PUTS,),
    ),
    Mutation(
        "read before the connection's own put",
        f"{_DAEMON}/plain_puts.py",
        "        peer.session.owe()\n",
        "",
        (PUTS,),
    ),
    Mutation(
        "answer passes what is owed already",
        f"{_DAEMON}/plain_puts.py",
        " or peer.unsent_bytes:",
        ":",
        (PUTS,),
    ),
    Mutation(
        "answer that is not taken forgotten",
        f"{_DAEMON}/plain_puts.py",
        "            session.announce_output()\n",
        "            pass\n",
        (PUTS,),
    ),
    # Ends of syncs, and who is waited for
    Mutation(
        "end of a sync forgotten behind another",
        f"{_DAEMON}/serving.py",
        "what this was for.\n                self._run_delivered()\n",
        "what this was for.\n",
        (SERVING,),
    ),
    Mutation(
        "gathers where nobody turns",
        f"{_DAEMON}/writer.py",
        "self.may_gather and waiting > 0",
        "waiting > 0",
        (GATHERING,),
    ),
    Mutation(
        "gathers without end",
        f"{_DAEMON}/gathering.py",
        " and time.monotonic_ns() < self._until_ns",
        "",
        (GATHERING,),
    ),
    Mutation(
        "gathers for what a stalled disk took",
        f"{_DAEMON}/gathering.py",
        "min((now - began_ns) // 2, LONGEST_NS)",
        "(now - began_ns) // 2",
        (GATHERING,),
    ),
    Mutation(
        "batch that gathers not begun while the task sleeps",
        f"{_DAEMON}/serving.py",
        "if self._again or self._answered or self._context.writer.is_gathering:",
        "if self._again or self._answered:",
        (SERVING,),
    ),
    Mutation(
        "gathers while a shard is dropped",
        f"{_DAEMON}/writer.py",
        "        self.is_gathering = False\n        if self._catalog",
        "        if self._catalog",
        (GATHERING,),
    ),
    # Room
    Mutation(
        "room made beside appends",
        f"{_STORAGE}/shard_files.py",
        "journal.sync(makes_room=makes_room)",
        "journal.sync(makes_room=True)",
        (FILES, _ROOMY),
    ),
    Mutation(
        "room made over what was appended",
        f"{_STORAGE}/journal.py",
        "start, size = max(self.end, self._room_end), room_bytes(self.end)",
        "start, size = max(self.synced, self._room_end), room_bytes(self.end)",
        (FILES, _ROOMY),
    ),
    Mutation(
        "appends go on behind the room after a cut back",
        f"{_STORAGE}/files.py",
        "        os.lseek(descriptor, size, os.SEEK_SET)\n",
        "",
        ("tests/daemon/storage/test_files.py", FILES),
    ),
    Mutation(
        "room taken for a torn tail",
        f"{_STORAGE}/scanning.py",
        "        if len(data) == position and synced <= position:\n            problem = None\n",
        "",
        (RECOVERY,),
    ),
    Mutation(
        "room not counted on disk",
        f"{_STORAGE}/journal.py",
        "return max(self.end, self._room_end) + self.bulk_bytes",
        "return self.end + self.bulk_bytes",
        (FILES,),
    ),
    Mutation(
        "room stays when a journal ends",
        f"{_STORAGE}/journal.py",
        "            self._give_room_back()\n",
        "",
        (FILES,),
    ),
)
