"""`autoloadctl warm zsh`: real functions, compiled by the real zsh, into the real daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client.shells.zsh import find_zsh

from .conftest import ctl_environment

if TYPE_CHECKING:
    from .conftest import Ctl, Daemon

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A directory with three functions."""
    directory = tmp_path / "functions"
    directory.mkdir()
    for name in ("one", "two", "three"):
        (directory / name).write_text(f"print -r -- {name} $1\n")
    return directory


@pytest.fixture
def producer() -> tuple[str, str]:
    return "--producer", str(find_zsh().producer)


def warm(ctl: Ctl, *arguments: str | Path) -> dict[str, Any]:
    done = ctl("warm", "zsh", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_every_function_is_stored_as_bytecode_that_zsh_runs(
    ctl: Ctl, functions: Path, tmp_path: Path, producer: tuple[str, str]
) -> None:
    report = warm(ctl, functions)
    assert (report["functions"], report["compiled"], report["fresh"]) == (3, 3, 0)
    assert (report["directories"], report["left_out"]) == (1, [])
    assert report["producer"] == producer[1]
    published = tmp_path / "published"
    published.mkdir()
    for name in ("one", "two", "three"):
        (published / f"{name}.zwc").write_bytes(ctl("get", name, *producer).stdout)
    script = "fpath=($1); autoload -Uz one two three; one 1; two 2; three 3"
    ran = subprocess.run(
        ["zsh", "-fc", script, "zsh", str(published)], capture_output=True, check=True
    )
    assert (ran.stdout, ran.stderr) == (b"one 1\ntwo 2\nthree 3\n", b"")


def test_an_entry_has_its_files_fingerprint_and_zshs_time(
    ctl: Ctl, functions: Path, producer: tuple[str, str]
) -> None:
    warm(ctl, functions)
    option = ("--fingerprint-file", functions / "one", "--binary", shutil.which("zsh") or "")
    assert ctl("get", "one", *producer, *option).returncode == 0
    entry = json.loads(ctl("get", "one", *producer, "--json").stdout)[0]
    assert entry["binary_mtime_ns"] == find_zsh().mtime_ns


def test_a_second_run_stores_nothing(ctl: Ctl, functions: Path, producer: tuple[str, str]) -> None:
    warm(ctl, functions)
    generation = json.loads(ctl("stats", *producer, "--json").stdout)["generation"]
    done = ctl("warm", "zsh", functions)
    version = re.escape(find_zsh().version)
    assert re.fullmatch(
        rf"zsh {version}: 3 functions in 1 directory; all 3 fresh, nothing to store\n",
        done.stdout.decode(),
    )
    assert json.loads(ctl("stats", *producer, "--json").stdout)["generation"] == generation


def test_only_what_changed_is_compiled_again(
    ctl: Ctl, functions: Path, producer: tuple[str, str]
) -> None:
    warm(ctl, functions)
    before = ctl("get", "one", *producer).stdout
    (functions / "one").write_text("print another\n")
    (functions / "four").write_text("print four\n")
    report = warm(ctl, functions)
    assert (report["compiled"], report["fresh"]) == (2, 2)
    assert ctl("get", "one", *producer).stdout != before
    summary = ctl("warm", "zsh", functions).stdout
    assert b"4 functions in 1 directory; all 4 fresh, nothing to store\n" in summary


def test_a_newer_zsh_makes_everything_stale(ctl: Ctl, functions: Path, tmp_path: Path) -> None:
    binary = tmp_path / "zsh"
    shutil.copy(find_zsh().real, binary)
    os.utime(binary, ns=(0, 1_000_000_000))
    assert warm(ctl, functions, "--binary", binary)["compiled"] == 3
    assert warm(ctl, functions, "--binary", binary)["fresh"] == 3
    os.utime(binary, ns=(0, 1_000_000_001))
    assert warm(ctl, functions, "--binary", binary)["compiled"] == 3


def test_the_first_directory_with_a_name_wins(
    ctl: Ctl, functions: Path, tmp_path: Path, producer: tuple[str, str]
) -> None:
    first = tmp_path / "first"
    first.mkdir()
    (first / "one").write_text("print the first\n")
    report = warm(ctl, first, functions)
    assert (report["functions"], report["directories"]) == (3, 2)
    option = ("--fingerprint-file", first / "one")
    assert ctl("get", "one", *producer, *option).returncode == 0


def test_directories_that_are_not_there_are_passed_over_and_told(ctl: Ctl, functions: Path) -> None:
    done = ctl("warm", "zsh", "/no/directory", functions)
    assert done.returncode == 0
    assert b"3 functions in 1 directory; 3 compiled" in done.stdout
    assert done.stderr == b"passed over /no/directory: No such file or directory\n"


def test_what_does_not_compile_is_left_out_each_time_and_told(
    ctl: Ctl, functions: Path, producer: tuple[str, str]
) -> None:
    (functions / "bad").write_text("if true; then\n")
    first = ctl("warm", "zsh", functions)
    summary, told = first.stdout.decode().splitlines()
    assert first.returncode == 0
    assert "4 functions in 1 directory; 3 compiled, 1 left out, " in summary
    assert told == f"left out {functions}/bad: zsh:2: parse error near `\\n'"
    second = ctl("warm", "zsh", functions)
    assert second.returncode == 0
    summary, told_again = second.stdout.decode().splitlines()
    assert "; 3 fresh, 1 left out, nothing to store" in summary
    assert told_again == told
    assert ctl("get", "bad", *producer).returncode == 1


def test_where_nothing_at_all_compiles_the_exit_code_is_a_miss(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "bad").write_text("(((((\n")
    done = ctl("warm", "zsh", tmp_path / "functions")
    assert done.returncode == 1
    assert b"1 function in 1 directory; 1 left out, nothing to store\n" in done.stdout


def test_an_empty_directory_is_no_failure(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    done = ctl("warm", "zsh", tmp_path / "functions")
    assert done.returncode == 0
    assert done.stdout.endswith(b": 0 functions in 1 directory; nothing to store\n")


def test_a_name_that_is_not_utf8_is_left_out_and_shown_readably(ctl: Ctl, functions: Path) -> None:
    Path(os.fsdecode(os.fsencode(functions) + b"/\xff\x1b")).write_text(":")
    done = ctl("warm", "zsh", functions)
    told = done.stdout.decode().splitlines()[1]
    assert told == f"left out {functions}/\\xff\\x1b: its name is not valid UTF-8"
    assert len(warm(ctl, functions)["left_out"]) == 1


def test_without_directories_it_is_zshs_own_fpath(ctl: Ctl, producer: tuple[str, str]) -> None:
    report = warm(ctl)
    assert report["functions"] == report["compiled"] + len(report["left_out"]) > 100
    assert warm(ctl)["fresh"] == report["compiled"]
    count = json.loads(ctl("count", *producer, "--json").stdout)
    assert count == {"entries": report["compiled"]}


def test_fpath_of_the_environment_is_respected(ctl: Ctl, functions: Path) -> None:
    done = ctl("warm", "zsh", "--json", environment={"FPATH": f"{functions}:relative:/none"})
    report = json.loads(done.stdout)
    assert (report["functions"], report["directories"]) == (3, 1)


def test_without_zsh_it_says_how_to_get_it(ctl: Ctl, tmp_path: Path) -> None:
    done = ctl("warm", "zsh", environment={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"autoloadctl: zsh is not in PATH; install it with `apt install zsh` or "
        b"`brew install zsh`\n"
    )


def test_two_at_once_both_succeed(
    ctl: Ctl, functions: Path, run_directory: Path, producer: tuple[str, str]
) -> None:
    command = [sys.executable, "-m", "autoloadd_client.cli", "warm", "zsh", str(functions)]
    environment = ctl_environment(run_directory, {})
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert ctl("count", *producer).stdout == b"3\n"


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)],
    ids=["TERM", "INT", "HUP"],
)
def test_stopped_in_the_middle_it_stores_nothing_and_leaves_nothing(
    daemon: Daemon,
    ctl: Ctl,
    functions: Path,
    tmp_path: Path,
    run_directory: Path,
    number: signal.Signals,
    status: int,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # A zsh that describes itself as one, and then takes its time.
    slow = tmp_path / "slow-zsh"
    at_work = tmp_path / "at-work"
    slow.write_text(f'#!/bin/sh\n[ $# -gt 2 ] && : > {at_work} && exec sleep 60\nexec zsh "$@"\n')
    slow.chmod(0o700)
    process = subprocess.Popen(
        [sys.executable, "-m", "autoloadd_client.cli", "warm", "zsh", functions, "--binary", slow],
        env=ctl_environment(run_directory, {"TMPDIR": str(temporary)}),
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while not at_work.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (status, b"")
    assert list(temporary.iterdir()) == []
    assert ctl("shards").stdout == b"no shards: nothing has been stored yet\n"
