"""The main job, end to end: warm the cache, let 8 shells read and write at once, check every byte.

    python benchmarks/main_job.py [--serve] [--seconds N]

Exits with 1 at the first wrong byte and says what was wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, NoReturn

from autoloadd_client import Cache
from autoloadd_protocol.limits import SOCKET_PATH_BYTES
from locked_file import NAME as LOCKED_FILE
from locked_file import LockedFileCache
from own_daemon import DaemonFailedError, running_daemon
from report import (
    HEADING,
    measure_gets,
    measure_puts,
    say_bytes,
    say_line,
    say_time,
    show_progress,
)
from shells import READS_PER_WRITE as MIXED
from shells import (
    SHELLS,
    Load,
    OpenDaemon,
    OpenLockedFile,
    Outcome,
    ShellDiedError,
    fingerprint_of,
    run_shells,
)
from values import WrongAnswerError, make_value
from warmed import (
    HOW_TO_GET_ZSH,
    WarmFailedError,
    check_warmed,
    compare,
    has_zsh,
    warm_own,
    warm_zsh,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from report import Rate
    from shells import Store

Written = dict[str, tuple[int, int]]


class Job:
    """The shard that is worked on: what must be in it, and the calls that were checked."""

    def __init__(self, directory: str, seconds: float) -> None:
        self.directory = directory
        self.seconds = seconds
        self.producer = ""
        self.warmed: dict[str, bytes] = {}
        self.written: Written = {}
        self.checked = 0

    def warm(self, socket_path: str) -> None:
        """Fill the cache, check it against its source, and say what it holds."""
        started = time.monotonic()
        if has_zsh():
            show_progress("autoloadctl warm zsh")
            self.producer, said = warm_zsh(socket_path)
            show_progress("")
            print(said)
        else:
            print(f"{HOW_TO_GET_ZSH}, so our own functions are used, as source")
            self.producer = warm_own(socket_path)
        took = time.monotonic() - started
        show_progress("comparing what is cached with its source")
        self.warmed = check_warmed(socket_path, self.producer)
        show_progress("")
        size = sum(map(len, self.warmed.values()))
        print(
            f"warmed {len(self.warmed):,} entries of {self.producer} in {took:.1f} s: "
            f"{say_bytes(size)}"
        )

    def run_phase(
        self, label: str, open_store: Callable[[], Store], *, reads: int, written: Written
    ) -> tuple[Rate | None, Rate | None]:
        """Run 8 shells; note what they wrote in `written`; return the rates of gets and puts."""
        show_progress(f"{SHELLS} shells for {self.seconds:g} s: {label}")
        outcomes = run_shells(
            Load(
                open_store=open_store,
                seconds=self.seconds,
                reads_per_write=reads,
                sizes=[len(blob) for blob in self.warmed.values()],
                warmed={name: fingerprint_of(blob) for name, blob in self.warmed.items()},
                written=dict(written),
            )
        )
        show_progress("")
        return self._add_up(outcomes, written)

    def _add_up(self, outcomes: list[Outcome], written: Written) -> tuple[Rate | None, Rate | None]:
        for outcome in outcomes:
            written.update(outcome.written)
            self.checked += len(outcome.gets)
        return measure_gets(outcomes, self.seconds), measure_puts(outcomes, self.seconds)

    def work(self, socket_path: str) -> None:
        """Run all phases and print their lines."""
        print(f"{SHELLS} shells at once, {MIXED} gets for each put, every answer checked:")
        print(HEADING)
        for label, sync in ("at write", "write"), ("at fsync", "fsync"):
            store = OpenDaemon(socket_path, self.producer, sync)
            print(say_line(label, *self.run_phase(label, store, reads=MIXED, written=self.written)))
        self.compare_puts(socket_path)
        print(f"answers checked byte for byte: {self.checked:,}, wrong: 0")

    def compare_puts(self, socket_path: str) -> None:
        """Let 8 shells only put, here and into the locked file, on the same entries."""
        store = OpenDaemon(socket_path, self.producer, "fsync")
        _, ours = self.run_phase("puts only, at fsync", store, reads=0, written=self.written)
        path, written = os.path.join(self.directory, "locked"), Written()
        cache = LockedFileCache(path)
        cache.replace_all(self.expected())
        _, theirs = self.run_phase(LOCKED_FILE, OpenLockedFile(path), reads=0, written=written)
        for name, (counter, size) in written.items():
            if cache.get(name) != make_value(name, counter, size):
                raise WrongAnswerError(f"{LOCKED_FILE}: {name} is not what was stored last")
        cache.close()
        assert ours is not None
        assert theirs is not None
        print(say_line("puts only, at fsync", None, ours))
        print(
            f"{LOCKED_FILE}\n{'':<24}{'':<28}  {theirs}\n"
            f"autoloadd does {ours.per_second / theirs.per_second:,.0f} times its puts, with "
            f"{SHELLS} processes on {len(self.expected()):,} entries"
        )

    def expected(self) -> dict[str, bytes]:
        """Return all entries that must be in the shard now."""
        return self.warmed | {name: make_value(name, *how) for name, how in self.written.items()}

    def check_all(self, socket_path: str) -> None:
        """Compare all entries with what must be there. Raises WrongAnswerError."""
        with Cache(self.producer, socket_path=socket_path, timeout=10.0) as cache:
            names = [name for name, _fresh in cache.names()]
            stored = cache.get_many(names)
            count = cache.count()
        compare(stored, self.expected())
        if count != len(stored):
            raise WrongAnswerError(f"count says {count:,}, and {len(stored):,} entries are there")
        size = sum(map(len, stored.values()))
        print(f"after SIGTERM and a new start: {count:,} entries, {say_bytes(size)}, all as stored")


def main() -> int:
    """Run the job; return the exit code."""
    options = parse_options()
    isolate()
    print(f"autoloadd {version('autoloadd')} on Python {python_version()}")
    try:
        with private_directory() as directory:
            run(directory, options)
    except WrongAnswerError as error:
        return fail(f"WRONG ANSWER: {error}")
    except (DaemonFailedError, WarmFailedError, ShellDiedError) as error:
        return fail(f"failed: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


def parse_options() -> argparse.Namespace:
    """Return the options: seconds for each phase, and whether to go on serving."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase (default: 3)")
    parser.add_argument("--serve", action="store_true", help="keep serving until Ctrl-C")
    options = parser.parse_args()
    if not 0 < options.seconds <= 3600:
        parser.error("--seconds: expected more than 0 and at most 3600")
    return options


def isolate() -> None:
    """Forget what the user set for another daemon; let SIGTERM clean up as Ctrl-C does."""
    for variable in list(os.environ):
        if variable.startswith("AUTOLOADD_") or variable == "ZSHRS_CACHE":
            del os.environ[variable]
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def fail(message: str) -> int:
    """Say what was wrong; return the exit code for it."""
    show_progress("")
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return 1


@contextmanager
def private_directory() -> Iterator[str]:
    """Make a directory that is ours alone, on a disk if possible; remove it at the end."""
    # /tmp is memory on many systems: an fsync there would cost nothing, and say nothing.
    places = (os.environ.get("TMPDIR"), "/var/tmp", "/tmp")  # noqa: S108  mkdtemp makes it private
    for base in filter(None, places):
        fits = len(os.fsencode(base)) + len("/autoloadd-12345678/socket") <= SOCKET_PATH_BYTES
        if fits and os.access(base, os.W_OK | os.X_OK):
            break
    else:
        raise DaemonFailedError("no directory for temporary files: set TMPDIR to a short path")
    with tempfile.TemporaryDirectory(prefix="autoloadd-", dir=base) as directory:
        yield directory


def run(directory: str, options: argparse.Namespace) -> None:
    """Do the whole job in `directory`."""
    job = Job(directory, options.seconds)
    with running_daemon(directory) as daemon:
        job.warm(daemon.socket_path)
        job.work(daemon.socket_path)
    started = time.monotonic_ns()
    with running_daemon(directory) as daemon:
        ready = say_time(time.monotonic_ns() - started)
        job.check_all(daemon.socket_path)
        print(f"ready again after {ready}")
        if options.serve:
            serve(daemon.socket_path, job)
    print("stopped, exit code 0")


def serve(socket_path: str, job: Job) -> None:
    """Say how to use the daemon, and wait for Ctrl-C."""
    name = next(iter(job.warmed))
    bin_directory = os.path.dirname(sys.executable)
    print(
        f"serving on {socket_path} until Ctrl-C. In another terminal:\n"
        f"  export AUTOLOADD_SOCKET={socket_path} PATH={bin_directory}:$PATH\n"
        f"  autoloadctl status\n"
        f"  autoloadctl --producer {job.producer} get {name} | wc -c",
        flush=True,
    )
    with suppress(KeyboardInterrupt):
        signal.pause()
    print()


if __name__ == "__main__":
    sys.exit(main())
