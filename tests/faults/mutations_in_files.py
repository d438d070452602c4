"""Bugs to plant in what reads and writes files of others: zshrs's, and the portable form."""

from __future__ import annotations

from .mutation import Mutation

FILES = "tests/client/test_zshrs_files.py"
DAMAGE = "tests/client/test_zshrs_damage.py"
PORTABLE = "tests/protocol/test_portable.py"
IMPORT = "tests/e2e/test_import.py"
EXPORT = "tests/e2e/test_export.py"
BUILT_AT = "tests/daemon/storage/test_built_at.py"

_ZSHRS = "client/autoloadd_client/zshrs"
_CLI = "client/autoloadd_client/cli"
_PORTABLE = "protocol/autoloadd_protocol/portable.py"

FILE_MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "zshrs: parts may overlap",
        f"{_ZSHRS}/reading.py",
        "        self._cursor = start + size\n",
        "        self._cursor = start\n",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: blobs may reach into the entries",
        f"{_ZSHRS}/reading.py",
        "        self._end = entries_at\n",
        "",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: lookups not checked",
        f"{_ZSHRS}/reading.py",
        "            if _look_up(entry.name.encode(), displacements) != slot:",
        "            if False:",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: alignment not checked",
        f"{_ZSHRS}/reading.py",
        "        if start % alignment:",
        "        if False:",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: as many entries as the file says",
        f"{_ZSHRS}/reading.py",
        "        self._check_count(count)\n",
        "",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: a short text's length not checked",
        f"{_ZSHRS}/reading.py",
        "        elif size > INLINE_BYTES:",
        "        elif False:",
        (DAMAGE,),
    ),
    Mutation(
        "zshrs: the other order of fields taken first",
        f"{_ZSHRS}/layout.py",
        "for layout in (RUSTC_1_95, RUSTC_1_63)}",
        "for layout in (RUSTC_1_63, RUSTC_1_95)}",
        (FILES,),
    ),
    Mutation(
        "zshrs: names that no seed separates are searched for",
        f"{_ZSHRS}/phf.py",
        "        if member in first:",
        "        if False:",
        (FILES,),
    ),
    Mutation(
        "zshrs: buckets placed in another order",
        f"{_ZSHRS}/phf.py",
        "key=lambda bucket: -len(crowded[bucket])",
        "key=lambda bucket: (-len(crowded[bucket]), -bucket)",
        (FILES,),
    ),
    Mutation(
        "zshrs: seven bytes of text stored elsewhere",
        f"{_ZSHRS}/layout.py",
        "INLINE_BYTES = 7\n",
        "INLINE_BYTES = 6\n",
        (FILES,),
    ),
    Mutation(
        "portable: an entry's checksum not compared",
        _PORTABLE,
        "        if crc32(memoryview(data)[start:end]) != checksum:",
        "        if False:",
        (PORTABLE,),
    ),
    Mutation(
        "portable: the end not compared with what came before",
        _PORTABLE,
        "        if body != (count, checksum):",
        "        if False:",
        (PORTABLE,),
    ),
    Mutation(
        "portable: something may follow the end",
        _PORTABLE,
        "        if self._position != len(self._data):",
        "        if False:",
        (PORTABLE,),
    ),
    Mutation(
        "import replaces what is newer",
        "client/autoloadd_client/merging.py",
        "        elif there < offer.cached_at_ns:",
        "        elif there <= offer.cached_at_ns + 1:",
        (IMPORT,),
    ),
    Mutation(
        "import forgets when the shard was built",
        "client/autoloadd_client/merging.py",
        "built_at_ns=incoming.built_at_ns, sync=sync",
        "sync=sync",
        (IMPORT,),
    ),
    Mutation(
        "a dry run imports",
        f"{_CLI}/importing.py",
        "None if is_dry or not plan.changes else",
        "None if not plan.changes else",
        (IMPORT,),
    ),
    Mutation(
        "export rounds times",
        f"{_CLI}/exporting.py",
        "(entry.cached_at_ns or 0) // _SECOND",
        "round((entry.cached_at_ns or 0) / _SECOND)",
        (EXPORT,),
    ),
    Mutation(
        "export hands zshrs entries with a fingerprint",
        f"{_CLI}/exporting.py",
        "        if entry.fingerprint is None:",
        "        if True:",
        (EXPORT,),
    ),
    Mutation(
        "export not synced",
        f"{_CLI}/beside.py",
        "        written = write_batches(descriptor, parts)\n        os.fsync(descriptor)\n",
        "        written = write_batches(descriptor, parts)\n",
        (EXPORT,),
    ),
    Mutation(
        "export leaves its temporary file",
        f"{_CLI}/beside.py",
        "            os.unlink(temporary)\n",
        "            pass\n",
        (EXPORT,),
    ),
    Mutation(
        "export replaces a link",
        f"{_CLI}/beside.py",
        "    target = os.path.realpath(path)\n",
        "    target = os.path.abspath(path)\n",
        (EXPORT,),
    ),
    Mutation(
        "a merge beside others sets when the shard was built",
        "daemon/autoloadd_daemon/writes.py",
        "        if self.staged.built_at_ns is not None and not shard.entries:",
        "        if self.staged.built_at_ns is not None:",
        (BUILT_AT,),
    ),
    Mutation(
        "recovery forgets when the shard was built",
        "daemon/autoloadd_daemon/storage/recovery.py",
        "        if frame.bulk.built_at_ns is not None and not shard.has_entries():",
        "        if False:",
        (BUILT_AT,),
    ),
    Mutation(
        "recovery counts deleted entries",
        "daemon/autoloadd_daemon/storage/recovery.py",
        "any(name not in self.changes for name, _ in base.entries())",
        "len(base) > 0",
        (BUILT_AT,),
    ),
)
