"""fish with autoloadd: the same environment and the same completions, and how often tools run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import autoloadd_client
from pseudo_terminal import PseudoTerminal
from shell_tools import text_of, tool_home

from ...running import private_directory, wait_until
from ..slow_tool import UNMEASURED, Tool, shell_environment

if TYPE_CHECKING:
    from ...running import Daemon

SHELLS = Path(autoloadd_client.__file__).parent / "shells"
SOURCE = f"source {SHELLS}/autoloadd.fish"
TOOLS = "aws black flask pip pip3 uvicorn"

INITS = """
env _FLASK_COMPLETE=fish_source flask
env _BLACK_COMPLETE=fish_source black
pip completion --fish
"""

AWS = r"""
complete -c aws -f -a '(begin; set -lx COMP_LINE (commandline); aws_completer | sed "s/ \$//"; end)'
"""
"""What its manual wants in config.fish."""

LINES = ["black --fas", "black ", "flask r", "flask --", "pip in", "pip install --no-"]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    made = Tool(tmp_path / "bin")
    made.directory.mkdir()
    made.write("echo set FOO slow")
    return made


@pytest.fixture(scope="module")
def completions() -> str:
    """What the lines of the tools' manuals source, as a file that a user keeps."""
    return text_of(INITS, shell="fish")


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it."""
    return shared_daemon


@pytest.fixture
def environment(tmp_path: Path, tool: Tool, asked_daemon: Daemon) -> dict[str, str]:
    """A home, in which there is an application that flask completes."""
    (tmp_path / "work" / "__pycache__").mkdir(parents=True)
    (tmp_path / "work" / "app.py").write_text("from flask import Flask\napp = Flask('a')\n")
    found = shell_environment(
        tmp_path,
        tool,
        asked_daemon,
        XDG_DATA_HOME=str(tmp_path / "data"),
        fish_history="",
        **UNMEASURED,
    )
    return {**found, "PATH": f"{tool_home()}/bin:{found['PATH']}"}


def run(script: str, environment: dict[str, str], *options: str) -> tuple[int, str, str]:
    path = Path(environment["HOME"]) / "script.fish"
    path.write_text(script)
    ran = subprocess.run(
        ["fish", "--no-config", *options, "-c", f"source {path}"],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
        cwd=Path(environment["HOME"]) / "work",
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def complete(line: str) -> str:
    """Return a command that prints all that fish offers for a line."""
    return f"complete -C '{line}'"


def answers(environment: dict[str, str]) -> int:
    """Return how many answers are cached: each tool that is run adds one."""
    with autoloadd_client.Cache(
        autoloadd_client.TOOL_OUTPUT, socket_path=environment["AUTOLOADD_SOCKET"], timeout=20
    ) as cache:
        return cache.count()


TEXTS = {
    "unscoped": "set A 1; set -a A 2; set -l B 2; set -g C 3; set -gx OUT side; set -e D",
    "functions": "function f; set -l x 1; set y 2; echo $x$y; end; abbr -a ll 'ls -l'; alias la ls",
    "a status": "false",
    "a comment without an end": "set A 1 # the end",
    "nothing": "",
    "arguments": "echo (count $argv)",
    "events": "function g --on-event go; echo went; end; emit go",
    "bind and complete": "complete -c slow -a 'x y'; bind \\cx true",
}
STATE = """
echo "status $status"; set --show A B C D OUT x y options argv; f 2>/dev/null; abbr; functions la
complete -c slow; functions --names
"""


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_eval_leaves_what_source_leaves(
    tool: Tool, daemon: Daemon, environment: dict[str, str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "text").write_text(text)
    tool.write(f"cat {tmp_path}/text")
    before = "set D gone; false\n"
    without = run(f"{SOURCE}\n{before}slow init | source\n{STATE}", environment)
    for _ in range(2):
        assert run(f"{SOURCE}\n{before}autoloadd-eval slow init\n{STATE}", environment) == without
    assert tool.runs == 2


def test_options_and_usage(tool: Tool, daemon: Daemon, environment: dict[str, str]) -> None:
    line = f"{SOURCE}\nautoloadd-eval --max-age 1d --env WHERE -- slow; echo $status $FOO"
    for where, runs in (("a", 1), ("a", 1), ("b", 2)):
        assert run(line, {**environment, "WHERE": where}) == (0, "0 slow\n", "")
        assert tool.runs == runs
    assert run(f"{SOURCE}\nautoloadd-eval --env=WHERE slow; echo $FOO", environment)[1] == "slow\n"
    for bad, said in (
        ("", ""),
        ("--bad slow", "--bad"),
        ("--env A --bad slow", "--bad"),
        ("--max-age", "--max-age="),
        ("--max-age x slow", "--max-age=x"),
        ("--max-age x", "--max-age=x"),
        ("--env= slow", "--env="),
    ):
        code, out, err = run(f"{SOURCE}\nautoloadd-eval {bad}; echo $status", environment)
        usage = f"autoloadd-eval: bad option: {said}\nusage: " if said else "usage: "
        assert (code, out) == (0, "2\n")
        assert err.startswith(f"{usage}autoloadd-eval [")
    for command in ("autoloadd-eval", "autoloadd-complete"):
        code, out, err = run(f"{SOURCE}\n{command} --help; echo $status", environment)
        assert (code, out[:7], out[-3:], err) == (0, "usage: ", "\n0\n", "")
        known = "\n  aws black flask npm pip pip3 uvicorn\n"
        assert (known in out) == (command == "autoloadd-complete")
    for bad, said in (("", ""), ("--bad", "autoloadd-complete: bad option: --bad\n")):
        code, out, err = run(f"{SOURCE}\nautoloadd-complete {bad}; echo $status", environment)
        assert (code, out) == (0, "2\n")
        assert err.startswith(f"{said}usage: autoloadd-complete")


def test_what_fails_fails_as_without(
    tool: Tool, daemon: Daemon, environment: dict[str, str]
) -> None:
    tool.write("echo set FOO 1; echo oops >&2; exit 3")
    shown = [
        run(f"{SOURCE}\n{line}; echo $status $FOO", environment)
        for line in ("slow | source", "autoloadd-eval slow")
    ]
    assert shown[0] == shown[1]
    assert (shown[0][1][-3:], shown[0][2]) == (" 1\n", "oops\n")
    # Functions and builtins are the shell's own.
    lines = f"{SOURCE}\nfunction mine; echo set FOO $argv; end\nautoloadd-eval mine 5"
    assert run(f"{lines}; autoloadd-eval echo set BAR 6; echo $FOO$BAR", environment)[1] == "56\n"


@pytest.mark.parametrize("how", ["no daemon", "switched off", "no autoloadctl", "gone"])
def test_without_a_cache_it_is_source(
    tool: Tool, idle_daemon: Daemon, environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    if how != "no daemon":
        idle_daemon.start()
    if how == "switched off":
        environment["AUTOLOADD_CACHE"] = " No "
    if how == "no autoloadctl":
        environment["PATH"] = f"{tool.directory}:/usr/bin:/bin"
    if how == "gone":
        script = tool.directory / "autoloadctl"
        script.write_text(f"#!{tmp_path}/python\n")
        script.chmod(0o755)
        environment["PATH"] = f"{tool.directory}:{environment['PATH']}"
    for times in (1, 2):
        outcome = run(f"{SOURCE}\nautoloadd-eval slow; echo $FOO", environment)
        assert (outcome, tool.runs) == ((0, "slow\n", ""), times)


def test_no_client_of_the_directory_where_we_stand(
    tool: Tool, daemon: Daemon, environment: dict[str, str]
) -> None:
    evil = Path(environment["HOME"]) / "work" / "autoloadctl"
    evil.write_text("#!/bin/sh\necho set FOO evil\n")
    evil.chmod(0o755)
    given = {**environment, "PATH": f".:{tool.directory}:/usr/bin:/bin"}
    assert run(f"{SOURCE}\nautoloadd-eval slow; echo $FOO", given) == (0, "slow\n", "")


@pytest.mark.usefixtures("daemon")
def test_completions_are_the_same(environment: dict[str, str], completions: str) -> None:
    script = "\n".join(complete(line) for line in LINES)
    expected = run(f"{completions}\n{script}", environment)
    assert "--fast" in expected[1]
    wrapped = f"{completions}\n{SOURCE}\nautoloadd-complete flask black pip\n"
    assert run(wrapped + script, environment) == expected
    answered = answers(environment)
    assert answered >= len(LINES) - 1
    assert run(wrapped + script, environment) == expected
    assert answers(environment) == answered


@pytest.mark.usefixtures("daemon")
def test_what_is_completed_without_a_completion_of_the_users(environment: dict[str, str]) -> None:
    lines = [
        complete(line) for line in ("black --fas", "uvicorn --relo", "aws s3 sy", "pip3 insta")
    ]
    script = f"{SOURCE}\nautoloadd-complete {TOOLS}\n" + "\n".join(lines)
    first = run(script, environment)
    assert first[2] == ""
    for word in ("--fast", "--reload", "sync", "install"):
        assert word in first[1]
    answered = answers(environment)
    assert run(script, environment) == first
    assert answers(environment) == answered > 4
    aws = complete("aws ec2 describe-inst")
    assert run(f"{SOURCE}\nautoloadd-complete aws\n{aws}", environment) == run(
        AWS + aws, environment
    )
    said = run(f"{SOURCE}\nautoloadd-complete no-such; echo $status", environment)
    assert said == (
        0, "1\n",
        "autoloadd-complete: fish completes nothing for no-such by running it: load that first\n",
    )  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_what_depends_on_more_is_not_cached(environment: dict[str, str], tmp_path: Path) -> None:
    start = f"{SOURCE}\nautoloadd-complete flask black pip aws 2>/dev/null\n"
    run(start, environment)
    begin = answers(environment)
    for line in ("pip install -r ", "pip show ", "aws ec2 describe-instances --region ",
                 "flask --app app ", "flask -A app r"):  # fmt: skip
        run(start + complete(line), environment)
        assert answers(environment) == begin, line
    run(start + complete("flask r"), environment)
    assert answers(environment) == begin + 1
    (tmp_path / ".flaskenv").touch()
    run(start + complete("flask ru"), environment)
    (tmp_path / ".flaskenv").unlink()
    run(f"{start} set -x FLASK_APP app\n{complete('flask ru')}", environment)
    assert answers(environment) == begin + 1


@pytest.mark.usefixtures("daemon")
def test_a_package_that_comes_is_a_reason_to_ask_again(
    environment: dict[str, str], tool: Tool, tmp_path: Path
) -> None:
    tool.write("echo album")
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    lines = f"""{SOURCE}
        function _slow_completion
            set -l response (env _SLOW_COMPLETE=fish_complete slow)
            echo $response
        end
        autoloadd-complete slow; _slow_completion; _slow_completion"""
    assert (run(lines, environment), tool.runs) == ((0, "album\nalbum\n", ""), 1)
    (packages / "one").mkdir()
    assert (run(lines, environment), tool.runs) == ((0, "album\nalbum\n", ""), 2)
    for runs in (3, 3):
        run(lines, {**environment, "PYTHONPATH": "elsewhere"})
        assert tool.runs == runs


@pytest.mark.usefixtures("daemon")
def test_models_of_aws_that_lie_elsewhere(environment: dict[str, str], tool: Tool) -> None:
    tool.write("echo s3")
    (tool.directory / "aws_completer").symlink_to(tool.path)
    lines = f"{SOURCE}\nautoloadd-complete aws; {complete('aws s')}"
    given = {**environment, "PATH": f"{tool.directory}:{environment['PATH']}"}
    for where, runs in (({}, 1), ({}, 1), ({"AWS_DATA_PATH": "/models"}, 2)):
        assert run(lines, {**given, **where}) == (0, "s3\n", "")
        assert tool.runs == runs


class Fish(PseudoTerminal):
    """An interactive fish."""

    MARK = b"\x1b]done\x07"

    def __init__(self, environment: dict[str, str], config: str) -> None:
        home = Path(environment["HOME"])
        path = home / "config" / "fish" / "config.fish"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"""{config}
            set -g fish_greeting
            function fish_prompt; printf '\\e]ready\\a'; end
            function shown; printf '<%s>\\e]done\\a' (commandline); commandline ''; end
            bind \\cx shown
            """)
        super().__init__(["fish", "-i"], environment=environment, directory=home / "work")
        self.read_until(b"\x1b]ready\x07")

    def tab(self, line: str) -> str:
        """Type a line and TAB; return the line as it is then."""
        self.send(f"{line}\t\x18")
        return self.read_until(self.MARK).rpartition(b"<")[2].decode()

    def run(self, line: str) -> str:
        self.send(f"{line}; printf '\\e]%s\\a' done\r")
        return self.read_until(self.MARK).decode()


@pytest.mark.usefixtures("daemon")
def test_tab_in_a_terminal_loads_ours_when_it_is_first_asked(
    environment: dict[str, str], completions: str
) -> None:
    lines = ("black --fas", "flask ru", "pip insta", "npm ins")
    with Fish(environment, completions) as plain:
        expected = [plain.tab(line) for line in lines]
    assert expected[0] == "black --fast >"
    for _ in range(2):
        with Fish(environment, f"{completions}\n{SOURCE}") as shell:
            assert [shell.tab(line) for line in lines] == expected
    assert answers(environment) >= 3


def test_an_interrupt_leaves_the_shell_as_it_was(
    environment: dict[str, str], tool: Tool, daemon: Daemon
) -> None:
    tool.write("sleep 60")
    with Fish(environment, SOURCE) as shell:
        shell.send("autoloadd-eval slow; echo ne''ver\r")
        wait_until(lambda: tool.runs == 1, 20, "the tool to run")
        shell.send("\x03")
        wait_until(lambda: daemon.status()["leases"]["held"] == 0, 20, "the lease's end")
        tool.write("echo set FOO here")
        said = shell.run("autoloadd-eval slow; echo $FOO")
        assert "never" not in said
        assert said.endswith("here\r\n")
        assert tool.runs == 2


@pytest.mark.usefixtures("daemon")
def test_a_daemon_that_hangs_or_goes_changes_nothing(
    environment: dict[str, str], daemon: Daemon, completions: str
) -> None:
    environment["AUTOLOADD_WAIT_MS"] = "50"
    with Fish(environment, f"{completions}\n{SOURCE}") as shell:
        assert shell.tab("black --fas") == "black --fast >"
        os.kill(daemon.pid, signal.SIGSTOP)
        assert shell.tab("black --fas") == "black --fast >"
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.kill()
        assert shell.tab("black --fas") == "black --fast >"
        Path(environment["AUTOLOADD_SOCKET"]).unlink(missing_ok=True)
        assert shell.tab("black --fas") == "black --fast >"


def test_where_it_looks_for_the_daemon(environment: dict[str, str], idle_daemon: Daemon) -> None:
    base = Path(idle_daemon.socket_path).parent
    (base / "autoloadd" / "run").mkdir(parents=True)
    shown = f"{SOURCE}\n__autoloadd_is_there; and echo there"
    del environment["AUTOLOADD_SOCKET"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(base / "autoloadd" / "socket"))
        if not Path(f"/run/user/{os.geteuid()}").exists():
            assert run(shown, {**environment, "XDG_RUNTIME_DIR": str(base)})[1] == "there\n"
            (base / "autoloadd" / "socket").rename(base / "autoloadd" / "run" / "socket")
            assert run(shown, {**environment, "XDG_CACHE_HOME": str(base)})[1] == "there\n"
    assert run(shown, environment)[1] == ""


def test_a_client_that_may_only_be_run(environment: dict[str, str]) -> None:
    with private_directory() as directory:
        directory.chmod(0o755)
        copy, client = directory / "autoloadd.fish", directory / "autoloadctl"
        copy.write_text((SHELLS / "autoloadd.fish").read_text())
        client.write_text("#!/usr/bin/python3\n")
        client.chmod(0o711)
        ran = subprocess.run(
            ["fish", "--no-config", "-c", f"source {copy}; echo $__autoloadd_client"],
            capture_output=True, text=True, check=False, cwd="/",
            env={**environment, "PATH": f"{directory}:/usr/bin:/bin", "HOME": str(directory)},
            # Root may read everything.
            user=65534 if os.geteuid() == 0 else None,
        )  # fmt: skip
        assert (ran.stdout, ran.stderr) == (f"{client}\n", "")


def test_an_older_fish_passes_over_it(environment: dict[str, str], tmp_path: Path) -> None:
    old = tmp_path / "old.fish"
    text = (SHELLS / "autoloadd.fish").read_text()
    assert "\nbuiltin -q path\n" in text
    old.write_text(text.replace("builtin -q path\n", "builtin -q no-such-builtin\n"))
    shown = run(
        f"source {old}; echo $status; functions -q autoloadd-eval; or echo none", environment
    )
    assert shown == (0, "0\nnone\n", "")


def test_sourcing_starts_no_process(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "strace"
    command = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", str(log)]
    subprocess.run(
        [*command, "fish", "--no-config", "-c", f"{SOURCE}; {SOURCE}"], check=True, env=environment
    )
    executed = [line for line in log.read_text().splitlines() if "execve" in line]
    assert [line for line in executed if " = 0" in line][1:] == []
