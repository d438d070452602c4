"""What a client maps, and what it refuses to: image and page as a daemon made them, then forged."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.reading import make_reader
from autoloadd_client.shared import Attachment, map_descriptors
from autoloadd_protocol.errors import ImageError, PageError
from autoloadd_protocol.page import HEARTBEAT_AT, LEASE_NS, PAGE_BYTES

from ..running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoloadd_client.reading import Read

    from ..running import Daemon, RawClient

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
IMAGE_SEALS = _SEALS | fcntl.F_SEAL_WRITE
PAGE_SEALS = _SEALS | 0x0010
DOUBT = bytes(bytearray(b"only the daemon knows"))
A_MINUTE_NS = 60 * 10**9


@dataclass
class Shared:
    """The bytes of an image and of its page."""

    image: bytes
    page: bytearray
    epoch: int

    def beat(self, at_ns: int) -> None:
        memoryview(self.page).cast("Q")[HEARTBEAT_AT] = at_ns

    def descriptors(
        self, *, image_seals: int = IMAGE_SEALS, page_seals: int = PAGE_SEALS
    ) -> tuple[int, int]:
        return memfd(self.image, image_seals), memfd(self.page, page_seals)

    def attachment(self) -> Attachment:
        image, page = map_descriptors(self.descriptors())
        return Attachment(image, page, epoch=self.epoch, binary_mtime_ns=None)

    def reader(self) -> Read[bytes]:
        """Return a get that returns DOUBT where it would ask."""

        def ask(name: str, fingerprint: bytes | None = None) -> bytes | None:
            return DOUBT

        read, use = make_reader(ask)
        use(self.attachment().lookup)
        return read


def memfd(data: bytes | bytearray, seals: int) -> int:
    descriptor = os.memfd_create("forged", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def receive_shared(raw: RawClient) -> Shared:
    epoch = raw.hello().result["epoch"]
    raw.send(raw.request_bytes("attach", [1], [1]))
    _, (image, page), *_ = socket.recv_fds(raw.socket, 4096, 4)
    try:
        return Shared(
            os.pread(image, 1 << 20, 0), bytearray(os.pread(page, PAGE_BYTES + 1, 0)), epoch
        )
    finally:
        os.close(image)
        os.close(page)


@pytest.fixture
def shared(daemon: Daemon) -> Shared:
    """Of a shard with an empty entry and a usual one; just made."""
    with daemon.cache() as cache, daemon.connect() as raw:
        cache.put_many({"a": b"one", "empty": b""})
        raw.hello()
        wait_until(lambda: raw.call("attach", [1], [1]).error is None, 20, "an image to be built")
    with daemon.connect() as raw:
        return receive_shared(raw)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_names_of_every_kind(shared: Shared) -> None:
    shared.beat(time.monotonic_ns())
    read = shared.reader()
    found = {name: read(name) for name in ("a", "empty", "b", "a\0", "x" * 39)}
    assert found == {"a": b"one", "empty": b"", "b": None, "a\0": None, "x" * 39: None}
    doubtful: list[object] = ["", "\ud800", "x" * 40, 7, None, b"a", ["a"]]
    assert all(read(name) is DOUBT for name in doubtful)  # type: ignore[arg-type]


@pytest.mark.parametrize("away_ns", [-A_MINUTE_NS, -LEASE_NS, A_MINUTE_NS])
def test_a_heartbeat_that_is_old_or_to_come_is_not_trusted(shared: Shared, away_ns: int) -> None:
    shared.beat(time.monotonic_ns() + away_ns)
    read = shared.reader()
    assert read("a") is DOUBT
    assert read("a") is DOUBT


REFUSED: dict[str, tuple[Callable[[Shared], tuple[int, ...]], type[Exception]]] = {
    "image that can be written": (
        lambda s: s.descriptors(image_seals=_SEALS),
        ImageError,
    ),
    "image that can shrink": (
        lambda s: s.descriptors(image_seals=IMAGE_SEALS & ~fcntl.F_SEAL_SHRINK),
        ImageError,
    ),
    "page that can be written": (lambda s: s.descriptors(page_seals=_SEALS), PageError),
    "page that can shrink": (
        lambda s: s.descriptors(page_seals=PAGE_SEALS & ~fcntl.F_SEAL_SHRINK),
        PageError,
    ),
    "page of another size": (
        lambda s: (memfd(s.image, IMAGE_SEALS), memfd(s.page + b"\0", PAGE_SEALS)),
        PageError,
    ),
    "image without a header": (
        lambda s: (memfd(s.image[:100], IMAGE_SEALS), memfd(s.page, PAGE_SEALS)),
        ImageError,
    ),
    "no memfd": (lambda _: (os.open("/dev/null", os.O_RDONLY), os.dup(0)), ImageError),
    "one descriptor": (lambda s: (memfd(s.image, IMAGE_SEALS),), PageError),
    "none": (lambda _: (), PageError),
    "three": (lambda s: (*s.descriptors(), os.dup(0)), PageError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trusted_is_refused_and_closed(shared: Shared, what: str) -> None:
    forge, error = REFUSED[what]
    descriptors = forge(shared)
    with pytest.raises(error):
        map_descriptors(descriptors)
    assert not any(map(is_open, descriptors))


def test_an_image_of_another_length_or_life_is_refused(shared: Shared) -> None:
    shared.image += b"\0"
    with pytest.raises(ImageError, match="not the one"):
        shared.attachment()
    shared.image = shared.image[:-1]
    shared.epoch += 1
    with pytest.raises(ImageError, match="not the one"):
        shared.attachment()
