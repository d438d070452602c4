"""All that a start asks for is fetched at once, from the second start on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from tests.client.scripted import Peer, ScriptedServer, entry_answer
from tests.running import own_environment, wait_until

from autoloadd_client.entry import Entry
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_request

from .terminal import Terminal
from .zsh import PLUGIN, READ_ALL, environment_for, output_of, quote

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Daemon

    from .conftest import Tool

COUNT = """zmodload zsh/net/socket
zsocket() { (( ++connections )); builtin zsocket "$@" }
"""
"""Counts the connections of a shell, in `connections`."""


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it."""
    return shared_daemon


@pytest.fixture
def tool(tool: Tool) -> Tool:
    """A tool whose text says with which word it was run."""
    tool.write("cat <<x\nGREETING=${(q):-$1}\nx".replace("${(q):-$1}", "'$1'"))
    return tool


def rc_for(tool: Tool, *words: str, options: str = "") -> str:
    """Return a start-up file with an `autoloadd-eval` for each word; $shown is what they set."""
    lines = [f"autoloadd-eval {options} {tool.path} {word}; shown+=$GREETING," for word in words]
    return "\n".join([f"{COUNT}source {PLUGIN}", *lines])


def start(rc: str, home: Path, socket: str, **changes: str) -> tuple[str, int]:
    """Start a shell with these lines; return what they have shown, and how often it connected."""
    environment = environment_for(socket, **changes)
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        assert b"autoloadd" not in terminal.startup
        assert b"not found" not in terminal.startup
        shown, connections = (
            terminal.run("print -r -- ${(q+)shown}/$connections").strip().rsplit("/", 1)
        )
    return shown, int(connections)


def wait_for_puts(daemon: Daemon) -> None:
    """Wait until what shells have sent was taken."""
    wait_until(lambda: daemon.status()["connections"] == 1, 20, "the puts")


def requests_for(names: list[str]) -> bytes:
    """Return what a shell leaves for the next one."""
    return b"".join(
        encode_frame(encode_request(0x10200 + number, "get", [name, None, None]))
        for number, name in enumerate(names)
    )


def eval_name(tool: Tool, word: str) -> str:
    """Return the name of what the tool prints with a word."""
    version = output_of("print -r -- $ZSH_VERSION", environment=own_environment({})).strip()
    return "\0".join(("eval", f"zsh/{version}", str(tool.path), word))


def test_the_next_start_connects_once(daemon: Daemon, tool: Tool, home: Path) -> None:
    abc = rc_for(tool, "a", "b", "c")
    assert start(abc, home, daemon.socket_path) == ("a,b,c,", 3)
    left = daemon.directory / "zsh-asked"
    assert left.read_bytes() == requests_for([eval_name(tool, word) for word in "abc"])
    wait_for_puts(daemon)
    before = left.stat().st_mtime_ns
    for _ in range(2):
        assert start(abc, home, daemon.socket_path) == ("a,b,c,", 1)
    # It is not written where it is as it was.
    assert left.stat().st_mtime_ns == before
    assert tool.runs == 3


def test_another_start_up_file(daemon: Daemon, tool: Tool, home: Path) -> None:
    """What is asked for besides has a connection of its own; the next shell knows it."""
    start(rc_for(tool, "a", "b"), home, daemon.socket_path)
    wait_for_puts(daemon)
    assert start(rc_for(tool, "c", "b"), home, daemon.socket_path) == ("c,b,", 2)
    wait_for_puts(daemon)
    assert start(rc_for(tool, "c", "b"), home, daemon.socket_path) == ("c,b,", 1)
    assert tool.runs == 3


def test_what_is_not_wanted_is_not_fetched(daemon: Daemon, tool: Tool, home: Path) -> None:
    """Where even the first question is another one."""
    start(rc_for(tool, "a", "b"), home, daemon.socket_path)
    wait_for_puts(daemon)
    start(rc_for(tool, "c"), home, daemon.socket_path)
    wait_for_puts(daemon)
    with daemon.cache("tool-output/1/8") as outputs:
        before = outputs.stats()["hits"]
        assert start(rc_for(tool, "b", "a"), home, daemon.socket_path) == ("b,a,", 2)
        assert outputs.stats()["hits"] == before + 2
    left = (daemon.directory / "zsh-asked").read_bytes()
    assert left == requests_for([eval_name(tool, word) for word in "ba"])


def test_large_texts_are_not_fetched_early(daemon: Daemon, tool: Tool, home: Path) -> None:
    tool.write("echo GREETING=$1; [ $1 = a ] || head -c 200000 /dev/zero | tr '\\0' '#'")
    start(rc_for(tool, "a", "b", "c"), home, daemon.socket_path)
    wait_for_puts(daemon)
    assert start(rc_for(tool, "a", "b", "c"), home, daemon.socket_path) == ("a,b,c,", 3)
    left = (daemon.directory / "zsh-asked").read_bytes()
    assert left == requests_for([eval_name(tool, "a")])
    assert tool.runs == 3


def test_words_that_zsh_could_misread(daemon: Daemon, tool: Tool, home: Path) -> None:
    words = ["]", "[x]", "$(exit)", "a\\b", "*", '"', "é", "-", " ", "x" * 30, "y" * 300]
    rc = rc_for(tool, *map(quote, words))
    first, _ = start(rc, home, daemon.socket_path)
    wait_for_puts(daemon)
    assert start(rc, home, daemon.socket_path) == (first, 1)
    assert tool.runs == len(words)


def test_the_same_again(daemon: Daemon, tool: Tool, home: Path) -> None:
    start(rc_for(tool, "a"), home, daemon.socket_path)
    wait_for_puts(daemon)
    left = (daemon.directory / "zsh-asked").stat().st_mtime_ns
    assert start(rc_for(tool, "a", "a", "a"), home, daemon.socket_path) == ("a,a,a,", 1)
    # (That it was read is in its time of access.)
    assert (daemon.directory / "zsh-asked").stat().st_mtime_ns == left


def test_a_changed_tool_runs_again(daemon: Daemon, tool: Tool, home: Path) -> None:
    start(rc_for(tool, "a", "b"), home, daemon.socket_path)
    wait_for_puts(daemon)
    tool.write("echo GREETING=new-$1")
    assert start(rc_for(tool, "a", "b"), home, daemon.socket_path) == ("new-a,new-b,", 3)
    assert tool.runs == 4


def test_an_entry_that_is_too_old(daemon: Daemon, tool: Tool, home: Path) -> None:
    rc = rc_for(tool, "a", "b", options="--max-age 1h")
    start(rc, home, daemon.socket_path)
    wait_for_puts(daemon)
    with daemon.cache("tool-output/1/8") as outputs:
        name = eval_name(tool, "b")
        entry = outputs.get_entry(name)
        assert entry is not None
        assert entry.cached_at_ns is not None
        hours_ago = entry.cached_at_ns - 3601 * 10**9
        outputs.put_many({name: Entry(entry.blob, entry.fingerprint, None, hours_ago)})
    assert start(rc, home, daemon.socket_path) == ("a,b,", 2)
    assert tool.runs == 3


def test_a_deleted_entry(daemon: Daemon, tool: Tool, home: Path) -> None:
    start(rc_for(tool, "a", "b"), home, daemon.socket_path)
    wait_for_puts(daemon)
    with daemon.cache("tool-output/1/8") as outputs:
        outputs.delete(eval_name(tool, "a"))
    assert start(rc_for(tool, "a", "b"), home, daemon.socket_path) == ("a,b,", 2)
    assert tool.runs == 3


def test_more_than_are_fetched_at_once(daemon: Daemon, tool: Tool, home: Path) -> None:
    words = [f"w{number}" for number in range(18)]
    shown = "".join(f"{word}," for word in words)
    assert start(rc_for(tool, *words), home, daemon.socket_path) == (shown, 18)
    wait_for_puts(daemon)
    left = (daemon.directory / "zsh-asked").read_bytes()
    assert left == requests_for([eval_name(tool, word) for word in words[:16]])
    assert start(rc_for(tool, *words), home, daemon.socket_path) == (shown, 3)
    assert tool.runs == 18


@pytest.mark.parametrize(
    "damage", ["empty", "noise", "cut", "long", "another method", "another id", "many"]
)
def test_what_else_stands_in_that_file(damage: str, daemon: Daemon, tool: Tool, home: Path) -> None:
    """No more is sent than what is a request as it was left."""
    rc = rc_for(tool, "a", "b")
    start(rc, home, daemon.socket_path)
    wait_for_puts(daemon)
    left = daemon.directory / "zsh-asked"
    good = left.read_bytes()
    first = good[: len(good) // 2]
    data, connections = {
        "empty": (b"", 2),
        "noise": (b"\xff\x00\n" * 100, 2),
        # One that is whole is sent.
        "cut": (good[:-3], 2),
        "long": (b"\x00\x00\xff\xff" + good[4:], 2),
        "another method": (first + first.replace(b"get", b"put"), 2),
        "another id": (first + first, 2),
        "many": (requests_for([f"x{number}" for number in range(256)]) * 1000, 2),
    }[damage]
    left.write_bytes(data)
    # Less than the 2 s after which the daemon ends the connection that has half a request.
    again = start(rc, home, daemon.socket_path, AUTOLOADD_WAIT_MS="1500")
    assert again == ("a,b,", connections)
    assert left.read_bytes() == good
    assert start(rc, home, daemon.socket_path) == ("a,b,", 1)
    assert tool.runs == 2


def test_a_shell_that_is_no_terminal_asks_for_what_it_needs(
    daemon: Daemon, tool: Tool, home: Path
) -> None:
    start(rc_for(tool, "a", "b"), home, daemon.socket_path)
    wait_for_puts(daemon)
    left = (daemon.directory / "zsh-asked").read_bytes()
    script = f"{COUNT}autoloadd-eval {tool.path} b; print $GREETING $connections"
    with daemon.cache("tool-output/1/8") as outputs:
        before = outputs.stats()["hits"]
        assert output_of(script, environment=environment_for(daemon.socket_path)) == "b 1\n"
        assert outputs.stats()["hits"] == before + 1
    assert (daemon.directory / "zsh-asked").read_bytes() == left


def test_behind_the_first_prompt_nothing_is_kept(daemon: Daemon, tool: Tool, home: Path) -> None:
    rc = rc_for(tool, "a")
    start(rc, home, daemon.socket_path)
    wait_for_puts(daemon)
    environment = environment_for(daemon.socket_path)
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        terminal.run(f"autoloadd-eval {tool.path} a; autoloadd-eval {tool.path} b")
        assert terminal.run("print $connections $#_autoloadd_early_blobs").split() == ["3", "0"]
    assert (daemon.directory / "zsh-asked").read_bytes() == requests_for([eval_name(tool, "a")])


def test_where_nothing_can_be_left(daemon: Daemon, tool: Tool, home: Path) -> None:
    rc = rc_for(tool, "a") + "\ntrap 'print failed' ZERR"
    (daemon.directory / "zsh-asked").mkdir()
    with Terminal(home / "rc", rc, environment=environment_for(daemon.socket_path)) as terminal:
        assert b"failed" not in terminal.startup
        assert terminal.run("print $shown; false").split() == ["a,", "failed"]


def test_ctrl_c_at_the_first_prompt(daemon: Daemon, tool: Tool, home: Path) -> None:
    """That ends the start, as the prompt does."""
    flask = home / "flask"
    flask.write_text("#!/bin/sh\nkill -INT 0\nexec sleep 1000\n")
    flask.chmod(0o755)
    rc = f"{rc_for(tool, 'a')}\nautoloadd-complete flask; typeset -A _comps"
    environment = environment_for(daemon.socket_path)
    environment["PATH"] = f"{home}:{environment['PATH']}"
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        assert terminal.run("print $_autoloadd_is_starting").strip() == "0"
    assert (daemon.directory / "zsh-asked").exists()


def test_a_hung_daemon_is_waited_for_once(daemon: Daemon, tool: Tool, home: Path) -> None:
    rc = rc_for(tool, "a", "b")
    start(rc, home, daemon.socket_path)
    wait_for_puts(daemon)
    (daemon.directory / "zsh-daemon").unlink()
    os.kill(daemon.pid, signal.SIGSTOP)
    assert start(rc, home, daemon.socket_path, AUTOLOADD_WAIT_MS="5") == ("a,b,", 1)
    os.kill(daemon.pid, signal.SIGCONT)
    assert tool.runs == 4
    assert len((daemon.directory / "zsh-away").read_text().splitlines()) == 1


def test_a_daemon_that_goes_away_half_way(tool: Tool, home: Path) -> None:
    """What came is used; for the rest it is asked again."""
    names = [eval_name(tool, word) for word in "ab"]
    (home / "zsh-asked").write_bytes(requests_for(names))
    fingerprint = output_of(
        f"{READ_ALL}; f() {{ local _autoloadd_path={tool.path} _autoloadd_fingerprint"
        " _autoloadd_variables=(); _autoloadd_modules; _autoloadd_look;"
        " print -rn -- $_autoloadd_fingerprint }; f",
        environment=own_environment({}),
    )

    def one_of_two(peer: Peer) -> None:
        peer.greet()
        request = peer.read_request("get")
        name, blob, *_, mtime, cached_at = entry_answer(names[0], b"GREETING=cached")
        peer.answer(request, (name, blob, fingerprint.encode(), mtime, cached_at))
        peer.read_request("get")

    def none(peer: Peer) -> None:
        peer.greet()
        assert peer.read_request("get").params[0] == names[1]

    server = ScriptedServer(home / "socket", (one_of_two, none))
    shown = start(rc_for(tool, "a", "b"), home, server.path)
    server.stop()
    assert shown == ("cached,b,", 2)
    assert tool.runs == 1
