"""Many daemons started at one moment: one serves, the others exit with 3 and have touched nothing.

Whoever shares a cache directory or a socket with another takes part: all of them share both, or one
of the two, or some this and some that. Directories are there already or are made in the race.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import pytest

from autoloadd_client import Cache
from autoloadd_client.errors import CacheError
from autoloadd_daemon.errors import AlreadyServedError
from autoloadd_daemon.listening import DirectoryLock
from autoloadd_daemon.storage.files import Files

from ..running import PRODUCER, own_environment, private_directory, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..running import Daemon
    from .report import FaultCase

SECONDS = 60.0
DAEMONS = 30
TRIALS = 3
ALREADY_SERVED = 3
SHORT = 1.0


class Place(NamedTuple):
    """What one daemon is started on."""

    cache_dir: Path
    socket: Path

    @property
    def options(self) -> list[str]:
        return ["--cache-dir", str(self.cache_dir), "--socket", str(self.socket)]


@dataclass
class Crowd:
    """Daemons that wait at a gate; `ended` has the exit status of those that have ended."""

    process: subprocess.Popen[str]
    places: dict[int, Place]
    ended: dict[int, int] = field(default_factory=dict)

    def go(self) -> None:
        """Open the gate."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def look(self) -> None:
        """Take what was reported of those that have ended."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            pid, status = map(int, line.split())
            self.ended[pid] = status

    @property
    def serving(self) -> list[int]:
        """Those that have not ended."""
        self.look()
        return [pid for pid in self.places if pid not in self.ended]

    def settle(self) -> list[int]:
        """Wait until each has ended or answers; return the latter."""
        wait_until(self._is_settled, SECONDS, "each daemon to end or to answer")
        return self.serving

    def _is_settled(self) -> bool:
        return all(answering(self.places[pid].socket) == pid for pid in self.serving)

    def wait_until_ended(self, count: int) -> None:
        """Wait until so many have ended."""
        wait_until(lambda: len(self.serving) <= len(self.places) - count, SECONDS, "some to end")

    def kill(self, pid: int) -> None:
        """End one as the OOM killer would, and wait until its end is reported."""
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.serving, SECONDS, "a killed daemon to be gone")


def answering(socket: Path) -> int | None:
    """Return the pid of the daemon that answers on a socket, if one does."""
    try:
        with Cache(None, socket_path=str(socket), timeout=SHORT) as cache:
            found: int = cache.status()["pid"]
            return found
    except CacheError:
        return None


@contextmanager
def crowd_of(places: Sequence[Place], log: Path) -> Iterator[Crowd]:
    """Have a daemon for each place wait at the gate; none is left at the end of the block."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crowd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[2],
            env=own_environment({"XDG_CONFIG_HOME": str(log.parent / "config")}),
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([place.options for place in places]) + "\n")
        process.stdin.flush()
        pids = [int(process.stdout.readline()) for _ in places]
        crowd = Crowd(process, dict(zip(pids, places, strict=True)))
        try:
            yield crowd
        finally:
            for pid in crowd.serving:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory


def directories(home: Path, layout: str, *, exist: bool) -> list[Place]:
    """Return the places of a crowd in this layout, in a directory of their own."""
    base = home / f"race-{len(list(home.iterdir()))}"
    base.mkdir(mode=0o700)
    caches = [base / f"cache-{number}" for number in range(DAEMONS)]
    sockets = [base / f"run-{number}" / "socket" for number in range(DAEMONS)]
    generator = random.Random(base.name)
    match layout:
        case "one of both":
            pairs = [(caches[0], sockets[0])] * DAEMONS
        case "one cache directory":
            pairs = [(caches[0], socket) for socket in sockets]
        case "one socket":
            pairs = [(cache, sockets[0]) for cache in caches]
        case _:
            pairs = [(generator.choice(caches[:3]), generator.choice(sockets[:3])) for _ in caches]
    places = [Place(*pair) for pair in pairs]
    if exist:
        for place in places:
            place.cache_dir.mkdir(mode=0o700, exist_ok=True)
            place.socket.parent.mkdir(mode=0o700, exist_ok=True)
    return places


def cache_at(place: Place) -> Cache:
    return Cache(PRODUCER, socket_path=str(place.socket), timeout=20.0)


def check_winners(crowd: Crowd, winners: list[int], case: FaultCase) -> None:
    """See that no two share anything, and that each takes writes that a successor would find."""
    places = [crowd.places[pid] for pid in winners]
    for shared in (Counter(p.cache_dir for p in places), Counter(p.socket for p in places)):
        case.wrong += sum(number - 1 for number in shared.values())
        assert set(shared.values()) <= {1}, places
    for pid, place in zip(winners, places, strict=True):
        with cache_at(place) as cache:
            cache.put("who", b"%d" % pid)
            assert list(place.cache_dir.glob("*/journal.*"))
            assert cache.status()["storage"]["state"] == "healthy"


@pytest.mark.parametrize("exist", [True, False], ids=["there", "made"])
@pytest.mark.parametrize(
    "layout", ["one of both", "one cache directory", "one socket", "three of each"]
)
def test_thirty_daemons_at_once(
    layout: str, exist: bool, home: Path, case: FaultCase, effort: int
) -> None:
    """Where any two would share something, one at most of them serves; the others exit with 3."""
    case.unit = "starts"
    for _ in range(effort):
        places = directories(home, layout, exist=exist)
        with crowd_of(places, home / "log") as crowd:
            crowd.go()
            winners = crowd.settle()
            case.explored += DAEMONS
            assert set(crowd.ended.values()) == {ALREADY_SERVED}
            if layout == "three of each":
                assert 1 <= len(winners) <= 3
            else:
                assert len(winners) == 1
            check_winners(crowd, winners, case)
            served = {crowd.places[pid] for pid in winners}
            if not exist:
                assert_nothing_left(places, served)


def assert_nothing_left(places: list[Place], served: set[Place]) -> None:
    """See that directories which only losers would have used are not there.

    One may be left empty where the daemon that made it lost to another that lost as well.
    """
    used = {each for place in served for each in (place.cache_dir, place.socket.parent)}
    others = {each for place in places for each in (place.cache_dir, place.socket.parent)} - used
    assert [path for each in others if each.exists() for path in each.iterdir()] == []


class FilesInARace(Files):
    """The real disk; when a directory was made, another daemon does something first."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.then: Callable[[], object] | None = then

    def make_directories(self, path: str) -> None:
        super().make_directories(path)
        then, self.then = self.then, None
        if then is not None:
            then()


def test_a_directory_that_a_loser_takes_away_again_is_made_anew(home: Path) -> None:
    """One that made the directory gives it up between the look and the lock of the next."""
    path = str(home / "cache")
    loser = DirectoryLock.take(Files(), path)
    lock = DirectoryLock.take(FilesInARace(loser.undo), path)
    assert lock.is_in_place()
    lock.release()


def test_a_directory_is_taken_away_only_while_it_is_locked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next one could have locked it meanwhile, and would serve from nowhere."""
    path = str(home / "cache")
    loser = DirectoryLock.take(Files(), path)
    remove = os.rmdir
    outcomes: list[str] = []

    def remove_after_a_rival_tried(directory: str) -> None:
        try:
            DirectoryLock.take(Files(), path).release()
            outcomes.append("locked")
        except AlreadyServedError:
            outcomes.append("refused")
        remove(directory)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", remove_after_a_rival_tried)
        loser.undo()
    assert outcomes == ["refused"]
    assert not os.path.exists(path)


def test_a_lock_on_a_directory_that_was_replaced_is_no_lock(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is opened, then another daemon has it removed, made again and locked."""
    path = str(home / "cache")
    loser = DirectoryLock.take(Files(), path)
    rivals: list[DirectoryLock] = []
    lock = fcntl.flock

    def lock_after_a_rival(descriptor: int, operation: int) -> None:
        if not rivals:
            monkeypatch.setattr(fcntl, "flock", lock)
            loser.undo()
            rivals.append(DirectoryLock.take(Files(), path))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_a_rival)
    with pytest.raises(AlreadyServedError):
        DirectoryLock.take(Files(), path)
    assert rivals[0].is_in_place()
    rivals[0].release()


def everything_in(*directories: Path) -> dict[str, tuple[int, ...]]:
    """Return what there is of files and directories, so that any change shows."""
    paths = [path for each in directories for path in [each, *each.rglob("*")]]
    found = {str(path): path.lstat() for path in paths}
    return {
        path: (each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
        for path, each in found.items()
    }


def test_thirty_that_come_too_late_touch_nothing(
    daemon: Daemon, home: Path, case: FaultCase
) -> None:
    case.unit = "starts"
    with daemon.cache() as cache:
        cache.put("a", b"1", sync="fsync")
        directory, socket = daemon.cache_dir, Path(daemon.socket_path)
        crowds = [
            [Place(directory, socket)] * DAEMONS,
            [Place(directory, home / f"run-{number}" / "socket") for number in range(DAEMONS)],
            [Place(home / f"cache-{number}", socket) for number in range(DAEMONS)],
        ]
        before = everything_in(directory)
        listening = os.stat(socket)
        for places in crowds:
            with crowd_of(places, home / "crowd.log") as crowd:
                crowd.go()
                crowd.wait_until_ended(DAEMONS)
                assert set(crowd.ended.values()) == {ALREADY_SERVED}
            case.explored += DAEMONS
        assert everything_in(directory) == before
        assert os.stat(socket) == listening
        assert {path.name for path in home.iterdir()} == {
            *("cache", "socket", "log", "crowd.log"),
        }
        assert cache.get("a") == b"1"
        assert cache.status()["pid"] == daemon.pid


def test_one_that_comes_later_takes_over(home: Path, case: FaultCase, effort: int) -> None:
    """The one that serves is killed while thirty others start: at most one of them serves then.

    Where the kill came too late for all of them, the next one does. Nothing acknowledged is lost.
    """
    case.unit = "kills"
    place = Place(home / "cache", home / "run" / "socket")
    expected: dict[str, bytes] = {}
    taken_over = 0
    for trial in range(TRIALS * effort):
        late = trial * 7 % DAEMONS
        with (
            crowd_of([place], home / "log") as first,
            crowd_of([place] * DAEMONS, home / "log") as others,
        ):
            first.go()
            (winner,) = first.settle()
            check_entries(place, expected, case)
            with cache_at(place) as cache:
                expected[f"trial {trial}"] = os.urandom(100)
                cache.put(f"trial {trial}", expected[f"trial {trial}"])
            others.go()
            others.wait_until_ended(late)
            killed = monotonic()
            first.kill(winner)
            winners = others.settle()
            case.explored += 1
            assert len(winners) <= 1
            assert set(others.ended.values()) <= {ALREADY_SERVED}
            if winners:
                taken_over += 1
                case.recovered(monotonic() - killed)
                check_entries(place, expected, case)
    assert taken_over > 0


def check_entries(place: Place, expected: dict[str, bytes], case: FaultCase) -> None:
    """See that all entries are there."""
    with cache_at(place) as cache:
        found = cache.get_many(expected)
    case.lost += len(expected.keys() - found.keys())
    case.wrong += sum(blob != expected[name] for name, blob in found.items())
    assert found == expected
