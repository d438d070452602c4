"""Start-up files of shells: which one it is, and changing it where it lies.

A file is written in place: mode, owner, links (a dotfiles folder's) and attributes stay as they are
without anyone having to copy them. What it was before is kept beside it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import autoloadd_client

from .errors import ShellFailedError, ShellMissingError
from .rc_line import add_line, ends_in_continuation, find_line, remove_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import FileIO

BACKUP_SUFFIX = ".before-autoloadd"
_START_SECONDS = 10.0
_MARK = "autoloadd-begins-here"
_USE = re.compile(
    rb"(?!\s*#)(?:.*(?:[;&|({]|\b(?:then|else|do|and|or|not)\s))?\s*"
    rb"(?P<command>autoloadd-(?:eval|complete)\s[^;&|)}]*)"
)
"""A line that has one of the commands, wherever a command may stand."""

_SOURCES = {
    "zsh": "autoloadd.plugin.zsh",
    "bash": "autoloadd.bash",
    "fish": "autoloadd.fish",
}


@dataclass(frozen=True, slots=True)
class RcFile:
    """A shell's start-up file, with the line that belongs in it."""

    shell: str
    path: str
    command: bytes
    is_given: bool = True

    @property
    def backup(self) -> str:
        """Where `install` keeps what the file was."""
        return self.path + BACKUP_SUFFIX

    def read(self) -> bytes | None:
        """Return what is in it; None where there is none. Raises ShellFailedError."""
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise ShellFailedError(f"{self.path} is no regular file: {self._by_hand()}")
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            if os.path.islink(self.path):
                where = os.readlink(self.path)
                message = f"{self.path} is a link to {where}, which is not there"
                raise ShellFailedError(f"{message}: {self._by_hand()}") from None
            return None
        except OSError as exc:
            raise self._cannot(exc) from exc

    def find(self) -> bytes | None:
        """Return the line that is there, without its mark; None: there is none."""
        content = self.read()
        return None if content is None else find_line(content)

    def preview(self) -> bytes | None:
        """Return what `install` would make of it; None: it is so already."""
        content = self.read()
        if (
            content is None
            and self.is_given
            and not os.path.isdir(os.path.dirname(self.path) or ".")
        ):
            directory = os.path.dirname(self.path)
            raise ShellFailedError(f"{directory}: No such file or directory: {self._by_hand()}")
        wanted = self._add(content)
        return None if wanted == content else wanted

    def install(self) -> bool:
        """Put the line in, or the right one in its place; tell whether it was not there."""
        return self._change(self._add, keep=True)

    def uninstall(self) -> bool:
        """Take the line out; tell whether it was there. Raises ShellFailedError.

        What `install` kept beside it goes, too, where the file is as it was then.
        """
        return self._change(lambda content: None if content is None else remove_line(content))

    def find_uses(self) -> list[tuple[int, bytes, bytes]]:
        """Return the lines that do not work without autoloadd: number, line, the command in it."""
        lines = (self.read() or b"").splitlines()
        found = ((number, line, _USE.match(line)) for number, line in enumerate(lines, 1))
        return [(number, line.strip(), use["command"]) for number, line, use in found if use]

    def _add(self, content: bytes | None) -> bytes:
        if content and find_line(content) is None and ends_in_continuation(content):
            message = (
                f"{self.path} ends in a backslash, so the line would be a part of the last one"
            )
            raise ShellFailedError(f"{message}: end that one, and try again")
        return add_line(content, self.command)

    def _change(self, edit: Callable[[bytes | None], bytes | None], *, keep: bool = False) -> bool:
        try:
            content = self.read()
            if content is None:
                wanted = edit(None)
                if wanted is not None:
                    self._create(wanted)
                return wanted is not None
            return self._rewrite(edit, keep=keep)
        except OSError as exc:
            raise self._cannot(exc) from exc

    def _create(self, content: bytes) -> None:
        if not self.is_given:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "xb", buffering=0) as file:
            try:
                _overwrite(file, content)
            except BaseException:
                os.unlink(self.path)
                raise

    def _rewrite(self, edit: Callable[[bytes | None], bytes | None], *, keep: bool) -> bool:
        with open(self.path, "r+b", buffering=0) as file:
            # Two that install at the same time would add two lines.
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            wanted = edit(content)
            if wanted == content:
                return False
            if wanted is None and not os.path.islink(self.path):
                os.unlink(self.path)
                return True
            # Whoever has made a link of it since wants the file to stay.
            wanted = wanted or b""
            if keep and find_line(content) is None:
                shutil.copy2(self.path, self.backup)
            try:
                _overwrite(file, wanted)
            except BaseException:
                # A full disk, or Ctrl-C: half a line would be an error in each new shell.
                _overwrite(file, content)
                raise
        if not keep:
            self._remove_backup(wanted)
        return True

    def _remove_backup(self, content: bytes) -> None:
        with suppress(OSError):
            with open(self.backup, "rb") as file:
                is_same = file.read() == content
            if is_same:
                os.unlink(self.backup)

    def _cannot(self, error: OSError) -> ShellFailedError:
        path = error.filename or self.path
        return ShellFailedError(f"{path}: {error.strerror}: {self._by_hand()}")

    def _by_hand(self) -> str:
        line = os.fsdecode(self.command)
        return f"give another file with --rc FILE, or write this line yourself: {line}"


def _overwrite(file: FileIO, content: bytes) -> None:
    file.seek(0)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate()


def source_path(shell: str) -> str:
    """Return where the file that a shell sources lies in this installation."""
    package = os.path.dirname(os.path.abspath(autoloadd_client.__file__))
    return os.path.join(package, "shells", _SOURCES[shell])


def rc_file(shell: str, *, path: str | None, environment: Mapping[str, str]) -> RcFile:
    """Return a shell's start-up file: the given one, or the usual one.

    Raises ShellMissingError where that cannot be known, ShellFailedError where the file to source
    is not in this installation.
    """
    source = source_path(shell)
    if not os.access(source, os.R_OK):
        raise ShellFailedError(f"{source} is missing: install autoloadd again")
    if "\n" in source:
        raise ShellFailedError(f"{source!r}: no one line can hold this path")
    found = path if path is not None else _usual_path(shell, environment)
    return RcFile(shell, os.path.abspath(found), make_command(shell, source), path is not None)


def make_command(shell: str, source: str) -> bytes:
    """Return the line, without its mark: where the file is gone, it does nothing, with status 0."""
    if shell == "fish":
        quoted = "'" + source.replace("\\", "\\\\").replace("'", "\\'") + "'"
        return os.fsencode(f"test ! -r {quoted}; or source {quoted}")
    quoted = shlex.quote(source)
    return os.fsencode(f"[ ! -r {quoted} ] || . {quoted}")


def _usual_path(shell: str, environment: Mapping[str, str]) -> str:
    if shutil.which(shell) is None:
        message = f"{shell} is not in PATH; --rc FILE says which file it reads"
        raise ShellMissingError(message)
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise ShellMissingError("HOME is not set; --rc FILE says which file the shell reads")
    match shell:
        case "zsh":
            return f"{_ask_zsh(environment) or home}/.zshrc"
        case "bash":
            return f"{home}/.bashrc"
        case _:
            config = environment.get("XDG_CONFIG_HOME", "")
            base = config if config.startswith("/") else f"{home}/.config"
            return f"{base}/fish/conf.d/autoloadd.fish"


def _ask_zsh(environment: Mapping[str, str]) -> str:
    """Return ZDOTDIR as zsh has it: ~/.zshenv often sets it without exporting it."""
    script = f'print -rN -- {_MARK} "$ZDOTDIR"'
    try:
        ran = subprocess.run(  # noqa: S603  the one in PATH is meant
            ["zsh", "-c", script],  # noqa: S607  as above
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            check=False,
            timeout=_START_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise ShellFailedError(f"zsh could not say its ZDOTDIR: {exc}; give --rc FILE") from exc
    _, _, said = ran.stdout.partition(_MARK.encode() + b"\0")
    return os.fsdecode(said.partition(b"\0")[0])
