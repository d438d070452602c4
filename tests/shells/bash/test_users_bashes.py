"""bash as users have it: read from wherever, in modes of their own, with what an interrupt left."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .test_bash import SHELLS, SOURCE, Bash, bash, daemon, environment, run, tool

if TYPE_CHECKING:
    from ..slow_tool import Tool

__all__ = ["daemon", "environment", "tool"]

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.mark.parametrize("start", ["shells", ".", "..", "link"])
def test_it_may_be_read_by_any_path(tool: Tool, environment: dict[str, str], start: str) -> None:
    if start == "link":
        path = Path(environment["HOME"]) / "a link"
        path.symlink_to(SHELLS / "autoloadd.bash")
        where, name = path.parent, "./'a link'"
    else:
        where = (SHELLS.parent / start).resolve()
        name = f"./{os.path.relpath(SHELLS / 'autoloadd.bash', where)}"
    lines = f"cd {where}; . {name}\ncd /; autoloadd-eval slow; echo $FOO"
    for _ in range(2):
        assert run(lines, environment) == (0, "slow\n", "")
    assert tool.runs == 1


@pytest.mark.parametrize("value", ["='log it'", "", "=(one two)"])
def test_a_prompt_command_that_cannot_be_changed(environment: dict[str, str], value: str) -> None:
    declared = f"declare -r PROMPT_COMMAND{value}; declare -p PROMPT_COMMAND"
    rc = f"{declared}; exec 2>said\n{SOURCE}\nexec 2>&1\n"
    ran = bash(f"{rc}declare -p PROMPT_COMMAND; alias autoloadd-eval", environment, "-i")
    before, after, alias = ran[1].splitlines()
    assert before == after
    assert alias.startswith("alias autoloadd-eval=")
    assert (Path(environment["HOME"]) / "said").read_text() == ""


@pytest.mark.parametrize("command", ["unset PROMPT_COMMAND", "PROMPT_COMMAND=()"])
def test_a_prompt_command_that_is_not_there(environment: dict[str, str], command: str) -> None:
    rc = f"set -u; exec 2>said\n{command}\n{SOURCE}\nexec 2>&1\n"
    shown = bash(f"{rc}_autoloadd_at_prompt; echo ${{PROMPT_COMMAND-none}}", environment, "-i")
    assert shown[1] == "none\n"
    assert (Path(environment["HOME"]) / "said").read_text() == ""


@pytest.mark.parametrize("value", ["1", ""])
def test_posix_mode_stays_as_it_was(environment: dict[str, str], value: str) -> None:
    shown = "declare -p POSIXLY_CORRECT; set -o; shopt"
    for given, how in ({"POSIXLY_CORRECT": value}, "true"), ({}, "set -o posix"), ({}, "true"):
        told = {**environment, **given}
        before = bash(f"{how}; {shown}", told)
        assert bash(f"{how}; {SOURCE}; {shown}", told) == before


def tabs(body: str, before: str = "") -> str:
    """Return lines that complete `slow` twice by a function, and show what came of both."""
    once = 'COMPREPLY=(); _autoloadd_tab slow x slow; echo "${COMPREPLY[*]}"\n'
    return f"""
        _slow() {{ {body}
        }}
        complete -F _slow slow; {SOURCE}; autoloadd-complete slow
        COMP_WORDS=(slow x) COMP_CWORD=1
        {before}
        {once * 2}"""


@pytest.mark.parametrize("mode", ["set -a", "set -u", "set -o posix", "shopt -s nocasematch"])
def test_modes_while_it_completes(environment: dict[str, str], tool: Tool, mode: str) -> None:
    # A script of bash's, so that it would inherit a function.
    tool.path.write_text(f"#!/bin/bash\nenv >/dev/null\nprintf x >>{tool.directory}/runs\necho a\n")
    body = 'COMPREPLY=($(env | grep -c ^HOME=; "$1" names))'
    assert run(tabs(body, mode), environment) == (0, "1 a\n1 a\n", "")
    assert tool.runs == (2 if "posix" in mode else 1)


def test_a_name_that_is_no_functions_in_posix_mode(environment: dict[str, str], tool: Tool) -> None:
    tool.write("echo album")
    (tool.directory / "my-slow").symlink_to(tool.path)
    lines = tabs('COMPREPLY=($("$1" names))').replace("slow x slow", "my-slow x my-slow")
    lines = lines.replace("complete -F _slow slow", "complete -F _slow my-slow")
    lines = lines.replace("autoloadd-complete slow", "autoloadd-complete my-slow; set -o posix")
    assert run(lines, environment) == (0, "album\nalbum\n", "")


def test_a_tool_that_answers_on_a_descriptor_of_its_own(
    environment: dict[str, str], tool: Tool
) -> None:
    """As argcomplete has it: what its stdout holds is nothing."""
    tool.write("echo album >&8")
    body = """
        _run() { "$@" 8>&1 9>&2 >/dev/null 2>&1; }
        COMPREPLY=($(_ARGCOMPLETE=1 _run slow))"""
    assert run(tabs(body), environment) == (0, "album\nalbum\n", "")
    assert tool.runs == 2


def test_what_an_interrupt_left_behind_is_no_function_of_the_users(
    environment: dict[str, str], tool: Tool
) -> None:
    tool.write("echo album")
    body = """declare -f env slow >left; COMPREPLY=($(slow names))"""
    first = run(tabs(body), environment)
    assert (first, tool.runs) == ((0, "album\nalbum\n", ""), 1)
    left = (Path(environment["HOME"]) / "left").read_text()
    assert left.count("_autoloadd_instead") == 2
    # It may be that of another tool's completion.
    for of_another in ("", "; unset -f slow"):
        assert run(tabs(body, f". ./left{of_another}"), environment) == first
        assert tool.runs == 1
    # The user's own is left alone.
    mine = "env() { echo mine; }"
    assert run(tabs("COMPREPLY=($(env))", mine), environment) == (0, "mine\nmine\n", "")


def test_a_start_up_file_that_is_read_once_more(environment: dict[str, str]) -> None:
    behind = "_black() { :; }; complete -F _black black"
    with Bash(environment, f"{SOURCE}\n{behind}\n_autoloadd_at_prompt") as shell:
        ours = "complete -F _autoloadd_tab black\r\n"
        assert shell.run("complete -p black") == ours
        shell.run(f"{SOURCE}; {behind}; _autoloadd_at_prompt")
        assert shell.run("complete -p black") == ours
        # Without that, who registers it himself is not overruled.
        shell.run(f"{behind}; _autoloadd_at_prompt")
        assert shell.run("complete -p black") == "complete -F _black black\r\n"


def test_a_package_that_comes_is_a_reason_to_ask_again(
    environment: dict[str, str], tool: Tool, tmp_path: Path
) -> None:
    tool.write("echo album")
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    lines = tabs('COMPREPLY=($("$1" names))')
    assert (run(lines, environment), tool.runs) == ((0, "album\nalbum\n", ""), 1)
    (packages / "one").mkdir()
    assert (run(lines, environment), tool.runs) == ((0, "album\nalbum\n", ""), 2)
    for runs in (3, 3):
        run(lines, {**environment, "PYTHONPATH": "elsewhere"})
        assert tool.runs == runs


def test_models_of_aws_that_lie_elsewhere(environment: dict[str, str], tool: Tool) -> None:
    tool.write("echo s3")
    (tool.directory / "aws_completer").symlink_to(tool.path)
    lines = f"""complete -C aws_completer aws; {SOURCE}
        COMP_WORDS=(aws s) COMP_CWORD=1 COMP_LINE='aws s' COMP_POINT=5
        _autoloadd_tab aws s aws; echo "${{COMPREPLY[*]}}\""""
    given = {**environment, "PATH": f"{tool.directory}:{environment['PATH']}"}
    for where, runs in (({}, 1), ({}, 1), ({"AWS_DATA_PATH": "/models"}, 2)):
        assert run(lines, {**given, **where}) == (0, "s3\n", "")
        assert tool.runs == runs


@pytest.mark.parametrize("command", ["echo a -F b", "echo -C 'c d'", "echo a"])
def test_a_command_of_any_words_completes_as_before(
    environment: dict[str, str], command: str
) -> None:
    lines = f"""complete -o nospace -C {shlex.quote(command)} slow; {SOURCE}
        autoloadd-complete slow; complete -p slow
        COMP_WORDS=(slow s) COMP_CWORD=1 COMP_LINE='slow s' COMP_POINT=6
        _autoloadd_tab slow s slow; echo "${{COMPREPLY[*]}}\""""
    plain = bash(f"{command} slow s slow", environment)[1]
    shown = f"complete -o nospace -F _autoloadd_tab slow\n{plain}"
    assert run(lines, environment) == (0, shown, "")
