"""Whatever is wrong with the daemon, the shell does what it does without one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.client.scripted import HELLO, Peer, ScriptedServer
from tests.running import wait_until

from autoloadd_protocol.framing import encode_frame

from .terminal import Terminal
from .zsh import PLUGIN, environment_for, output_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running import Daemon

    from .conftest import Tool

EVAL = "autoloadd-eval $TOOL; print -r -- $? $GREETING"


IS_THERE = "f() { local _autoloadd_place; _autoloadd_is_there; print $? }; f"


def check_that_it_evaluates(environment: dict[str, str], script: str = EVAL) -> None:
    """The tool's text is evaluated, and nothing else is seen."""
    assert output_of(script, environment=environment) == "0 hello\n"


# ---- no daemon that may be asked


def test_no_daemon(home: Path, tool: Tool) -> None:
    environment = environment_for(str(home / "socket"), TOOL=str(tool.path))
    check_that_it_evaluates(environment)
    (home / "socket").write_text("")
    check_that_it_evaluates(environment)
    environment["AUTOLOADD_SOCKET"] = str(home / "none" / "socket")
    check_that_it_evaluates(environment)
    check_that_it_evaluates({"PATH": environment["PATH"], "TOOL": str(tool.path)})
    assert not list(home.glob("zsh-*"))


def test_a_trap_hears_nothing_of_it(home: Path) -> None:
    script = f"trap 'print failed' ZERR\nsource {PLUGIN}; _autoloadd_first_prompt"
    environment = environment_for(str(home / "none" / "socket"))
    assert output_of(script, environment=environment, sourced=False) == ""


def test_a_socket_that_nobody_listens_at(daemon: Daemon, tool: Tool) -> None:
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    daemon.kill()
    daemon.start()
    daemon.process.kill()  # type: ignore[union-attr]
    daemon.wait()
    check_that_it_evaluates(environment)
    # Nothing was waited for, so nobody has to be told.
    assert not (daemon.directory / "zsh-away").exists()


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
def test_switched_off(variable: str, daemon: Daemon, tool: Tool) -> None:
    for off in ("0", "false", "NO", " no "):
        environment = environment_for(daemon.socket_path, TOOL=str(tool.path), **{variable: off})
        check_that_it_evaluates(environment)
        assert daemon.status()["shards"] == 0, off


def test_a_path_that_zsocket_would_cut(daemon: Daemon, tool: Tool, home: Path) -> None:
    """It would connect to the socket at the first 107 bytes, and 107 bytes have no end for it."""
    pad = 106 - len(str(home)) - len("/socket")
    longest = f"{home}{'/' * (pad % 2)}{'/.' * (pad // 2)}/socket"
    assert len(longest) == 106
    environment = environment_for(longest, TOOL=str(tool.path))
    for more in ("s", "ss"):
        (home / f"socket{more}").symlink_to("socket")
        check_that_it_evaluates({**environment, "AUTOLOADD_SOCKET": longest + more})
    assert daemon.status()["shards"] == 0
    check_that_it_evaluates(environment)
    wait_until(lambda: daemon.status()["shards"] == 1, 20, "the put")


def test_a_directory_that_others_can_reach(daemon: Daemon, tool: Tool) -> None:
    for mode in (0o755, 0o710, 0o702):
        daemon.directory.chmod(mode)
        check_that_it_evaluates(environment_for(daemon.socket_path, TOOL=str(tool.path)))
        daemon.directory.chmod(0o700)
        assert daemon.status()["shards"] == 0, oct(mode)


def test_a_directory_of_another_user(daemon: Daemon, tool: Tool) -> None:
    if os.geteuid() != 0:
        pytest.fail("only root can give a directory to somebody else")
    os.chown(daemon.directory, 1234, 1234)
    check_that_it_evaluates(environment_for(daemon.socket_path, TOOL=str(tool.path)))
    os.chown(daemon.directory, 0, 0)
    assert daemon.status()["shards"] == 0


@pytest.mark.parametrize(
    ("base", "variable", "place"),
    [
        ("runtime", "XDG_RUNTIME_DIR", "runtime/autoloadd/socket"),
        ("cache", "XDG_CACHE_HOME", "cache/autoloadd/run/socket"),
        ("home", "HOME", "home/.cache/autoloadd/run/socket"),
    ],
)
def test_where_the_socket_is(base: str, variable: str, place: str, home: Path) -> None:
    """As the Python client finds it; tests/protocol/test_rendezvous.py has the rules."""
    if os.path.lexists(f"/run/user/{os.geteuid()}"):
        pytest.fail("a /run/user of this user's own comes before what is tested here")
    (home / base).mkdir()
    (home / place).parent.mkdir(parents=True, mode=0o700)
    (home / place).parent.chmod(0o700)
    script = "f() { local _autoloadd_place; _autoloadd_place && print -r -- $_autoloadd_place }; f"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", variable: str(home / base)}
    assert output_of(script, environment=environment) == f"{home / place}\n"


# ---- a daemon that does not answer


def away_file(daemon: Daemon) -> list[str]:
    """Return who has found the daemon away, one line each."""
    path = daemon.directory / "zsh-away"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def stopped(daemon: Daemon) -> Daemon:
    """A daemon that takes connections, as the kernel does, and never answers."""
    os.kill(daemon.pid, signal.SIGSTOP)
    return daemon


def test_a_hung_daemon_is_waited_for_once(stopped: Daemon, tool: Tool) -> None:
    """Once by a shell; and when two have seen it, by no other."""
    environment = environment_for(stopped.socket_path, TOOL=str(tool.path))
    del environment["AUTOLOADD_WAIT_MS"]
    script = f"{EVAL}; for i in 1 2 3 4 5 6; do autoloadd-eval $TOOL $i; done"
    for seen in (1, 2, 2, 2):
        check_that_it_evaluates(environment, script)
        assert len(away_file(stopped)) == seen
    assert tool.runs == 4 * 7


def test_a_hung_daemon_costs_5_ms(stopped: Daemon, home: Path) -> None:
    """The least of many trials: a busy machine only adds. Then nothing is waited for."""
    environment = environment_for(stopped.socket_path)
    del environment["AUTOLOADD_WAIT_MS"]
    script = f"""zmodload zsh/datetime
    ask() {{
      local -F began=$EPOCHREALTIME
      autoloadd-get name
      print -r -- $? $(( (EPOCHREALTIME - began) * 1000 ))
    }}
    for i in {{1..10}}; do
      _autoloadd_away_until=0; rm -f {home}/zsh-away; ask
      rm {home}/zsh-away; ask
      _autoloadd_away_until=0; ask
      _autoloadd_away_until=0; ask
    done"""
    lines = [line.split() for line in output_of(script, environment=environment).splitlines()]
    assert {status for status, _ in lines} == {"3"}
    new, known, forgotten, written = ([float(ms) for _, ms in lines[at::4]] for at in range(4))
    assert 5 <= min(new) < 10
    assert 5 <= min(forgotten) < 10
    # The shell knows it; a shell that cannot (a subshell of it) finds it beside the socket.
    assert min(known) < 2
    assert min(written) < 2


def test_many_shells_with_a_hung_daemon(stopped: Daemon, tool: Tool) -> None:
    environment = environment_for(stopped.socket_path, TOOL=str(tool.path))
    del environment["AUTOLOADD_WAIT_MS"]
    command = ["zsh", "-fc", f"source {PLUGIN}; {EVAL}"]
    shells = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(200)
    ]
    assert {shell.communicate(timeout=60)[0] for shell in shells} == {b"0 hello\n"}
    assert 1 <= len(away_file(stopped)) <= 200
    os.kill(stopped.pid, signal.SIGCONT)
    # What it finds in its queue does not hurt it.
    assert stopped.status()["shards"] == 0


def test_a_daemon_that_is_back_is_asked_after_30_s(daemon: Daemon, tool: Tool) -> None:
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    path = daemon.directory / "zsh-away"
    now = "${(%):-%D{%s}}"
    for ages, asked in (((0, 0), False), ((29, 29), False), ((31, 31), True), ((0, 31), True)):
        lines = " ".join(f"$(( now - {age} ))\\ {pid}" for pid, age in enumerate(ages, 1))
        script = f"integer now={now}; print -l -- {lines} >| {path}; {EVAL}"
        before = tool.runs
        check_that_it_evaluates(
            environment, script.replace("$TOOL", f"$TOOL {ages}".replace("(", "").replace(")", ""))
        )
        assert tool.runs == before + 1
        shards = 1 if asked or daemon.status()["shards"] else 0
        wait_until(lambda shards=shards: daemon.status()["shards"] == shards, 20, "the put")  # type: ignore[misc]


def test_what_else_stands_in_that_file(daemon: Daemon, tool: Tool) -> None:
    """Words, times to come (the clock was put back), and what cannot be read."""
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    path = daemon.directory / "zsh-away"
    for number, text in enumerate(
        ("x\n$(exit 9) 1\n", "99999999999 1\n99999999999 2\n", "\0" * 100, "9" * 40)
    ):
        path.write_text(text)
        script = EVAL.replace("$TOOL", f"$TOOL {number}")
        check_that_it_evaluates(environment, script)
        check_that_it_evaluates(environment, script)
    assert tool.runs == 4


def answers_after(seconds: float, *, at_work: bool) -> Callable[[Peer], None]:
    """Return a script of a daemon that takes so long, working or asleep, for its answer."""

    def script(peer: Peer) -> None:
        hello = peer.read_request("hello")
        ready = time.monotonic() + seconds
        while time.monotonic() < ready:
            if not at_work:
                time.sleep(seconds)
        with contextlib.suppress(OSError):
            peer.answer(hello, {**HELLO, "pid": os.getpid()})
            peer.answer(peer.read_request("get"), None)
        peer.wait_for_rest()

    return script


@pytest.mark.parametrize("at_work", [True, False])
def test_a_daemon_that_is_only_busy_gets_a_little_more(at_work: bool, home: Path) -> None:
    """Its process is known from its last answer. A busy machine may still make it late once."""
    slow = answers_after(0.02, at_work=at_work)
    tries = 5
    server = ScriptedServer(home / "socket", (answers_after(0, at_work=True), *[slow] * tries))
    script = f"""autoloadd-get name; print $?
    AUTOLOADD_WAIT_MS=5
    for i in {{1..{tries}}}; do
      _autoloadd_away_until=0; rm -f {home}/zsh-away; autoloadd-get name; print $?
    done"""
    known, *statuses = output_of(script, environment=environment_for(server.path)).split()
    server.stop()
    assert known == "1"
    assert set(statuses) <= {"1", "3"}
    assert ("1" if at_work else "3") in statuses
    assert (home / "zsh-daemon").read_text() == f"{os.getpid()}\n"


def hangs_after_hello(peer: Peer) -> None:
    hello = peer.read_request("hello")
    peer.answer(hello, {**HELLO, "pid": os.getpid()})
    peer.wait_for_rest()


def test_a_daemon_that_hangs_half_way_costs_5_ms(home: Path) -> None:
    """As it stands when it is stopped, or waits for a disk: once, then nobody asks it."""
    tries = 10
    server = ScriptedServer(home / "socket", (hangs_after_hello,) * tries)
    script = f"""zmodload zsh/datetime
    for i in {{1..{tries}}}; do
      _autoloadd_away_until=0; rm -f {home}/zsh-away
      for j in 1 2; do
        float began=$EPOCHREALTIME; autoloadd-get name
        print -rn -- $? $(( (EPOCHREALTIME - began) * 1000 ))
        seen=( ${{(f)"$(<{home}/zsh-away)"}} ); print "" $#seen
      done
    done"""
    environment = environment_for(server.path)
    del environment["AUTOLOADD_WAIT_MS"]
    lines = [line.split() for line in output_of(script, environment=environment).splitlines()]
    server.stop()
    # It is noted once.
    assert {(status, seen) for status, _, seen in lines} == {("3", "1")}
    first, second = ([float(ms) for _, ms, _ in lines[at::2]] for at in range(2))
    assert 5 <= min(first) < 10
    assert min(second) < 2


def test_a_daemon_that_is_stopped_while_another_shell_runs_it(
    daemon: Daemon, tool: Tool, home: Path
) -> None:
    """The run of another shell is waited for, up to 5 s, but not in vain."""
    tool.write(f"until [ -e {home}/go ]; do sleep 0.02; done; echo GREETING=hello")
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    command = ["zsh", "-fc", f"source {PLUGIN}; {EVAL}"]
    shells = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    wait_until(lambda: daemon.status()["leases"]["waiting"] == 1, 4, "the second to wait")
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(lambda: tool.runs == 2, 3, "the second to run it")
    (home / "go").touch()
    assert [shell.communicate(timeout=60)[0] for shell in shells] == [b"0 hello\n"] * 2
    os.kill(daemon.pid, signal.SIGCONT)


def test_a_stopped_daemon_is_not_tried_again(daemon: Daemon, tool: Tool) -> None:
    """Each try would stay in its queue until it goes on; a full one blocks whoever comes."""
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    check_that_it_evaluates(environment)
    assert (daemon.directory / "zsh-daemon").read_text() == f"{daemon.pid}\n"
    away = daemon.directory / "zsh-away"
    away.write_text("1 1\n")
    os.kill(daemon.pid, signal.SIGSTOP)
    assert output_of(IS_THERE, environment=environment) == "1\n"
    assert tool.runs == 1
    check_that_it_evaluates(environment)
    assert tool.runs == 2
    assert away.read_text() == "1 1\n"
    os.kill(daemon.pid, signal.SIGCONT)
    assert output_of(IS_THERE, environment=environment) == "0\n"
    check_that_it_evaluates(environment)
    assert tool.runs == 2


def test_a_daemon_that_came_later_is_asked_at_once(daemon: Daemon) -> None:
    away = daemon.directory / "zsh-away"
    away.write_text(f"{int(time.time())} 1\n{int(time.time())} 2\n")
    environment = environment_for(daemon.socket_path)
    assert output_of(IS_THERE, environment=environment) == "1\n"
    daemon.kill()
    daemon.start()
    assert output_of(IS_THERE, environment=environment) == "0\n"


# ---- a daemon that answers something else


def refuse_hello(peer: Peer) -> None:
    hello = peer.read_request("hello")
    peer.refuse(
        hello.id, "unsupported_protocol", {"server": (2, 0), "client": (1, 0), "fix": "update"}
    )
    peer.wait_for_rest()


def answer(data: bytes) -> Callable[[Peer], None]:
    """Return a script that sends these bytes for a hello."""

    def script(peer: Peer) -> None:
        peer.read_request("hello")
        peer.send(data)
        peer.wait_for_rest()

    return script


def close(peer: Peer) -> None:
    peer.read_request("hello")


@pytest.mark.parametrize(
    "script",
    [
        refuse_hello,
        close,
        answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        answer(b"\xff" * 100),
        answer(encode_frame(b"\x94\x01\xce\x00\x01\x00\x07\xc0\x80")),
        answer(b"\0\0\0\7ab"),
    ],
    ids=["refused", "closes", "http", "noise", "another id", "cut"],
)
def test_another_server(script: Callable[[Peer], None], home: Path, tool: Tool) -> None:
    """It is asked once by a shell, in 30 s."""
    server = ScriptedServer(home / "socket", (script,))
    environment = environment_for(server.path, TOOL=str(tool.path))
    # What never comes is waited for: less long than a test may.
    environment["AUTOLOADD_WAIT_MS"] = "300"
    check_that_it_evaluates(environment, f"{EVAL}; autoloadd-eval $TOOL 2; autoloadd-eval $TOOL 3")
    server.stop()
    assert tool.runs == 3


def test_a_server_without_leases(home: Path, tool: Tool) -> None:
    stored: list[tuple[object, ...]] = []

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), None)
        peer.refuse(peer.read_request("lease").id, "unknown_method")
        stored.append(peer.read_notification("put").params)
        peer.wait_for_end()

    server = ScriptedServer(home / "socket", (script,))
    check_that_it_evaluates(environment_for(server.path, TOOL=str(tool.path)))
    server.stop()
    assert stored[0][1] == b"GREETING=hello\n"
    assert HELLO["features"] == ()


@pytest.mark.parametrize("crossed", ["id", "name", "fingerprint", "cut"])
def test_an_answer_to_somebody_else(crossed: str, home: Path, tool: Tool) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        get = peer.read_request("get")
        assert isinstance(get.params, tuple)
        name = get.params[0] if crossed != "name" else "other"
        fingerprint = get.params[2] if crossed != "fingerprint" else b"another"
        result = (name, b"GREETING=crossed", fingerprint, 0, 1 << 60)
        if crossed == "cut":
            peer.send(b"\0\0\1\0\x94\1\xce\0\1\0\1\xc0\x95\xd9")
            return
        peer.answer(
            get if crossed in ("name", "fingerprint") else type(get)(get.id + 1, "get", ()), result
        )
        peer.wait_for_rest()

    server = ScriptedServer(home / "socket", (script,))
    check_that_it_evaluates(environment_for(server.path, TOOL=str(tool.path)))
    server.stop()


def test_a_daemon_that_dies_while_the_tool_runs(daemon: Daemon, tool: Tool) -> None:
    """A write to what is closed would kill zsh."""
    tool.write(f"kill -9 {daemon.pid}; sleep 0.1; echo GREETING=hello")
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    check_that_it_evaluates(environment, f"{EVAL}; trap")
    daemon.wait()


# ---- Ctrl-C


def test_ctrl_c_while_the_tool_runs(daemon: Daemon, tool: Tool, home: Path) -> None:
    """The prompt is back, no descriptor is left, and nobody waits for the lease."""
    tool.write(f"touch {home}/begun; sleep 60")
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    with Terminal(home / "rc", f"source {PLUGIN}", environment=environment) as terminal:
        terminal.send("autoloadd-eval $TOOL; print never\n")
        wait_until((home / "begun").exists, 20, "the tool to run")
        assert b"\nnever" not in terminal.interrupt()
        assert terminal.run("ls -l /proc/$$/fd 2>/dev/null | grep -c socket").strip() == "0"
        wait_until(lambda: daemon.status()["leases"]["held"] == 0, 20, "the lease's end")
        tool.write("echo GREETING=hello")
        assert terminal.run(EVAL).strip() == "0 hello"


def test_ctrl_c_while_another_shell_runs_it(daemon: Daemon, tool: Tool, home: Path) -> None:
    tool.write(
        f"touch {home}/begun; while [ ! -e {home}/go ]; do sleep 0.02; done; echo GREETING=hello"
    )
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    first = subprocess.Popen(
        ["zsh", "-fc", f"source {PLUGIN}; {EVAL}"], stdout=subprocess.PIPE, env=environment
    )
    wait_until((home / "begun").exists, 20, "the tool to run")
    with Terminal(home / "rc", f"source {PLUGIN}", environment=environment) as terminal:
        terminal.send("autoloadd-eval $TOOL; print never\n")
        wait_until(lambda: daemon.status()["leases"]["waiting"] == 1, 20, "the second to wait")
        assert b"\nnever" not in terminal.interrupt()
        assert terminal.run("ls -l /proc/$$/fd 2>/dev/null | grep -c socket").strip() == "0"
        (home / "go").touch()
        assert first.communicate(timeout=60)[0] == b"0 hello\n"
        assert terminal.run(EVAL).strip() == "0 hello"
    assert tool.runs == 1


def test_options_of_an_interactive_shell(daemon: Daemon, tool: Tool, home: Path) -> None:
    """Nothing is said of jobs, descriptors or traps; comments may be unknown."""
    rc = f"source {PLUGIN}; setopt monitor notify no_interactive_comments print_exit_value"
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        for _ in range(2):
            assert terminal.run(EVAL).strip() == "0 hello"
        assert terminal.run("jobs; trap").strip() == ""
    assert tool.runs == 1


def test_a_restricted_shell(daemon: Daemon, tool: Tool) -> None:
    """It may not redirect: everything is as without us, and nothing is said."""
    script = f"""{IS_THERE}
    setopt restricted
    {IS_THERE}
    _autoloadd_first_prompt; autoloadd-eval tool; print $GREETING"""
    environment = environment_for(daemon.socket_path)
    environment["PATH"] = f"{tool.path.parent}:{environment['PATH']}"
    assert output_of(script, environment=environment) == "0\n1\nhello\n"
