"""bash with autoloadd: the same environment and the same completions, and how often tools run."""

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

from ...running import Daemon, wait_until
from ..slow_tool import UNMEASURED, Tool, shell_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = Path(autoloadd_client.__file__).parent / "shells"
SOURCE = f". {SHELLS}/autoloadd.bash"
DONE = b"\x1b]done\x07"

INITS = """
_FLASK_COMPLETE=bash_source flask
_BLACK_COMPLETE=bash_source black
pip completion --bash
npm completion
echo complete -C aws_completer aws
"""

TERMINAL = r"""
PS1='$ ' PS2=
bind 'set enable-bracketed-paste off' 'set show-all-if-ambiguous on' 'set page-completions off'
bind 'set completion-query-items 0' 'set bell-style none'
_line() { printf '<%s:%s>\e]done\a' "$READLINE_POINT" "$READLINE_LINE"; READLINE_LINE=; }
bind -x '"\C-x\C-x": _line'
PROMPT_COMMAND='printf "\e]ready\a"'
"""


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    made = Tool(tmp_path / "bin")
    made.directory.mkdir()
    made.write("echo FOO=slow")
    return made


@pytest.fixture(scope="module")
def completions() -> str:
    """What the lines of the tools' manuals evaluate, as a file that a user keeps."""
    return text_of(INITS, shell="bash")


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it."""
    return shared_daemon


@pytest.fixture
def environment(tmp_path: Path, tool: Tool, asked_daemon: Daemon) -> dict[str, str]:
    found = shell_environment(tmp_path, tool, asked_daemon, HISTFILE="", **UNMEASURED)
    return {**found, "PATH": f"{tool_home()}/bin:{found['PATH']}"}


def bash(script: str, environment: dict[str, str], *options: str) -> tuple[int, str, str]:
    """Run a script, with aliases as in an interactive shell."""
    ran = subprocess.run(
        ["bash", "--norc", "-O", "expand_aliases", *options, "-c", script],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
        cwd=environment["HOME"],
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def run(lines: str, environment: dict[str, str], *options: str) -> tuple[int, str, str]:
    """Run lines as those of a start-up file, where an alias holds from the next line on."""
    path = Path(environment["HOME"]) / "lines"
    path.write_text(lines)
    return bash(f". {path}", environment, *options)


# What tools print to be evaluated, and what then shows whether that was done as by `eval`.
TEXTS = {
    "declared": "declare -A MAP=([a]=1 [b]=2); declare -i NUMBER=3+4; typeset -x OUT=side",
    "functions": "f() { local x=1; declare y=2; echo $x$y; }; f; alias ll='ls -l'",
    "options": "set -o noclobber; shopt -s extglob; trap 'echo bye' EXIT",
    "a status": "(exit 7)",
    "no end and a comment": "A=1 # the end",
    "here-document": "cat <<END\nhello $HOME\nEND\nB=2",
    "newlines": "\n\nA=1\n\n\n",
    "nothing": "",
    "positional": "echo $# $*; set -- x y",
    "quotes": """A='it'"'"'s' B="\\$x" C=$'a\\tb' D=ä""",
}
STATE = (
    """echo "status $?"; declare -p MAP NUMBER OUT A B C D 2>&1; set -o; shopt; alias ll 2>&1; f"""
)


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_eval_leaves_what_eval_leaves(
    tool: Tool, daemon: Daemon, environment: dict[str, str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "text").write_text(text)
    tool.write(f"cat {tmp_path}/text")
    without = run(f'{SOURCE}\neval "$(slow init)"\n{STATE}', environment)
    tool_runs = tool.runs
    for _ in range(2):
        assert run(f"{SOURCE}\nautoloadd-eval slow init\n{STATE}", environment) == without
    assert tool.runs == tool_runs + 1


def test_where_no_alias_reaches_a_function_does_it(
    tool: Tool, daemon: Daemon, environment: dict[str, str]
) -> None:
    tool.write("echo 'FOO=here; f() { echo f; }; (exit 7)'")
    for name in ("'autoloadd-eval'", "autoloadd-eval"):
        for options in ((), ("+O", "expand_aliases")):
            lines = f"{SOURCE}\n{name} slow; echo $? $FOO; f"
            assert run(lines, environment, *options) == (0, "7 here\nf\n", "")
    assert tool.runs == 1


def test_options_and_usage(tool: Tool, daemon: Daemon, environment: dict[str, str]) -> None:
    line = f"{SOURCE}\nautoloadd-eval --max-age 1d --env WHERE -- slow; echo $? $FOO"
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
        code, out, err = run(f"{SOURCE}\nautoloadd-eval {bad}; echo $?", environment)
        usage = f"autoloadd-eval: bad option: {said}\nusage: " if said else "usage: "
        assert (code, out) == (0, "2\n")
        assert err.startswith(f"{usage}autoloadd-eval [")
    for command in ("autoloadd-eval", "autoloadd-complete"):
        code, out, err = run(f"{SOURCE}\n{command} --help; echo $?", environment)
        assert (code, out[:7], out[-3:], err) == (0, "usage: ", "\n0\n", "")
        known = "\n  aws black flask npm pip pip3 uvicorn\n"
        assert (known in out) == (command == "autoloadd-complete")
    for bad, said in (("", ""), ("--bad", "autoloadd-complete: bad option: --bad\n")):
        code, out, err = run(f"{SOURCE}\nautoloadd-complete {bad}; echo $?", environment)
        assert (code, out) == (0, "2\n")
        assert err.startswith(f"{said}usage: autoloadd-complete")


def test_what_fails_fails_as_without(
    tool: Tool, daemon: Daemon, environment: dict[str, str]
) -> None:
    tool.write("echo FOO=1; echo oops >&2; exit 3")
    for line in ('eval "$(slow)"', "autoloadd-eval slow"):
        assert run(f"{SOURCE}\n{line}; echo $? $FOO", environment) == (0, "0 1\n", "oops\n")
    code, out, err = run(f"{SOURCE}\nautoloadd-eval no-such-tool; echo $?", environment)
    assert (code, out) == (0, "0\n")
    assert "no-such-tool: No such file or directory" in err
    # Functions and builtins are the shell's own.
    lines = f"{SOURCE}\nmine() {{ echo FOO=$1; }}\nautoloadd-eval mine 5; autoloadd-eval echo BAR=6"
    assert run(f"{lines}; echo $FOO$BAR", environment) == (0, "56\n", "")


@pytest.mark.parametrize("how", ["no daemon", "switched off", "no autoloadctl", "gone"])
def test_without_a_cache_it_is_eval(
    tool: Tool, idle_daemon: Daemon, environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    if how != "no daemon":
        idle_daemon.start()
    if how == "switched off":
        environment["AUTOLOADD_CACHE"] = "No"
    if how == "no autoloadctl":
        environment["PATH"] = f"{tool.directory}:/usr/bin:/bin"
    source = SOURCE
    if how == "gone":
        script = tool.directory / "autoloadctl"
        script.write_text(f"#!{tmp_path}/python\n")
        script.chmod(0o755)
    tool.write("echo FOO=$PPID")
    for times in (1, 2):
        code, out, err = run(f"{source}\nautoloadd-eval slow; echo $FOO", environment)
        assert (code, err, tool.runs) == (0, "", times)
        assert out.strip().isdigit()


def test_no_client_of_the_directory_where_we_stand(
    tool: Tool, daemon: Daemon, environment: dict[str, str]
) -> None:
    evil = Path(environment["HOME"]) / "autoloadctl"
    evil.write_text("#!/bin/sh\necho FOO=evil\n")
    evil.chmod(0o755)
    tool.write("echo FOO=slow")
    for path in (f".:{tool.directory}", f":{tool.directory}", f"{tool.directory}:"):
        given = {**environment, "PATH": f"{path}:/usr/bin:/bin"}
        assert run(f"{SOURCE}\nautoloadd-eval slow; echo $FOO", given) == (0, "slow\n", "")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("mode", ["shopt -s failglob", "set -f", "shopt -s nullglob", "IFS=:"])
def test_options_of_the_user_do_not_end_a_completion(
    environment: dict[str, str], tool: Tool, mode: str
) -> None:
    tool.write("echo album")
    lines = f"""
        _slow() {{ COMPREPLY=($(env A=1 "$1" names)); }}
        complete -F _slow slow; {SOURCE}; autoloadd-complete slow
        {mode}
        COMP_WORDS=(slow al) COMP_CWORD=1
        _autoloadd_tab slow al slow; _autoloadd_tab slow al slow; echo "${{COMPREPLY[*]}}"
        COMP_WORDS=(flask -A other ro); _autoloadd_is_safe flask || echo unsafe
        """
    assert run(lines, environment) == (0, "album\nunsafe\n", "")
    assert tool.runs == 1


@pytest.mark.parametrize("mode", ["-eu", "-o posix", "-r", "-eT", "-o nounset"])
def test_modes_of_bash(tool: Tool, daemon: Daemon, environment: dict[str, str], mode: str) -> None:
    tool.write("printf 'FOO=slow\n'")
    if mode == "-r":
        # A restricted shell reads no file with a slash in its name by itself.
        outcome = bash(f". {SHELLS}/autoloadd.bash; echo on", environment, mode)
        assert outcome[1] == "on\n"
        return
    lines = f"{SOURCE}\nautoloadd-eval slow; echo $FOO"
    assert run(lines, environment, *mode.split()) == (0, "slow\n", "")
    assert run(lines, environment, *mode.split()) == (0, "slow\n", "")
    assert tool.runs == 1


def test_an_older_bash_passes_over_it(environment: dict[str, str], tmp_path: Path) -> None:
    old = tmp_path / "old.bash"
    text = (SHELLS / "autoloadd.bash").read_text()
    old.write_text(text.replace("BASH_VERSINFO[0]", "VERSION[0]"))
    for version in ("VERSION=(4 4)", "VERSION=()"):
        shown = bash(f"set -u; {version}; . {old}; declare -F; echo $?", environment)
        assert shown == (0, "0\n", "")


def test_sourcing_twice_starts_no_process(
    daemon: Daemon, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "strace"
    command = ["strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-o", str(log)]
    script = f"{SOURCE}; {SOURCE}; declare -F autoloadd-complete; alias autoloadd-eval"
    ran = subprocess.run(
        [*command, "bash", "--norc", "-O", "expand_aliases", "-c", script],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert ran.stderr == ""
    assert ran.stdout.startswith("autoloadd-complete\nalias autoloadd-eval=")
    assert log.read_text() == ""


class Bash(PseudoTerminal):
    """An interactive bash."""

    def __init__(self, environment: dict[str, str], rc: str) -> None:
        home = Path(environment["HOME"])
        path = home / "rc"
        path.write_text(f"{rc}\n{TERMINAL}")
        command = ["bash", "--noprofile", "--rcfile", str(path), "-i"]
        work = home / "work"
        work.mkdir(exist_ok=True)
        super().__init__(command, environment=environment, directory=work)
        self.read_until(b"\x1b]ready\x07$ ")

    def tab(self, line: str) -> bytes:
        """Type a line and TAB; return all that is shown, and the line as it is then."""
        self.send(f"{line}\t\x18\x18")
        # The prompt of the line before may come first.
        return self.read_until(DONE).removeprefix(b"$ ")

    def run(self, line: str) -> str:
        self.send(f"{line}\r")
        shown = self.read_until(b"\x1b]ready\x07$ ").decode()
        return shown.partition("\r\n")[2]


LINES = [
    "black --fas", "black ", "flask r", "flask --", "pip in", "pip install --no-", "npm insta",
    "aws s3 s", "aws s3 s\x02\x02",
]  # fmt: skip
"""What is typed; the last one is completed two characters before its end."""


@pytest.fixture
def app(tmp_path: Path) -> None:
    """An application that flask completes."""
    (tmp_path / "work" / "__pycache__").mkdir(parents=True)
    (tmp_path / "work" / "app.py").write_text("from flask import Flask\napp = Flask('a')\n")


@pytest.mark.usefixtures("app", "daemon")
def test_completions_are_the_same_byte_for_byte(
    environment: dict[str, str], completions: str
) -> None:
    with Bash(environment, completions) as plain:
        expected = [plain.tab(line) for line in LINES]
    assert b"<13:black --fast >" in expected[0]
    rc = f"{completions}\n{SOURCE}"
    with Bash(environment, rc) as first:
        assert [first.tab(line) for line in LINES] == expected
    answered = watched(environment)
    assert answered >= len(LINES) - 1
    with Bash(environment, rc) as again:
        assert [again.tab(line) for line in LINES] == expected
    assert watched(environment) == answered


def watched(environment: dict[str, str]) -> int:
    """Return how many answers are cached: each tool that is run adds one."""
    with autoloadd_client.Cache(
        autoloadd_client.TOOL_OUTPUT, socket_path=environment["AUTOLOADD_SOCKET"], timeout=20
    ) as cache:
        return cache.count()


@pytest.mark.usefixtures("app", "daemon")
def test_what_depends_on_more_is_not_cached(
    environment: dict[str, str], tmp_path: Path, completions: str
) -> None:
    rc = f"{completions}\n{SOURCE}"
    with Bash(environment, rc) as shell:
        for line in ("pip install -r ", "pip show ", "aws ec2 describe-instances --region ",
                     "flask --app app ", "flask -A app r"):  # fmt: skip
            shell.tab(line)
            assert watched(environment) == 0, line
        shell.tab("flask r")
        assert watched(environment) == 1
        (tmp_path / ".flaskenv").touch()
        shell.tab("flask ru")
        assert watched(environment) == 1
        (tmp_path / ".flaskenv").unlink()
        shell.run("export FLASK_APP=app")
        shell.tab("flask ru")
        assert watched(environment) == 1


@pytest.mark.usefixtures("daemon")
def test_opting_in(environment: dict[str, str], tool: Tool) -> None:
    tool.write('[ "$1" = names ] && printf "alpha\\nalbum\\n"')
    with Bash(environment, f"""
        _slow() {{ local IFS=$'\\n'; COMPREPLY=($(compgen -W "$(slow names)" -- "$2")); }}
        complete -o nosort -F _slow slow
        {SOURCE}
        """) as shell:  # fmt: skip
        plain = shell.tab("slow al")
        assert b"album" in plain
        assert tool.runs == 1
        assert shell.run("autoloadd-complete slow") == ""
        assert shell.tab("slow al") == shell.tab("slow al") == plain
        assert tool.runs == 2
        assert shell.run("complete -p slow") == "complete -o nosort -F _autoloadd_tab slow\r\n"
        assert shell.run("autoloadd-complete slow black pip") == ""
        assert shell.tab("black --fas").endswith(b"<13:black --fast >")
        said = shell.run("autoloadd-complete no-such; echo $?")
        assert (
            said
            == "autoloadd-complete: bash completes nothing for no-such yet: load it first\r\n1\r\n"
        )
        assert shell.run("declare -F env slow; echo $?") == "1\r\n"
        # A function of the user's with that name is left alone.
        shell.run("slow() { echo album; }")
        assert shell.tab("slow al").endswith(b"<11:slow album >")


@pytest.mark.usefixtures("daemon")
def test_what_is_registered_behind_our_line_is_wrapped(
    environment: dict[str, str], tool: Tool
) -> None:
    tool.write("echo complete -F _flask flask")
    behind = "_black() { :; }; _flask() { :; }; complete -F _black black"
    with Bash(environment, f"{SOURCE}\n{behind}\n_autoloadd_at_prompt") as shell:
        assert shell.run("complete -p black") == "complete -F _autoloadd_tab black\r\n"
        shell.run("autoloadd-eval slow")
        assert shell.run("complete -p flask") == "complete -F _autoloadd_tab flask\r\n"
        shell.run("complete -F _black flask; autoloadd-complete flask")
        assert shell.run("echo ${_autoloadd_original[flask]}") == "_black\r\n"
    rc = f"{SOURCE}\n{behind}\nkept=$PROMPT_COMMAND"
    with Bash(environment, rc) as shell:
        assert shell.run("echo $kept") == "_autoloadd_at_prompt;\r\n"


@pytest.mark.usefixtures("daemon")
def test_a_word_that_is_no_plain_name_is_not_watched(
    environment: dict[str, str], tool: Tool
) -> None:
    lines = f"""
        _slow() {{ echo ran; }}; complete -F _slow slow; {SOURCE}; autoloadd-complete slow
        COMP_WORDS=(slow) COMP_CWORD=0
        _autoloadd_tab '$(touch evil; echo /slow' ''; _autoloadd_tab 'x;touch evil;/slow' ''
        """
    assert run(lines, environment) == (0, "ran\nran\n", "")
    assert not (Path(environment["HOME"]) / "evil").exists()


@pytest.mark.usefixtures("daemon")
def test_an_interrupt_leaves_the_shell_as_it_was(environment: dict[str, str], tool: Tool) -> None:
    tool.write("sleep 60")
    with Bash(environment, f"""
        _slow() {{ COMPREPLY=($(slow names)); }}
        complete -F _slow slow; {SOURCE}; autoloadd-complete slow
        """) as shell:  # fmt: skip
        shell.send("slow \t")
        wait = Path(environment["HOME"]) / "bin" / "runs"
        wait_until(wait.exists, 20, "the tool to run")
        # Readline takes note of it with the next key, as without us: that may be lost.
        shell.send("\x03")
        shell.read_until(b"^C")
        shell.type_until("\x03", b"\x1b]ready\x07$ ")
        tool.write("echo here")
        shell.send("   env slow; command slow; slow; printf '\\e]done\\a'\r")
        assert shell.read_until(DONE).endswith(b"here\r\nhere\r\nhere\r\n")


@pytest.mark.usefixtures("app")
def test_a_daemon_that_hangs_or_goes_changes_nothing(
    environment: dict[str, str], daemon: Daemon, completions: str
) -> None:
    environment["AUTOLOADD_WAIT_MS"] = "50"
    with Bash(environment, f"{completions}\n{SOURCE}") as shell:
        plain = shell.tab("black --fas")
        os.kill(daemon.pid, signal.SIGSTOP)
        assert shell.tab("black --fas") == plain
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.kill()
        assert shell.tab("black --fas") == plain
        Path(environment["AUTOLOADD_SOCKET"]).unlink(missing_ok=True)
        assert shell.tab("black --fas") == plain


@pytest.fixture
def listening(idle_daemon: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(idle_daemon.socket_path)
        yield bound


def test_where_it_looks_for_the_daemon(
    environment: dict[str, str], listening: socket.socket, tmp_path: Path
) -> None:
    run_directory = Path(listening.getsockname()).parent
    (run_directory / "autoloadd").mkdir()
    listening_at = run_directory / "autoloadd" / "socket"
    (run_directory / "socket").rename(listening_at)
    shown = f"{SOURCE}; _autoloadd_is_there && echo there"
    del environment["AUTOLOADD_SOCKET"]
    usual = {"XDG_RUNTIME_DIR": str(run_directory)}
    if not Path(f"/run/user/{os.geteuid()}").exists():
        assert bash(shown, {**environment, **usual})[1] == "there\n"
        (run_directory / "autoloadd" / "run").mkdir()
        listening_at.rename(run_directory / "autoloadd" / "run" / "socket")
        assert bash(shown, {**environment, "XDG_CACHE_HOME": str(run_directory)})[1] == "there\n"
        (run_directory / ".cache").symlink_to(run_directory)
        assert bash(shown, {**environment, "HOME": str(run_directory)})[1] == "there\n"
    assert bash(shown, environment)[1] == ""
