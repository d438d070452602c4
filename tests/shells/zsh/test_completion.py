"""TAB of real tools: byte for byte what it is without autoloadd, and the tool runs once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.running import Daemon, own_environment, private_directory

from shell_tools import tool_home

from .terminal import Terminal
from .zsh import PATIENT, PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = {
    "flask": 'eval "$(_FLASK_COMPLETE=zsh_source flask)"',
    "black": 'eval "$(_BLACK_COMPLETE=zsh_source black)"',
    "uvicorn": 'eval "$(_UVICORN_COMPLETE=zsh_source uvicorn)"',
    "typer": 'eval "$(_TYPER_COMPLETE=source_zsh typer)"',
    "aws": "autoload -Uz bashcompinit; bashcompinit; complete -C aws_completer aws",
    "npm": 'eval "$(npm completion)"',
    "pip": "eval \"__pip() { $(pip completion --zsh | grep -v '^#') }\"; compdef __pip pip",
}
"""What the tools' own manuals want in .zshrc; pip's is made for a file in fpath."""

KEPT = {
    "flask": ["flask r", "flask run --deb"],
    "black": ["black --fas", "black --target-version ", "black s"],
    "uvicorn": ["uvicorn --relo", "uvicorn --loop "],
    "typer": ["typer --ver"],
    "aws": ["aws s3 sy", "aws ec2 describe-inst", "aws --out"],
    "npm": ["npm insta", "npm install --o"],
    "pip": ["pip insta", "pip list --ou", "pip --ver"],
}
NOT_KEPT = {
    "npm": ["npm run "],
    "pip": ["pip install s", "pip list --format "],
    "aws": ["aws --output "],
}
"""What depends on files and directories that are in no key, or is asked from afar."""

BROKEN = "export PYTHONHOME=/nowhere NODE_OPTIONS=--no-such-option"
"""Neither is in a key, and no tool prints anything with it."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with an application of flask and a package of npm in it."""
    with private_directory() as directory:
        (directory / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
        (directory / "package.json").write_text('{"scripts": {"serve": "true", "lint": "true"}}')
        (directory / "src").mkdir()
        yield directory


@pytest.fixture(scope="module")
def daemon(place: Path) -> Iterator[Daemon]:
    """A daemon that all tests here share."""
    daemon = Daemon(place)
    try:
        yield daemon.start()
    finally:
        daemon.end()


def start(place: Path, rc: str, *, loaded: bool, before: str = "") -> Terminal:
    """Start an interactive shell in `place`, with the plugin or without.

    `before` stands before compinit, `rc` behind it.
    """
    environment = own_environment(
        {
            **PATIENT,
            "HOME": str(place),
            "PATH": f"{tool_home() / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "AUTOLOADD_SOCKET": str(place / "socket"),
        }
    )
    environment.pop("PYTHONPATH", None)
    compinit = f"cd {place}; autoload -Uz compinit; compinit -u -d {place}/dump"
    plugin = f"source {PLUGIN}" if loaded else ""
    whole = f"{plugin}\n{before}\n{compinit}\n{rc}"
    return Terminal(place / "rc", whole, environment=environment)


def press(place: Path, rc: str, lines: list[str], *, loaded: bool) -> list[tuple[bytes, str]]:
    """Return what TAB shows for each line, and the line as it is then."""
    with start(place, rc, loaded=loaded) as terminal:
        return [terminal.tab(line) for line in lines]


@pytest.mark.parametrize("tool", OWN)
def test_the_same_completions(tool: str, place: Path, daemon: Daemon) -> None:
    opted = "autoloadd-complete typer" if tool == "typer" else ""
    kept, lines = KEPT[tool], KEPT[tool] + NOT_KEPT.get(tool, [])
    without = press(place, OWN[tool], lines, loaded=False)
    # It does complete: the line is longer, or there is a list below.
    shown, line = without[0]
    assert line != f"<{len(lines[0])}:{lines[0]}>\n" or b"\n" in shown
    with daemon.cache("tool-output/1/8") as outputs:
        before = outputs.count()
        assert press(place, f"{OWN[tool]}\n{opted}", lines, loaded=True) == without
        assert outputs.count() == before + len(kept)
    served = press(place, f"{OWN[tool]}\n{opted}\n{BROKEN}", kept, loaded=True)
    assert served == without[: len(kept)]


def test_without_the_tools_own_line(place: Path, daemon: Daemon) -> None:
    """`autoloadd-complete TOOL` is enough, before compinit or after it."""
    tools = ["flask", "black", "uvicorn", "aws", "npm"]
    lines = [KEPT[tool][0] for tool in tools]
    own = "\n".join(OWN[tool] for tool in tools)
    without = press(place, f"unset '_comps[npm]'\n{own}", lines, loaded=False)
    opted = f"autoloadd-complete {' '.join(tools)}"
    assert press(place, f"unset '_comps[npm]'\n{opted}", lines, loaded=True) == without
    with start(place, "", loaded=True, before=opted) as terminal:
        assert [terminal.tab(line) for line in lines[:4]] == without[:4]


def test_zshs_own_completion_of_npm_replaces_itself(place: Path, daemon: Daemon) -> None:
    lines = ["npm insta", "npm insta"]
    without = press(place, "", lines, loaded=False)
    assert press(place, "", lines, loaded=True) == without
    assert press(place, BROKEN, lines, loaded=True) == without


def test_what_changes_is_seen(place: Path, daemon: Daemon) -> None:
    """flask: another FLASK_APP, another directory, another application there."""
    command = '\n@app.cli.command()\ndef shout() -> None:\n    "Shout."\n'
    plain = (place / "app.py").read_text()
    (place / "other.py").write_text(plain + command)
    (place / "src" / "app.py").write_text(plain + command)

    def shouts(more: str = "") -> bool:
        ((_, line),) = press(place, f"{OWN['flask']}\n{more}", ["flask sho"], loaded=True)
        return line == "<12:flask shout >\n"

    assert not shouts()
    assert shouts("export FLASK_APP=other")
    assert not shouts()
    assert shouts("cd src")
    assert not shouts()
    (place / "app.py").write_text(plain + command)
    assert shouts()
    (place / "app.py").write_text(plain)


def test_nothing_else_is_touched(place: Path, daemon: Daemon) -> None:
    show = "print -r -- ${_comps[typer]} ${_comps[ls]} ${_comps[flask]} $+functions[flask]"
    rc = f"{OWN['typer']}\n{OWN['flask']}"
    with start(place, rc, loaded=True) as terminal:
        assert terminal.run(show).split() == [
            *("_typer_completion", "_ls"),
            *("_autoloadd_tab", "flask", "_flask_completion", "0"),
        ]
        terminal.tab("flask ro")
        assert terminal.run("print $+functions[flask] $+functions[env]").split() == ["0", "0"]


def test_a_function_of_the_users_stays(place: Path, daemon: Daemon) -> None:
    rc = f'{OWN["flask"]}\nenv() {{ print called >> {place}/called; command env "$@" }}'
    with start(place, rc, loaded=True) as terminal:
        _shown, line = terminal.tab("flask ro")
        assert line == "<13:flask routes >\n"
        assert terminal.run("print $+functions[env]").split() == ["1"]
    assert (place / "called").read_text() == "called\n"


def test_a_tool_that_has_no_completion(place: Path, daemon: Daemon) -> None:
    with start(place, "", loaded=True) as terminal:
        said = terminal.run("autoloadd-complete no-such; print $?")
        assert "zsh completes nothing for no-such yet: load its completion first" in said
        assert said.split()[-1] == "1"
        assert "usage: autoloadd-complete" in terminal.run("autoloadd-complete")
        assert "black flask npm" in terminal.run("autoloadd-complete --help")


def test_only_what_a_completion_asks_is_kept(place: Path, daemon: Daemon) -> None:
    """It may start the tool for something else besides."""
    mine = place / "mine"
    mine.write_text("#!/bin/sh\nprintf x >> $HOME/mine.ran\n")
    mine.chmod(0o755)
    rc = f"""_mine() {{ : $(env LINES=3 {mine}) $(env _MINE_COMPLETE=zsh_complete {mine})
      compadd hello }}
    compdef _mine mine
    autoloadd-complete mine"""
    press(place, rc, ["mine h", "mine h"], loaded=True)
    assert (place / "mine.ran").read_text() == "xxx"
