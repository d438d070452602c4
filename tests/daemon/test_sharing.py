"""Pages and images that clients map: who has what, and when a successor must wait."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import resource
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.session import Session
from autoloadd_daemon.sharing import Sharing
from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.images import SealedImage, build_image
from autoloadd_protocol.errors import BUSY, RequestError
from autoloadd_protocol.page import (
    BUCKETS,
    BUCKETS_AT,
    DEAD,
    HEARTBEAT_AT,
    NEVER,
    PAGE_BYTES,
    STATE_AT,
)

from .engine import Engine, Talk
from .harness import PRODUCER, QuickFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from autoloadd_daemon.shard import Shard


class WatchedFiles(QuickFiles):
    """Notes what stood on a page when something was appended."""

    words = memoryview(bytes(8)).cast("Q")

    def append(self, descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
        """Append, behind a look at the page."""
        self.seen = list(self.words[BUCKETS_AT:])
        super().append(descriptor, parts)


@pytest.fixture
def files() -> WatchedFiles:
    return WatchedFiles()


@pytest.fixture
def engine(cache_dir: Path, files: WatchedFiles) -> Iterator[Engine]:
    with Engine(cache_dir, files) as engine:
        yield engine
        engine.sharing.end()


@pytest.fixture
def sharing(engine: Engine) -> Sharing:
    return engine.sharing


def new_session(engine: Engine) -> Session:
    return Session(engine.context, lambda: None)


def build(engine: Engine, name: str = "a") -> Shard:
    """Put an entry, and have an image built that holds it."""
    Talk(engine).call("put", name, b"blob")
    shard = engine.catalog.find(PRODUCER.shard_id())
    assert shard is not None
    engine.build(shard)
    return shard


def words_of(descriptor: int) -> memoryview:
    """Map a page as a client does."""
    return memoryview(mmap.mmap(descriptor, PAGE_BYTES, prot=mmap.PROT_READ)).cast("Q")


def code_of(talk: Talk, method: str, *params: object) -> str:
    """Return the code that refuses a request; nothing else has its turn, no build either."""
    talk.send(method, *params)
    talk.session.advance()
    (answer,) = talk.answers()
    assert answer.error is not None
    code: str = answer.error[0]
    return code


def test_a_client_can_read_the_page_and_nobody_else_can_write(
    engine: Engine, sharing: Sharing
) -> None:
    shard = build(engine)
    answer, (image, page) = sharing.attach(new_session(engine), shard)
    assert answer["generation"] == shard.generation
    assert answer["epoch"] == shard.epoch
    assert (os.fstat(image).st_size, os.fstat(page).st_size) == (
        answer["image_bytes"],
        answer["page_bytes"],
    )
    with pytest.raises(PermissionError):
        mmap.mmap(page, PAGE_BYTES)
    for descriptor in (image, page):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 1)
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    assert words_of(page)[HEARTBEAT_AT] > 0


def test_what_changed_since_the_image_is_on_a_new_page(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    Talk(engine).call("put", "a", b"newer")
    _, (_, page) = sharing.attach(new_session(engine), shard)
    assert max(words_of(page)[BUCKETS_AT:]) == shard.generation


@pytest.mark.parametrize(
    ("write", "buckets"),
    [
        (("put", "a", b"new"), 1),
        (("put_many", {"a": [b"new"], "b": [b"new"]}), 2),
        (("put_many", {f"n{number}": [b""] for number in range(BUCKETS)}), BUCKETS),
        (("delete", ["a"]), 1),
        (("clear",), BUCKETS),
    ],
)
def test_the_page_tells_before_the_journal_does(
    engine: Engine,
    sharing: Sharing,
    files: WatchedFiles,
    write: tuple[str, object],
    buckets: int,
) -> None:
    """A successor shows what the journal has, and clients may trust this page until then."""
    shard = build(engine)
    _, (_, page) = sharing.attach(new_session(engine), shard)
    files.words = words_of(page)
    engine.builder._is_closing = True  # no loop is here to build an image that a clear asks for
    assert Talk(engine).call(*write).error is None
    assert files.seen.count(shard.generation) == buckets


@pytest.mark.parametrize(("mode", "buckets"), [("merge", 1), ("replace", BUCKETS)])
def test_the_page_tells_of_a_bulk_before_the_journal_does(
    engine: Engine, sharing: Sharing, files: WatchedFiles, mode: str, buckets: int
) -> None:
    shard = build(engine)
    _, (_, page) = sharing.attach(new_session(engine), shard)
    talk = Talk(engine)
    token = talk.call("bulk_begin", mode).result
    talk.call("bulk_add", token, {"a": [b"new"]})
    files.words = words_of(page)
    engine.builder._is_closing = True
    assert talk.call("bulk_commit", token).error is None
    assert files.seen.count(shard.generation) == buckets


def test_a_page_made_during_a_sync_tells_of_what_is_being_synced(
    engine: Engine, sharing: Sharing
) -> None:
    """It is in the journal: after a crash now a successor would serve it."""
    shard = build(engine)
    talk = Talk(engine)
    talk.send("put", "a", b"newer", None, None, "fsync")
    talk.session.advance()
    engine.writer.turn()
    assert not engine.writer.is_idle
    _, (_, page) = sharing.attach(new_session(engine), shard)
    assert max(words_of(page)[BUCKETS_AT:]) == shard.generation
    engine.settle()
    assert [answer.error for answer in talk.run()] == [None]


def test_what_was_recovered_again_ends_the_pages_of_before(
    engine: Engine, sharing: Sharing
) -> None:
    """Changes are made to other shards from then on."""
    _, (_, page) = sharing.attach(new_session(engine), build(engine))
    words = words_of(page)
    engine.catalog.recover()
    assert words[STATE_AT] == DEAD
    assert set(words[BUCKETS_AT:]) == {NEVER}


def test_a_flush_in_a_batch_changes_nothing_on_the_page(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    _, (_, page) = sharing.attach(new_session(engine), shard)
    talk = Talk(engine)
    talk.send("put", "a", b"newer")
    talk.send("flush")
    assert [answer.error for answer in talk.run()] == [None, None]
    assert sorted(words_of(page)[BUCKETS_AT:])[-2:] == [0, shard.generation]


def test_where_no_page_can_be_made_it_is_busy(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE_BYTES - 1, hard))
    try:
        with pytest.raises(RequestError, match="no memory can be shared: File too large") as busy:
            sharing.attach(new_session(engine), shard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert busy.value.code == BUSY
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_eviction_is_on_the_page(engine: Engine, sharing: Sharing) -> None:
    """Who maps the image before would still find what is gone."""
    shard = build(engine)
    _, (_, page) = sharing.attach(new_session(engine), shard)
    words = words_of(page)
    Talk(engine).call("put", "b", b"blob")
    files = engine.catalog.files_of(shard)
    covered, snapshot = files.rotate(), shard.begin_build(0)
    assert min(words[BUCKETS_AT:]) == 0
    shard.finish_build(*build_image(engine.files, files.directory, snapshot))
    files.forget(covered)
    assert shard.evicted == 2
    assert min(words[BUCKETS_AT:]) == shard.generation > 1


def test_without_an_image_it_is_busy_and_one_is_wanted(engine: Engine) -> None:
    talk = Talk(engine)
    assert code_of(talk, "attach", [1], [1]) == BUSY
    talk.call("put", "a", b"blob")
    assert code_of(talk, "attach", [1], [1]) == BUSY
    shard = engine.catalog.find(PRODUCER.shard_id())
    assert shard is not None
    assert shard.build_pressure(0) > 1


@pytest.mark.parametrize(
    ("versions", "code"),
    [
        (([2], [1]), "unsupported_protocol"),
        (([1], [7]), "unsupported_protocol"),
        (([], [1]), "unsupported_protocol"),
        ((1, [1]), "bad_request"),
        (([True], [1]), "bad_request"),
        ((["1"], [1]), "bad_request"),
    ],
)
def test_versions_are_agreed_on(engine: Engine, versions: tuple[object, object], code: str) -> None:
    build(engine)
    assert code_of(Talk(engine), "attach", *versions) == code


def test_clients_hold_three_images_of_a_shard_at_most(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    holders = []
    for number in range(3):
        build(engine, f"n{number}")
        holders.append(new_session(engine))
        sharing.attach(holders[-1], shard)
    assert len(sharing.pinned) == 2
    assert min(sharing.pinned) > 0
    sharing.attach(new_session(engine), shard)
    build(engine, "one more")
    assert len(sharing.pinned) == 3
    with pytest.raises(RequestError) as refused:
        sharing.attach(new_session(engine), shard)
    assert refused.value.code == BUSY
    sharing.detach(holders[0])
    sharing.attach(new_session(engine), shard)


def test_one_client_may_follow_for_ever(engine: Engine, sharing: Sharing) -> None:
    session = new_session(engine)
    for number in range(10):
        sharing.attach(session, build(engine, f"n{number}"))
    assert not sharing.pinned


def test_a_dropped_shard_ends_its_page(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    _, (_, page) = sharing.attach(new_session(engine), shard)
    words = words_of(page)
    before = len(os.listdir("/proc/self/fd"))
    assert Talk(engine).call("drop_shard", shard.id).error is None
    assert words[STATE_AT] == DEAD
    assert set(words[BUCKETS_AT:]) == {NEVER}
    assert len(os.listdir("/proc/self/fd")) < before
    sharing.beat(123)
    assert words[HEARTBEAT_AT] == 0


def test_the_mark_is_there_while_anyone_may_be_attached(
    engine: Engine, sharing: Sharing, cache_dir: Path
) -> None:
    assert sharing.trusted_until_ns == 0
    shard = build(engine)
    assert not (cache_dir / ".shared").exists()
    sharing.attach(new_session(engine), shard)
    assert (cache_dir / ".shared").exists()
    assert Sharing(Files(), [str(cache_dir)]).trusted_until_ns > 0
    sharing.end()
    assert (cache_dir / ".shared").exists()
    sharing.take_marks_away()
    assert not (cache_dir / ".shared").exists()


def test_either_mark_tells(engine: Engine, cache_dir: Path, tmp_path: Path) -> None:
    directories = [str(cache_dir), str(tmp_path)]
    marks = [cache_dir / ".shared", tmp_path / ".shared"]
    shard = build(engine)
    for left in marks:
        first = Sharing(Files(), directories)
        first.attach(new_session(engine), shard)
        assert [mark.exists() for mark in marks] == [True, True]
        first.end()
        left.unlink()
        second = Sharing(Files(), directories)
        assert second.trusted_until_ns > 0
        second.attach(new_session(engine), shard)
        assert [mark.exists() for mark in marks] == [True, True]
        second.end()
        second.trusted_until_ns = time.monotonic_ns()
        second.take_marks_away()
        assert [mark.exists() for mark in marks] == [False, False]


def test_the_mark_stays_while_a_predecessor_may_be_trusted(cache_dir: Path) -> None:
    """A daemon that is killed, one that stops at once, and a third that must wait all the same."""
    (cache_dir / ".shared").touch()
    second = Sharing(Files(), [str(cache_dir)])
    second.end()
    second.take_marks_away()
    assert Sharing(Files(), [str(cache_dir)]).trusted_until_ns > 0
    second.trusted_until_ns = time.monotonic_ns()
    second.take_marks_away()
    assert not (cache_dir / ".shared").exists()


def test_nobody_attaches_after_the_end(engine: Engine, sharing: Sharing) -> None:
    """Its page would be trusted for a lease, and the mark is gone."""
    shard = build(engine)
    sharing.end()
    with pytest.raises(RequestError) as refused:
        sharing.attach(new_session(engine), shard)
    assert refused.value.code == BUSY


def test_a_drop_waits_for_the_end_of_a_lease_too(engine: Engine) -> None:
    shard = build(engine)
    engine.writer.not_before_ns = time.monotonic_ns() + 3600 * 10**9
    talk = Talk(engine)
    talk.send("drop_shard", shard.id)
    talk.session.advance()
    engine.writer.turn()
    through: list[object] = []
    engine.sync_thread.submit(lambda: None, through.append)
    while not through:
        engine.run_callback()
    assert (talk.answers(), engine.catalog.find(shard.id)) == ([], shard)
    engine.writer.not_before_ns = time.monotonic_ns()
    engine.settle()
    assert engine.catalog.find(shard.id) is None


def test_where_the_mark_cannot_be_set_nothing_is_shared(
    engine: Engine, sharing: Sharing, cache_dir: Path
) -> None:
    shard = build(engine)
    away = cache_dir.rename(cache_dir.with_name("away"))
    with pytest.raises(RequestError) as refused:
        sharing.attach(new_session(engine), shard)
    assert refused.value.code == BUSY
    away.rename(cache_dir)
    sharing.attach(new_session(engine), shard)


def test_without_descriptors_nothing_is_shared(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    session = new_session(engine)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(RequestError) as refused:
            sharing.attach(session, shard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert refused.value.code == BUSY
    assert not sharing.pinned


def open_descriptors() -> int:
    gc.collect()  # what earlier tests mapped
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def spare_descriptors(count: int) -> Iterator[None]:
    """Let so many be opened and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[0] + 1 + count, limits[1]))
    try:
        # Numbers below the limit that are free already.
        with suppress(OSError):
            while True:
                filled.append(os.dup(0))
        for descriptor in filled[-count:] if count else []:
            os.close(descriptor)
            filled.remove(descriptor)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in filled:
            os.close(descriptor)


def test_the_one_descriptor_that_is_left_stays(engine: Engine, sharing: Sharing) -> None:
    """Two are needed: an attempt that fails at the second gives the first one back."""
    sharing.attach(new_session(engine), build(engine))
    talk = Talk(engine)
    before = open_descriptors()
    with spare_descriptors(1):
        assert code_of(talk, "attach", [1], [1]) == BUSY
        assert code_of(talk, "attach", [1], [1]) == BUSY
        os.close(os.dup(0))
    assert open_descriptors() == before
    assert talk.call("attach", [1], [1]).error is None


def test_an_image_takes_one_descriptor(engine: Engine, sharing: Sharing) -> None:
    """Handed out or not: with two for each of hundreds of shards a daemon could not start."""
    session, before = new_session(engine), open_descriptors()
    shard = build(engine)
    journal = 1
    assert open_descriptors() == before + 1 + journal
    _, (image, _) = sharing.attach(session, shard)
    assert isinstance(shard.image, SealedImage)
    assert os.pread(image, 1 << 20, 0) == shard.image.buffer
    of_page = 2
    assert open_descriptors() == before + 1 + journal + of_page
    build(engine, "b")
    _, (newer, _) = sharing.attach(session, shard)
    assert isinstance(shard.image, SealedImage)
    assert os.pread(newer, 1 << 20, 0) == shard.image.buffer


def test_a_client_that_takes_nothing_gets_one_pair_of_descriptors(engine: Engine) -> None:
    build(engine)
    talk = Talk(engine)
    talk.call("attach", [1], [1])
    before = open_descriptors()
    for _ in range(100):
        talk.send("attach", [1], [1])
    talk.session.advance()
    while talk.session.has_more:
        talk.session.advance()
    assert open_descriptors() == before + 2
    codes = [answer.error and answer.error[0] for answer in talk.answers()]
    assert codes == [None] + [BUSY] * 99
    assert open_descriptors() == before


def test_a_client_that_leaves_or_says_hello_lets_go(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    leaving, greeting = Talk(engine), Talk(engine)
    for talk in (leaving, greeting):
        assert talk.call("attach", [1], [1]).error is None
    build(engine, "b")
    assert len(sharing.pinned) == 1
    leaving.session.abandon()
    assert len(sharing.pinned) == 1
    greeting.call("hello", [1, 0])
    assert not sharing.pinned
    greeting.session.abandon()
    assert shard.page is not None
