"""The page: what the daemon stores, and what a client refuses."""

from __future__ import annotations

from zlib import crc32

import pytest

from autoloadd_protocol.errors import PageError
from autoloadd_protocol.page import (
    BUCKETS,
    BUCKETS_AT,
    DEAD,
    EPOCH_AT,
    HEARTBEAT_AT,
    IMAGE_AT,
    MAGIC_AT,
    NEVER,
    PAGE_BYTES,
    STATE_AT,
    VERSION_AT,
    Page,
    check_page,
)

EPOCH = 0xABCDEF
GENERATION = 7


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(PAGE_BYTES)).cast("Q")


@pytest.fixture
def page(words: memoryview) -> Page:
    return Page(words, epoch=EPOCH, image_generation=GENERATION)


def bucket_of(name: bytes) -> int:
    return BUCKETS_AT + crc32(name) % BUCKETS


def test_the_bytes_of_a_page(page: Page, words: memoryview) -> None:
    page.touch(b"compinit", 9)
    page.beat(123)
    data = words.cast("B")
    assert bytes(data[:8]) == b"ALDPAGE\0"
    assert bytes(data[8:16]) == bytes([1, 0, 0, 0, 0, 16, 0, 0])
    assert [int.from_bytes(data[8 * at : 8 * at + 8], "little") for at in range(2, 6)] == [
        EPOCH,
        1,
        GENERATION,
        123,
    ]
    at = 8 * bucket_of(b"compinit")
    assert int.from_bytes(data[at : at + 8], "little") == 9
    assert sum(words[BUCKETS_AT:]) == 9


def test_a_page_of_the_shard_is_good(page: Page, words: memoryview) -> None:
    page.offer_image(8)
    check_page(words, epoch=EPOCH)
    assert words[IMAGE_AT] == 8


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        (MAGIC_AT, 0, "magic"),
        (VERSION_AT, 2 | BUCKETS << 32, "version"),
        (VERSION_AT, 1 | 2 * BUCKETS << 32, "version"),
        (EPOCH_AT, EPOCH + 1, "another life"),
        (STATE_AT, DEAD, "dead"),
    ],
)
def test_what_a_client_refuses(
    page: Page, words: memoryview, word: int, value: int, reason: str
) -> None:
    page.beat(1)
    words[word] = value
    with pytest.raises(PageError, match=reason):
        check_page(words, epoch=EPOCH)


def test_another_size_is_refused(page: Page, words: memoryview) -> None:
    page.beat(1)
    with pytest.raises(PageError, match="size"):
        check_page(words[:-1], epoch=EPOCH)


def test_touching_all_lowers_nothing(page: Page, words: memoryview) -> None:
    """An eviction's image is older than what was changed while it was built."""
    page.touch(b"new", 12)
    page.touch_all(10)
    assert words[bucket_of(b"new")] == 12
    assert set(words[BUCKETS_AT:]) == {10, 12}


def test_a_page_that_ends_vouches_for_nothing(page: Page, words: memoryview) -> None:
    page.beat(99)
    page.retire()
    assert set(words[BUCKETS_AT:]) == {NEVER}
    assert (words[STATE_AT], words[HEARTBEAT_AT]) == (DEAD, 0)
