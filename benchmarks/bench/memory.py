"""How much memory a process holds: proportional sets, and memfds whether mapped or not."""

from __future__ import annotations

import os
from pathlib import Path

_SECTOR_BYTES = 512
"""st_blocks counts these."""


def memory_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes that a process costs.

    Anonymous and file pages as the kernel shares them out (PSS); each memfd that it has open, by
    the pages that were allocated: mapped here, by clients, or by nobody, they are held once.
    """
    sizes = _rollup(proc / str(pid) / "smaps_rollup")
    memfds = memfd_bytes(pid, proc)
    # Shared memory that is no memfd of ours stays counted as shared out.
    shmem = 0 if memfds else sizes.get("Pss_Shmem", 0)
    return sizes["Pss_Anon"] + sizes["Pss_File"] + shmem + memfds


def memfd_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes of all memfds that a process has open or mapped, each once."""
    found: dict[int, int] = {}
    for folder in ("fd", "map_files"):
        for link in (proc / str(pid) / folder).iterdir():
            try:
                if os.readlink(link).startswith("/memfd:"):
                    status = link.stat()
                    found[status.st_ino] = status.st_blocks * _SECTOR_BYTES
            except FileNotFoundError:
                continue  # closed meanwhile
    return sum(found.values())


def _rollup(path: Path) -> dict[str, int]:
    sizes = {}
    for line in path.read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0]) * 1024
    return sizes
