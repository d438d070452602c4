"""Bugs of the storage, the writer and the builder."""

from __future__ import annotations

from .mutation import Mutation

CRASHES = "tests/faults/test_crash_states.py"
BITS = "tests/faults/test_every_bit.py"
RECOVERY = "tests/daemon/storage/test_recovery.py"
CHAINS = "tests/daemon/storage/test_recovery_chains.py"
JOURNAL = "tests/daemon/storage/test_journal.py"
FILES = "tests/daemon/storage/test_shard_files.py"
IMAGES = "tests/daemon/storage/test_images.py"
RECORDS = "tests/daemon/storage/test_records.py"
BULKS = "tests/daemon/storage/test_bulks.py"
WRITER = "tests/daemon/test_writer.py"
BUILDER = "tests/daemon/test_builder.py"
SHARD = "tests/daemon/test_shard.py"
LIMITS = "tests/e2e/test_daemon_limits.py"
STORAGE = "tests/e2e/test_daemon_storage.py"

_STORAGE = "daemon/autoloadd_daemon/storage"
_DAEMON = "daemon/autoloadd_daemon"
_PROTOCOL = "protocol/autoloadd_protocol"

STORAGE_MUTATIONS: tuple[Mutation, ...] = (
    # What must be on stable storage
    Mutation(
        "journal not synced",
        f"{_STORAGE}/journal.py",
        "self._files.sync_data(self._descriptor)",
        "pass",
        (JOURNAL, CRASHES),
    ),
    Mutation(
        "journal's directory not synced",
        f"{_STORAGE}/journal.py",
        "self._files.sync_directory(self._directory)",
        "pass",
        (JOURNAL, CRASHES),
    ),
    Mutation(
        "cache directory not synced after a new shard",
        f"{_STORAGE}/journal.py",
        'self._files.sync_directory(self._directory.rpartition("/")[0])',
        "pass",
        (JOURNAL, CRASHES),
    ),
    Mutation(
        "older journals not synced",
        f"{_STORAGE}/shard_files.py",
        "for journal in list(self._journals):\n            journal.sync(",
        "for journal in list(self._journals)[-1:]:\n            journal.sync(",
        (FILES, CRASHES),
    ),
    Mutation(
        "bulk not synced before the frame that names it",
        f"{_STORAGE}/journal.py",
        "                bulk.sync()\n",
        "",
        (JOURNAL, CRASHES),
    ),
    Mutation(
        "image not synced before the rename",
        f"{_STORAGE}/images.py",
        "            files.sync(descriptor)\n",
        "",
        (IMAGES, CRASHES),
    ),
    Mutation(
        "image's directory not synced",
        f"{_STORAGE}/images.py",
        "        files.sync_directory(directory)\n",
        "",
        (IMAGES, CRASHES),
    ),
    Mutation(
        "drop not synced",
        f"{_DAEMON}/catalog.py",
        "self._files.sync_directory(self.cache_dir)",
        "pass",
        (f"{CRASHES}::test_crash_states[drop_and_begin_again]", CRASHES),
    ),
    Mutation(
        "fsync answered without a sync",
        f"{_DAEMON}/writer.py",
        "        if wants_sync:\n            self._sync(",
        "        if not batch:\n            self._sync(",
        (WRITER, CRASHES),
    ),
    Mutation(
        "failed fsync tried again",
        f"{_STORAGE}/journal.py",
        "                self.failed = str(error)\n",
        "                pass\n",
        (JOURNAL, FILES, CRASHES),
    ),
    # The order of steps
    Mutation(
        "acknowledged before the append",
        f"{_DAEMON}/writer.py",
        "        appended = [group for group in groups.values() if self._append(group)]\n",
        "        self._finish(batch, list(groups.values()))\n"
        "        appended = [group for group in groups.values() if self._append(group)]\n"
        "        return\n",
        (WRITER, CRASHES),
    ),
    Mutation(
        "journals removed before the image is on disk",
        f"{_DAEMON}/builder.py",
        "        make = partial(build.make, self._files, files.directory)\n",
        "        make = partial(build.make, self._files, files.directory)\n"
        "        _remove_journals(build.covered)\n",
        (BUILDER, CRASHES),
    ),
    Mutation(
        "sync on the loop, not in the thread",
        f"{_DAEMON}/writer.py",
        "        self._sync_thread.submit(sync_all, synced)\n",
        "        sync_all()\n        synced(None)\n",
        (WRITER, STORAGE),
    ),
    # What a failed write leaves
    Mutation(
        "no cut back after a failed append",
        f"{_STORAGE}/journal.py",
        "        except OSError as exc:\n            self._cut_back()\n",
        "        except OSError as exc:\n",
        (JOURNAL, FILES, CRASHES),
    ),
    Mutation(
        "frames stay after their sync failed",
        f"{_DAEMON}/writer.py",
        "files.cut_back(ends[shard])",
        "pass",
        (WRITER, CRASHES),
    ),
    Mutation(
        "refused write made visible",
        f"{_DAEMON}/writer.py",
        "            self._refuse_group(group, exc)\n            return False\n",
        "            self._refuse_group(group, exc)\n            return True\n",
        (WRITER, CRASHES),
    ),
    Mutation(
        "removed journal not noticed before an acknowledgement",
        f"{_STORAGE}/journal.py",
        "if self._files.identity(self.path) != self._identity:\n                raise",
        "if False:\n                raise",
        (JOURNAL, STORAGE),
    ),
    Mutation(
        "earlier daemon's journal synced in place",
        f"{_STORAGE}/journal.py",
        "            if self._is_inherited:\n",
        "            if False:\n",
        (JOURNAL, FILES, CRASHES),
    ),
    Mutation(
        "flush brings only its own shard to the disk",
        f"{_DAEMON}/writer.py",
        "(self._catalog if flushes else ())",
        "()",
        (WRITER, CRASHES),
    ),
    # Image, changes and floor as one truth
    Mutation(
        "tombstone forgotten in a build",
        f"{_STORAGE}/layout.py",
        "        if old is not None:\n            self._leave_out(old)\n",
        "        if old is not None and record is not None:\n            self._leave_out(old)\n",
        (IMAGES, CRASHES),
    ),
    Mutation(
        "floor forgotten",
        f"{_DAEMON}/shard.py",
        "        self._floor = generation\n",
        "",
        (SHARD, CRASHES),
    ),
    Mutation(
        "changes of a failed build lost",
        f"{_DAEMON}/shard.py",
        "newer, self._changes = self._changes, self._building\n",
        "newer, self._changes = self._changes, {}\n",
        (SHARD, CRASHES),
    ),
    Mutation(
        "writes during a build lost",
        f"{_DAEMON}/shard.py",
        "        self.is_image_wanted = False\n        self._building = {}\n",
        "        self.is_image_wanted = False\n        self._building = self._changes = {}\n",
        (SHARD, CRASHES),
    ),
    Mutation(
        "newest entries evicted, not the oldest",
        f"{_STORAGE}/layout.py",
        "        return self._pace.over(islice(puts, self._first_put, None))\n",
        "        kept = list(puts)\n        return iter(kept[: len(kept) - self._first_put])\n",
        (IMAGES, BUILDER),
    ),
    Mutation(
        "evictions not counted",
        f"{_DAEMON}/shard.py",
        "        self.evicted += evicted\n",
        "",
        (SHARD, BUILDER, LIMITS, STORAGE),
    ),
    # Recovery
    Mutation(
        "frames that the image holds applied again",
        f"{_STORAGE}/recovery.py",
        "        if frame.generation > shard.generation:\n",
        "        if True:\n",
        (RECOVERY, CHAINS, CRASHES),
    ),
    Mutation(
        "damage taken for a torn tail",
        f"{_STORAGE}/recovery.py",
        "(following or scan.good_end < scan.synced)",
        "following",
        (RECOVERY, CHAINS, BITS),
    ),
    Mutation(
        "torn tail taken for damage",
        f"{_STORAGE}/recovery.py",
        "(following or scan.good_end < scan.synced)",
        "True",
        (RECOVERY, CHAINS, BITS),
    ),
    Mutation(
        "missing journal not noticed",
        f"{_STORAGE}/recovery.py",
        "    return scan.header.base_generation > shard.generation\n",
        "    return False\n",
        (CHAINS, CRASHES),
    ),
    Mutation(
        "previous journal's end not compared",
        f"{_STORAGE}/scanning.py",
        "    if scan.good_end < following.previous_end:\n",
        "    if False:\n",
        (CHAINS, RECOVERY),
    ),
    Mutation(
        "epoch not compared",
        f"{_STORAGE}/recovery.py",
        "        if scan.header.epoch != shard.epoch:\n",
        "        if False:\n",
        (CHAINS, CRASHES),
    ),
    Mutation(
        "epoch kept although frames were lost",
        f"{_STORAGE}/recovery.py",
        "    shard.epoch = new_epoch()\n",
        "",
        (RECOVERY, CHAINS, BITS),
    ),
    # Checksums
    Mutation(
        "record's checksum not compared",
        f"{_STORAGE}/records.py",
        "if position > end or crc32(memoryview(data)[body:position]) != checksum:",
        "if position > end:",
        (RECORDS, BITS, RECOVERY),
    ),
    Mutation(
        "frame's checksum not compared",
        f"{_STORAGE}/records.py",
        "    if crc32(checked, crc32(fields)) != checksum:\n",
        "    if False:\n",
        (RECORDS, BITS, RECOVERY),
    ),
    Mutation(
        "journal header's checksum not compared",
        f"{_STORAGE}/records.py",
        "if _CHECKSUM.unpack_from(head, _CHECKSUM_AT)[0] != crc32(head[:_CHECKSUM_AT]):",
        "if False:",
        (RECORDS, BITS),
    ),
    Mutation(
        "image header's checksum not compared",
        f"{_PROTOCOL}/image.py",
        "if _CHECKSUM.unpack_from(head, _CHECKSUM_AT)[0] != crc32(head[:_CHECKSUM_AT]):",
        "if False:",
        ("tests/protocol/test_image.py", BITS),
    ),
    Mutation(
        "image index's checksum not compared",
        f"{_PROTOCOL}/image.py",
        "if crc32(self.buffer[HEADER_BYTES:records]) != self.header.index_checksum:",
        "if False:",
        ("tests/protocol/test_image.py", BITS),
    ),
    Mutation(
        "image records' checksum not compared",
        f"{_PROTOCOL}/image.py",
        "if crc32(self.buffer[records:]) != self.header.records_checksum:",
        "if False:",
        ("tests/protocol/test_image.py", BITS),
    ),
    Mutation(
        "bulk's checksum not compared",
        f"{_STORAGE}/bulks.py",
        "if len(data) != bulk.size or crc32(data) != bulk.checksum:",
        "if len(data) != bulk.size:",
        (BULKS,),
    ),
    Mutation(
        "image served without having been verified",
        f"{_STORAGE}/images.py",
        "    image.verify()\n",
        "",
        (IMAGES, BITS),
    ),
)
