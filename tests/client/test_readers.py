"""Readers: what is looked up in an image, as it is; and the callables of a Cache that do it."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import random
import threading
import time
import weakref
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_client import Cache
from autoloadd_client.errors import UnreachableError
from autoloadd_client.reading import make_reader
from autoloadd_client.shared import Attachment
from autoloadd_protocol.image import Image, parse_header
from autoloadd_protocol.page import PAGE_BYTES, Page

from ..protocol.test_image import Item, make_image
from ..running import wait_until
from .test_shared_reads import attach, is_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_client.reading import Lookup, Read

    from ..running import Daemon

ASKED = bytes(bytearray(b"the daemon's answer"))
MTIMES = st.integers(-3, 3)
NAMES = st.text(min_size=1, max_size=45)
# Of few names, many stand in each other's place in a table of 16 slots.
ITEMS = st.dictionaries(
    NAMES, st.builds(Item, st.binary(max_size=9), st.none(), MTIMES, st.just(0)), max_size=6
)


def ask(name: str, fingerprint: bytes | None = None) -> bytes | None:
    return ASKED


def mapped(items: dict[bytes, Item], oldest: int | None = None) -> tuple[Image, Attachment, Page]:
    """Return an image, as the daemon looks names up in it and as a client does, with its page."""
    data = make_image(items)
    header = parse_header(data)
    image, page = mmap(-1, len(data)), mmap(-1, PAGE_BYTES)
    image.write(data)
    words = memoryview(page).cast("Q")
    shown = Page(words, epoch=header.epoch, image_generation=header.generation)
    shown.beat(time.monotonic_ns())
    return Image(data), Attachment(image, page, epoch=header.epoch, binary_mtime_ns=oldest), shown


def reader_of(lookup: Lookup) -> Read[bytes]:
    read: Read[bytes]
    read, use = make_reader(ask)
    use(lookup)
    return read


@given(ITEMS, st.lists(NAMES, max_size=4), st.none() | MTIMES)
def test_a_client_finds_what_the_daemon_finds(
    items: dict[str, Item], others: list[str], oldest: int | None
) -> None:
    image, attachment, _ = mapped({name.encode(): item for name, item in items.items()}, oldest)
    read = reader_of(attachment.lookup)
    read_view = reader_of(attachment.view_lookup)
    for name in (*items, *others):
        record = image.look_up(name.encode())
        wanted = None
        if record is not None and record.is_fresh(oldest, None):
            wanted = bytes(record.buffer[record.blob_start : record.blob_end])
        if len(name.encode()) > 39:
            assert read(name) is ASKED
        else:
            assert read(name) == wanted
        assert read_view(name) == read(name)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=6), st.integers(6, 9))
def test_what_changed_after_the_image_is_asked(changed: list[str], generation: int) -> None:
    _, attachment, page = mapped({b"a": Item(b"1"), b"b": Item(b"2")})
    read = reader_of(attachment.lookup)
    page.touch_each([name.encode() for name in changed], generation)
    doubtful = set(changed) if generation > attachment.generation else set()
    found = {name: read(name) for name in "abcd"}
    assert found == {
        name: ASKED if name in doubtful else blob
        for name, blob in {"a": b"1", "b": b"2", "c": None, "d": None}.items()
    }


def test_a_reader_of_nothing_asks() -> None:
    read, use = make_reader(ask)
    _, attachment, _ = mapped({b"a": Item(b"1")})
    assert read("a") is ASKED
    use(attachment.lookup)
    assert read("a") == b"1"
    assert read("a", fingerprint=b"f") is ASKED
    # Also while the trust in what was there before holds.
    use(Cache("zsh/5.9/8")._shared._lookup)
    assert [read(name) for name in ("a", "", "x" * 2000)] == [ASKED] * 3


@pytest.fixture
def cache(daemon: Daemon) -> Iterator[Cache]:
    with daemon.cache() as cache:
        cache.put_many({"a": b"one", "b": b"two"})
        yield cache


def test_one_callable_serves_for_the_whole_life(daemon: Daemon, cache: Cache) -> None:
    get, view, method = cache.get, cache.get_view, Cache.get
    attach(cache)
    for _ in range(2):
        assert (get("a"), method(cache, "a"), get("c")) == (b"one", b"one", None)
        assert bytes(view("a") or b"") == b"one"
        assert get("a", fingerprint=b"f") is None
        cache.close()
        assert not is_local(cache, "a")
        attach(cache)
    assert daemon.stop() == 0
    with pytest.raises(UnreachableError):
        get("a")
    daemon.start()
    assert get("a") == b"one"
    assert (cache.get, cache.get_view) == (get, view)


def test_the_callables_look_like_the_methods(cache: Cache) -> None:
    for own, method in ((cache.get, Cache.get), (cache.get_view, Cache.get_view)):
        assert inspect.getdoc(own) == inspect.getdoc(method)
        assert own.__qualname__ == method.__qualname__
        wanted = list(inspect.signature(method).parameters.values())[1:]
        found = inspect.signature(own).parameters.values()
        assert [(each.name, each.kind, each.default) for each in found] == [
            (each.name, each.kind, each.default) for each in wanted
        ]


def test_a_subclass_has_its_own(daemon: Daemon, cache: Cache) -> None:
    class Loud(Cache):
        def get(self, name: str, fingerprint: bytes | None = None) -> bytes | None:
            blob = super().get(name, fingerprint=fingerprint)
            return None if blob is None else blob.upper()

    with Loud("zsh/5.9/8", socket_path=daemon.socket_path) as loud:
        attach(loud)
        assert is_local(loud, "a")
        assert (loud.get("a"), loud.get("c"), bytes(loud.get_view("a") or b"")) == (
            b"ONE",
            None,
            b"one",
        )


def test_what_a_test_puts_in_the_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "get", lambda _self, name: name)
    assert Cache("zsh/5.9/8").get("put there") == "put there"  # type: ignore[comparison-overlap]


def test_it_is_not_copied_or_sent_to_another_process(cache: Cache) -> None:
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="make one where it is used"):
            copied(cache)


def test_a_cache_that_nobody_has_is_gone_at_once(daemon: Daemon) -> None:
    """With the memory that it mapped: not when the garbage collector comes."""
    cache = daemon.cache()
    cache.put("a", b"one")
    attach(cache)
    image = weakref.ref(cache._shared._lookup[4])
    gone = weakref.ref(cache)
    cache.close()
    gc.disable()
    try:
        del cache
        assert gone() is None
        assert image() is None
    finally:
        gc.enable()


# Without shared memory


def test_one_that_is_not_to_share_asks_always(daemon: Daemon, cache: Cache) -> None:
    attach(cache)
    with daemon.cache(shared=False) as asking:
        for _ in range(50):
            assert asking.get("a") == b"one"
            assert bytes(asking.get_view("a") or b"") == b"one"
            assert asking.get_many(["a", "b", "c"]) == {"a": b"one", "b": b"two"}
        assert asking.get_view("c") is None
        before = cache.stats()["hits"]
        asking.get("a")
        assert cache.stats()["hits"] == before + 1
        assert "autoloadd-image" not in maps_beside(cache)


def maps_beside(cache: Cache) -> str:
    """Return what this process maps, without what this cache does."""
    cache.close()
    gc.collect()
    return Path("/proc/self/maps").read_text()


# Views


def test_a_view_stays_as_it_was(daemon: Daemon, cache: Cache) -> None:
    """Over changes, a new image, the end of the connection, and the end of the daemon."""
    attach(cache)
    before = Path("/proc/self/maps").read_text().count("autoloadd-image")
    view = cache.get_view("a")
    assert view is not None
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 0
    cache.put("a", b"changed")
    assert bytes(cache.get_view("a") or b"") == b"changed"
    cache.merge((f"n{number}", bytes(3000)) for number in range(2000))
    attach(cache)
    cache.close()
    daemon.kill()
    assert bytes(view) == b"one"
    assert Path("/proc/self/maps").read_text().count("autoloadd-image") == before
    view.release()
    del view
    assert Path("/proc/self/maps").read_text().count("autoloadd-image") == before - 1


# Many


def test_many_come_out_of_shared_memory_if_none_is_doubtful(cache: Cache) -> None:
    attach(cache)
    asked = cache._shared._gets
    for _ in range(3):
        assert cache.get_many(["a", "b", "c", "a"]) == {"a": b"one", "b": b"two"}
        assert cache.get_many([]) == {}
    assert cache._shared._gets == asked
    assert cache.get_many(["a", "x" * 100]) == {"a": b"one"}
    cache.put("b", b"newer")
    assert cache.get_many(["a", "b"]) == {"a": b"one", "b": b"newer"}
    assert cache._shared._gets == asked + 2


def test_only_many_gets_attach_too(daemon: Daemon, cache: Cache) -> None:
    def is_attached() -> bool:
        cache.get_many(["a"])
        return cache._shared.read_many(["a"]) is not None

    wait_until(is_attached, 20, "the client to attach")


def test_many_are_of_one_time(daemon: Daemon) -> None:
    """What one `put_many` stored is seen as a whole, also where an image has only the old half."""
    between = [f"between-{number}" for number in range(300)]
    with daemon.cache() as reader, daemon.cache() as writer:
        local = 0
        for number in range(600):
            # On a busy machine it is seldom that a read falls between a new image and a change.
            if number >= 60 and local:
                break
            writer.put_many({"first": b"%d" % number, "last": b"%d" % number})
            if number % 15 == 0:
                # A new image: what is in it is not doubtful until the next change.
                writer.merge((f"n{n}", bytes([number]) * 3000) for n in range(1000))
                attach(reader, "first")
            change = threading.Thread(
                target=writer.put_many, args=({"first": b"%dx" % number, "last": b"%dx" % number},)
            )
            change.start()
            while change.is_alive():
                local += reader._shared.read_many(["first", "last"]) is not None
                found = reader.get_many(["first", *between, "last"])
                assert found["first"] == found["last"]
            change.join()
        assert local


# Threads


def test_threads_see_what_was_acknowledged_while_others_end_the_trust(daemon: Daemon) -> None:
    """Through closes, own writes that nobody waits for, and new images, by a callable held long."""
    acknowledged, over, wrong = [0], threading.Event(), list[tuple[int, int]]()
    reads = [0] * 4

    def read(index: int) -> None:
        while not over.is_set():
            before = acknowledged[0]
            blob = get("a")
            if blob is None or int(blob) < before:
                wrong.append((before, int(blob or b"-1")))
            reads[index] += 1

    with daemon.cache() as cache, daemon.cache() as writer:
        writer.put("a", b"0")
        get = cache.get
        attach(cache)
        threads = [threading.Thread(target=read, args=(index,)) for index in range(len(reads))]
        for thread in threads:
            thread.start()
        generator = random.Random("ends")
        for number in range(1, 400):
            if generator.random() < 0.5:
                writer.put("a", b"%d" % number)
            else:
                cache.put("a", b"%d" % number, wait=False)
                assert cache.get("a") == b"%d" % number
            acknowledged[0] = number
            if number % 40 == 0:
                writer.merge((f"n{n}", bytes([number & 255]) * 3000) for n in range(500))
            if number % 7 == 0:
                cache._connections.own().close(time.monotonic() + 1)
            if number % 50 == 0:
                cache.close()
        over.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert cache.get("a") == b"399"
        assert sum(reads) > cache._shared._gets, "none came from shared memory"
