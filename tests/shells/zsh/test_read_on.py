"""The part of the plugin that is read when somebody first needs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.running import own_environment

from .terminal import Terminal
from .zsh import PLUGIN, environment_for, output_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Daemon

    from .conftest import Tool

MARK = "\n# ---- read when "


def defined_in(text: str) -> set[str]:
    """Return the functions that a part defines."""
    return set(re.findall(r"^ *(?:function )?([\w-]+)(?:\(\))? \{$", text, re.MULTILINE))


def test_whoever_is_called_first_has_it_read() -> None:
    """Each function of a later part that is called from before it, and those for users."""
    parts = PLUGIN.read_text().split(MARK)
    stubs = re.search(
        r"^function ((?:[\w-]+[ \\\n]+)+)\{\n  _autoloadd_read_on", parts[0], re.MULTILINE
    )
    assert stubs
    code, needed = parts[0].replace(stubs[0], ""), set[str]()
    for part in parts[1:]:
        code = re.sub(r"^ *#.*", "", code, flags=re.MULTILINE)
        late = defined_in(part)
        assert len(late) > 20
        assert not late & defined_in(code)
        needed |= late & set(re.findall(r"[\w-]+", code))
        needed |= {name for name in late if not name.startswith("_")}
        code += part
    assert len(parts) == 3
    assert set(stubs[1].replace("\\", "").split()) == needed


@pytest.mark.parametrize("is_there", [True, False])
def test_a_shell_that_asks_nothing_reads_no_more(
    is_there: bool, daemon: Daemon, home: Path
) -> None:
    """Nor does its first prompt, with a daemon or without."""
    place = daemon.socket_path if is_there else "/nonexistent/socket"
    copy = home / PLUGIN.name
    copy.write_bytes(PLUGIN.read_bytes())
    with Terminal(home / "rc", f"source {copy}", environment=environment_for(place)) as terminal:
        size = int(terminal.run("print ${#_autoloadd_source}").strip())
    assert size == len(PLUGIN.read_bytes())


def test_it_is_what_was_read_first(daemon: Daemon, home: Path) -> None:
    """Whatever the file has become since: an update must not mix two versions."""
    copy = home / PLUGIN.name
    copy.write_bytes(PLUGIN.read_bytes())
    script = f"""source {copy}
    print -r -- 'autoloadd-get() {{ print NEW }}' >| {copy}
    autoloadd-put name blob; autoloadd-get name; print -r -- $? $reply"""
    environment = environment_for(daemon.socket_path)
    assert output_of(script, environment=environment) == "0 name blob\n"
    gone = f"source {PLUGIN}; _autoloadd_file=/nonexistent; autoloadd-get name; print $reply"
    assert output_of(gone, environment=environment) == "name blob\n"


def test_it_is_read_once_under_our_own_options(daemon: Daemon) -> None:
    script = """setopt ksh_arrays sh_word_split no_unset err_return
    setopt aliases; alias local=false; alias -g _autoloadd_words=x
    autoloadd-put name 'two words'; print $? ${#_autoloadd_source}
    autoloadd-get name; print $? "${reply[1]}"; unsetopt ksh_arrays; autoloadd-get name; print $?"""
    environment = environment_for(daemon.socket_path)
    assert output_of(script, environment=environment) == "0 0\n0 two words\n0\n"


def test_set_does_not_list_it() -> None:
    assert MARK.strip() not in output_of("set", environment=own_environment({}))


@pytest.mark.parametrize("function", ["_autoloadd_run", "_autoloadd_find"])
def test_ctrl_c_meanwhile(function: str, daemon: Daemon, tool: Tool, home: Path) -> None:
    """One half would not find the other. It is for who comes behind, as ever."""
    environment = environment_for(daemon.socket_path)
    with Terminal(home / "rc", f"source {PLUGIN}", environment=environment) as terminal:
        terminal.run(f"at=$'\\n{function}() {{'")
        terminal.run("_autoloadd_source=${_autoloadd_source/$at/$'\\nkill -INT $$'$at}")
        for _ in range(2):
            shown = terminal.run(f"autoloadd-eval {tool.path}; print $GREETING")
            assert shown.split() == ["hello"]
        assert not terminal.run("kill -INT $$; print on").strip()


def test_ctrl_c_while_the_first_part_is_read(home: Path) -> None:
    """The shell keeps its aliases, and may read it again."""
    copy = home / PLUGIN.name
    copy.write_text(PLUGIN.read_text().replace("\n# ---- bytes", "\nkill -INT $$\n# ---- bytes"))
    environment = environment_for("/nonexistent/socket")
    with Terminal(home / "rc", environment=environment) as terminal:
        terminal.run(f"source {copy}")
        assert terminal.run("print $options[aliases]").split() == ["on"]
        terminal.run(f"source {PLUGIN}")
        assert terminal.run("autoloadd-eval print print hello").split() == ["hello"]


def test_text_that_is_evaluated_from_nobody_knows_where(daemon: Daemon, home: Path) -> None:
    """Then what seems to be our file is somebody's, which must not be run for our functions."""
    rc = home / "rc"
    rc.write_text(f'print -n read,\neval "$(<{PLUGIN})"\n')
    script = f"source {rc}; autoloadd-put name blob; autoloadd-get name; print -r -- $? $reply"
    environment = environment_for(daemon.socket_path)
    shown = output_of(script, environment=environment, sourced=False)
    assert shown == "read,read,0 name blob\n"


def test_compiled_all_of_it_is_there(home: Path) -> None:
    """Then it costs nothing, and the text is not looked at."""
    copy = home / PLUGIN.name
    copy.write_bytes(PLUGIN.read_bytes())
    script = f"""source {copy}
    print -r -- ${{#_autoloadd_source}} ${{#functions[_autoloadd_fill]}}"""
    environment = own_environment({})
    size, stub = map(int, output_of(script, environment=environment, sourced=False).split())
    assert size == len(PLUGIN.read_bytes())
    output_of(f"zcompile {copy}", environment=environment)
    none, whole = map(int, output_of(script, environment=environment, sourced=False).split())
    assert none == 0
    assert whole > 2 * stub


def test_without_the_module_that_reads_it_quickly() -> None:
    """A zsh that was built without modules has nothing to ask with, but goes on."""
    script = f"""zmodload zsh/parameter; module_path=(/nonexistent)
    source {PLUGIN}
    autoloadd-get name; print $?; autoloadd-eval print -r GREETING=hello; print $GREETING
    autoloadd_plugin_unload; print $+functions[autoloadd-get]"""
    environment = environment_for("/nonexistent/socket")
    assert output_of(script, environment=environment) == "3\nhello\n0\n"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("two words", "sh_word_split"),
        ("[st]*r", "glob_subst"),
        ("é", "ksh_arrays"),
        ("new\nline", "no_unset"),
    ],
)
def test_wherever_it_is(name: str, option: str, locale: str, home: Path) -> None:
    """Its path is found as it is, however a prompt would show it."""
    copy = home / name / PLUGIN.name
    copy.parent.mkdir()
    copy.write_bytes(PLUGIN.read_bytes())
    environment = environment_for("/nonexistent/socket", LC_ALL=locale, FILE=str(copy))
    for read in ('. "$FILE"', 'cd "${FILE%/*}"; . "./${FILE##*/}"', 'f() { . "$FILE"; }; f'):
        script = f"""setopt {option}\n{read}\nprint $?; emulate zsh
        autoloadd-eval print X=1; [[ $_autoloadd_file == "$FILE" ]]; print $? $X"""
        assert output_of(script, environment=environment, sourced=False) == "0\n0 1\n"


def test_where_zsh_warns_of_what_a_function_sets() -> None:
    script = f"""setopt warn_nested_var warn_create_global
    f() {{ source {PLUGIN}; ZERO={PLUGIN} source {PLUGIN} }}; f; print on"""
    environment = environment_for("/nonexistent/socket")
    assert output_of(script, environment=environment, sourced=False) == "on\n"
