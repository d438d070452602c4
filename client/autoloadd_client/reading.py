"""When to read out of shared memory: attach, follow new images, stop where it would be wrong.

Loaded with every `Cache`; what maps memory (`shared`, and msgpack) only when enough gets show that
it is worth it.
"""

from __future__ import annotations

import _thread
import os
from time import monotonic

from .errors import CacheError, RefusedError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .shared import Attachment

_ATTACH_AFTER = 16
"""Gets over the socket before attaching: what that loads costs as much time as some hundred."""

_FEATURE = b"\xa6attach"
"""How a daemon that shares memory says so in its answer to `hello`: a str among the features."""

_PAUSE_SECONDS = 1.0
"""Between two attempts, where the daemon was busy or had no image yet."""

_LONG_PAUSE_SECONDS = 60.0
"""Where it refused for good: until there is another daemon."""

_GAP_SECONDS = 0.05
"""Between two images: one that is replaced at every look is not worth following."""


DOUBT = bytes(bytearray(b"only the daemon knows"))
"""What a shared read returns when the daemon has to be asked: this object, not what equals it."""


class SharedReads:
    """Has `read(name)`: a blob, None for a miss, or DOUBT: then ask, and call `asked`.

    `read` never raises. It is replaced as a whole, so that threads need no lock.
    """

    def __init__(self, binary_mtime_ns: int | None) -> None:
        self.read: Callable[[str], bytes | None] = _doubt
        self._binary_mtime_ns = binary_mtime_ns
        self._attachment: Attachment | None = None
        self._life: object = None
        self._gets = 0
        self._not_before = 0.0
        self._turn = _thread.allocate_lock()
        self._pid = os.getpid()

    def asked(self, connection: Connection, deadline: float) -> None:
        """Note that a `get` was answered over the socket: attach, or go on, if that is right now.

        Raises nothing: the get has its answer, whatever becomes of this.
        """
        self._gets += 1
        if self._gets < _ATTACH_AFTER:
            return
        if os.getpid() != self._pid:
            self.begin_anew()
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._follow(connection, deadline)
        finally:
            self._turn.release()

    def suspend(self) -> None:
        """Ask the daemon from now on: a write was sent that nobody waits for, or a part of it.

        Called after it was sent, and `_follow` looks at that last: whichever comes second stops.
        """
        self.read = _doubt

    def detach(self) -> None:
        """Let go of the mapped memory; whoever reads from it in this moment finishes.

        Also called when the connection is closed, by any thread, before another daemon can answer:
        what it acknowledges is in no memory of this one.
        """
        self.read = _doubt
        self._attachment = self._life = None

    def begin_anew(self) -> None:
        """Forget everything, in a forked child: another thread of the parent may have the turn."""
        self.detach()
        self._pid = os.getpid()
        self._turn = _thread.allocate_lock()

    def _follow(self, connection: Connection, deadline: float) -> None:
        if connection.life is not self._life:
            # A mapping belongs to its connection: the daemon has let go of it with that.
            self.detach()
        attachment = self._attachment
        if attachment is None or attachment.is_outdated:
            attachment = self._attach(connection, deadline) or attachment
        if attachment is not None and self._may_read(connection):
            self.read = attachment.read
            if not self._may_read(connection):
                self.read = _doubt

    def _may_read(self, connection: Connection) -> bool:
        return connection.is_settled and connection.life is self._life

    def _attach(self, connection: Connection, deadline: float) -> Attachment | None:
        if monotonic() < self._not_before or _FEATURE not in connection.hello_answer:
            return None
        from .shared import attach  # noqa: PLC0415

        self._not_before = monotonic() + _GAP_SECONDS
        if monotonic() >= deadline:
            # Loading it took what was left: an exchange would only close the connection.
            return None
        life = connection.life
        connection.on_close = self.detach
        try:
            attachment = attach(self, connection, self._binary_mtime_ns, deadline)
        except RefusedError as exc:
            # An older daemon never will; a busy one, or one without an image yet, may soon.
            soon = exc.code in ("busy", "shutting_down")
            self._not_before = monotonic() + (_PAUSE_SECONDS if soon else _LONG_PAUSE_SECONDS)
            return None
        except CacheError:
            self._not_before = monotonic() + _PAUSE_SECONDS
            return None
        # Not the life that there is now: another thread may have ended the one it came over.
        self._attachment, self._life = attachment, life
        return attachment


def _doubt(_name: str) -> bytes:
    return DOUBT
