"""Log lines: plain for people, with priorities where journald reads them."""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING

import pytest

from autoloadd_daemon.log import LEVELS, set_level, set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file to be stderr; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path / "stderr"
    root.handlers[:] = handlers
    root.setLevel(level)


@contextmanager
def stderr_is(path: Path) -> Iterator[None]:
    """Write stderr to a file meanwhile. In the test itself: pytest sets stderr after fixtures."""
    with path.open("w", buffering=1) as file, redirect_stderr(file):
        yield


def stream_of(path: Path) -> dict[str, str]:
    found = os.stat(path)
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def log_all() -> None:
    logger = logging.getLogger("autoloadd_daemon.x")
    for level in (*LEVELS, "critical"):
        logger.log(getattr(logging, level.upper()), "at %s", level)


def test_people_get_the_time_and_the_level(path: Path) -> None:
    with stderr_is(path):
        set_up_logging("warning", {})
        log_all()
    lines = path.read_text().splitlines()
    assert [line.partition(" autoloadd: ")[2] for line in lines] == [
        "WARNING: at warning",
        "ERROR: at error",
        "CRITICAL: at critical",
    ]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines[0])


def test_journald_gets_priorities(path: Path) -> None:
    with stderr_is(path):
        set_up_logging("debug", stream_of(path))
        log_all()
        logging.getLogger().log(25, "between")
    assert path.read_text().splitlines() == [
        "<7>at debug",
        "<6>at info",
        "<4>at warning",
        "<3>at error",
        "<2>at critical",
        "<5>between",
    ]


def test_each_line_of_a_traceback_has_its_priority(path: Path) -> None:
    with stderr_is(path):
        set_up_logging("info", stream_of(path))
        try:
            int("zero")
        except ValueError:
            logging.getLogger().exception("failed")
    lines = path.read_text().splitlines()
    assert lines[0] == "<3>failed"
    assert lines[-1].startswith("<3>ValueError: invalid literal")
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("stream", ["", "0:0", "nonsense"])
def test_another_stream_is_not_journald(stream: str, path: Path) -> None:
    with stderr_is(path):
        set_up_logging("info", {"JOURNAL_STREAM": stream})
        logging.getLogger().info("x")
    assert path.read_text().endswith(" autoloadd: INFO: x\n")


def test_the_level_changes_while_it_runs(path: Path) -> None:
    with stderr_is(path):
        set_up_logging("error", stream_of(path))
        log_all()
        set_level("critical")
        log_all()
    assert path.read_text().splitlines() == ["<3>at error", "<2>at critical", "<2>at critical"]
