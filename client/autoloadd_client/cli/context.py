"""What a command is given: its arguments, a way to the daemon, and a place for its output."""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from autoloadd_client.asking import refuse_switched_off
from autoloadd_client.cache import Cache
from autoloadd_client.shells.fingerprint import fingerprint_file
from autoloadd_protocol.limits import NAME_BYTES
from autoloadd_protocol.producer import Producer, parse_producer, producer_from_map

from .conventions import BULK_SECONDS, UsageError, escape_bytes
from .descriptors import STDOUT, write_all
from .text import Palette

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

EXAMPLE_PRODUCER = "zsh/5.9/8"


class Context:
    """One run of autoloadctl."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.wants_json: bool = arguments.json
        self._producer: Producer | None = None

    @cached_property
    def palette(self) -> Palette:
        """Colours for stdout."""
        return Palette(sys.stdout)

    def open_daemon(self) -> Cache:
        """Return a connection for the commands that need no producer."""
        timeout, bulk_timeout = self._timeouts
        return Cache(None, socket_path=self.socket_path, timeout=timeout, bulk_timeout=bulk_timeout)

    def open_cache(
        self, producer: Producer | None = None, *, binary_mtime_ns: int | None = None
    ) -> Cache:
        """Return the cache of the given producer, or of the one that the user means.

        Raises UsageError where that is not clear or cannot be, or the --binary is not there.
        """
        timeout, bulk_timeout = self._timeouts
        self._producer = producer or self.find_producer()
        mtime_ns = self._read_mtime() if binary_mtime_ns is None else binary_mtime_ns
        try:
            return Cache(
                self._producer,
                socket_path=self.socket_path,
                binary_mtime_ns=mtime_ns,
                timeout=timeout,
                bulk_timeout=bulk_timeout,
            )
        except ValueError as exc:
            raise UsageError(f"no such producer can be: {exc}") from exc

    def say(self, line: str) -> None:
        """Write a line for people to stdout."""
        sys.stdout.write(f"{line}\n")

    def write_json(self, value: object) -> None:
        """Write a value for machines to stdout."""
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")

    def write_bytes(self, data: bytes) -> None:
        """Write raw bytes to stdout. Raises UsageError where it is closed."""
        if sys.__stdout__ is None:
            raise UsageError("stdout is closed: there is nowhere to write to")
        sys.stdout.flush()
        write_all(STDOUT, data)

    def report(self, value: object, line: str) -> None:
        """Write what was done: the value with --json, the line without."""
        if self.wants_json:
            self.write_json(value)
        else:
            self.say(line)

    def warn(self, line: str) -> None:
        """Write a line to stderr."""
        sys.stderr.write(f"{escape_bytes(line)}\n")

    def note_absence(self, cache: Cache) -> None:
        """Say on stderr that the producer of `open_cache` has no shard, where it has none."""
        if self._producer not in _list_producers(cache):
            self.warn(
                f"there are no entries of {self._producer}; "
                "`autoloadctl shards` lists whose there are"
            )

    @property
    def socket_path(self) -> str | None:
        """The --socket, absolute; None: where it usually is."""
        path: str | None = self.arguments.socket
        return None if path is None else os.path.abspath(path)

    @property
    def _timeouts(self) -> tuple[float, float]:
        """How long to wait for one answer, and for what takes as long as there are entries."""
        given: float | None = self.arguments.timeout
        usual: float = self.arguments.usual_timeout
        return (usual, BULK_SECONDS) if given is None else (given, given)

    def _read_mtime(self) -> int | None:
        binary: str | None = self.arguments.binary
        if binary is None:
            mtime: int | None = self.arguments.mtime
            return mtime
        try:
            return os.stat(binary).st_mtime_ns
        except OSError as exc:
            raise UsageError(f"--binary {binary}: {exc.strerror}") from exc

    def find_producer(self, name: str | None = None) -> Producer:
        """Return the producer that the user means; with a name, the only one of that name.

        Raises UsageError where that is not clear. One of another name is returned where the user
        asks for it by option.
        """
        given: Producer | None = self.arguments.producer
        if given is None:
            usual = _producer_from_environment()
            given = usual if usual is not None and name in (None, usual.name) else None
        return given or self._only_producer(name)

    def _only_producer(self, name: str | None) -> Producer:
        refuse_switched_off()  # also where no daemon runs that could be asked
        with self.open_daemon() as daemon:
            producers = [each for each in _list_producers(daemon) if name in (None, each.name)]
        if len(producers) == 1:
            return producers[0]
        there = "".join(f"\n  --producer {producer}" for producer in producers)
        whose = "" if name is None else f" of {name}"
        raise UsageError(
            "whose entries? Give --producer NAME/VERSION/WIDTH, such as --producer "
            f"{EXAMPLE_PRODUCER}, or set AUTOLOADD_PRODUCER; "
            + (f"the daemon has:{there}" if there else f"the daemon has none{whose} yet")
        )


def _list_producers(daemon: Cache) -> list[Producer]:
    return [producer_from_map(row["producer"]) for row in daemon.shards()]


def _producer_from_environment() -> Producer | None:
    text = os.environ.get("AUTOLOADD_PRODUCER")
    if not text:
        return None
    try:
        return parse_producer(text)
    except ValueError as exc:
        raise UsageError(f"AUTOLOADD_PRODUCER: {exc}") from exc


def open_stdin() -> BinaryIO:
    """Return stdin, for bytes. Raises UsageError where it is closed."""
    if sys.stdin is None:
        raise UsageError("stdin is closed: there is nothing to read")
    return sys.stdin.buffer


def check_name(name: str) -> str:
    """Return a name that the cache can hold. Raises UsageError that says why it cannot."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise UsageError(f"the name {os.fsencode(name)!r} is not valid UTF-8") from exc
    if not 0 < size <= NAME_BYTES:
        raise UsageError(f"a name has 1 to {NAME_BYTES:,} bytes, this one {size:,}: {name[:40]!r}")
    return name


def check_names(names: Iterable[str]) -> list[str]:
    """Return names that the cache can hold. Raises UsageError for the first that it cannot."""
    return [check_name(name) for name in names]


def read_fingerprint(path: str | None) -> bytes | None:
    """Return the fingerprint of the --fingerprint-file. Raises UsageError where it is not there."""
    if path is None:
        return None
    try:
        return fingerprint_file(path)
    except OSError as exc:
        raise UsageError(f"--fingerprint-file {path}: {exc.strerror}") from exc
