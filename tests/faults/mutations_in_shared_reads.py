"""Bugs to plant where clients read out of shared memory: see `mutations`."""

from __future__ import annotations

from .mutation import Change, Mutation

_DAEMON = "daemon/autoloadd_daemon"
_CLIENT = "client/autoloadd_client"
READS = "tests/client/test_shared_reads.py"
READERS = "tests/client/test_readers.py"
SHARING = "tests/daemon/test_sharing.py"
MEMORY = "tests/e2e/test_shared_memory.py"

SHARED_READS_MUTATIONS: tuple[Mutation, ...] = (
    # What the page says
    Mutation(
        "change not noted on the page",
        f"{_DAEMON}/writes.py",
        "        page.touch_each([name for name, _ in self.entries], generation)\n",
        "        return\n",
        (READS,),
    ),
    Mutation(
        "change noted only when the journal has it",
        f"{_DAEMON}/shard.py",
        "        if self.page is not None:\n            announce(self.page)\n",
        "",
        (SHARING,),
    ),
    Mutation(
        "delete not noted on the page",
        f"{_DAEMON}/writes.py",
        "        page.touch_each(self.names, generation)\n",
        "        return\n",
        (SHARING,),
    ),
    Mutation(
        "clear not noted on the page",
        f"{_DAEMON}/writes.py",
        '        """Note a change of everything."""\n        page.touch_all(generation)\n',
        '        """Note a change of everything."""\n',
        (SHARING,),
    ),
    Mutation(
        "merge not noted on the page",
        f"{_DAEMON}/writes.py",
        "            page.touch_each(self.staged.records.keys(), generation)\n",
        "            return\n",
        (SHARING,),
    ),
    Mutation(
        "replace not noted on the page",
        f"{_DAEMON}/writes.py",
        '        if self.staged.mode == "replace":\n            page.touch_all(generation)\n',
        '        if self.staged.mode == "replace":\n            return\n',
        (SHARING,),
    ),
    Mutation(
        "eviction not noted on the page",
        f"{_DAEMON}/shard.py",
        "            if evicted:\n",
        "            if False:\n",
        (SHARING,),
    ),
    Mutation(
        "new page without what changed since the image",
        f"{_DAEMON}/shard.py",
        "            page.touch(name, self.generation)\n",
        "            pass\n",
        (SHARING,),
    ),
    # When a page ends, and who waits for that
    Mutation(
        "dropped shard's page goes on",
        f"{_DAEMON}/catalog.py",
        "        shard, shard_files = self._shards.pop(shard_id)\n        self.on_forget(shard)\n",
        "        shard, shard_files = self._shards.pop(shard_id)\n",
        (SHARING, READS),
    ),
    Mutation(
        "pages go on when everything is recovered again",
        f"{_DAEMON}/catalog.py",
        "            self.on_forget(shard)\n\n    def _read_all",
        "            del shard\n\n    def _read_all",
        (SHARING,),
    ),
    Mutation(
        "page made during a sync does not tell of it",
        f"{_DAEMON}/shard.py",
        "            self._announce(page)\n",
        "            pass\n",
        (SHARING,),
    ),
    Mutation(
        "page not ended with the directory",
        f"{_DAEMON}/app.py",
        "            self._sharing.end()\n            self._metrics",
        "            self._metrics",
        (READS,),
    ),
    Mutation(
        "memory handed out after the end",
        f"{_DAEMON}/sharing.py",
        "        if self._is_over:\n",
        "        if False:\n",
        (SHARING,),
    ),
    Mutation(
        "mark taken away while a predecessor may be trusted",
        f"{_DAEMON}/sharing.py",
        " and time.monotonic_ns() >= self.trusted_until_ns",
        "",
        (SHARING,),
    ),
    Mutation(
        "only one of the marks looked for",
        f"{_DAEMON}/sharing.py",
        "any(map(os.path.lexists, self._marks))",
        "os.path.lexists(self._marks[0])",
        (SHARING, READS),
    ),
    Mutation(
        "successor does not wait",
        f"{_DAEMON}/app.py",
        "        self._writer.not_before_ns = self._sharing.trusted_until_ns\n",
        "",
        (READS,),
    ),
    Mutation(
        "drop does not wait for the end of a lease",
        f"{_DAEMON}/writer.py",
        "time.monotonic_ns() < self.not_before_ns:\n            return\n",
        "time.monotonic_ns() < self.not_before_ns and not any(\n"
        "            isinstance(write, Drop) for write in self._waiting\n"
        "        ):\n            return\n",
        (SHARING,),
    ),
    # Descriptors
    Mutation(
        "descriptor lost where the second cannot be had",
        f"{_DAEMON}/session.py",
        "            self.close_passing()\n            raise\n",
        "            self.passing = []\n            raise\n",
        (SHARING,),
    ),
    Mutation(
        "descriptors sent with an earlier answer",
        f"{_DAEMON}/peers.py",
        "                self._passing_at = self.unsent_bytes + session.passing_at\n",
        "                self._passing_at = 0\n",
        (MEMORY,),
    ),
    # The client
    Mutation(
        "mapping outlives its connection",
        f"{_CLIENT}/connection.py",
        "            self.on_close()\n",
        "            pass\n",
        (READS,),
    ),
    Mutation(
        "page trusted without end",
        f"{_CLIENT}/shared.py",
        "    return heartbeat + LEASE_NS\n",
        "    return 2**63\n",
        (READS,),
    ),
    Mutation(
        "bucket not looked at",
        f"{_CLIENT}/reading.py",
        "        if buckets[checksum & bucket_mask] > generation:\n",
        "        if False:\n",
        (READS,),
    ),
    Mutation(
        "stale entry served out of shared memory",
        f"{_CLIENT}/shared.py",
        "-1 if start and mtime < oldest else start",
        "start",
        (READS,),
    ),
    Mutation(
        "an image's entries taken for fresh where most are",
        f"{_CLIENT}/shared.py",
        "header.oldest_mtime_ns < binary_mtime_ns",
        "header.newest_mtime_ns < binary_mtime_ns",
        (READERS,),
    ),
    Mutation(
        "forked child reads what its parent mapped",
        f"{_CLIENT}/shared.py",
        "        reads.begin_anew()\n",
        "        pass\n",
        (READS,),
    ),
    Mutation(
        "own write that nobody waits for not seen",
        f"{_CLIENT}/cache.py",
        "                connection.notify(request, deadline)\n"
        "            finally:\n                self._shared.suspend()\n",
        "                connection.notify(request, deadline)\n"
        "            finally:\n                pass\n",
        (READS,),
    ),
    Mutation(
        "reader keeps what it was told to let go of",
        f"{_CLIENT}/reading.py",
        "        lookup = found\n",
        "        lookup = lookup if found is NOTHING else found\n",
        (READS,),
    ),
    Mutation(
        "doubt within many gets taken for a miss",
        f"{_CLIENT}/reading.py",
        "    raise DoubtError\n",
        "    return None\n",
        (READERS,),
    ),
    Mutation(
        "many gets ask for what is doubtful only: of two times",
        f"{_CLIENT}/reading.py",
        "        read, use = make_reader(_doubt)\n        use(self._lookup)\n",
        "        read = getattr(self, '_read', make_reader(_doubt)[0])\n",
        (READERS,),
        also=(
            Change(
                f"{_CLIENT}/reading.py",
                "        return read, read_view\n",
                "        self._read = read\n        return read, read_view\n",
            ),
        ),
    ),
    Mutation(
        "subclass's own get passed over",
        f"{_CLIENT}/cache.py",
        "            if getattr(type(self), name) is _SHORTENED[name]:\n",
        "            if name:\n",
        (READERS,),
    ),
)
