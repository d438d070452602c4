"""As a plugin of a plugin manager: found by its name, read in a manager's ways, and unloaded.

The ways are those of oh-my-zsh, antidote, zinit, zplug and znap, without what else they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.running import own_environment

from .zsh import PLUGIN, READ_ALL, environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Daemon

    from .conftest import Tool

REPOSITORY = PLUGIN.parents[3]
NAME = "autoloadd.plugin.zsh"

WAYS = {
    "oh-my-zsh": 'source "$custom/plugins/autoloadd/autoloadd.plugin.zsh"',
    "antidote": "fpath+=( $custom/plugins/autoloadd ); source $custom/plugins/autoloadd/*.zsh",
    "zinit": """
      load() {
        builtin setopt local_options no_aliases no_ksh_arrays extended_glob warn_create_global
        local name ZERO=$custom/plugins/autoloadd/autoloadd.plugin.zsh
        typeset -ga seen
        for name in alias autoload zle bindkey zstyle; do
          functions[$name]="seen+=( $name ); builtin $name \\"\\$@\\""
        done
        builtin source "$ZERO"
        unfunction alias autoload zle bindkey zstyle
      }
      load""",
    "zinit, substituted": """
      load() {
        local ZERO=$custom/plugins/autoloadd/autoloadd.plugin.zsh
        eval "$(<$ZERO)"
      }
      load""",
    "zplug": """
      load() { emulate -RL zsh; setopt ksh_arrays; source $custom/plugins/autoloadd/*.zsh }
      load""",
    "znap": "load() { emulate -L zsh; zmodload -F zsh/parameter; . ${1:A} }\n"
    "load $custom/plugins/autoloadd/autoloadd.plugin.zsh",
    "in sh": "emulate sh -c 'source $custom/plugins/autoloadd/autoloadd.plugin.zsh'",
    "by name": "cd $custom/plugins/autoloadd; source ./autoloadd.plugin.zsh; cd /",
}


@pytest.fixture
def custom(home: Path) -> Path:
    """A directory with a clone of the repository, as far as a plugin manager looks at it."""
    clone = home / "plugins" / "autoloadd"
    clone.parent.mkdir()
    assert (REPOSITORY / NAME).resolve() == PLUGIN
    (clone / "client" / "autoloadd_client" / "shells").mkdir(parents=True)
    (clone / NAME).symlink_to((REPOSITORY / NAME).readlink())
    (clone / NAME).resolve().write_bytes(PLUGIN.read_bytes())
    return home


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_reading_it(way: str, custom: Path, tool: Tool, daemon: Daemon) -> None:
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path), custom=str(custom))
    script = f"""was=$(setopt)
    {WAYS[way]}
    [[ $was == $(setopt) ]] && print -r -- ${{_autoloadd_file#$custom/}} $+ZERO
    autoloadd-eval $TOOL; print -r -- $GREETING
    f() {{ autoloadd-eval $TOOL; print -r -- $GREETING }}; f"""
    ran = run_zsh(script, environment=environment, sourced=False)
    file = f"plugins/autoloadd/client/autoloadd_client/shells/{NAME}"
    assert (ran.stdout.decode(), ran.stderr) == (f"{file} 0\nhello\nhello\n", b"")
    assert tool.runs == 1


LIST = r"""
list() {
  print -rl -- ${(ok)functions} ${(ok)aliases} $precmd_functions / $fpath
  print -rl -- ${(okv)_comps}; typeset -m '*autoloadd*'; setopt; trap
}
"""


def test_nothing_is_left_when_it_is_unloaded(custom: Path, tool: Tool, daemon: Daemon) -> None:
    environment = environment_for(
        daemon.socket_path, TOOL=str(tool.path), custom=str(custom), HOME=str(custom)
    )
    version = output_of("print -rn -- $ZSH_VERSION", environment=own_environment({}))
    place = custom / f"zsh-{version}-{len(str(custom))}-0123456789abcdef"
    place.mkdir()
    before = f"""autoload -Uz compinit; compinit -u -d {custom}/dump
    compdef _files flask; hook() {{ }}; precmd_functions=( hook ); _postpatcomps=()
    unset '_comps[pip]'; fpath=( {custom} ); print -n {custom} >| {place}/fpath
    {LIST}"""
    load = """source $custom/plugins/autoloadd/autoloadd.plugin.zsh
    autoloadd-complete pip; autoloadd-eval $TOOL; unset GREETING
    precmd_functions+=( _autoloadd_first_prompt )
    _autoloadd_first_prompt; precmd_functions+=( _autoloadd_first_prompt )
    loaded=$(list); print -r -- ${_comps[flask]}, ${_comps[pip]}, ${fpath[1]:t}
    unset loaded; autoloadd_plugin_unload; zmodload -e zsh/parameter"""
    script = f"{before}\nlist >| {custom}/before\n{load}\nlist >| {custom}/after"
    ran = run_zsh(script, environment=environment, sourced=False)
    expected = "_autoloadd_tab flask _files, _autoloadd_tab pip _autoloadd_pip, completions\n"
    assert (ran.stdout.decode(), ran.stderr) == (expected, b"")
    assert (custom / "after").read_text() == (custom / "before").read_text()
    assert len((custom / "before").read_text()) > 10_000
    # Read again, it is there again.
    again = f"{before}\n{load}\nsource $custom/plugins/autoloadd/{NAME}; autoloadd-eval $TOOL"
    ran = run_zsh(f"{again}; print $GREETING", environment=environment, sourced=False)
    assert (ran.stdout.decode(), ran.stderr) == (f"{expected}hello\n", b"")


@pytest.mark.parametrize("read", ["", "_autoloadd_read_on", READ_ALL])
def test_zinit_unloads_the_alias_itself(read: str) -> None:
    """Whether all of the file was read by then or not."""
    script = f"{read}\n.zinit-unload() {{ autoloadd_plugin_unload; unalias autoloadd-eval }}"
    assert output_of(f"{script}; .zinit-unload", environment=own_environment({})) == ""
