"""zsh's own format of compiled functions, `.zwc`: one function out of a file, many into a digest.

The format is `write_dump` and `struct fdhead` in zsh's Src/parse.c (5.8 and 5.9 alike). Words have
32 bits, in the byte order of the machine:

    12 words   magic, then one byte of flags and three with the length of all this, then the version
    for each   start of its code (words), length of the code (bytes), patterns, start of its strings
    function   in the code (bytes), words of this head, flags and offset of the name's tail; the
               name, ended by NUL and filled up to words
    the codes, one behind the other, each filled up to words

The fifth word of the first head is how long all heads are, since that is where the first code
starts. zsh writes the same once more in the other byte order, for machines that share the file.
A runtime directory belongs to one machine: what is built here leaves that out, and is half as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from .errors import BytecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC = 0x04050607
_WORD = 4
_VERSION_BYTES = 40
_PRELUDE = Struct(f"=IB3s{_VERSION_BYTES}s")
_HEAD = Struct("=6I")
_HEADER_END = Struct("=I")
_MAPPED = 1
_MIN_MAPPED_BYTES = 4096
"""zsh reads a shorter file instead of mapping it."""

MAX_DIGEST_BYTES = 2**24 - 1
"""The length has three bytes."""


@dataclass(frozen=True, slots=True)
class Bytecode:
    """One compiled function: what its head says, and its code, filled up to words.

    `name` is as zsh keeps it in memory: `metafy` of what is on disk.
    """

    name: bytes
    code: bytes
    code_bytes: int
    patterns: int
    strings_at: int
    flags: int

    @property
    def head_words(self) -> int:
        """The length of its head in a digest, in words."""
        return _HEAD.size // _WORD + _words(len(self.name) + 1)


@dataclass(frozen=True, slots=True)
class NamedHead:
    """What a file's header says of one function."""

    name: bytes
    flags: int


def metafy(name: bytes) -> bytes:
    """Return a name as zsh keeps it: bytes with a meaning of their own are two, 0x83 the first."""
    return b"".join(
        bytes((0x83, byte ^ 32)) if byte == 0 or 0x83 <= byte <= 0xA2 else bytes((byte,))
        for byte in name
    )


def is_whole(data: bytes) -> bool:
    """Whether a file that zsh wrote is all there: on a full disk it leaves a part, and succeeds.

    Both halves are looked at: where room came back meanwhile, the second may stand in the first.
    """
    return len(data) >= _PRELUDE.size and len(data) == 2 * int.from_bytes(
        _PRELUDE.unpack_from(data)[2], "little"
    )


def read_function(blob: bytes, *, name: bytes, version: str) -> Bytecode:
    """Return the function in a file that holds just this one.

    Raises BytecodeError for everything else: zsh maps what it is given, and believes every offset.
    """
    heads = list(_read_heads(blob, version))
    if len(heads) != 1:
        raise BytecodeError(f"it holds {len(heads)} functions")
    start, code_bytes, patterns, strings_at, flags, found = heads[0]
    if found != metafy(name):
        raise BytecodeError("it holds another function")
    end = (start + _words(code_bytes)) * _WORD
    if end > len(blob) or strings_at > code_bytes or patterns * _WORD > code_bytes:
        raise BytecodeError("its offsets lead out of it")
    return Bytecode(found, blob[start * _WORD : end], code_bytes, patterns, strings_at, flags)


def read_header(data: bytes, *, version: str) -> list[NamedHead]:
    """Return what is compiled in a file: its names, and how each was compiled.

    Raises BytecodeError for what a zsh of this version does not take for bytecode.
    """
    return [NamedHead(head[5], head[4]) for head in _read_heads(data, version)]


def build_digest(functions: Sequence[Bytecode], *, version: str) -> bytes:
    """Return the digest of these functions. Raises BytecodeError where it would be too long."""
    start = header_words = _PRELUDE.size // _WORD + sum(each.head_words for each in functions)
    heads = []
    for each in functions:
        name = each.name.ljust((each.head_words * _WORD) - _HEAD.size, b"\0")
        numbers = (start, each.code_bytes, each.patterns, each.strings_at, each.head_words)
        heads.append(_HEAD.pack(*numbers, each.flags) + name)
        start += len(each.code) // _WORD
    size = start * _WORD
    if size > MAX_DIGEST_BYTES:
        raise BytecodeError(f"a digest of {size:,} bytes is longer than zsh can say")
    flags = _MAPPED if size >= _MIN_MAPPED_BYTES else 0
    prelude = _PRELUDE.pack(_MAGIC, flags, size.to_bytes(3, "little"), version.encode())
    data = b"".join((prelude, *heads, *(each.code for each in functions)))
    assert len(data) == size
    assert not functions or _HEADER_END.unpack_from(data, _PRELUDE.size) == (header_words,)
    return data


def _read_heads(data: bytes, version: str) -> Iterator[tuple[int, int, int, int, int, bytes]]:
    """Yield (start, code_bytes, patterns, strings_at, flags, name) of each function."""
    if len(data) < _PRELUDE.size + _WORD:
        raise BytecodeError("it is too short")
    magic, _flags, _size, found = _PRELUDE.unpack_from(data)
    if magic != _MAGIC:
        raise BytecodeError("it is no bytecode of zsh on this machine")
    if found.partition(b"\0")[0] != version.encode():
        raise BytecodeError("another version of zsh compiled it")
    end = _HEADER_END.unpack_from(data, _PRELUDE.size)[0] * _WORD
    position = _PRELUDE.size
    while position < end:
        if position + _HEAD.size > min(end, len(data)):
            raise BytecodeError("its header is cut off")
        start, code_bytes, patterns, strings_at, words, mixed = _HEAD.unpack_from(data, position)
        following = position + words * _WORD
        if words * _WORD <= _HEAD.size or following > min(end, len(data)):
            raise BytecodeError("its header is cut off")
        path, ended, _ = data[position + _HEAD.size : following].partition(b"\0")
        if not ended:
            raise BytecodeError("a name has no end")
        yield start, code_bytes, patterns, strings_at, mixed & 3, path[mixed >> 2 :]
        position = following


def _words(size: int) -> int:
    return (size + _WORD - 1) // _WORD
