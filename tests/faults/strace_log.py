"""What strace saw of a daemon, as operations of `disk_model`: files, requests and answers.

A write counts from where its call begins, a sync where it ends, and covers what was there when it
began; an answer from where sending it begins, a request where receiving it ends. So each is on the
side on which the daemon promises more.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoloadd_protocol.framing import LENGTH_BYTES

from .disk_model import (
    BeginSync,
    Create,
    Link,
    MakeDirectory,
    RemoveDirectory,
    Rename,
    SyncDirectory,
    SyncFile,
    Truncate,
    Unlink,
    Write,
)
from .wire_history import WireHistory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .disk_model import Operation
    from .engine import Histories

CALLS = (
    "openat,close,write,writev,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,accept,accept4,recvfrom,sendto,sendmsg"
)

_NAME_CALLS = ("rename", "unlink", "mkdir", "rmdir", "link")

_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_UNFINISHED = "<unfinished ...>"
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


@dataclass
class Call:
    """One system call: where in the log it begins and ends, and what it said."""

    begin: int
    end: int
    name: str
    arguments: str
    result: int

    @property
    def strings(self) -> list[bytes]:
        """The bytes that it was given or gave, whole."""
        found = []
        for match in _STRING.finditer(self.arguments):
            assert not match[2], "strace has cut a string short"
            found.append(bytes.fromhex(match[1].replace("\\x", "")))
        return found

    @property
    def paths(self) -> list[str]:
        """The paths that it was given."""
        return [text.decode() for text in self.strings]

    @property
    def descriptor(self) -> int:
        """Its first argument."""
        return int(self.arguments.partition(",")[0])

    @property
    def last_number(self) -> int:
        """Its last argument."""
        return int(self.arguments.rpartition(",")[2])


def parse(text: str) -> list[Call]:
    """Return the calls of a log in the order of their begins; what never ended is left out."""
    begun: dict[str, tuple[int, str]] = {}
    calls = []
    for number, line in enumerate(text.splitlines()):
        match = _LINE.match(line)
        assert match is not None, f"line {number} is no call: {line:.80}"
        thread, what = match.groups()
        begin = number
        if what.endswith(_UNFINISHED):
            begun[thread] = number, what.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(what):
            begin, start = begun.pop(thread)
            what = start + resumed[2]
        if call := _CALL.match(what):
            calls.append(Call(begin, number, call[1], call[2], int(call[3])))
    return sorted(calls, key=lambda call: call.begin)


@dataclass
class _Stream:
    """One direction of a connection: its bytes, as frames."""

    received: bytearray = field(default_factory=bytearray)

    def frames(self, data: bytes) -> Iterator[bytes]:
        self.received += data
        while len(self.received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self.received[:LENGTH_BYTES], "big")
            if len(self.received) < end:
                return
            yield bytes(self.received[LENGTH_BYTES:end])
            del self.received[:end]


class Replay:
    """Makes a log of operations from calls. `log` and `histories` are the result."""

    def __init__(self, root: str) -> None:
        self.log: list[Operation] = []
        self._root = root
        self._wire = WireHistory(self.log.append)
        self._files: dict[int, int] = {}
        self._directories: dict[int, str] = {}
        self._by_path: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._requests: dict[int, _Stream] = {}
        self._answers: dict[int, _Stream] = {}

    @property
    def histories(self) -> Histories:
        """What each shard holds after each of its writes."""
        return self._wire.histories

    def run(self, calls: list[Call]) -> None:
        """Take all calls of a log, each at its begin and at its end."""
        moments = [(call.begin, 0, call) for call in calls] + [(c.end, 1, c) for c in calls]
        for _, is_end, call in sorted(moments, key=lambda moment: moment[:2]):
            if call.result >= 0 or call.name in ("fsync", "fdatasync"):
                self._take(call, is_end=bool(is_end))

    def _take(self, call: Call, *, is_end: bool) -> None:
        take: Callable[[Call], None] | None
        if is_end:
            take = {
                "openat": self._opened,
                "fsync": self._synced,
                "fdatasync": self._synced,
                "accept": self._accepted,
                "accept4": self._accepted,
                "recvfrom": self._received,
            }.get(call.name)
        else:
            take = {
                "openat": self._create,
                "close": self._close,
                "write": self._append,
                "writev": self._append,
                "pwrite64": self._overwrite,
                "ftruncate": self._truncate,
                "fsync": self._begin_sync,
                "fdatasync": self._begin_sync,
                "sendto": self._send,
                "sendmsg": self._send,
            }.get(call.name)
        if take is None and not is_end and call.name.startswith(_NAME_CALLS):
            take = self._change_names
        if take is not None:
            take(call)

    # Files

    def _create(self, call: Call) -> None:
        (path,) = call.paths
        if not path.startswith(self._root) or "O_CREAT" not in call.arguments:
            return
        assert "O_EXCL" in call.arguments, "a file that may have been there"
        self._by_path[path] = len(self._sizes) + 1
        self._sizes[self._by_path[path]] = 0
        self.log.append(Create(path, self._by_path[path]))

    def _opened(self, call: Call) -> None:
        (path,) = call.paths
        if path in self._by_path:
            self._files[call.result] = self._by_path[path]
        elif path.startswith(self._root):
            self._directories[call.result] = path

    def _close(self, call: Call) -> None:
        for known in (self._files, self._directories, self._requests, self._answers):
            known.pop(call.descriptor, None)

    def _append(self, call: Call) -> None:
        inode = self._files.get(call.descriptor)
        if inode is None:
            return
        data = b"".join(call.strings)[: call.result]
        self.log.append(Write(inode, self._sizes[inode], data))
        self._sizes[inode] += len(data)

    def _overwrite(self, call: Call) -> None:
        inode = self._files.get(call.descriptor)
        if inode is not None:
            data = call.strings[0][: call.result]
            # What is appended goes on where it was: `_sizes` is where.
            self.log.append(Write(inode, call.last_number, data))

    def _truncate(self, call: Call) -> None:
        inode = self._files.get(call.descriptor)
        if inode is not None:
            self.log.append(Truncate(inode, call.last_number))
            self._sizes[inode] = call.last_number

    def _begin_sync(self, call: Call) -> None:
        target = self._files.get(call.descriptor, self._directories.get(call.descriptor))
        if target is not None:
            self.log.append(BeginSync(call.begin, target))

    def _synced(self, call: Call) -> None:
        inode = self._files.get(call.descriptor)
        if inode is not None:
            self.log.append(SyncFile(inode, failed=call.result < 0, begun=call.begin))
        elif call.descriptor in self._directories and call.result == 0:
            self.log.append(SyncDirectory(self._directories[call.descriptor], begun=call.begin))

    def _change_names(self, call: Call) -> None:
        paths = call.paths
        if not paths or not paths[0].startswith(f"{self._root}/"):
            return
        if call.name.startswith("rename"):
            source, target = paths
            for path in [p for p in self._by_path if p == source or p.startswith(f"{source}/")]:
                self._by_path[target + path[len(source) :]] = self._by_path.pop(path)
            self.log.append(Rename(source, target))
        elif call.name.startswith("link"):
            self._by_path[paths[1]] = self._by_path[paths[0]]
            self.log.append(Link(*paths))
        elif call.name.startswith("mkdir"):
            self.log.append(MakeDirectory(paths[0]))
        elif call.name == "rmdir" or "AT_REMOVEDIR" in call.arguments:
            self.log.append(RemoveDirectory(paths[0]))
        else:
            assert call.name in ("unlink", "unlinkat"), call.name
            self._by_path.pop(paths[0], None)
            self.log.append(Unlink(paths[0]))

    # Requests and answers

    def _accepted(self, call: Call) -> None:
        self._requests[call.result], self._answers[call.result] = _Stream(), _Stream()
        self._wire.connect(call.result)

    def _received(self, call: Call) -> None:
        if call.descriptor in self._requests and call.result:
            data = call.strings[0][: call.result]
            for frame in self._requests[call.descriptor].frames(data):
                self._wire.request(call.descriptor, frame)

    def _send(self, call: Call) -> None:
        if call.descriptor in self._answers:
            data = b"".join(call.strings)[: call.result]
            for frame in self._answers[call.descriptor].frames(data):
                self._wire.answer(call.descriptor, frame)


def replay(path: Path, root: str) -> Replay:
    """Return what a log of strace says was done under a directory."""
    replayed = Replay(os.path.abspath(root))
    replayed.run(parse(path.read_text(encoding="ascii")))
    return replayed
