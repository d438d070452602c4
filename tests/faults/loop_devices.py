"""A real file system in a file on a tmpfs: its disk can fail, and its power can be lost."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .disks import mounted, run_for_disk, small_tmpfs, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024

# _IOR('X', 125, __u32): linux/fs/ext4/ext4.h (EXT4_IOC_SHUTDOWN), fs/xfs/libxfs/xfs_fs.h
# (XFS_IOC_GOINGDOWN). Direction 2 (read) << 30 | size << 16 | type << 8 | number.
SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125

LOSSES = {"the log flushed": 1, "nothing flushed": 2}
"""What the file system still brings to the disk: its own log, so no names are lost, or nothing."""

NOTHING_FLUSHED = LOSSES["nothing flushed"]

SIZES = {"ext4": 64 * MIB, "xfs": 300 * MIB}
"""Bytes; below 300 MB mkfs.xfs refuses. The file is sparse."""

_MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}


@dataclass(frozen=True)
class LoopFileSystem:
    """`path` is where it is mounted, `backing` the tmpfs that its file lies in."""

    image: Path
    path: Path
    backing: Path

    def lose_power(self, flags: int) -> None:
        """Have the file system end as in a power loss: nothing reaches the disk from now on."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("=I", flags))
        finally:
            os.close(descriptor)

    def takes_writes(self) -> bool:
        """Tell whether a file can be written and synced; not on one that is read-only by now."""
        try:
            descriptor = os.open(self.path / "try", os.O_WRONLY | os.O_CREAT)
            try:
                os.write(descriptor, b"try")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                os.unlink(self.path / "try")
        except OSError:
            return False
        return True

    def mount_again(self) -> None:
        """Do what the start after it does; nobody may use it any more. Raises NoDiskError."""
        unmount(self.path)
        run_for_disk("mount", "-o", "loop", str(self.image), str(self.path))


@contextmanager
def loop_file_system(kind: str, path: Path, backing: Path) -> Iterator[LoopFileSystem]:
    """A file system of a `kind` of SIZES at `path`; `backing` is made for it. Raises NoDiskError.

    The caller ends what uses it.
    """
    image = backing / "image"
    with small_tmpfs(backing, "400m"):
        with image.open("wb") as file:
            file.truncate(SIZES[kind])
        run_for_disk(*_MAKE[kind], str(image))
        with mounted(str(image), path, "-o", "loop"):
            path.chmod(0o700)
            yield LoopFileSystem(image, path, backing)
