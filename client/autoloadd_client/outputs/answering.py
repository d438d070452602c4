"""The answer to a question: from the cache, or by running the tool, and then cached.

Whatever goes wrong with the cache, the tool is run, and nothing is said.
"""

from __future__ import annotations

import os
import time

from autoloadd_client.cache import Cache
from autoloadd_client.entry import Entry
from autoloadd_client.errors import CacheError, DeadlineError
from autoloadd_client.reaching import find_socket
from autoloadd_protocol.limits import BLOB_BYTES
from autoloadd_protocol.producer import TOOL_OUTPUT

from .away import is_away, note_absence
from .question import EVAL, UNKEPT

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_client.leasing import Lease

    from .question import Question
    from .running import Ran

ASK_SECONDS = 0.05
"""A daemon that takes longer is left alone for a while. AUTOLOADD_WAIT_MS says otherwise."""

STORE_SECONDS = 1.0

WAIT_SECONDS = {"eval": 5.0, "complete": 2.0}
"""For another shell that is running the tool already."""

_SECOND = 10**9
_MAX_WAIT_MS = 60_000


class Asked:
    """One question, asked of the cache. `blob` is the answer; `is_cached`: one can be kept."""

    def __init__(self, question: Question, program: str) -> None:
        self._question = question
        self._program = program
        self._name = question.name or ""
        self._unkept = f"{UNKEPT}\0{self._name}"
        self._fingerprint = self._read_fingerprint()
        self._path = ""
        self._is_marked = False
        self.blob: bytes | None = None
        if self._name and self._fingerprint is not None:
            self._ask()

    @property
    def is_cached(self) -> bool:
        """Tell whether there is a cache that could have the answer."""
        return bool(self._path)

    def make(self) -> Ran:
        """Run the tool, or wait for the shell that runs it; cache what may be kept.

        Raises OSError where the tool cannot be started.
        """
        from .running import Ran, run_tool  # noqa: PLC0415  a hit does without

        got = self._take_lease()
        if isinstance(got, Entry) and got.fingerprint != self._fingerprint:
            got = None
        if isinstance(got, Entry):
            return Ran(got.blob, self._question.status, is_silent=True)
        if got is not None and self._was_unkept():
            # All who wait for this run would make theirs one after the other.
            got.release()
            got = None
            self._is_marked = True
        try:
            ran = run_tool(self._question.words, self._question.shell)
            if self._may_keep(ran):
                self._store(ran.output, got)
            else:
                self._note_unkept()
        finally:
            if got is not None:
                got.release()
        return ran

    def _ask(self) -> None:
        try:
            path = find_socket(None)
            shell, now = self._question.asker, int(time.time())
            if is_away(path, shell, now):
                return
            try:
                with Cache(TOOL_OUTPUT, socket_path=path, timeout=_ask_seconds()) as cache:
                    self.blob = self._get(cache)
                self._path = path
            except DeadlineError:
                note_absence(path, shell, now)
        except CacheError:
            return

    def _get(self, cache: Cache) -> bytes | None:
        max_age = self._question.max_age
        entry = cache.get_entry(self._name, fingerprint=self._fingerprint)
        # What is printed is evaluated: what it was made from is looked at here, too.
        if entry is None or entry.fingerprint != self._fingerprint:
            return None
        if max_age is None or _is_young(entry, max_age):
            return entry.blob
        # The daemon knows fingerprints, but no ages: with this one it would not give the lease.
        cache.delete([self._name])
        return None

    def _take_lease(self) -> Lease | Entry | None:
        """Return what another shell made meanwhile, or a lease; None: run it without one."""
        wait = WAIT_SECONDS[self._question.kind]
        try:
            return self._open().lease(self._name, fingerprint=self._fingerprint, wait=wait)
        except CacheError:
            return None

    def _was_unkept(self) -> bool:
        """Tell whether the last run of this tool could not be kept."""
        try:
            with self._open() as cache:
                return cache.get(self._unkept, fingerprint=self._fingerprint) is not None
        except CacheError:
            return False

    def _note_unkept(self) -> None:
        # Nobody presses TAB in ten shells at once.
        if self._question.kind != EVAL or self._read_fingerprint() != self._fingerprint:
            return
        try:
            with self._open() as cache:
                cache.put(self._unkept, b"", fingerprint=self._fingerprint)
        except CacheError:
            return  # then the next ones wait for each other, too

    def _may_keep(self, ran: Ran) -> bool:
        if not ran.is_silent or ran.status != self._question.status:
            return False
        # Not where the tool was replaced while it ran.
        is_same = self._read_fingerprint() == self._fingerprint
        return is_same and len(ran.output) <= BLOB_BYTES

    def _read_fingerprint(self) -> bytes | None:
        try:
            return self._question.fingerprint(self._program, os.environ)
        except OSError:
            return None  # the program went away just now

    def _store(self, output: bytes, lease: Lease | None) -> None:
        try:
            if lease is not None:
                lease.fill(output)
                return
            with self._open() as cache:
                cache.put(self._name, output, fingerprint=self._fingerprint)
                if self._is_marked:
                    cache.delete([self._unkept])
        except CacheError:
            return  # the shell has its output all the same

    def _open(self) -> Cache:
        return Cache(TOOL_OUTPUT, socket_path=self._path, timeout=STORE_SECONDS)


def _is_young(entry: Entry, max_age: int) -> bool:
    # By this machine's clock, which also stamped it: if it was set back, that may be to come.
    age = time.time_ns() - (entry.cached_at_ns or 0)
    return 0 <= age <= max_age * _SECOND


def _ask_seconds() -> float:
    text = os.environ.get("AUTOLOADD_WAIT_MS", "")
    is_number = text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_WAIT_MS
    return int(text) / 1000 if is_number else ASK_SECONDS
