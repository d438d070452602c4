"""What is evaluated is what the tool would have printed: where more than its file decides that."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

import pytest
from tests.client.scripted import Peer, ScriptedServer
from tests.running import wait_until

from autoloadd_client.shells.fingerprint import fingerprint_file

from .test_eval import daemon, environment, only_entry, outputs, wait_for_puts
from .zsh import PLUGIN, READ_ALL, environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from autoloadd_client import Cache

    from .conftest import Tool

__all__ = ["daemon", "environment", "outputs"]

SHOW = "autoloadd-eval $TOOL; print -r -- $GREETING"


def own_locals() -> list[str]:
    """Return the names of all variables that the plugin's functions declare."""
    found = set()
    for line in PLUGIN.read_text().splitlines():
        for declared in re.findall(r"\blocal ([^;&]*)", line):
            plain = re.sub(r"\([^()]*\)|\$\{.*\}|=\S*", " ", declared)
            found |= {word for word in plain.split() if re.fullmatch(r"[a-zA-Z]\w*", word)}
    return sorted(
        found | {"file", "words", "name", "match", "mbegin", "mend", "REPLY"} - {"SECONDS"}
    )


def test_the_tool_sees_every_exported_variable(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """Also those that are called as the plugin calls its own."""
    names = own_locals()
    assert len(names) > 40
    tool.write(f"echo GREETING=$(env | grep -cE '^({'|'.join(names)})=1$')")
    exported = {**environment, **dict.fromkeys(names, "1")}
    assert output_of(SHOW, environment=exported) == f"{len(names)}\n"
    whole = f"{READ_ALL}\ntypeset -a _autoloadd_watched=(x)\n_autoloadd_asked {tool.path} x"
    assert output_of(whole, environment=exported) == f"GREETING={len(names)}\n"


@pytest.mark.parametrize("name", ["file", "words", "name", "variable"])
def test_a_variable_called_as_one_of_the_plugins(
    name: str, environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write(f"echo GREETING=${name}")
    script = SHOW.replace("$TOOL", f"--env {name} $TOOL")
    for runs, value in ((1, "one"), (2, "two")):
        assert output_of(script, environment={**environment, name: value}) == f"{value}\n"
        wait_for_puts(outputs, runs)
    assert (only_entry(outputs)[1].fingerprint or b"").endswith(f"\0{name}=two\0".encode())


def test_what_is_written_behind_the_mark(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """By what the tool left running: a plain $(...) waits for it, too."""
    tool.write("echo GREETING=hello\n(sleep 0.3; echo GREETING=late) &")
    for _ in range(2):
        assert output_of(SHOW, environment=environment) == "late\n"
        wait_for_puts(outputs, 1)


def test_many_newlines(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    tool.write("echo GREETING=hello; head -c 300000 /dev/zero | tr '\\0' '\\n'")
    script = f"typeset -F SECONDS=0; {SHOW}; print $(( SECONDS < 5 ))"
    assert output_of(script, environment=environment) == "hello\n1\n"


def test_a_tool_that_is_found_by_a_link(
    environment: dict[str, str], tool: Tool, outputs: Cache, home: Path
) -> None:
    """It may do as its name says, or as its link's directory does, as Python's venvs."""
    tool.write("echo GREETING=${0##*/}")
    script = f"cd {home}; PATH=$HERE:$PATH; autoloadd-eval busy; print $GREETING"
    for runs, directory in ((1, "one"), (2, "two"), (2, "two")):
        (home / directory).mkdir(exist_ok=True)
        if not (home / directory / "busy").exists():
            (home / directory / "busy").symlink_to(tool.path)
        here = {**environment, "HERE": str(home / directory)}
        assert output_of(script, environment=here) == "busy\n"
        wait_for_puts(outputs, runs)
        text = fingerprint_file(str(tool.path)) + f"{home}/{directory}/busy\0".encode()
        assert only_entry(outputs)[1].fingerprint == text
    assert tool.runs == 2


def test_a_link_to_a_shim(environment: dict[str, str], tool: Tool, home: Path) -> None:
    (home / "shims").mkdir()
    (home / "shims" / "real").write_text("#!/bin/sh\necho ran >> $DIR/ran; echo GREETING=shim\n")
    (home / "shims" / "real").chmod(0o755)
    (home / "link").symlink_to(home / "shims" / "real")
    there = {**environment, "DIR": str(home), "TOOL": str(home / "link")}
    for _ in range(2):
        assert output_of(SHOW, environment=there) == "shim\n"
    assert (home / "ran").read_text() == "ran\n" * 2


def test_a_tool_that_is_replaced_while_it_runs(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """Whichever of the two ran: what it printed is not kept as the other's."""
    tool.write("cp -p $0 $0.new; echo '#' >> $0.new; mv $0.new $0; echo GREETING=old")
    for _ in range(2):
        assert output_of(SHOW, environment=environment) == "old\n"
    assert (tool.runs, list(outputs.names())) == (2, [])


def test_what_env_and_path_decide(environment: dict[str, str], tool: Tool, home: Path) -> None:
    """What would have another program run than the one that was looked at is not kept."""
    (home / "other").mkdir()
    (home / "other" / "tool").write_text("#!/bin/sh\necho GREETING=other\n")
    (home / "other" / "tool").chmod(0o755)
    for line in (
        f"autoloadd-eval env PATH={home}:$PATH tool",
        f"autoloadd-eval env -u HUE {tool.path}",
        f"autoloadd-eval env a.b=c {tool.path}",
        f"autoloadd-eval env env {tool.path}",
        f"autoloadd-eval /usr/bin/env {tool.path}",
        f"PATH={home}/other:$PATH; hash tool={tool.path}; autoloadd-eval tool",
        f"autoloadd-eval {tool.path} $'a\\0b'",
    ):
        before = tool.runs
        for _ in range(2):
            assert output_of(f"{line}; print $GREETING", environment=environment) == "hello\n"
        assert tool.runs == before + 2, line


def test_an_empty_element_of_path_is_here(
    environment: dict[str, str], tool: Tool, outputs: Cache, home: Path
) -> None:
    script = f"cd {home}; PATH=:$PATH; autoloadd-eval tool; print $GREETING"
    for runs, greeting in ((1, "one"), (2, "two")):
        tool.write(f"echo GREETING={greeting}")
        assert output_of(script, environment=environment) == f"{greeting}\n"
        wait_for_puts(outputs, runs)


def test_a_good_run_ends_the_mark_of_a_bad_one(
    environment: dict[str, str], tool: Tool, outputs: Cache, home: Path
) -> None:
    tool.write(f"echo GREETING=hello; [ -e {home}/good ] || echo bad >&2")
    run_zsh(SHOW, environment=environment)
    wait_for_puts(outputs, 1)
    assert only_entry(outputs)[0].startswith("unkept\0eval\0")
    (home / "good").touch()
    assert output_of(SHOW, environment=environment) == "hello\n"
    wait_until(lambda: [n[:5] for n, _ in outputs.names()] == ["eval\0"], 20, "the mark to go")


def test_an_answer_that_drips(home: Path, tool: Tool) -> None:
    """Each byte in time, but not the whole: it is given up a second after the first."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.read_request("get")
        with contextlib.suppress(OSError):
            for byte in b"\0\0\x10\0\x94\x01\xce\0\x01\0\x01\xc0\x90" + b"x" * 200:
                peer.send(bytes([byte]))
                time.sleep(0.05)
        peer.wait_for_rest()

    server = ScriptedServer(home / "socket", (script,))
    environment = environment_for(server.path, TOOL=str(tool.path), AUTOLOADD_WAIT_MS="300")
    began = time.monotonic()
    assert output_of(SHOW, environment=environment) == "hello\n"
    assert time.monotonic() - began < 5
    server.stop()


def test_what_aws_completes_behind_other_than_ascii(home: Path) -> None:
    """COMP_POINT counts characters, and we bytes."""
    script = (
        READ_ALL
        + """
    f() { local _autoloadd_program; local -a _autoloadd_key _autoloadd_files
    COMP_LINE=$1 COMP_POINT=$2; _autoloadd_understand_aws aws_completer; print $? }
    f 'aws s3 sync --d' 15; f $'aws s3 sync \\xc3\\xa9 --d' 17"""
    )
    assert output_of(script, environment=environment_for(str(home / "socket"))) == "0\n1\n"


def test_what_is_wrong_is_named(environment: dict[str, str]) -> None:
    ran = run_zsh(
        "autoloadd-eval --colour x\nautoloadd-eval --max-age 1w x\nautoloadd-eval no-such-tool",
        environment=environment,
    )
    assert b"autoloadd: bad option: --colour\n" in ran.stderr
    assert b"autoloadd: bad option: --max-age=1w\n" in ran.stderr
    assert ran.stderr.endswith(b"zsh: command not found: no-such-tool\n")


def test_a_time_that_is_too_long(environment: dict[str, str]) -> None:
    script = f"autoloadd-put --mtime {'9' * 19} n b; print $?"
    assert run_zsh(script, environment=environment).stdout == b"2\n"
