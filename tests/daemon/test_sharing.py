"""Pages and images that clients map: who has what, and when a successor must wait."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.session import Session
from autoloadd_daemon.sharing import Sharing
from autoloadd_daemon.storage.files import Files
from autoloadd_protocol.errors import BUSY, RequestError
from autoloadd_protocol.page import BUCKETS_AT, DEAD, HEARTBEAT_AT, NEVER, PAGE_BYTES, STATE_AT

from .engine import Engine, Talk
from .harness import PRODUCER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_daemon.shard import Shard


@pytest.fixture
def engine(cache_dir: Path) -> Iterator[Engine]:
    with Engine(cache_dir) as engine:
        yield engine
        engine.sharing.close()


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
    assert sharing.pinned_images == 2
    assert sharing.pinned_bytes > 0
    sharing.attach(new_session(engine), shard)
    build(engine, "one more")
    assert sharing.pinned_images == 3
    with pytest.raises(RequestError) as refused:
        sharing.attach(new_session(engine), shard)
    assert refused.value.code == BUSY
    sharing.detach(holders[0])
    sharing.attach(new_session(engine), shard)


def test_one_client_may_follow_for_ever(engine: Engine, sharing: Sharing) -> None:
    session = new_session(engine)
    for number in range(10):
        sharing.attach(session, build(engine, f"n{number}"))
    assert sharing.pinned_images == 0


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
    assert Sharing(Files(), str(cache_dir)).trusted_until_ns > 0
    sharing.close()
    assert not (cache_dir / ".shared").exists()


def test_where_the_mark_cannot_be_set_nothing_is_shared(
    engine: Engine, sharing: Sharing, cache_dir: Path
) -> None:
    shard = build(engine)
    (cache_dir / ".shared").mkdir()
    with pytest.raises(RequestError) as refused:
        sharing.attach(new_session(engine), shard)
    assert refused.value.code == BUSY
    (cache_dir / ".shared").rmdir()
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
    assert sharing.pinned_images == 0


def test_a_client_that_leaves_or_says_hello_lets_go(engine: Engine, sharing: Sharing) -> None:
    shard = build(engine)
    leaving, greeting = Talk(engine), Talk(engine)
    for talk in (leaving, greeting):
        assert talk.call("attach", [1], [1]).error is None
    build(engine, "b")
    assert sharing.pinned_images == 1
    leaving.session.abandon()
    assert sharing.pinned_images == 1
    greeting.call("hello", [1, 0])
    assert sharing.pinned_images == 0
    greeting.session.abandon()
    assert shard.page is not None
