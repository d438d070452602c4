"""Numbers, times and tables as autoloadctl shows them to people, and what only a terminal gets."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.cli.text import (
    Palette,
    Progress,
    format_ago,
    format_count,
    format_duration,
    format_mebibytes,
    format_size,
    format_table,
    make_printable,
)

from .conftest import ctl_environment

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Ctl, Daemon

PRODUCER = ("--producer", "zsh/5.9/8")
SECOND = 10**9


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (5_310_000, "5.3 MB"),
        (4 * 10**12, "4.0 TB"),
        (5 * 10**16, "50000 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(512 << 20, "512 MiB"), (1 << 31, "2,048 MiB"), (3 << 19, "1.5 MiB")],
)
def test_sizes_as_they_are_configured(size: int, text: str) -> None:
    assert format_mebibytes(size) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 µs"),
        (350_000, "350 µs"),
        (1_250_000, "1.2 ms"),
        (SECOND, "1.0 s"),
        (12 * SECOND, "12 s"),
        (60 * SECOND, "1 min"),
        (61 * SECOND, "1 min 1 s"),
        (7_500 * SECOND, "2 h 5 min"),
        (86_400 * SECOND, "1 d"),
        (100_000 * SECOND, "1 d 3 h"),
    ],
)
def test_durations(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (-SECOND, "just now"),
        (SECOND - 1, "just now"),
        (SECOND, "1 s ago"),
        (200 * SECOND, "3 min ago"),
        (7_500 * SECOND, "2 h ago"),
        (200_000 * SECOND, "2 d ago"),
    ],
)
def test_ages(ns: int, text: str) -> None:
    assert format_ago(ns) == text


def test_counts_with_their_noun() -> None:
    assert format_count(1, "entry", "entries") == "1 entry"
    assert format_count(1_242, "entry", "entries") == "1,242 entries"
    assert format_count(0, "name") == "0 names"


def test_tables_are_aligned_and_end_no_line_with_blanks() -> None:
    rows = [("NAME", "SIZE", "USED"), ("a", "1.0 kB", "just now"), ("bcdefg", "7 B", "")]
    assert format_table(rows, right=frozenset((1,))) == (
        "NAME      SIZE  USED\na       1.0 kB  just now\nbcdefg     7 B\n"
    )
    assert format_table([]) == ""


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert make_printable("a\x1b[31m\nä\udcff") == r"a\x1b[31m\nä\xff"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Palette(Terminal()).bad("stale") == "\x1b[31mstale\x1b[0m"
    assert Palette(io.StringIO()).bad("stale") == "stale"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Palette(Terminal()).good("fresh") == "fresh"


def test_progress_is_drawn_on_a_terminal_and_taken_away() -> None:
    stream = Terminal()
    with Progress(stream, "storing", 1_000) as progress:
        progress.show(500)
        progress.show(501)  # too soon after the last
        progress.show(1_000)
    half, full = "█" * 15 + "░" * 15, "█" * 30
    assert stream.getvalue() == (
        f"\rstoring {half} 500 of 1,000\x1b[K\rstoring {full} 1,000 of 1,000\x1b[K\r\x1b[K"
    )


@pytest.mark.parametrize(("stream", "total"), [(io.StringIO(), 5), (Terminal(), 0)])
def test_progress_is_silent_anywhere_else(stream: io.StringIO, total: int) -> None:
    with Progress(stream, "storing", total) as progress:
        progress.show(total)
    assert stream.getvalue() == ""


def run_on_terminal(run_directory: Path, *arguments: str, status: int = 0) -> str:
    """Return what autoloadctl writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "autoloadd_client.cli", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env=ctl_environment(run_directory, {}),
    )  # fmt: skip
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while part := read_terminal(terminal):
            written += part
    assert process.wait(60) == status
    return written.decode()


def read_terminal(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(65536) or b""
    except OSError:
        return b""  # EIO is how Linux says that the other side is closed


def test_a_terminal_gets_colour_and_names_that_it_does_not_obey(
    ctl: Ctl, daemon: Daemon, run_directory: Path
) -> None:
    ctl("put", "\x1b[2J", *PRODUCER, "--mtime", "1", given=b"")
    listed = run_on_terminal(run_directory, "ls", *PRODUCER, "--mtime", "2")
    assert listed == "\x1b[31mstale\x1b[0m  \\x1b[2J\r\n"


def test_names_that_are_missing_are_not_obeyed_either(daemon: Daemon, run_directory: Path) -> None:
    listed = run_on_terminal(run_directory, "missing", "\x1b[2J", *PRODUCER)
    assert listed == "\\x1b[2J\r\n"


def test_a_terminal_gets_a_progress_bar_while_it_warms(
    daemon: Daemon, run_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "hello").write_text("print hello\n")
    shown = run_on_terminal(run_directory, "warm", "zsh", str(tmp_path / "functions"))
    compiling, storing = "\rcompiling " + "█" * 30, "\rstoring " + "█" * 30
    assert shown.startswith(f"{compiling} 1 of 1\x1b[K\r\x1b[K{storing} 1 of 1\x1b[K\r\x1b[Kzsh ")
    assert "1 function in 1 directory; 1 compiled, " in shown
