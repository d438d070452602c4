"""Leases: of many clients that miss an entry at once, one is asked to make it.

A lease has a connection of its own: its life is the lease's (the daemon asks the next one when it
ends, also by `kill -9`), and a wait for one does not hold up other threads' calls.
"""

from __future__ import annotations

import os
from time import monotonic

from autoloadd_protocol.encoding import encode_str
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.requests import (
    is_fill,
    lease_request,
    parse_get_answer,
    parse_get_times,
    parse_uint_answer,
    put_request,
    request_frame,
)

from .checks import check_blob, check_fingerprint, check_hold, check_name, check_sync, check_wait
from .entry import Entry
from .errors import CacheError, ConnectionLostError, ForgedError, UnknownMethodError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import Self

    from .cache import Blob
    from .connection import Connection

_MS = 1000


class LeaseCall:
    """One client's question for one entry, on a connection that nobody else uses."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        fingerprint: bytes | None,
        binary_mtime_ns: int | None,
    ) -> None:
        self._connection = connection
        self._name = check_name(name)
        self._fingerprint = check_fingerprint(fingerprint)
        self._binary_mtime_ns = binary_mtime_ns
        self._pid = os.getpid()

    def ask(
        self, *, wait: float, hold: float, stale_ok: bool, timeout: float
    ) -> Entry | Lease | None:
        """Return what `Cache.lease` does; see there. Times are seconds."""
        wait_ms = check_wait(wait)
        request = lease_request(
            self._connection.next_id(),
            self._name,
            binary_mtime_ns=self._binary_mtime_ns,
            fingerprint=self._fingerprint,
            wait_ms=wait_ms,
            hold_ms=check_hold(hold),
            stale_ok=stale_ok,
        )
        is_given = False
        try:
            answer = self._connection.exchange(request, monotonic() + wait_ms / _MS + timeout)
            is_given = is_fill(answer)
            return Lease(self, timeout) if is_given else self._read_entry(answer)
        except UnknownMethodError:
            # An older daemon.
            return None
        except FrameError as exc:
            raise ForgedError(str(exc)) from exc
        finally:
            if not is_given:
                self.end()

    def put(self, blob: bytes, sync: str, deadline: float) -> int:
        """Store the entry that was asked for; return the generation. Raises CacheError."""
        request = put_request(
            self._connection.next_id(),
            self._name,
            blob,
            binary_mtime_ns=self._binary_mtime_ns,
            fingerprint=self._fingerprint,
            sync=sync,
        )
        try:
            return parse_uint_answer(self._connection.exchange(request, deadline))
        except FrameError as exc:
            raise ForgedError(str(exc)) from exc

    def give_back(self, deadline: float) -> None:
        """Return when the daemon asks the next one. Raises CacheError."""
        request = request_frame(self._connection.next_id(), b"unlease", encode_str(self._name))
        self._connection.exchange(request, deadline, again=False)

    def end(self) -> None:
        """Close the connection, and with it end the lease; a forked child only its copy."""
        if self.is_ours:
            self._connection.close(monotonic())
        else:
            self._connection.abandon()

    @property
    def is_ours(self) -> bool:
        """Tell whether this process asked: a forked child must not talk on the connection."""
        return self._pid == os.getpid()

    def _read_entry(self, answer: bytes) -> Entry | None:
        span = parse_get_answer(answer, self._name)
        if span is None:
            return None
        return Entry(answer[slice(*span)], *parse_get_times(answer, span[1]))


class Lease:
    """The task of making an entry, which nobody else is given meanwhile. A context: it gives back.

    with lease:
        lease.fill(make_it())
    """

    def __init__(self, call: LeaseCall, timeout: float) -> None:
        self._call = call
        self._timeout = timeout
        self._is_over = False

    def fill(self, blob: Blob, *, sync: str = "write") -> int:
        """Store the entry, with what it was asked with; return the generation.

        Those who wait get it, and the lease is over; also after its `hold` time it is stored.
        Raises CacheError: nothing was stored, or nobody knows, and the lease is over too.
        """
        checked, level = check_blob(blob), check_sync(sync)
        if self._is_over or not self._call.is_ours:
            raise ConnectionLostError("the lease is over, or the parent process's")
        try:
            return self._call.put(checked, level, monotonic() + self._timeout)
        finally:
            self._end()

    def release(self) -> None:
        """Give the lease back without an entry: the next one who waits is asked. Never fails.

        Nor does it do anything after `fill`, or twice.
        """
        if self._is_over:
            return
        try:
            if self._call.is_ours:
                # Answered: who asks from now on is not told to wait.
                self._call.give_back(monotonic() + self._timeout)
        except CacheError:
            # The end of the connection does the same, a little later.
            return
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Give the lease back, unless it was filled."""
        self.release()

    def _end(self) -> None:
        self._is_over = True
        self._call.end()
