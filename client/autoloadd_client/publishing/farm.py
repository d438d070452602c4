"""The farms: for each fpath two directories of links that stand first in it, and their digests.

    zsh-5.9-1206-3f1c0a9d27b4e586 -> .zsh-5.9-1206-3f1c0a9d27b4e586-x8s1/
                                   changed in one step: a shell sees the old farm or the new one
        farm/zmv -> /usr/share/zsh/functions/Misc/zmv
        farm.zwc                   the digest of all these functions
        completions/_git.zwc -> /usr/share/zsh/functions/Completion/Unix/_git
        completions.zwc            the digest of those whose names begin with _
        state                      what `watching.observe` saw, for the next one to compare; of that
                                   time, so that a shell sees which directories changed since then
        fpath                      whose functions they are: one directory, NUL, the next one: the
                                   absolute ones, each once. The name is made from it
        used                       written by shells: its time is when one last took the farm

No other fpath ever gets a farm's name: a shell that has it in fpath finds its own functions there,
or nothing and goes on to the sources. The farms that were used last are kept.

zsh takes a function from `farm.zwc` as long as neither `farm/NAME` nor `farm/NAME.zwc` is newer, in
whole seconds; both lead to the file it was compiled from. `compinit` counts the files in fpath that
begin with `_` and do not end in .zwc, and builds its dump anew when it counts another number: for
those the second name is used, and it counts the same with the farm and without. They have a
directory of their own, since `compaudit` looks at each of them: it comes into fpath afterwards.

No file is written to once it has its name: zsh maps the digest, and would die of a shorter one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .watching import (
    COMPLETIONS,
    FARM,
    FPATH,
    PARTS,
    STATE,
    USED,
    is_recent,
    mark_of,
    note_observation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from autoloadd_client.shells.zsh import Function

LOCK_SECONDS = 15.0
"""Longer than a build takes. Nothing is lost: zsh goes on with the sources."""

_PATIENCE_SECONDS = 1.0

MAX_FARMS = 4
"""Of all versions and fpaths: 5 MB each, in memory where the runtime directory is."""

_POLL_SECONDS = 0.05
_SECOND = 10**9


class FarmBusyError(Exception):
    """Another process has been building the farm all the time: look at what it does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is published: the functions, their digests by part, and what they were made from.

    `mtime_ns` is the digests', `observed` was seen at `observed_ns`.
    """

    functions: Sequence[Function]
    digests: Mapping[str, bytes]
    mtime_ns: int
    fpath: Sequence[str]
    observed: bytes
    observed_ns: int


def place_of(socket_path: str, version: str, fpath: Sequence[str]) -> str:
    """Return where the farm of a version of zsh for an fpath is: beside the socket.

    Its name has the length of the fpath as it stands in the file `fpath`, for zsh to look there
    first, and a digest of it.
    """
    text = _text_of(fpath)
    number = f"{len(text)}-{hashlib.sha256(text).hexdigest()[:16]}"
    return f"{os.path.dirname(socket_path)}/zsh-{version}-{number}"


def _text_of(fpath: Sequence[str]) -> bytes:
    return b"\0".join(map(os.fsencode, fpath))


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
def lock(
    place: str,
    *,
    seconds: float = LOCK_SECONDS,
    on_wait: Callable[[str], None] = lambda _path: None,
) -> Iterator[None]:
    """Hold the lock on all farms beside a place. Raises FarmBusyError after `seconds`, OSError.

    `on_wait` is called once, with the lock's path, when it has been waited for a second.
    """
    path = f"{os.path.dirname(place)}/zsh.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        started, told = time.monotonic(), False
        while not _try_lock(descriptor):
            waited = time.monotonic() - started
            if waited > seconds:
                raise FarmBusyError(f"{path} has been locked for {seconds:g} s")
            if waited > _PATIENCE_SECONDS and not told:
                told = True
                on_wait(path)
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
        # A signal may come when the change is made already.
        if not _is_in_place(place, fresh):
            shutil.rmtree(fresh, ignore_errors=True)
        raise
    _remove_others(base, keep=name)


def part_of(name: str) -> str:
    """Return the directory that the link for a function is in."""
    return COMPLETIONS if name.startswith("_") else FARM


def link_name(name: str) -> str:
    """Return what the link for a function is called: see above."""
    return f"{name}.zwc" if name.startswith("_") else name


def _build(directory: str, plan: Plan) -> None:
    for part in PARTS:
        os.mkdir(f"{directory}/{part}", 0o700)
    for function in plan.functions:
        name = function.name
        os.symlink(function.path, f"{directory}/{part_of(name)}/{link_name(name)}")
    for part, digest in plan.digests.items():
        _write_digest(f"{directory}/{part}.zwc", digest, plan.mtime_ns)
    _write(f"{directory}/{STATE}", mark_of(directory) + b"\0" + plan.observed)
    note_observation(directory, plan.observed_ns)
    _write(f"{directory}/{FPATH}", _text_of(plan.fpath))


def _write_digest(path: str, digest: bytes, mtime_ns: int) -> None:
    with open(path, "xb") as file:
        file.write(digest)
        file.flush()
        # In a cache directory a power loss could leave the name without all of the bytes.
        os.fsync(file.fileno())
    os.utime(path, ns=(mtime_ns, mtime_ns))
    os.chmod(path, 0o400)


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


def _change_over(place: str, directory: str) -> None:
    link = f"{directory}/link"
    os.symlink(os.path.basename(directory), link)
    os.replace(link, place)


def _is_in_place(place: str, directory: str) -> bool:
    return os.path.islink(place) and os.readlink(place) == os.path.basename(directory)


def _remove_others(base: str, *, keep: str) -> None:
    """Remove farms beyond MAX_FARMS, older ones of those that stay, and what a builder left."""
    found = [name for name in os.listdir(base) if name.startswith(("zsh-", ".zsh-"))]
    links = [name for name in found if os.path.islink(f"{base}/{name}")]
    links.sort(key=lambda name: (name == keep, _last_use(f"{base}/{name}")), reverse=True)
    for name in links[MAX_FARMS:]:
        os.unlink(f"{base}/{name}")
    kept = {os.readlink(f"{base}/{name}") for name in links[:MAX_FARMS]}
    for name in found:
        if name.startswith(".") and name not in kept:
            shutil.rmtree(f"{base}/{name}", ignore_errors=True)


def _last_use(place: str) -> int:
    """Return when a farm was published, or a shell last took it, in ns."""
    times = [0]
    for name in (FPATH, USED):
        with suppress(OSError):
            times.append(os.stat(f"{place}/{name}").st_mtime_ns)
    return max(times)
