"""An interactive start with the plugin: the same shell, and the farm in fpath."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.running import Daemon, own_environment, wait_until

from shell_tools import tool_home

from .terminal import Terminal
from .zsh import PLUGIN, environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from pathlib import Path

INITS = (
    "_FLASK_COMPLETE=zsh_source flask",
    "_BLACK_COMPLETE=zsh_source black",
    "_UVICORN_COMPLETE=zsh_source uvicorn",
    "_TYPER_COMPLETE=source_zsh typer",
)

TOOL = r"""
cat <<'x'
typeset -gA colours; colours=(red 1 green 2)
typeset -i level=3; declare -x EXPORTED="with 'quotes' $(( 1 + 1 ))"
setopt auto_pushd hist_ignore_dups; alias ll='ls -l'
prompt_hook() { local x=1; : $x }
autoload -Uz add-zsh-hook; add-zsh-hook chpwd prompt_hook
zstyle ':completion:*' menu select; bindkey '^[x' beginning-of-line
zle -N prompt_hook; trap 'true' USR1; typeset -aU path
x
"""

DUMP = r"""
dump() {
  { typeset -p; functions; setopt; alias; zstyle -L; bindkey -L; zle -lL; trap
    print -rl -- $fpath; ls -l /proc/$$/fd | awk '/socket/'; umask; ulimit -a
  } >| $ZDOTDIR/dump
}
"""

VOLATILE = (
    r"RANDOM|SECONDS|EPOCH\w*|TTYIDLE|_|HISTCMD|LINENO|PPID|TTY|ZDOTDIR|ARGV0|\?|\$|!|status|pipestatus"
    r"|zsh_eval_context|funcstack|REPLY|reply"
)


def dumped(place: Path, rc: str, environment: dict[str, str]) -> list[str]:
    """Return what the shell is like after its start, without what is autoloadd's or volatile."""
    with Terminal(place / "rc", rc + DUMP, environment=environment) as terminal:
        assert b"autoloadd" not in terminal.startup
        terminal.run("dump")
    text = (place / "rc" / "dump").read_text(errors="replace")
    text = re.sub(r"_autoloadd_tab (\w+) ", "", text).replace(
        "'_flask_completion'", "_flask_completion"
    )
    text = re.sub(r"'(_\w+_completion)'", r"\1", text)
    text = re.sub(r"^(_?autoloadd[\w-]*) \(\) \{\n(.*\n)*?\}\n", "", text, flags=re.MULTILINE)
    # zsh lists its tables of functions and builtins once somebody has looked at them.
    ours = re.compile(
        rf"^(typeset( -\w+)* )?(_?autoloadd[\w-]*|{VOLATILE})(=|$)"
        r"|^typeset.* -h?i?F? (SECONDS|RANDOM)|^typeset -g -A (functions|builtins|commands)$"
    )
    return [line for line in text.splitlines() if not ours.match(line)]


def diff(before: list[str], after: list[str]) -> list[str]:
    """Return the lines that are not the same, as `diff` does."""
    return list(difflib.unified_diff(before, after, n=0, lineterm=""))


@pytest.mark.parametrize("keys", ["bindkey -e", "bindkey -v"])
def test_the_same_shell_with_and_without(keys: str, home: Path, daemon: Daemon) -> None:
    (home / "tool").write_text(f"#!/bin/sh\n{TOOL}")
    (home / "tool").chmod(0o755)
    environment = environment_for(
        daemon.socket_path, HOME=str(home), PATH=f"{home}:{tool_home() / 'bin'}:/usr/bin:/bin"
    )
    start = f"{keys}; autoload -Uz compinit; compinit -u -d {home}/compdump\n"
    # The first one writes the dump that the others read.
    assert run_zsh(start, environment=environment, sourced=False).stderr == b""
    plain = start + "".join(f'eval "$({init})"\n' for init in [*INITS, "tool"])
    cached = f"source {PLUGIN}\n{start}" + "".join(
        f"autoloadd-eval env {init}\n" for init in [*INITS, "tool"]
    )
    without = dumped(home, plain, environment)
    assert len(without) > 1000
    for _ in range(2):
        assert not diff(without, dumped(home, cached, environment))
    with daemon.cache("tool-output/1/8") as outputs:
        assert outputs.count() == len(INITS) + 1


def test_sourcing_is_cheap(home: Path) -> None:
    """Under 2 ms, and a fraction of that compiled; the least of many, on a machine half as fast."""
    plain_copy, copy = home / "plain.zsh", home / PLUGIN.name
    for each in (plain_copy, copy):
        each.write_bytes(PLUGIN.read_bytes())
    subprocess.run(["zsh", "-fc", f"zcompile {copy}"], check=True)
    script = """zmodload zsh/datetime
    for file; do
      for i in {1..40}; do
        t=$EPOCHREALTIME; source $file; print -n $(( (EPOCHREALTIME - t) * 1e3 )) ''
      done
      print
    done"""
    printed = output_of(script, str(plain_copy), str(copy), environment=own_environment({}))
    plain, compiled = (min(map(float, line.split())) for line in printed.splitlines())
    assert plain < 4
    assert compiled < plain / 2


def test_it_can_be_read_twice_and_from_anywhere(home: Path, daemon: Daemon) -> None:
    (home / "link.zsh").symlink_to(PLUGIN)
    (home / "tool").write_text("#!/bin/sh\necho GREETING=hi")
    (home / "tool").chmod(0o755)
    script = f"""f() {{ setopt local_options warn_create_global; source ./link.zsh }}
    cd {home}; f one two; source {PLUGIN}; cd /
    autoloadd-eval {home}/tool; print $GREETING $#precmd_functions"""
    environment = environment_for(daemon.socket_path)
    ran = run_zsh(script, environment=environment, sourced=False)
    assert (ran.stdout, ran.stderr) == (b"hi 0\n", b"")


@pytest.mark.parametrize("daemon_there", [True, False])
def test_a_shell_of_scp_or_cron_says_nothing(
    daemon_there: bool, home: Path, idle_daemon: Daemon
) -> None:
    """Everything is there that a start-up file may do, in a shell that is not interactive."""
    if daemon_there:
        idle_daemon.start()
    (home / ".zshenv").write_text(
        f"source {PLUGIN}\nautoloadd-complete flask; autoloadd-eval false\n"
    )
    for environment in (
        {"ZDOTDIR": str(home)},
        {"ZDOTDIR": str(home), **environment_for(idle_daemon.socket_path)},
    ):
        ran = subprocess.run(
            ["/usr/bin/zsh", "-c", "print -r -- $#precmd_functions; cat; exit 3"],
            input=b"payload",
            capture_output=True,
            env={**environment, "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"0\npayload", b"")


# ---- the farm


def lay_out(home: Path, number: str, said: str, *fpath: str) -> Path:
    """Make a farm with a function and a completion, as `autoloadctl publish zsh` lays it out.

    The functions say something else than those in `home`/mine, which the links lead to.
    """
    version = output_of("print -r -- $ZSH_VERSION", environment=own_environment({})).strip()
    text = "\0".join(fpath).encode()
    place, mine = home / f"zsh-{version}-{len(text)}-{number}", home / "mine"
    for part, name, link in (("farm", "shout", "shout"), ("completions", "_show", "_show.zwc")):
        mine.mkdir(exist_ok=True)
        (mine / name).write_text("print SOURCE $1\n")
        # Older than each digest: also than one that was laid out a second ago.
        os.utime(mine / name, ns=(0, 0))
        (place / part).mkdir(parents=True)
        (place / part / link).symlink_to(mine / name)
        (home / "new").mkdir(exist_ok=True)
        (home / "new" / name).write_text(f"print {said} $1\n")
        script = f"zcompile {place}/{part}.zwc {home}/new/{name}"
        subprocess.run(["zsh", "-fc", script], check=True)
    (place / "fpath").write_bytes(text)
    (place / "state").touch()
    return place


@pytest.fixture
def farm(home: Path, daemon: Daemon) -> Path:
    """A farm for fpath=(DIR/mine)."""
    return lay_out(home, "1", "DIGEST", str(home / "mine"))


CALL = "autoload -Uz shout; shout hi; print -r -- $fpath"


def test_the_farm_is_used_for_its_own_fpath(farm: Path, home: Path, daemon: Daemon) -> None:
    environment = environment_for(daemon.socket_path)
    before = f"fpath=({home}/mine)\nsource {PLUGIN}\n"
    ran = run_zsh(before + CALL, environment=environment, sourced=False)
    assert ran.stdout.decode() == f"DIGEST hi\n{farm}/farm {home}/mine\n"
    # Another fpath may hold another function of this name.
    before = f"fpath=({home}/mine /usr/share)\nsource {PLUGIN}\n"
    ran = run_zsh(before + CALL, environment=environment, sourced=False)
    assert ran.stdout.decode() == f"SOURCE hi\n{home}/mine /usr/share\n"


def test_relative_directories_of_fpath_come_first_as_before(
    farm: Path, home: Path, daemon: Daemon
) -> None:
    """What they hold goes before what the farm stands for; around one there is no farm."""
    (home / "own").mkdir()
    (home / "own" / "shout").write_text("print OWN\n")
    lay_out(home, "2", "OTHER", f"{home}/mine", "/usr/share")
    script = f"""cd {home}; fpath=(own {home}/mine); source {PLUGIN}; print -r -- $fpath
    autoload -Uz shout; shout
    fpath=({home}/mine own /usr/share); source {PLUGIN}; print -r -- $fpath"""
    ran = run_zsh(script, environment=environment_for(daemon.socket_path), sourced=False)
    expected = f"own {farm}/farm {home}/mine\nOWN\n{home}/mine own /usr/share\n"
    assert (ran.stdout.decode(), ran.stderr) == (expected, b"")


def test_each_fpath_has_a_farm(farm: Path, home: Path, daemon: Daemon) -> None:
    """And a shell that changes its fpath changes the farm, or has none, and leaves no trace."""
    other = lay_out(home, "2", "OTHER", f"{home}/mine", "/usr/share")
    environment = environment_for(daemon.socket_path)
    takes = f"source {PLUGIN}; print -r -- $fpath; shout"
    script = f"""autoload -Uz shout
    fpath=(. {home}/mine {home}/mine); {takes}; unfunction shout; autoload -Uz shout
    fpath+=(/usr/share); {takes}
    fpath+=(/usr/lib); source {PLUGIN}; print -r -- $fpath
    fpath=({home}/nine); source {PLUGIN}; print -r -- $fpath"""
    ran = run_zsh(script, environment=environment, sourced=False)
    mine = f"{home}/mine {home}/mine"
    expected = (
        f". {farm}/farm {mine}\nDIGEST\n. {other}/farm {mine} /usr/share\nOTHER\n"
        f". {mine} /usr/share /usr/lib\n{home}/nine\n"
    )
    assert (ran.stdout.decode(), ran.stderr) == (expected, b"")


def test_an_fpath_that_is_complete_at_the_first_prompt(
    farm: Path, home: Path, daemon: Daemon
) -> None:
    environment = environment_for(daemon.socket_path)
    for late, expected in ((f"fpath=({home}/mine)", "DIGEST"), (f"fpath+=({home})", "SOURCE")):
        early = f"fpath=({home}/mine)" if late.startswith("fpath+") else "fpath=(/usr/share)"
        rc = f"{early}\nsource {PLUGIN}\n{late}\nautoload -Uz shout _show\nwhen_read=($fpath)"
        with Terminal(home / "rc", rc, environment=environment) as terminal:
            assert terminal.run("shout hi; _show hi").split()[::2] == [expected] * 2
            # Completions come into fpath when compinit has been there.
            assert terminal.run("print $when_read").find("completions") == -1
        assert (farm / "used").exists() == (expected == "DIGEST")
        (farm / "used").unlink(missing_ok=True)


def test_a_farm_that_others_could_have_made_is_not_used(
    farm: Path, home: Path, daemon: Daemon
) -> None:
    environment = environment_for(daemon.socket_path)
    script = f"fpath=({home}/mine)\nsource {PLUGIN}\n{CALL}"
    home.chmod(0o755)
    ran = run_zsh(script, environment=environment, sourced=False)
    assert ran.stdout.decode() == f"SOURCE hi\n{home}/mine\n"
    home.chmod(0o700)
    environment["AUTOLOADD_CACHE"] = "0"
    ran = run_zsh(script, environment=environment, sourced=False)
    assert ran.stdout.decode() == f"SOURCE hi\n{home}/mine\n"


PUBLISH = """#!/bin/sh
echo "$@" >> {home}/published
ls -l /proc/self/fd | grep -c socket >> {home}/published
sleep 0.3
"""


def test_publishing_is_started_where_fpath_changed(farm: Path, home: Path, daemon: Daemon) -> None:
    """Once for several shells at a time, without a word, and not for an fpath as it was."""
    (home / "bin").mkdir()
    (home / "bin" / "autoloadctl").write_text(PUBLISH.format(home=home))
    (home / "bin" / "autoloadctl").chmod(0o755)
    environment = environment_for(daemon.socket_path, PATH=f"{home}/bin:{os.environ['PATH']}")
    rc = f"fpath=({home}/mine)\nsource {PLUGIN}"
    published = home / "published"
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        assert terminal.run("jobs; print -r -- $fpath").split() == [
            *(f"{farm}/completions", f"{farm}/farm", f"{home}/mine"),
        ]
        assert not published.exists()
    (home / "mine" / "whisper").touch()
    newer = "zmodload zsh/files; touch -d '1 hour ago' " + str(farm / "state")
    subprocess.run(["zsh", "-fc", newer], check=True)
    with (
        Terminal(home / "rc", rc, environment=environment) as terminal,
        Terminal(home / "rc2", rc, environment=environment),
    ):
        expected = f"publish zsh --fpath {home}/mine\n0\n"
        wait_until(lambda: published.exists() and published.read_text() == expected, 20, "publish")
        assert terminal.run("jobs").strip() == ""
        wait_until(lambda: daemon.status()["leases"]["held"] == 0, 20, "the lease's end")
    assert published.read_text() == expected


@pytest.mark.parametrize(("later_ns", "is_newer"), [(-1, False), (0, False), (1, True)])
def test_times_within_a_second_are_told_apart(
    later_ns: int, is_newer: bool, farm: Path, home: Path, daemon: Daemon
) -> None:
    at_ns = 1_700_000_000_500_000_000
    os.utime(farm / "state", ns=(at_ns, at_ns))
    os.utime(home / "mine", ns=(at_ns + later_ns, at_ns + later_ns))
    script = f"""_autoloadd_modules
    f() {{ local _autoloadd_farm={farm}; local -a _autoloadd_others=( {home}/mine )
    _autoloadd_others_changed && print newer }}; f; true"""
    expected = "newer\n" if is_newer else ""
    assert output_of(script, environment=environment_for(daemon.socket_path)) == expected
