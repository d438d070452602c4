"""Compiling zsh's functions with zsh itself: many files in each process, several processes.

Each zsh is given a list of files and prints a line when it has done one. So it is known which file
a zsh that died or hangs was at: only that file is lost, and another zsh goes on with the rest.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from autoloadd_protocol.limits import BLOB_BYTES

from .fingerprint import fingerprint_file
from .zsh import Function, LeftOut, describe_end
from .zwc import is_whole

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .zsh import Zsh

FILE_SECONDS = 5.0
"""For one file. zsh compiles the longest of its own functions in 3 ms."""

FILES_PER_PROCESS = 50
"""Below this many, starting one more zsh costs more than it wins."""

# Numbers and paths come in turn, each ended by NUL: the only byte that no path holds.
# `emulate` undoes what /etc/zshenv may have set; -U keeps its aliases out of the functions.
_SCRIPT = """
emulate -R zsh
setopt no_multibyte
while IFS= read -r -d '' number && IFS= read -r -d '' file; do
  zcompile -U -- "$1/$number.zwc" "$file" 2> "$1/$number.err"
  print -r -- "$number $?"
done
"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A function and its bytecode: the bytes of a `.zwc` file with this one function."""

    function: Function
    blob: bytes


def compile_functions(
    zsh: Zsh, functions: Sequence[Function], *, file_seconds: float = FILE_SECONDS
) -> Generator[Compiled | LeftOut, None, None]:
    """Yield each function compiled, or left out with zsh's own message, in the order of finishing.

    A function whose file no longer has the fingerprint that it was found with is left out, so what
    is yielded was compiled from exactly that file. `file_seconds` is the deadline of each file.
    """
    count = min(os.cpu_count() or 1, 1 + len(functions) // FILES_PER_PROCESS)
    numbered = list(enumerate(functions))
    with tempfile.TemporaryDirectory(prefix="autoloadctl-") as folder:
        compilers = [
            _Compiler(zsh.binary, folder, numbered[start::count], file_seconds)
            for start in range(count)
        ]
        try:
            while any(compiler.is_busy for compiler in compilers):
                for number, function, failure in _wait_for_any(compilers):
                    yield _collect(os.path.join(folder, str(number)), function, failure)
        finally:
            for compiler in compilers:
                compiler.stop()


_Done = tuple[int, Function, str | None]
"""Number, function, and what happened where zsh did not come to its end: None says it did."""


class _Compiler:
    """One list of files, and the zsh that works on it; a new zsh when one is lost."""

    def __init__(
        self, binary: str, folder: str, jobs: list[tuple[int, Function]], file_seconds: float
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._jobs = deque(jobs)
        self._file_seconds = file_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.deadline = 0.0
        self._start()

    @property
    def is_busy(self) -> bool:
        return self._process is not None

    @property
    def output(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def read_done(self) -> list[_Done]:
        """Read what zsh has printed; at the end of its output, go on without it."""
        data = os.read(self.output.fileno(), 65536)
        if not data:
            return self._go_on(None)
        self.deadline = time.monotonic() + self._file_seconds
        *lines, self._unread = (self._unread + data).split(b"\n")
        expected = (line for line in lines if self._is_next(line))
        return [(*self._jobs.popleft(), None) for _line in expected]

    def give_up_file(self) -> list[_Done]:
        """Kill a zsh that has done nothing for too long, and go on with the next file."""
        assert self._process is not None
        self._process.kill()
        return self._go_on(f"zsh took more than {self._file_seconds:g} s and was killed")

    def stop(self) -> None:
        """End zsh, if it is there."""
        if self._process is not None:
            self._process.kill()
            self.output.close()
            self._process.wait()
            self._process = None

    def _is_next(self, line: bytes) -> bool:
        number, _, status = line.partition(b" ")
        return bool(self._jobs) and number == b"%d" % self._jobs[0][0] and status.isdigit()

    def _go_on(self, failure: str | None) -> list[_Done]:
        assert self._process is not None
        self.output.close()
        status = self._process.wait()
        self._process = None
        lost = self._jobs.popleft() if self._jobs else None
        self._start()
        return [] if lost is None else [(*lost, failure or f"zsh {describe_end(status)}")]

    def _start(self) -> None:
        if not self._jobs:
            return
        self._unread = b""
        with tempfile.TemporaryFile(dir=self._folder) as files:
            for number, function in self._jobs:
                files.write(b"%d\0%b\0" % (number, os.fsencode(function.path)))
            files.seek(0)
            self._process = subprocess.Popen(  # noqa: S603  the zsh that the caller found
                [self._binary, "-fc", _SCRIPT, "zsh", self._folder],
                stdin=files,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # `read -d` sets the terminal's modes: in a background job that would stop it.
                start_new_session=True,
            )
        self.deadline = time.monotonic() + self._file_seconds


def _wait_for_any(compilers: Sequence[_Compiler]) -> list[_Done]:
    """Wait until a compiler has something to say or is past its deadline; return what is done."""
    busy = [compiler for compiler in compilers if compiler.is_busy]
    with selectors.DefaultSelector() as selector:
        for compiler in busy:
            selector.register(compiler.output, selectors.EVENT_READ, compiler)
        nearest = min(compiler.deadline for compiler in busy)
        ready = selector.select(max(nearest - time.monotonic(), 0))
    done = [item for key, _events in ready for item in key.data.read_done()]
    if not ready:
        late = min(busy, key=lambda compiler: compiler.deadline)
        return late.give_up_file()
    return done


def _collect(base: str, function: Function, failure: str | None) -> Compiled | LeftOut:
    """Return what zsh left at `base`.zwc and `base`.err, and remove both."""
    message = _take(f"{base}.err") or b""
    blob = _take(f"{base}.zwc")
    if failure is not None:
        return LeftOut(function.path, failure)
    if not blob:
        lines = message.decode(errors="replace").splitlines()
        return LeftOut(function.path, lines[0] if lines else "zsh compiled it to nothing")
    if not is_whole(blob):
        return LeftOut(function.path, "its compiled form could not be written whole")
    if len(blob) > BLOB_BYTES:
        return LeftOut(function.path, f"compiled to {len(blob):,} bytes, over {BLOB_BYTES:,}")
    if not _is_unchanged(function):
        return LeftOut(function.path, "it was changed while it was compiled")
    return Compiled(function, blob)


def _take(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            content = file.read()
        os.unlink(path)
    except FileNotFoundError:
        return None
    return content


def _is_unchanged(function: Function) -> bool:
    try:
        return fingerprint_file(function.path) == function.fingerprint
    except OSError:
        return False
