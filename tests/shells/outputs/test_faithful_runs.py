"""A tool that autoloadctl runs has what it has under a shell, whatever that is like just then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from autoloadd_client import TOOL_OUTPUT

from ...running import takes_less_than, wait_until
from ..slow_tool import UNMEASURED, shell_environment
from .conftest import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from ...running import Daemon
    from ..slow_tool import Tool
    from .conftest import Cached

Ran = subprocess.CompletedProcess[bytes]


def run(script: str, tool: Tool, daemon: Daemon, home: Path, **more: str) -> Ran:
    """Run a line of bash whose "$@" is `autoloadctl cached slow`."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "slow"],
        capture_output=True, check=False, timeout=60, cwd=home,
        # What is measured has a file open, which would get a number that was closed.
        env=shell_environment(home, tool, daemon, **UNMEASURED, **more),
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["2>&-", "2>&- <&-"])
def test_a_closed_stderr_takes_nothing_away(
    tool: Tool, daemon: Daemon, tmp_path: Path, closed: str
) -> None:
    for times in (1, 2):
        ran = run(f'"$@" {closed}', tool, daemon, tmp_path)
        assert (ran.returncode, ran.stdout, tool.runs) == (0, b"slow\n", times)
    assert run(f'"$@" -- {closed}', tool, daemon, tmp_path).stdout == b"slow --\n"


def test_a_closed_stdout_is_the_tools_own(tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    tool.write("[ -e /proc/$$/fd/1 ] && exit 9; exit 8")
    assert run('"$@" >&-', tool, daemon, tmp_path).returncode == 8
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        assert cache.count() == 0


def test_what_the_shell_has_open_the_tool_has(tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    tool.write("echo aside >&7; echo slow; set -- /proc/$$/fd/*; echo $# >&7")
    ran = run('exec 7>aside; "$@"; exec 7>plain; slow', tool, daemon, tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"slow\nslow\n", b"")
    aside = (tmp_path / "aside").read_text()
    assert aside.startswith("aside\n")
    # No descriptor of ours is among them.
    assert aside == (tmp_path / "plain").read_text()


@pytest.mark.parametrize("more", [{}, {"AUTOLOADD_CACHE": "0"}])
def test_a_script_that_names_no_interpreter(
    cached: Cached, tool: Tool, daemon: Daemon, more: dict[str, str]
) -> None:
    tool.path.write_text('echo "${BASH_VERSION:+bash} $0 $*"\n')
    where = str(tool.path).encode()
    for command in ("slow", str(tool.path)):
        ran = cached(command, "a b", **more)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b" " + where + b" a b\n", b"")
        ran = cached("--shell", "bash/5.2.15", command, **more)
        assert (ran.returncode, ran.stdout) == (0, b"bash " + where + b" \n")


def test_what_is_given_by_a_descriptor_is_not_in_the_key(
    tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write('cat "${1#--file=}"')
    for option in ("", "--file="):
        for text in ("one", "two"):
            ran = run(f'"$@" {option}<(echo {text})', tool, daemon, tmp_path)
            assert (ran.stdout, ran.stderr) == (f"{text}\n".encode(), b"")
    # Nor is what zsh has for it.
    assert run('"$@" /proc/self/fd/0 <<<three', tool, daemon, tmp_path).stdout == b"three\n"
    assert run('"$@" /proc/self/fd/0 <<<four', tool, daemon, tmp_path).stdout == b"four\n"


def test_a_directory_that_is_gone(tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    tool.write("echo slow")
    script = 'set -- "${@:1:$#-1}" --file app.py slow; cd gone; rmdir ../gone; "$@"'
    ran = run(script, tool, daemon, tmp_path)
    assert (ran.returncode, ran.stdout) == (0, b"slow\n")
    assert b"Traceback" not in ran.stderr


def test_the_same_file_seen_from_two_directories(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    for times, directory in ((1, "."), (2, "other"), (2, "other")):
        script = 'set -- "${@:1:$#-1}" --file none slow; "$@"'
        assert run(f"cd {directory}; {script}", tool, daemon, tmp_path).returncode == 0
        assert tool.runs == times


def test_without_a_cat_the_output_is_there(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    go = tool.directory / "go"
    tool.write(f"(until [ -e {go} ]; do /bin/sleep 0.01; done) >&- & echo slow")
    ran = cached(str(tool.path), PATH=str(tool.directory))
    go.touch()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"slow\n", b"")


@pytest.mark.parametrize(
    ("words", "status"), [(["no-such-tool"], 127), (["/etc"], 126), (["--bad", "slow"], 2)]
)
def test_with_nowhere_to_complain_the_status_still_tells(
    tool: Tool, idle_daemon: Daemon, tmp_path: Path, words: list[str], status: int
) -> None:
    environment = shell_environment(tmp_path, tool, idle_daemon)
    with open("/dev/full", "wb") as full:
        ran = subprocess.run([*COMMAND, *words], stderr=full, check=False, env=environment)
    assert ran.returncode == status


def test_signals_that_python_ignores_are_the_tools_again(
    cached: Cached, tool: Tool, idle_daemon: Daemon
) -> None:
    tool.write("grep SigIgn /proc/self/status")
    # In a session of its own Python forks: posix_spawn has it ignore two signals of the C library.
    with subprocess.Popen([tool.path], stdout=subprocess.PIPE, start_new_session=True) as plain:
        assert plain.stdout is not None
        assert cached("slow").stdout == plain.stdout.read()


def test_a_daemon_that_hangs_is_waited_for_as_long_as_told(
    cached: Cached, idle_daemon: Daemon
) -> None:
    def ask(wait_ms: str) -> None:
        (idle_daemon.directory / "zsh-away").unlink(missing_ok=True)
        assert cached("slow", AUTOLOADD_WAIT_MS=wait_ms, **UNMEASURED).stdout == b"slow\n"

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(idle_daemon.socket_path)
        listening.listen()
        takes_less_than(0.9, lambda: ask("50"))
        began = time.monotonic()
        ask("700")
        assert time.monotonic() - began > 0.7


def test_a_daemon_that_was_started_since_is_asked(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    away = daemon.directory / "zsh-away"
    away.write_text("".join(f"{int(time.time())} {shell}\n" for shell in (1, 2)))
    for times in (1, 2):
        cached("slow")
        assert tool.runs == times
    noted_ns = away.stat().st_mtime_ns
    os.utime(daemon.socket_path, ns=(noted_ns + 1, noted_ns + 1))
    for _ in range(2):
        cached("slow")
        assert tool.runs == 3
    # And what is noted of it now stands alone.
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        cache.clear()
    environment = {"AUTOLOADD_WAIT_MS": "20"}
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        assert cached("slow", **environment).stdout == b"slow\n"
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(away.read_text().splitlines()) == 1, 1, "one line")
