"""The farm: a directory of links that stands first in fpath, and the digest that zsh takes it from.

    zsh-5.9 -> .zsh-5.9-x8s1/      changed in one step: a shell sees the old farm or the new one
        farm/zmv -> /usr/share/zsh/functions/Misc/zmv
        farm/_git.zwc -> /usr/share/zsh/functions/Completion/Unix/_git
        farm.zwc                   the digest of all these functions
        state                      what `watching.observe` saw, for the next one to compare
        fpath                      whose functions they are: one directory, NUL, the next one: the
                                   absolute ones, each once. A shell with another fpath leaves it

zsh takes a function from `farm.zwc` as long as neither `farm/NAME` nor `farm/NAME.zwc` is newer, in
whole seconds; both lead to the file it was compiled from. `compinit` counts the files in fpath that
begin with `_` and do not end in .zwc, and builds its dump anew when it counts another number: for
those the second name is used, and it counts the same with the farm and without.

No file is written to once it has its name: zsh maps the digest, and would die of a shorter one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .watching import DIGEST, FARM, STATE, is_recent, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autoloadd_client.shells.zsh import Function

LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.05
_SECOND = 10**9


class FarmBusyError(Exception):
    """Another process has been building the farm all the time: look at what it does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is published: the functions, their digest, and what it was made from."""

    functions: Sequence[Function]
    digest: bytes
    mtime_ns: int
    fpath: Sequence[str]
    observed: bytes


def time_of_digest(mtimes_ns: Sequence[int], now_ns: int) -> int:
    """Return the time that the digest gets: of the newest file that has come to rest.

    Not the time of its writing: zsh compares whole seconds, so a file that is edited in the second
    in which the digest is written would count as older. Files of this second are newer than this
    time, and zsh takes their source.
    """
    before = now_ns - _SECOND
    at_rest = [mtime for mtime in mtimes_ns if mtime < now_ns and not is_recent(mtime, now_ns)]
    return max(at_rest, default=before)


@contextmanager
def lock(place: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock on a place. Raises FarmBusyError after `seconds`, OSError."""
    descriptor = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise FarmBusyError(f"{place} has been locked for {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def put_in_place(place: str, plan: Plan) -> None:
    """Build the farm beside its place and change over to it. The caller holds the lock.

    Raises OSError; what was published before is as it was then.
    """
    base, name = os.path.split(place)
    fresh = tempfile.mkdtemp(prefix=f".{name}-", dir=base)
    try:
        _build(fresh, plan)
        _change_over(place, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _remove_others(base, f".{name}-", keep=os.path.basename(fresh))


def link_name(name: str) -> str:
    """Return what the link for a function is called: see above."""
    return f"{name}.zwc" if name.startswith("_") else name


def _build(directory: str, plan: Plan) -> None:
    farm = f"{directory}/{FARM}"
    os.mkdir(farm, 0o700)
    for function in plan.functions:
        os.symlink(function.path, f"{farm}/{link_name(function.name)}")
    digest = f"{directory}/{DIGEST}"
    with open(digest, "xb") as file:
        file.write(plan.digest)
        file.flush()
        # In a cache directory a power loss could leave the name without all of the bytes.
        os.fsync(file.fileno())
    os.utime(digest, ns=(plan.mtime_ns, plan.mtime_ns))
    os.chmod(digest, 0o400)
    _write(f"{directory}/{STATE}", mark_of(os.stat(digest)) + b"\0" + plan.observed)
    _write(f"{directory}/fpath", b"\0".join(map(os.fsencode, plan.fpath)))


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


def _change_over(place: str, directory: str) -> None:
    link = f"{directory}/link"
    os.symlink(os.path.basename(directory), link)
    os.replace(link, place)


def _remove_others(base: str, prefix: str, *, keep: str) -> None:
    """Remove older farms, and what a builder that was killed left behind."""
    for name in os.listdir(base):
        if name.startswith(prefix) and name != keep:
            shutil.rmtree(f"{base}/{name}", ignore_errors=True)
