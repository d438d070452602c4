"""The daemon's life: stops and kills under load, what happens to its files while it runs."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client.errors import (
    CacheError,
    ConnectionLostError,
    ShuttingDownError,
    UnreachableError,
)

from ..running import own_environment, takes_less_than, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autoloadd_client import Cache

    from ..running import Daemon

SECONDS = 20.0
MIB = 1024 * 1024
OTHER = "fish/3.7/8"


def storage(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["storage"]
    return found


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_a_stop_flushes_everything(
    idle_daemon: Daemon, serving: str, number: signal.Signals
) -> None:
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    entries = {f"n{number}": os.urandom(2000) for number in range(500)}
    with idle_daemon.cache() as cache, idle_daemon.cache(OTHER) as other:
        cache.put_many(entries, sync="memory")
        cache.delete("n7")
        cache.put("last", b"1", wait=False)
        assert cache.count() == 500
        other.replace({"_git": b"other"})
        assert idle_daemon.stop(number) == 0
        idle_daemon.assert_stopped_in_time()
        assert {name.split("/")[1] for name in idle_daemon.files} == {"image"}
        assert not os.path.exists(idle_daemon.socket_path)
        idle_daemon.start()
        del entries["n7"]
        assert cache.get_many([*entries, "n7", "last"]) == {**entries, "last": b"1"}
        assert other.get("_git") == b"other"
    assert "WARNING" not in idle_daemon.log


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_shutdown_is_answered_when_everything_is_flushed(idle_daemon: Daemon, serving: str) -> None:
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    with idle_daemon.cache() as cache, idle_daemon.connect() as another:
        cache.put("a", b"1")
        cache.shutdown()
        (file,) = idle_daemon.files
        assert file.endswith("/image")
        assert another.is_closed()
    assert idle_daemon.wait() == 0
    with idle_daemon.start().cache() as cache:
        assert cache.get("a") == b"1"


def test_a_second_signal_does_not_end_it_sooner(daemon: Daemon, cache: Cache) -> None:
    cache.merge({f"n{number}": os.urandom(100_000) for number in range(200)})
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert {name.split("/")[1] for name in daemon.files} == {"image"}


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_a_stop_under_load_keeps_what_it_acknowledged(idle_daemon: Daemon, serving: str) -> None:
    """Each write is acknowledged and kept, or refused, or lost with the connection."""
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    acknowledged: dict[str, bytes] = {}
    ended: list[CacheError] = []

    def write(writer: int) -> None:
        with idle_daemon.cache() as cache:
            try:
                for number in range(100_000):
                    sync = "fsync" if number % 10 == 0 else "write"
                    cache.put(f"{writer}-{number}", b"%d" % number * 100, sync=sync)
                    acknowledged[f"{writer}-{number}"] = b"%d" % number * 100
            except (ConnectionLostError, ShuttingDownError, UnreachableError) as exc:
                ended.append(exc)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acknowledged) > 500, SECONDS, "some writes")
    assert idle_daemon.stop() == 0
    idle_daemon.assert_stopped_in_time()
    for writer in writers:
        writer.join(SECONDS)
    assert len(ended) == 4
    with idle_daemon.start().cache() as cache:
        assert cache.get_many(acknowledged) == acknowledged


# Kills


def temporary_files(daemon: Daemon) -> set[str]:
    """Return what is there besides images, journals, and bulks that journals name."""
    lasting = re.compile(r"image|(journal|bulk)\.\d+")
    names = {name.rpartition("/")[2] for name in daemon.files}
    return {name for name in names if not lasting.fullmatch(name)}


WRITE = """
import sys
from autoloadd_client import Cache
from autoloadd_client.errors import CacheError

def blob(key, version):
    return f"{key}|{version}|".encode() * (1 + (key * 37 + version * 101) % 1000)

writer, socket_path, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Cache("zsh/5.9/8", socket_path=socket_path, timeout=20) as cache:
    try:
        for version in range(first, first + 1_000_000):
            key = version % 23
            if version % 7 == 0:
                entries = {f"{writer}-{key}-{part}": blob(key, version) for part in "xy"}
                cache.put_many(entries)
            elif version % 50 == 49:
                entries = {f"{writer}-{key}-{part}": blob(key, version) for part in "xy"}
                cache.merge(list(entries.items()) + [(f"{writer}-big", bytes(2 << 20))])
            else:
                cache.put(f"{writer}-{key}-x", blob(key, version))
                print(key, version, "x", flush=True)
                continue
            print(key, version, "xy", flush=True)
    except CacheError:
        pass
"""


def expected_blob(key: int, version: int) -> bytes:
    return f"{key}|{version}|".encode() * (1 + (key * 37 + version * 101) % 1000)


class Load:
    """Processes that write, and what was acknowledged to each."""

    def __init__(self, daemon: Daemon, writers: int) -> None:
        self._daemon = daemon
        self._writers = writers
        self._first = 1
        self.acknowledged: dict[str, int] = {}

    @contextmanager
    def running(self) -> Iterator[list[Path]]:
        """Write until the daemon is gone; then take in what was acknowledged."""
        outputs = [self._daemon.directory / f"writer-{number}" for number in range(self._writers)]
        processes = [self._start(number, output) for number, output in enumerate(outputs)]
        try:
            yield outputs
            for process in processes:
                assert process.wait(SECONDS) == 0
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for number, output in enumerate(outputs):
            self._take_in(number, output.read_text())

    def _start(self, number: int, output: Path) -> subprocess.Popen[bytes]:
        arguments = [str(number), self._daemon.socket_path, str(self._first)]
        with output.open("wb") as file:
            command = [sys.executable, "-c", WRITE, *arguments]
            return subprocess.Popen(command, stdout=file, env=own_environment({}))

    def _take_in(self, number: int, text: str) -> None:
        for line in text.splitlines():
            key, version, parts = line.split()
            self.acknowledged |= {f"{number}-{key}-{part}": int(version) for part in parts}
            self._first = max(self._first, int(version) + 1)

    def check(self, cache: Cache) -> None:
        """Each name has the last acknowledged version, or a later one that nobody was told of."""
        found = cache.get_many(self.acknowledged)
        assert found.keys() == self.acknowledged.keys()
        for name, blob in found.items():
            key = int(name.split("-")[1])
            version = int(blob.split(b"|")[1])
            assert blob == expected_blob(key, version)
            assert version >= self.acknowledged[name], name
            self.acknowledged[name] = version
        # What one put_many stored has one version, unless a later put changed the first.
        for name in [each for each in found if each.endswith("-y")]:
            assert self.acknowledged[name[:-1] + "x"] >= self.acknowledged[name]


@pytest.mark.parametrize("serving", ["epoll", "tasks"])
def test_kill_9_at_random_points_under_load(idle_daemon: Daemon, serving: str) -> None:
    idle_daemon.environment["AUTOLOADD_SERVING"] = serving
    idle_daemon.start()
    load = Load(idle_daemon, 3)
    randomness = random.Random(serving)
    for _ in range(4):
        with load.running() as outputs:
            wait_until(
                lambda: all(output.stat().st_size > 100 for output in outputs),
                SECONDS,
                "every writer to write",
            )
            time.sleep(randomness.uniform(0, 0.5))
            idle_daemon.kill()
        idle_daemon.start()
        # An image that is being built now has a temporary file too.
        wait_until(lambda: not temporary_files(idle_daemon), SECONDS, "no temporary files")
        with idle_daemon.cache() as cache:
            load.check(cache)
            assert storage(idle_daemon)["set_aside"] == ()
    assert idle_daemon.stop() == 0
    assert {name.split("/")[1] for name in idle_daemon.files} == {"image"}


def test_a_kill_of_a_stopped_process_loses_nothing(daemon: Daemon, cache: Cache) -> None:
    """A daemon that hangs is as dead as one that was killed, for what it acknowledged."""
    cache.put("a", b"1")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    assert cache.get("a") == b"1"


# Its configuration


def test_sighup_reads_the_configuration_again(idle_daemon: Daemon, home: Path) -> None:
    file = home / "file.toml"
    file.write_text('max_bytes = "64 MiB"\n')
    idle_daemon.start("--config", str(file))
    assert idle_daemon.process is not None
    assert idle_daemon.status()["max_bytes"] == 64 * MIB
    file.write_text('max_bytes = "32 MiB"\nlog_level = "warning"\ncache_dir = "/elsewhere"\n')
    idle_daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: idle_daemon.status()["max_bytes"] == 32 * MIB, SECONDS, "the new value")
    # The command line wins over the file: the directory did not change, and nothing is said.
    assert "only the next start" not in idle_daemon.log
    assert "read again: max_bytes: 67108864 -> 33554432, log_level: info" in idle_daemon.log
    file.write_text("max_bytes = 1\n")
    idle_daemon.process.send_signal(signal.SIGHUP)
    kept = f"the configuration is kept as it was: {file}:1: max_bytes: 1: expected at least"
    wait_until(lambda: kept in idle_daemon.log, SECONDS, "the refusal to be logged")
    assert idle_daemon.status()["max_bytes"] == 32 * MIB
    file.unlink()
    idle_daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "no such configuration file" in idle_daemon.log, SECONDS, "the log")
    assert idle_daemon.status()["max_bytes"] == 32 * MIB


# Its files


def test_the_socket_file_comes_back_when_it_is_removed(daemon: Daemon, cache: Cache) -> None:
    cache.put("a", b"1")

    def lose_it() -> None:
        os.unlink(daemon.socket_path)
        # Those who are connected notice nothing.
        assert cache.get("a") == b"1"
        wait_until(lambda: os.path.exists(daemon.socket_path), SECONDS, "the socket file")

    for _ in range(2):
        takes_less_than(1.0, lose_it)
        with daemon.cache() as another:
            assert another.get("a") == b"1"
    assert os.stat(daemon.socket_path).st_mode & 0o777 == 0o600
    assert daemon.stop() == 0
    assert not os.path.exists(daemon.socket_path)


def test_a_socket_file_of_somebody_else_stays(daemon: Daemon) -> None:
    """Unlinked at the end only if it is ours."""
    path = daemon.socket_path
    os.rename(path, path + ".moved")
    with open(path, "w") as file:
        file.write("precious")
    wait_until(lambda: "is no socket: move it away" in daemon.log, SECONDS, "the log")
    assert daemon.stop() == 0
    with open(path) as file:
        assert file.read() == "precious"


def test_a_changed_cache_directory_waits_for_the_next_start(idle_daemon: Daemon) -> None:
    config = idle_daemon.directory / "config.toml"
    config.write_text('log_level = "info"\n')
    first = str(idle_daemon.cache_dir)
    command = [sys.executable, "-m", "autoloadd_daemon", "--config", str(config)]
    where = ["--socket", idle_daemon.socket_path]
    environment = idle_daemon.environment_of_process()
    config.write_text(f'cache_dir = "{first}"\n')
    with idle_daemon.log_path.open("ab") as log:
        process = subprocess.Popen([*command, *where], stderr=log, env=environment)
    idle_daemon.process = process
    wait_until(lambda: "serves" in idle_daemon.log, SECONDS, "the daemon")
    config.write_text(f'cache_dir = "{first}2"\n')
    process.send_signal(signal.SIGHUP)
    said = f"only the next start makes it so: cache_dir: {first} -> {first}2"
    wait_until(lambda: said in idle_daemon.log, SECONDS, "the warning")
    assert idle_daemon.status()["cache_dir"] == first
