"""Small disks to fill and to break: a tmpfs, or a file system in a file on a loop device."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNMOUNT_SECONDS = 20.0
_PIECES = (1 << 20, 65536, 4096, 512, 1)


class NoDiskError(Exception):
    """This machine does not let us mount one: says what is missing, and how to get it."""


@contextmanager
def small_tmpfs(path: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size` (as in `4m`) at `path`. Raises NoDiskError."""
    with mounted("tmpfs", path, "-t", "tmpfs", "-o", f"size={size},mode=0700"):
        yield path


@contextmanager
def mounted(source: str, path: Path, *options: str) -> Iterator[Path]:
    """What is mounted at `path` meanwhile; the caller ends what uses it. Raises NoDiskError."""
    path.mkdir(mode=0o700, exist_ok=True)
    run_for_disk("mount", *options, source, str(path))
    try:
        yield path
    finally:
        unmount(path)


def unmount(path: Path) -> None:
    """Unmount, as soon as nobody uses it; after a while in any case, to leave nothing behind."""
    try:
        wait_until(lambda: _try("umount", str(path)), UNMOUNT_SECONDS, f"{path} to be free")
    except AssertionError:
        run_for_disk("umount", "--lazy", str(path))
        raise


def run_for_disk(*command: str) -> None:
    """Run a program that needs root and the kernel's help. Raises NoDiskError."""
    try:
        subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError as exc:
        raise NoDiskError(f"the program {command[0]} (scripts/test installs it as root)") from exc
    except subprocess.CalledProcessError as exc:
        why = exc.stderr.decode(errors="replace").strip()
        user = "" if os.geteuid() == 0 else " (run the tests as root)"
        raise NoDiskError(f"{' '.join(command)}: {why}{user}") from exc


def fill(path: Path, *, but: int = 0) -> Path:
    """Take all the room in a directory, but for some bytes; return the file that has it."""
    filler = path / "filler"
    with filler.open("ab", buffering=0) as file:
        for piece in _PIECES:
            try:
                while file.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue
        file.truncate(max(file.tell() - but, 0))
    return filler


def _try(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
