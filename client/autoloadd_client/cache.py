"""The cache, as a program that may block uses it: every call ends by its deadline.

with Cache("zsh/5.9/8", binary="/bin/zsh") as cache:
    blob = cache.get("compinit")
    if blob is None:
        cache.put("compinit", blob := compile_it())
"""

from __future__ import annotations

# What only some methods need is imported in them: msgpack alone costs 5 ms, and one `get` of a
# shell that has just started needs none of it.
from itertools import chain
from time import monotonic

from autoloadd_protocol.encoding import encode_optional_int, encode_str
from autoloadd_protocol.errors import FrameError
from autoloadd_protocol.requests import parse_uint_answer, put_request, request_frame

from .asking import Asker, refuse_switched_off
from .checks import check_blob, check_fingerprint, check_list, check_name, check_sync, check_time
from .control import Control
from .errors import ForgedError
from .identity import read_binary_time, read_producer
from .process import ProcessConnections
from .reading import SharedReads, disguise

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn, TypeAlias

    from autoloadd_protocol.producer import Producer

    from .bulk import Chunk
    from .calls import Flushed
    from .connection import Connection
    from .entry import Entry
    from .leasing import Lease
    from .reading import Read

    Blob: TypeAlias = bytes | bytearray | memoryview
    Entries: TypeAlias = Mapping[str, Blob | Entry] | Iterable[tuple[str, Blob | Entry]]
    Wanted: TypeAlias = str | tuple[str, bytes | None, int | None]


class Cache(Control):
    """The entries of one producer, and the daemon that keeps them.

    `producer` is a Producer or NAME/VERSION/WIDTH[/BUILD]; None is enough to control the daemon.
    Entries older than the producer's binary are misses: its time is `binary_mtime_ns` (ns), or that
    of the file at `binary`. Without either, times are not compared.

    `timeout` (seconds) bounds each call on few entries as a whole: waiting for other threads,
    connecting, asking, and connecting anew after the daemon was restarted. It bounds each round
    trip of those that go on while there is more (`names`, `get_many`, `missing`); the whole of the
    latter two and of every other call on many entries is bounded by `bulk_timeout`.

    `shared`: what is asked for often is read out of memory that the daemon shares (Linux), without
    a round trip. False: always over the socket. The answers are the same.

    It connects at the first call. Threads may share it; after a fork the child connects anew.
    Every method raises CacheError (see `errors`), and nothing else where it is used as typed.
    Entries are not touched while the user has the cache switched off (SwitchedOffError); `ping`,
    `status`, `shards`, `drop_shard` and `shutdown` work all the same.
    """

    def __init__(
        self,
        producer: Producer | str | None,
        *,
        socket_path: str | None = None,
        binary: str | os.PathLike[str] | None = None,
        binary_mtime_ns: int | None = None,
        timeout: float = 1.0,
        bulk_timeout: float = 30.0,
        shared: bool = True,
    ) -> None:
        """Raise ValueError for a producer or timeout that cannot be, OSError for such a binary."""
        connections = ProcessConnections(socket_path, read_producer(producer))
        super().__init__(connections, timeout=timeout, bulk_timeout=bulk_timeout)
        self._binary_mtime_ns = mtime = check_time(read_binary_time(binary, binary_mtime_ns))
        self._shared = SharedReads(mtime, wanted=shared)
        asked = self._shared.asked if shared else None
        self._asker = Asker(connections, binary_mtime_ns=mtime, timeout=timeout, on_answer=asked)
        self._get: Read[bytes] = self._asker.get
        self._get_view: Read[memoryview] = self._asker.get_view
        if shared:
            self._get, self._get_view = self._shared.make_readers(self._get, self._get_view)
            self._shorten()

    def get(self, name: str, fingerprint: bytes | None = None) -> bytes | None:
        """Return an entry's blob; None when it is absent or stale.

        With a fingerprint, an entry that was stored with another one, or without one, is stale.
        """
        return self._get(name, fingerprint)

    def get_view(self, name: str, fingerprint: bytes | None = None) -> memoryview | None:
        """Return what `get` returns as a read-only memoryview: out of shared memory, not copied.

        It never changes and stays good while you hold it, also after `close` and the daemon's end.
        But it holds on to all the memory that it lies in, a whole image: keep `bytes(view)`.
        """
        return self._get_view(name, fingerprint)

    def get_entry(self, name: str, *, fingerprint: bytes | None = None) -> Entry | None:
        """Return a blob with its fingerprint and times; None when it is absent or stale."""
        return self._asker.get_entry(name, fingerprint=fingerprint)

    def lease(
        self,
        name: str,
        *,
        fingerprint: bytes | None = None,
        wait: float = 0.0,
        hold: float = 30.0,
        stale_ok: bool = False,
    ) -> Entry | Lease | None:
        """After a miss: return a Lease, for the one who makes the entry, or what the others get.

        Those get an Entry: when it is stored or, with `stale_ok`, at once the old one, if there is
        one. None: not within `wait` (at most 10 s), or the daemon has no leases: make it without
        one. A Lease lasts `hold` (at most 120 s). The timeout is added to `wait`.
        """
        from .leasing import LeaseCall  # noqa: PLC0415

        self._connection()  # refuses before anything is asked
        call = LeaseCall(self._connections.new(), name, fingerprint, self._binary_mtime_ns)
        return call.ask(wait=wait, hold=hold, stale_ok=stale_ok, timeout=self._timeout)

    def get_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the blobs of those names that are present and fresh, all as of one time.

        More than a frame holds (8 MiB) is asked for in parts: each as of a time of its own.
        """
        wanted = list(check_list(names))
        found = self._shared.read_many(wanted)
        if found is None:
            from .listing import get_many  # noqa: PLC0415

            found = get_many(self._many_calls(), wanted, self._binary_mtime_ns)
            self._shared.asked(self._connections.own(), self._deadline())
        return found

    def get_entries(self, names: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """Yield (name, Entry) of those names that are present and fresh, in their order.

        The names are taken from the iterable page by page, as the entries are taken from here.
        """
        from .listing import get_entries  # noqa: PLC0415

        return get_entries(self._call, check_list(names), self._binary_mtime_ns)

    def put(
        self,
        name: str,
        blob: Blob,
        *,
        fingerprint: bytes | None = None,
        sync: str = "write",
        wait: bool = True,
    ) -> int | None:
        """Store an entry; return the generation.

        `sync` is what the daemon does before it answers: "memory" applies it, "write" (survives a
        kill of the daemon) hands it to the operating system, "fsync" to stable storage. With
        `wait=False` there is no answer, no round trip, and None: `flush` tells what was refused.
        """
        connection = self._connection()
        request = put_request(
            connection.next_id() if wait else None,
            check_name(name),
            check_blob(blob),
            binary_mtime_ns=self._binary_mtime_ns,
            fingerprint=check_fingerprint(fingerprint),
            sync=check_sync(sync),
        )
        deadline = monotonic() + self._timeout
        if not wait:
            try:
                connection.notify(request, deadline)
            finally:
                self._shared.suspend()
            return None
        return self._read_uint(connection.exchange(request, deadline))

    def put_many(self, entries: Mapping[str, Blob | Entry], *, sync: str = "write") -> int:
        """Store entries, all or nothing; return the generation.

        One request; what does not fit a frame is streamed as by `merge`.
        """
        from .bulk import Chunk  # noqa: PLC0415

        chunk = Chunk()
        for name, entry in entries.items():
            chunk.add(name, entry)
            if not chunk.fits_frame():
                return self.merge(entries, sync=sync)
        return self._put_chunk(chunk, sync)

    def merge(
        self,
        entries: Entries,
        *,
        built_at_ns: int | None = None,
        sync: str = "write",
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store any number of entries beside those there are; return the generation.

        They are taken from the iterable as they are sent, and all become visible at the end, or
        none do. `on_progress` is called with the number sent so far. `built_at_ns` is stored in
        the shard's header where they are its only entries. Raises ConnectionLostError when the
        daemon goes away half-way: send all of it again.
        """
        from .bulk import chunks_of, pairs_of  # noqa: PLC0415

        self._connection()  # refuses before anything is taken from the iterable
        chunks = chunks_of(pairs_of(entries))
        first, second = next(chunks), next(chunks, None)
        if second is not None or built_at_ns is not None:
            rest = chain([first] if second is None else [first, second], chunks)
            built_at_ns = check_time(built_at_ns)
            return self._stream(
                "merge", rest, sync, built_at_ns=built_at_ns, on_progress=on_progress
            )
        generation = self._put_chunk(first, sync)
        if on_progress is not None:
            on_progress(len(first))
        return generation

    def replace(
        self,
        entries: Entries,
        *,
        built_at_ns: int | None = None,
        sync: str = "write",
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Put entries in the place of all there are; return the generation. See `merge`.

        `built_at_ns` is stored in the shard's header; None: now.
        """
        from .bulk import chunks_of, pairs_of  # noqa: PLC0415

        return self._stream(
            "replace",
            chunks_of(pairs_of(entries)),
            sync,
            built_at_ns=check_time(built_at_ns),
            on_progress=on_progress,
        )

    def delete(
        self, names: Iterable[str] | str, *, sync: str = "write", wait: bool = True
    ) -> int | None:
        """Delete entries; return how many there were. `sync` and `wait` are as in `put`."""
        from .listing import delete, delete_later  # noqa: PLC0415

        names = [names] if isinstance(names, str) else names
        if wait:
            return delete(self._many_calls(), names, check_sync(sync))
        try:
            delete_later(self._connection(), names, check_sync(sync), self._deadline())
        finally:
            self._shared.suspend()
        return None

    def names(self, prefix: str = "") -> Iterator[tuple[str, bool | None]]:
        """Yield (name, fresh) in the order of the names' bytes, page by page.

        `fresh` is None when the cache has no binary time. Changes made meanwhile may be seen.
        """
        from .listing import list_names  # noqa: PLC0415

        return list_names(self._call, prefix, self._binary_mtime_ns)

    def missing(self, names: Iterable[Wanted]) -> list[str]:
        """Return those names, in their order, that `get` would miss: absent or stale.

        An item is a name, or (name, fingerprint, binary_mtime_ns) as `get` compares them.
        """
        from .listing import missing  # noqa: PLC0415

        return missing(self._many_calls(), check_list(names), self._binary_mtime_ns)

    def count(self) -> int:
        """Return the number of entries, stale ones included."""
        from .calls import require_int  # noqa: PLC0415

        return require_int(self._call("count"))

    def stats(self) -> dict[str, Any]:
        """Return `entries, fresh, stale, blob_bytes, generation, hits, misses, evicted`.

        `fresh` and `stale` are None when the cache has no binary time.
        """
        from .calls import require_map  # noqa: PLC0415

        return require_map(self._call("stats", self._binary_mtime_ns))

    def clear(self, *, sync: str = "write") -> int:
        """Delete all entries of the producer; return how many there were."""
        from .calls import require_int  # noqa: PLC0415

        return require_int(self._call("clear", check_sync(sync), seconds=self._bulk_timeout))

    def flush(self) -> Flushed:
        """Bring all acknowledged writes to stable storage, and tell what became of the others."""
        from .calls import decode_result, require_flushed  # noqa: PLC0415

        connection = self._connection()
        deadline = monotonic() + self._bulk_timeout
        answer, unconfirmed = connection.flush(deadline)
        return require_flushed(decode_result(connection, answer, deadline), unconfirmed)

    def close(self) -> None:
        """Let go of the socket, and of memory that the daemon shares; a later call connects."""
        self._shared.detach()
        super().close()

    def __reduce__(self) -> NoReturn:
        """Refuse: connection and memory are this process's own."""
        raise TypeError("a Cache cannot be copied or pickled: make one where it is used")

    def _shorten(self) -> None:
        # Called in between, the methods would cost a shared get a tenth. What a subclass or a test
        # has put there stays.
        for name, read in (("get", self._get), ("get_view", self._get_view)):
            if getattr(type(self), name) is _SHORTENED[name]:
                vars(self)[name] = disguise(read, _SHORTENED[name])

    def _connection(self) -> Connection:
        refuse_switched_off()
        return self._connections.own()

    def _read_uint(self, answer: bytes) -> int:
        try:
            return parse_uint_answer(answer)
        except FrameError as exc:
            self.close()
            raise ForgedError(str(exc)) from exc

    def _call(self, method: str, *params: object, seconds: float | None = None) -> Any:
        from .calls import call  # noqa: PLC0415

        return call(self._connection(), method, params, self._deadline(seconds))

    def _many_calls(self) -> Callable[..., Any]:
        """Return what makes one of several round trips, with a deadline over all of them."""
        end = self._deadline(self._bulk_timeout)

        def ask(method: str, *params: object) -> Any:
            return self._call(method, *params, seconds=min(self._timeout, end - monotonic()))

        return ask

    def _put_chunk(self, chunk: Chunk, sync: str) -> int:
        connection = self._connection()
        request = request_frame(
            connection.next_id(),
            b"put_many",
            chunk.encode(),
            encode_optional_int(self._binary_mtime_ns),
            encode_str(check_sync(sync).encode()),
        )
        return self._read_uint(connection.exchange(request, self._deadline(self._bulk_timeout)))

    def _stream(
        self,
        mode: str,
        chunks: Iterable[Chunk],
        sync: str,
        *,
        built_at_ns: int | None = None,
        on_progress: Callable[[int], None] | None,
    ) -> int:
        from .bulk import Bulk, write  # noqa: PLC0415

        self._connection()  # refuses before anything is sent
        check_sync(sync)
        mtime = self._binary_mtime_ns
        with Bulk(self._connections.new(), self._bulk_timeout) as bulk:
            bulk.begin(mode, binary_mtime_ns=mtime, built_at_ns=built_at_ns)
            return write(
                bulk, chunks, sync=sync, before_commit=self._settle, on_progress=on_progress
            )

    def _settle(self) -> None:
        # `wait=False` writes come before a bulk that is committed after them: a read on their own
        # connection is answered when they are done.
        if self._connection().has_unflushed():
            self.count()


_SHORTENED = {"get": Cache.get, "get_view": Cache.get_view}
