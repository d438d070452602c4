"""Who compiled an entry, and which shard that is."""

from __future__ import annotations

from .errors import BAD_REQUEST, RequestError, too_large
from .limits import PRODUCER_TEXT_BYTES
from .values import FrozenValue

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

POINTER_WIDTHS = (4, 8)


class Producer(FrozenValue):
    """A shell that compiles: bytecode of one producer is never served to another.

    `pointer_width` is in bytes, 4 or 8. `build` tells apart builds of one version; None is a
    build of its own.
    """

    __slots__ = ("_shard_id", "build", "name", "pointer_width", "version")
    __match_args__ = ("name", "version", "pointer_width", "build")

    name: str
    version: str
    pointer_width: int
    build: str | None
    _shard_id: str | None

    def __init__(
        self, name: str, version: str, pointer_width: int = 8, build: str | None = None
    ) -> None:
        freeze = object.__setattr__
        freeze(self, "name", name)
        freeze(self, "version", version)
        freeze(self, "pointer_width", pointer_width)
        freeze(self, "build", build)
        freeze(self, "_shard_id", None)

    def __str__(self) -> str:
        """Return NAME/VERSION/WIDTH[/BUILD], as `parse_producer` reads it.

        One with a slash in its name or version has no such form: it does not come back the same.
        """
        text = f"{self.name}/{self.version}/{self.pointer_width}"
        return text if self.build is None else f"{text}/{self.build}"

    def as_map(self) -> dict[str, object]:
        """Return the wire form."""
        producer: dict[str, object] = {
            "name": self.name,
            "version": self.version,
            "pointer_width": self.pointer_width,
        }
        if self.build is not None:
            producer["build"] = self.build
        return producer

    def shard_id(self) -> str:
        """Return the shard's id: readable, safe as a file name, at most 64 characters.

        The digest at its end keeps producers apart whose names differ only in characters that a
        file name should not have. Made once: every write asks.
        """
        if self._shard_id is None:
            object.__setattr__(self, "_shard_id", self._make_shard_id())
        assert self._shard_id is not None
        return self._shard_id

    def _make_shard_id(self) -> str:
        # Imported here: only the daemon asks, and a shell's client should not pay for it.
        from hashlib import blake2b  # noqa: PLC0415

        texts = [self.name, self.version, str(self.pointer_width)]
        if self.build is not None:
            texts.append(self.build)
        # Each with its length: a text may hold any separator.
        identity = b"".join(b"%d:%b" % (len(text), text) for text in map(str.encode, texts))
        digest = blake2b(identity, digest_size=8).hexdigest()
        readable = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "._+") else "-"
            for letter in f"{self.name}-{self.version}-{self.pointer_width}"
        )
        # Not hidden, and not taken for an option on a command line.
        return f"{readable.lstrip('.-')[:47]}-{digest}"


TOOL_OUTPUT = Producer("tool-output", "1")
"""Output of tools, shared by all shells."""


def parse_producer(text: str) -> Producer:
    """Read NAME/VERSION/WIDTH[/BUILD]. Raises ValueError that says what was expected."""
    parts = text.split("/", 3)
    if len(parts) < 3 or not all(parts) or parts[2] not in ("4", "8"):
        raise ValueError(
            f"{text!r} is not NAME/VERSION/WIDTH[/BUILD], such as zsh/5.9/8 (WIDTH is 4 or 8)"
        )
    return Producer(parts[0], parts[1], int(parts[2]), *parts[3:])


def producer_from_map(value: object) -> Producer:
    """Read the wire form; keys that are not known are ignored. Raises RequestError."""
    if not isinstance(value, dict):
        raise RequestError(BAD_REQUEST, "producer: expected a map")
    width = value.get("pointer_width")
    if type(width) is not int or width not in POINTER_WIDTHS:
        raise RequestError(BAD_REQUEST, "producer.pointer_width: expected 4 or 8 (bytes)")
    build = value.get("build")
    return Producer(
        _text(value, "name"),
        _text(value, "version"),
        width,
        None if build is None else _text(value, "build"),
    )


def _text(producer: Mapping[str, object], key: str) -> str:
    text = producer.get(key)
    if not isinstance(text, str) or not text:
        raise RequestError(BAD_REQUEST, f"producer.{key}: expected a str that is not empty")
    size = len(text.encode())
    if size > PRODUCER_TEXT_BYTES:
        raise too_large(f"producer_{key}_bytes", PRODUCER_TEXT_BYTES, size)
    return text
