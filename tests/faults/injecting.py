"""Faults put under a live daemon's system calls by strace, only where they touch its cache.

strace counts the calls of each thread on its own: `when=3` hits the thread that is first to make
its third call.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .report import FaultCase

ATTACH_SECONDS = 20.0
NUMBERS = 24
"""Journals and bulks of one shard that a scenario may reach."""

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$", re.MULTILINE)
_SYNC = re.compile(r"f(?:data)?sync\(\d+<(.*?)>")
_PATH = re.compile(r'"(/[^"]*)"')
_TEMPORARY = re.compile(r"image\.tmp|staged\.\d+|\.probe|\.dropped-.*")
_TRACER = re.compile(r"^TracerPid:\t(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """The `number`th call of its name in one thread, from 1."""

    name: str
    number: int

    def killed(self) -> str:
        """Return what kills a process as it enters the call."""
        return f"{self.name}:signal=KILL:when={self.number}"

    def failing(self, error: str, *, lasts: bool) -> str:
        """Return what makes the call fail with an errno's name; also those after it if it lasts."""
        return f"{self.name}:error={error}:when={self.number}{'+' if lasts else ''}"


def require_strace(case: FaultCase) -> None:
    """End the test where nobody can be traced."""
    if shutil.which("strace") is None:
        case.cannot_run("strace is not installed: apt install strace")
    probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False)
    if probe.returncode != 0:
        case.cannot_run("strace may not trace here: run with ptrace allowed (SYS_PTRACE)")


def paths_of_shard(directory: Path) -> list[str]:
    """Return the shard's directory, what it lies in, and every file that it may hold."""
    numbered = (f"{kind}.{n:08d}" for kind in ("journal", "bulk", "staged") for n in range(NUMBERS))
    files = [str(directory / name) for name in ("image", "image.tmp", *numbered)]
    return [str(directory.parent), str(directory.parent / ".probe"), str(directory), *files]


def arguments(
    paths: Sequence[str], log: Path, fault: str | None = None, *, also: Sequence[str] = ()
) -> list[str]:
    """Return strace's command line: all threads, these paths, a fault `CALL:what:when=which`.

    Only the calls that the fault is for, and `also`, are in the log then; without one, all.
    """
    calls = "%file,%desc" if fault is None else ",".join((fault.partition(":")[0], *also))
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace={calls}"]
    for path in paths:
        command += ["-P", path]
    return command if fault is None else [*command, "-e", f"inject={fault}"]


class Tracer:
    """strace on a daemon that runs. `detach` leaves the daemon alone again."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._process = subprocess.Popen(
            [*command, "-p", str(pid)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        wait_until(self._is_attached, ATTACH_SECONDS, "strace to attach")

    def _is_attached(self) -> bool:
        if self._process.poll() is not None:
            _, error = self._process.communicate()
            raise AssertionError(f"strace ended: {error.decode()}")
        return all(tracer == self._process.pid for tracer in self._tracers())

    def _tracers(self) -> Iterator[int]:
        for task in self._tasks.iterdir():
            found = _TRACER.search((task / "status").read_text())
            yield 0 if found is None else int(found[1])

    def detach(self) -> None:
        """Let go of the daemon, also where it is dead by now."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=ATTACH_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.detach()


def calls_in(log: Path) -> list[Call]:
    """Return where a log's calls can be hit: each name with each number that a thread reached.

    In the order of names, then of numbers.
    """
    per_thread = Counter((thread, name) for thread, name, _ in _CALL.findall(log.read_text()))
    highest: dict[str, int] = {}
    for (_, name), count in per_thread.items():
        highest[name] = max(highest.get(name, 0), count)
    return [Call(name, n) for name in sorted(highest) for n in range(1, highest[name] + 1)]


def synced_again(log: Path) -> tuple[set[str], set[str]]:
    """Return the files of which a sync failed, and those of them that were synced again.

    A name that was removed or given to another file since is another file's.
    """
    failed: set[str] = set()
    suspect: set[str] = set()
    again: set[str] = set()
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread, _, what = line.partition(" ")
        if what.endswith("<unfinished ...>"):
            begun[thread] = what
        elif "resumed>" in what:
            what = begun.pop(thread) + what
        if (sync := _SYNC.search(what)) and not os.path.isdir(path := sync[1]):
            again |= suspect & {path}
            suspect |= {path} if " = -1 " in what else set()
            failed |= suspect
        elif what.endswith(" = 0"):
            suspect -= set(_PATH.findall(what))
    return failed, again


def choose(points: Sequence[Call], effort: int, share: int) -> Sequence[Call]:
    """Return every k-th point, so that there are about `share` for each effort; all from 5 on."""
    step = 1 if effort >= 5 else max(1, -(-len(points) // (share * effort)))
    return points[step // 2 :: step]


def left_over(cache_dir: Path) -> list[str]:
    """Return temporary files and directories in a cache."""
    return [str(path) for path in cache_dir.rglob("*") if _TEMPORARY.fullmatch(path.name)]
