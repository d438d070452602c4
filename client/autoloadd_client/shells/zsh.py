"""zsh: which one is here, and the autoload functions that it would find.

zsh autoloads any readable file in fpath by the file's name, and the first directory that has the
name wins. The same is done here, so that what is cached for a name is what zsh would have run.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoloadd_protocol.limits import FINGERPRINT_BYTES
from autoloadd_protocol.producer import Producer

from .errors import ShellFailedError, ShellMissingError
from .fingerprint import fingerprint_file

if TYPE_CHECKING:
    from collections.abc import Iterable

HOW_TO_INSTALL = "install it with `apt install zsh` or `brew install zsh`"

_START_SECONDS = 10.0
# /etc/zshenv is read even under -f and may print something of its own: the mark says where our
# own output begins.
_MARK = "autoloadd-begins-here"
_DESCRIBE = f'print -rN -- {_MARK} "$ZSH_VERSION" $fpath'

_ELF_WIDTHS = {1: 4, 2: 8}
"""EI_CLASS, the fifth byte of an ELF file, to the width of a pointer in bytes."""

_MODULE_SUFFIX = ".zwc"
_BACKUP_SUFFIX = "~"


@dataclass(frozen=True, slots=True)
class Zsh:
    """A zsh on this machine. `real` is `binary` with links followed, `mtime_ns` is of `real`."""

    binary: str
    real: str
    version: str
    pointer_width: int
    mtime_ns: int
    fpath: tuple[str, ...]

    @property
    def producer(self) -> Producer:
        """Whose bytecode it compiles: never served to a zsh of another version or width."""
        return Producer("zsh", self.version, self.pointer_width)


@dataclass(frozen=True, slots=True)
class Function:
    """One autoload function: its name, the file it is in, and that file's fingerprint."""

    name: str
    path: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not cached, and why: for the user to read."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What some directories hold. `directories` counts those that could be listed."""

    functions: tuple[Function, ...]
    left_out: tuple[LeftOut, ...]
    directories: int


def find_zsh(binary: str | None = None) -> Zsh:
    """Return the zsh at `binary`, or the first in PATH, as it describes itself.

    Raises ShellMissingError where there is none, ShellFailedError where it does not run.
    """
    path = shutil.which(binary or "zsh")
    if path is None:
        where = f"there is no program {binary}" if binary else "zsh is not in PATH"
        raise ShellMissingError(f"{where}; {HOW_TO_INSTALL}")
    real = os.path.realpath(path)
    try:
        version, fpath = _describe(path)
        mtime_ns, width = os.stat(real).st_mtime_ns, read_pointer_width(real)
    except subprocess.CalledProcessError as exc:
        ended = describe_end(exc.returncode)
        raise ShellFailedError(
            f"{path} is not a zsh: asked for its version and fpath, it {ended}"
        ) from exc
    except (OSError, subprocess.SubprocessError) as exc:
        raise ShellFailedError(f"{path} could not say its version and fpath: {exc}") from exc
    return Zsh(path, real, version, width, mtime_ns, fpath)


def describe_end(returncode: int) -> str:
    """Return how a process ended: "ended with status 1", "was ended by SIGKILL"."""
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with status {returncode}"


def _describe(binary: str) -> tuple[str, tuple[str, ...]]:
    """Return the version, and those directories of fpath that do not depend on where we stand."""
    ran = subprocess.run(  # noqa: S603  the shell that the user asked for
        [binary, "-fc", _DESCRIBE], capture_output=True, check=True, timeout=_START_SECONDS
    )
    head, mark, tail = ran.stdout.partition(_MARK.encode() + b"\0")
    version, *fpath = os.fsdecode(tail).split("\0")[:-1] or [""]
    if not mark or not version:
        raise ShellFailedError(f"{binary} is not a zsh: it answers {(head or tail)[:80]!r}")
    return version, tuple(directory for directory in fpath if directory.startswith("/"))


def read_pointer_width(path: str) -> int:
    """Return the width of a pointer in an ELF program, in bytes; 8 for every other kind."""
    with open(path, "rb") as program:
        head = program.read(5)
    return _ELF_WIDTHS.get(head[4], 8) if head[:4] == b"\x7fELF" and len(head) == 5 else 8


def find_functions(directories: Iterable[str]) -> Found:
    """Return every autoload function of the directories; of one name, the first directory's.

    A directory that is not there or cannot be listed is passed over, as zsh does.
    """
    functions: dict[str, Function] = {}
    left_out: list[LeftOut] = []
    listed = 0
    for directory in dict.fromkeys(map(os.path.abspath, directories)):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        listed += 1
        for name in names:
            if name not in functions and _may_be_function(name):
                found = _look_at(name, os.path.join(directory, name))
                if isinstance(found, Function):
                    functions[name] = found
                elif found is not None:
                    left_out.append(found)
    return Found(tuple(functions.values()), tuple(left_out), listed)


def _may_be_function(name: str) -> bool:
    return not name.startswith(".") and not name.endswith((_MODULE_SUFFIX, _BACKUP_SUFFIX))


def _look_at(name: str, path: str) -> Function | LeftOut | None:
    """Return what a file is to the cache; None for what zsh would not autoload either."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        fingerprint = fingerprint_file(path)
    except OSError:
        return None  # a dangling link, or gone since it was listed
    if not os.access(path, os.R_OK, effective_ids=True):
        return LeftOut(path, "it may not be read")
    try:
        name.encode()
    except UnicodeEncodeError:
        return LeftOut(path, "its name is not valid UTF-8")
    if len(fingerprint) > FINGERPRINT_BYTES:
        return LeftOut(path, f"its path is too long for a fingerprint of {FINGERPRINT_BYTES} bytes")
    return Function(name, path, fingerprint)
