"""When to read out of shared memory: attach, follow new images, stop where it would be wrong.

Loaded with every `Cache`; what maps memory (`shared`, and msgpack) only when enough gets show that
it is worth it.
"""

from __future__ import annotations

import _thread
import os
from time import monotonic, monotonic_ns

from .errors import CacheError, RefusedError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol, TypeAlias, TypeVar

    from .connection import Connection
    from .shared import Attachment

    Found = TypeVar("Found")
    Found_co = TypeVar("Found_co", covariant=True)

    class Read(Protocol[Found_co]):
        """How `Cache.get` is called."""

        def __call__(self, name: str, fingerprint: bytes | None = None) -> Found_co | None: ...

    Tools: TypeAlias = tuple[
        Callable[[], int],  # until when the page may be trusted (ns); 0: not at all
        Callable[[bytes], int],  # crc32
        int,  # mask of a bucket
        int,  # bytes from a slot to the next
        int,  # the longest name that stands in a slot, in bytes
    ]
    Unpack: TypeAlias = Callable[[Any, int], tuple[bytes, int, int]]
    Lookup: TypeAlias = tuple[Sequence[int], int, int, Unpack, Any, Tools]
    """Each bucket's last change, the image's generation, the mask of a slot's place in bytes, what
    gives the slot there as (name, start of the blob or 0: none, or -1: stale, end of the blob), the
    image (a slice of it is what is returned), and what is the same for all images but the first."""

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


def _never() -> int:
    return 0


NOTHING: Lookup = (b"\1" * 4096, 0, 0, lambda *_: (b"", 0, 0), b"", (_never, len, 0, 0, 0))
"""Attached to nothing: every bucket changed after the image."""


def make_reader(ask: Read[Found]) -> tuple[Read[Found], Callable[[Lookup], None]]:
    """Return (read, use): a get that looks names up in what `use` was told last, or else asks.

    It asks whenever there is doubt; also what is no name, and so is refused. `use` may be called at
    any time by any thread: a get that has begun ends with what it has.
    """
    # A closure: attributes of an object would cost a third more. And the fingerprint is no
    # keyword-only parameter, as options are elsewhere: calling it would cost 25 ns of 600 more.
    now, lookup, trusted_until = monotonic_ns, NOTHING, 0
    _, crc32, bucket_mask, step, longest = NOTHING[-1]

    def read(name: str, fingerprint: bytes | None = None) -> Found | None:
        if fingerprint is not None or (now() >= trusted_until and not renew_trust()):
            return ask(name, fingerprint)
        try:
            key = name.encode()
        except (AttributeError, UnicodeEncodeError):
            return ask(name)
        # After the lease: a page that died in between has all its buckets at the top. And at once:
        # another thread may put something else there between any two steps.
        buckets, generation, mask, unpack, image, _ = lookup
        checksum = crc32(key)
        if buckets[checksum & bucket_mask] > generation:
            return ask(name)
        at = checksum & mask
        stored, start, end = unpack(image, at)
        while stored != key:
            if not start:
                # An empty slot ends the search. A longer name would stand in another form.
                return None if len(key) <= longest else ask(name)
            at = (at + step) & mask
            stored, start, end = unpack(image, at)
        if start > 0:
            found: Found = image[start:end]
            return found
        # An empty name equals an empty slot.
        return None if start else ask(name)

    def renew_trust() -> bool:
        # If another thread brings another page meanwhile, the trust in this one holds for that too:
        # its daemon served when it was attached to, after every heartbeat that was read before.
        nonlocal trusted_until
        trusted_until = lookup[-1][0]()
        return now() < trusted_until

    def use(found: Lookup) -> None:
        nonlocal lookup, crc32, bucket_mask, step, longest
        if found is not NOTHING:
            # Not imported before there is an image: zlib alone costs a shell's one get 0.3 ms.
            _, crc32, bucket_mask, step, longest = found[-1]
        lookup = found

    return read, use


def disguise(read: Read[Found], method: object) -> Read[Found]:
    """Return a reader that looks to people, and to `help`, like the method that it stands for."""
    for attribute in ("__doc__", "__module__", "__name__", "__qualname__"):
        setattr(read, attribute, getattr(method, attribute))
    return read


class SharedReads:
    """Decides what readers look names up in; nothing, ever, where they are not `wanted`.

    Its methods raise nothing.
    """

    def __init__(self, binary_mtime_ns: int | None, *, wanted: bool = True) -> None:
        self._binary_mtime_ns = binary_mtime_ns
        self._use: Callable[[Lookup], None] = _ignore
        self._use_view: Callable[[Lookup], None] = _ignore
        self._lookup = NOTHING
        self._attachment: Attachment | None = None
        self._life: object = None
        self._gets = 0
        self._not_before = 0.0 if wanted else float("inf")
        self._turn = _thread.allocate_lock()
        self._pid = os.getpid()

    def make_readers(
        self, get: Read[bytes], get_view: Read[memoryview]
    ) -> tuple[Read[bytes], Read[memoryview]]:
        """Return what answers as these two do, out of shared memory where that is right."""
        read, self._use = make_reader(get)
        read_view, self._use_view = make_reader(get_view)
        return read, read_view

    def read_many(self, names: Iterable[str]) -> dict[str, bytes] | None:
        """Return the blobs of those names that are there and fresh; None: ask the daemon for all.

        All as they were at one time, as in the daemon's own answer: that of the first look. What is
        not doubtful later has not changed since; a reader of its own keeps to one image.
        """
        read, use = make_reader(_doubt)
        use(self._lookup)
        try:
            return {name: blob for name in names if (blob := read(name)) is not None}
        except DoubtError:
            return None

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
        self._show(NOTHING, NOTHING)

    def detach(self) -> None:
        """Let go of the mapped memory; whoever reads from it in this moment finishes.

        Also called when the connection is closed, by any thread, before another daemon can answer:
        what it acknowledges is in no memory of this one.
        """
        self.suspend()
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
            self._show(attachment.lookup, attachment.view_lookup)
            if not self._may_read(connection):
                self.suspend()

    def _show(self, lookup: Lookup, view_lookup: Lookup) -> None:
        self._lookup = lookup
        self._use(lookup)
        self._use_view(view_lookup)

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


class DoubtError(Exception):
    """Only the daemon knows. Never leaves this module."""


def _doubt(name: str, fingerprint: bytes | None = None) -> bytes | None:
    raise DoubtError


def _ignore(_lookup: Lookup) -> None:
    """Stand in for a reader that nobody has."""
