"""TAB behind autoloadctl and autoloadd, in each of the three shells."""

from __future__ import annotations

import argparse
import re
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.shells.zsh.terminal import Terminal

from autoloadd_client.cli.run import make_parser as make_client_parser
from autoloadd_daemon.config import make_parser as make_daemon_parser
from pseudo_terminal import PseudoTerminal

from .conftest import FILES, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPLETED = {
    "autoloadctl pub": "autoloadctl publish",
    "autoloadctl --jso": "autoloadctl --json",
    "autoloadctl get --fing": "autoloadctl get --fingerprint-file",
    "autoloadctl --json get --fing": "autoloadctl --json get --fingerprint-file",
    "autoloadctl get --json --fing": "autoloadctl get --json --fingerprint-file",
    "autoloadctl --timeout 3 publ": "autoloadctl --timeout 3 publish",
    "autoloadctl put --sync f": "autoloadctl put --sync fsync",
    "autoloadctl put --sync=f": "autoloadctl put --sync=fsync",
    "autoloadctl shell install b": "autoloadctl shell install bash",
    "autoloadctl cached --env AUTOLOADD_PR": "autoloadctl cached --env AUTOLOADD_PRODUCER",
    "autoloadctl put new fi": "autoloadctl put new file",
    "autoloadctl get _ls --fingerprint-file fi": "autoloadctl get _ls --fingerprint-file file",
    "autoloadctl import zs": "autoloadctl import zshrs",
    "autoloadctl import fi": "autoloadctl import file",
    "autoloadctl publish zsh --fpath /us": "autoloadctl publish zsh --fpath /usr/",
    "autoloadctl publish zsh --fpath /usr /us": "autoloadctl publish zsh --fpath /usr /usr/",
    "autoloadctl warm zsh /usr /us": "autoloadctl warm zsh /usr /usr/",
    "autoloadd --log-level d": "autoloadd --log-level debug",
    "autoloadd --check": "autoloadd --check-config",
    "true | autoloadctl pub": "true | autoloadctl publish",
    # Nothing is offered: not an option of this command, not a file where none is meant, not our
    # own option behind a tool.
    "autoloadctl status --fing": "autoloadctl status --fing",
    "autoloadctl count fi": "autoloadctl count fi",
    "autoloadctl get --timeout fi": "autoloadctl get --timeout fi",
    "autoloadctl cached true --max": "autoloadctl cached true --max",
}
"""Lines, and what TAB makes of them without asking the daemon."""

ASKED = {
    "autoloadctl get _l": ("autoloadctl get _ls", "ls -- _l"),
    "autoloadctl get _ls": ("autoloadctl get _ls", "ls -- _ls"),
    "autoloadctl get --json _l": ("autoloadctl get --json _ls", "ls -- _l"),
    "autoloadctl rm --sync fsync _l": ("autoloadctl rm --sync fsync _ls", "ls -- _l"),
    "autoloadctl get a": (r"autoloadctl get a\ b", "ls -- a"),
    "autoloadctl get x:": ("autoloadctl get x:y", "ls -- x:"),
    "autoloadctl get it": (r"autoloadctl get it\'s", "ls -- it"),
    r"autoloadctl get \$": (r"autoloadctl get \$\(touch\ pwned\)", "ls -- $"),
    "autoloadctl get -- -d": ("autoloadctl get -- -dash", "ls -- -d"),
    "autoloadctl get nothing-begins-so": (
        "autoloadctl get nothing-begins-so",
        "ls -- nothing-begins-so",
    ),
    "autoloadctl --producer tool-output/1/8 rm fl": (
        "autoloadctl --producer tool-output/1/8 rm flask",
        "ls --producer tool-output/1/8 -- fl",
    ),
    "autoloadctl rm --producer=tool-output/1/8 fl": (
        "autoloadctl rm --producer=tool-output/1/8 flask",
        "ls --producer=tool-output/1/8 -- fl",
    ),
    "autoloadctl get --socket ~/nowhere _l": (
        "autoloadctl get --socket ~/nowhere _l",
        "ls --socket {home}/nowhere -- _l",
    ),
    "autoloadctl ls --producer to": ("autoloadctl ls --producer tool-output/1/8", "shards"),
    "autoloadctl drop tool": ("autoloadctl drop tool-output-1-8-{id}", "shards"),
    "autoloadctl verify zsh": ("autoloadctl verify zsh-5.9-8-{id}", "shards"),
}
"""Lines for which the daemon is asked, once: what TAB makes of them, and what was asked."""


class Shell(Protocol):
    """An interactive shell that has read the completions."""

    def complete(self, line: str) -> str:
        """Return what TAB makes of a line."""


class Zsh(Terminal):
    def complete(self, line: str) -> str:
        return self.tab(line)[1].strip()[1:-1].partition(":")[2]


class Bash(PseudoTerminal):
    def complete(self, line: str) -> str:
        self.send(f"{line}\t\x18\x18")
        shown = self.read_until(b"\x1b]done\x07")
        return shown.rpartition(b"\x1b]line\x07")[2].decode()


class Fish(PseudoTerminal):
    def complete(self, line: str) -> str:
        self.send(f"{line}\t\x18")
        shown = self.read_until(b"\x1b]done\x07")
        return shown.rpartition(b"\x1b]line\x07")[2].decode()


ZSH_RC = """
fpath=({files} $fpath); autoload -Uz compinit; compinit -D -u; cd {work}
"""

BASH_RC = r"""
PS1='$ ' PS2= IFS=/
bind 'set enable-bracketed-paste off' 'set page-completions off' 'set bell-style none'
bind 'set completion-query-items 0'
_line() {{ printf '\e]line\a%s\e]done\a' "$READLINE_LINE"; READLINE_LINE=; }}
bind -x '"\C-x\C-x": _line'
PROMPT_COMMAND='printf "\e]ready\a"'
set -u
. {files}/autoloadctl.bash
. {files}/autoloadd.bash
"""

FISH_RC = r"""
set -g fish_greeting
set fish_complete_path {files} $fish_complete_path
function fish_prompt; printf '\e]ready\a'; end
function shown; printf '\e]line\a%s\e]done\a' (commandline); commandline ''; end
bind \cx shown
"""


@pytest.fixture(scope="module", params=["zsh", "bash", "fish"])
def shell(request: pytest.FixtureRequest, place: Place) -> Iterator[Shell]:
    with start(request.param, place) as running:
        yield running


def start(name: str, place: Place) -> Zsh | Bash | Fish:
    """Start a shell, interactive, with our completions and no one else's start-up file."""
    values = {"files": FILES, "work": place.work}
    if name == "zsh":
        return Zsh(place.directory / "z", ZSH_RC.format(**values), environment=place.environment)
    if name == "bash":
        path = place.directory / "bashrc"
        path.write_text(BASH_RC.format(**values))
        command = ["bash", "--noprofile", "--rcfile", str(path), "-i"]
        bash = Bash(command, environment=place.environment, directory=place.work)
        bash.read_until(b"\x1b]ready\x07$ ")
        return bash
    path = place.directory / "config" / "fish" / "config.fish"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FISH_RC.format(**values))
    fish = Fish(["fish", "-i"], environment=place.environment, directory=place.work)
    fish.read_until(b"\x1b]ready\x07")
    return fish


def test_what_is_known_is_completed_without_a_question(shell: Shell, place: Place) -> None:
    place.asked()
    found = {line: shell.complete(line).rstrip(" =") for line in COMPLETED}
    assert found == COMPLETED
    assert place.asked() == []


def test_names_are_asked_of_the_daemon(shell: Shell, place: Place) -> None:
    place.asked()
    for line, (completed, asked) in ASKED.items():
        found = re.sub("-[0-9a-f]{16}$", "-{id}", shell.complete(line).rstrip())
        assert found == completed
        command, _, rest = asked.format(home=place.directory).partition(" ")
        assert place.asked() == [f"{command} --timeout 0.5 {rest}".rstrip()], line
    assert [file.name for file in place.work.iterdir()] == ["file"], "a name was run"


def test_zsh_offers_a_name_once(place: Place) -> None:
    with start("zsh", place) as shell:
        assert shell.complete("autoloadctl get _git _gi") == "autoloadctl get _git _gitk "
        assert shell.complete("autoloadctl get _ls") == "autoloadctl get _ls "


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_a_tool_behind_cached_is_completed_as_itself(place: Place, name: str) -> None:
    with start(name, place) as shell:
        line = "autoloadctl cached --max-age 1d autoloadd --check"
        assert shell.complete(line).rstrip() == f"{line}-config"


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    return sorted(
        flag
        for action in parser._actions
        for flag in action.option_strings
        if action.help != argparse.SUPPRESS
    )


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


CTL = make_client_parser()
OPTIONS = {
    "autoloadd": flags_of(make_daemon_parser()),
    "autoloadctl": flags_of(CTL),
    **{f"autoloadctl {name}": flags_of(command) for name, command in commands_of(CTL).items()},
}
"""Every option of every command, by what stands before it."""


def offered_by_bash(lines: list[str], place: Place) -> list[list[str]]:
    """Return what bash's functions offer behind each line."""
    script = f"""
        compopt() {{ :; }}
        . {FILES}/autoloadctl.bash; . {FILES}/autoloadd.bash
        while IFS= read -r COMP_LINE; do
          COMP_POINT=${{#COMP_LINE}}
          COMP_WORDS=(${{COMP_LINE% }}); [[ $COMP_LINE != *' ' ]] || COMP_WORDS+=('')
          COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
          _${{COMP_WORDS[0]}} "${{COMP_WORDS[0]}}" "${{COMP_WORDS[-1]}}"
          echo "${{COMPREPLY[*]}}"
        done"""
    return [line.split() for line in run(["bash", "-c", script, "bash"], lines, place)]


def offered_by_fish(lines: list[str], place: Place) -> list[list[str]]:
    """Return what fish offers behind each line."""
    script = f"""
        source {FILES}/autoloadctl.fish; source {FILES}/autoloadd.fish
        while read line
          string join ' ' -- (complete -C "$line" | string replace -r '\\t.*' '')
        end"""
    return [line.split() for line in run(["fish", "-N", "-c", script], lines, place)]


def offered_by_zsh(lines: list[str], place: Place) -> list[list[str]]:
    """Return what zsh's functions give to `_arguments` and `_describe` for each line."""
    script = f"""
        fpath=({FILES} $fpath); autoload -Uz _autoloadctl _autoloadd
        _arguments() {{
          specs=("$@")
          if [[ $*[-1] == *'->operands' ]]; then
            [[ $#typed -gt 2 ]] && {{ state=operands; shift words }} || state=command
          fi
        }}
        _describe() {{ described=(${{commands%%:*}}) }}
        while IFS= read -r line; do
          specs=() described=() typed=() words=(${{=line}}) CURRENT=$#words
          [[ $line != *' ' ]] || words+=('')
          _$words[1]
          # A spec is (what it excludes)*--flag=[text]; only the flag is always there.
          specs=(${{${{${{specs#\\(*\\)}}#\\*}}%%[=\\[]*}})
          [[ $line == *' ' ]] && print -r -- $described || print -r -- ${{(M)specs:#--*}}
        done"""
    return [line.split() for line in run(["zsh", "-fc", script], lines, place)]


def run(command: list[str], lines: list[str], place: Place) -> list[str]:
    """Run a shell on lines; return as many lines of output."""
    ran = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines), cwd=place.work,
        env=place.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize("offered", [offered_by_zsh, offered_by_bash, offered_by_fish])
def test_every_option_and_command_is_offered_and_no_other(
    place: Place, offered: Callable[[list[str], Place], list[list[str]]]
) -> None:
    # Two dashes: fish offers short options behind a single one only.
    found = offered([f"{line} --" for line in OPTIONS], place)
    wanted = [[flag for flag in flags if flag != "-h"] for flags in OPTIONS.values()]
    assert dict(zip(OPTIONS, map(sorted, found), strict=True)) == dict(
        zip(OPTIONS, wanted, strict=True)
    )
    (commands,) = offered(["autoloadctl "], place)
    assert sorted(commands) == sorted(commands_of(CTL))
