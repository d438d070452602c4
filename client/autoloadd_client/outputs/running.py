"""Running a tool as `$(TOOL ARGS)` would, and knowing afterwards whether its output may be kept."""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from .question import find_in_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_BYTES = 65536
_STDERR = 2
_BASH_LOOKS_AT_BYTES = 80


class Ran:
    """What came of a run: its output, its exit status as a shell tells it, and its stderr."""

    def __init__(self, output: bytes, status: int, *, is_silent: bool) -> None:
        self.output = output
        self.status = status
        self.is_silent = is_silent


def run_tool(words: Sequence[str], shell: str) -> Ran:
    """Run a tool to its end, as $(...) waits for it; stderr is passed on as it comes.

    `shell` is NAME/VERSION of the shell whose place is taken.

    What the tool leaves running may write to stderr for as long as it likes: `cat` goes on with
    that. Raises OSError where it cannot be started.
    """
    with _start(words, shell) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output, is_silent = _relay(process.stdout.fileno(), process.stderr.fileno())
        status = process.wait()
        is_silent = _relay_rest(process.stderr.fileno()) and is_silent
    return Ran(output, status if status >= 0 else 128 - status, is_silent=is_silent)


def _start(words: Sequence[str], shell: str) -> subprocess.Popen[bytes]:
    try:
        return _spawn(words)
    except OSError as exc:
        script = interpret(words, shell, exc)
        if script is None:
            raise
        return _spawn(script)


def _spawn(words: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    # What the shell has open, the tool has, too. Of ours nothing is inherited.
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, close_fds=False)  # noqa: S603  what the user's shell was to run


def interpret(words: Sequence[str], shell: str, error: OSError) -> list[str] | None:
    """Return how a shell runs a script whose first line names no interpreter.

    None: `error` was another one, or this is no text, by bash's measure.
    """
    path = find_in_path(words[0], os.environ) if error.errno == errno.ENOEXEC else None
    if path is None:
        return None
    with open(path, "rb") as file:
        line = file.read(_BASH_LOOKS_AT_BYTES).partition(b"\n")[0]
    if b"\0" in line:
        return None
    return ["bash" if shell.startswith("bash/") else "/bin/sh", path, *words[1:]]


def _relay(stdout: int, stderr: int) -> tuple[bytes, bool]:
    """Return all of stdout, and whether stderr was silent until its end."""
    parts: list[bytes] = []
    is_silent = True
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while stdout in selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _READ_BYTES)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == stdout:
                    parts.append(data)
                else:
                    is_silent = False
                    _pass_on(data)
    return b"".join(parts), is_silent


def _relay_rest(stderr: int) -> bool:
    """Pass on what is there, leave the rest to `cat`; return whether nothing was there."""
    os.set_blocking(stderr, False)
    is_silent = True
    try:
        while data := os.read(stderr, _READ_BYTES):
            is_silent = False
            _pass_on(data)
    except BlockingIOError:
        os.set_blocking(stderr, True)
        # Whoever waits for the end of our stdout has waited long enough.
        with suppress(OSError):  # without a cat in PATH there is still the output
            subprocess.Popen(["cat"], stdin=stderr, stdout=_STDERR)  # noqa: S607  any cat will do
    return is_silent


def _pass_on(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(_STDERR, data) :]
    except OSError:
        return  # there is no one to tell
