"""`autoloadd-eval TOOL` is `eval "$(TOOL)"`, and runs the tool once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.running import wait_until

from autoloadd_client.entry import Entry
from autoloadd_client.shells.fingerprint import fingerprint_file

from .zsh import PLUGIN, environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.running import Daemon

    from autoloadd_client import Cache

    from .conftest import Tool

EVAL = "autoloadd-eval $TOOL; print -r -- $? $GREETING"


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that serves, with nothing in it."""
    return shared_daemon


@pytest.fixture
def outputs(daemon: Daemon) -> Iterator[Cache]:
    """The shard of what tools printed."""
    with daemon.cache("tool-output/1/8") as cache:
        yield cache


@pytest.fixture
def environment(daemon: Daemon, tool: Tool) -> dict[str, str]:
    return environment_for(daemon.socket_path, TOOL=str(tool.path))


def wait_for_puts(outputs: Cache, count: int) -> None:
    """Wait until so many puts were applied: nobody waits for them in the shell."""
    wait_until(lambda: outputs.stats()["generation"] == count, 20, f"{count} puts")


def only_entry(outputs: Cache) -> tuple[str, Entry]:
    """Return the one entry that there is, with its name."""
    ((name, _fresh),) = outputs.names()
    entry = outputs.get_entry(name)
    assert entry is not None
    return name, entry


def test_a_tool_runs_once(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    assert output_of(EVAL, environment=environment) == "0 hello\n"
    wait_for_puts(outputs, 1)
    assert output_of(EVAL, environment=environment) == "0 hello\n"
    assert tool.runs == 1


def test_what_is_stored(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    tool.write(r"""printf 'x="\0\377"\n\n'""")
    script = "autoloadd-eval --env Z --env HUE $TOOL 'a b' ''; [[ $x == $'\\0\\xff' ]]; print $?"
    for _ in range(2):
        assert output_of(script, environment={**environment, "HUE": "re d"}) == "0\n"
        wait_for_puts(outputs, 1)
    version = subprocess.run(
        ["zsh", "-fc", "print -rn $ZSH_VERSION"], capture_output=True, check=True
    )
    name, entry = only_entry(outputs)
    assert name == f"eval\0zsh/{version.stdout.decode()}\0{tool.path}\0a b\0"
    assert entry.blob == b'x="\0\377"\n\n'
    assert entry.fingerprint == fingerprint_file(str(tool.path)) + b"Z\0HUE=re d\0"
    assert tool.runs == 1


def test_a_tool_that_prints_nothing(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write("")
    for _ in range(2):
        assert output_of(EVAL, environment=environment) == "0\n"
        wait_for_puts(outputs, 1)
    assert (only_entry(outputs)[1].blob, tool.runs) == (b"", 1)


def test_a_changed_tool_runs_again(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    output_of(EVAL, environment=environment)
    wait_for_puts(outputs, 1)
    tool.write("echo 'GREETING=salut'")
    assert output_of(EVAL, environment=environment) == "0 salut\n"
    assert tool.runs == 2


def test_a_changed_variable_runs_it_again(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write("echo GREETING=$HUE")
    script = "autoloadd-eval --env HUE $TOOL; print -r -- $GREETING"
    for runs, hue in ((1, "red"), (1, "red"), (2, "blue"), (3, "red")):
        assert output_of(script, environment={**environment, "HUE": hue}) == f"{hue}\n"
        wait_for_puts(outputs, runs)
        assert tool.runs == runs
    # What is not exported does not reach the tool.
    assert output_of(f"HUE=green\n{script}", environment=environment) == "\n"
    assert (only_entry(outputs)[1].fingerprint or b"").endswith(b"\0HUE\0")


def test_a_tool_in_path_and_behind_env(
    environment: dict[str, str], tool: Tool, outputs: Cache, home: Path
) -> None:
    """What `env NAME=VALUE TOOL` runs is TOOL: its file counts."""
    tool.write("echo GREETING=$HUE")
    there = {**environment, "PATH": f"{home}:{environment['PATH']}"}
    for _ in range(2):
        script = "autoloadd-eval env HUE=red tool; print -r -- $GREETING"
        assert output_of(script, environment=there) == "red\n"
        wait_for_puts(outputs, 1)
    assert only_entry(outputs)[1].fingerprint == fingerprint_file(str(tool.path))
    assert tool.runs == 1


def test_other_arguments_are_another_text(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write('echo "GREETING=$1"')
    for greeting, runs in (("hi", 1), ("ho", 2), ("hi", 2)):
        script = f"autoloadd-eval $TOOL {greeting}; print $GREETING"
        assert output_of(script, environment=environment) == f"{greeting}\n"
        wait_for_puts(outputs, runs)
        assert tool.runs == runs


def test_max_age(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    output_of(EVAL, environment=environment)
    wait_for_puts(outputs, 1)
    name, entry = only_entry(outputs)
    assert entry.cached_at_ns is not None
    hour_ago = entry.cached_at_ns - 3600 * 10**9
    outputs.put_many({name: Entry(entry.blob, entry.fingerprint, None, hour_ago)})
    for age, runs in (("1d", 1), ("2h", 1), ("36000", 1), ("59m", 2), ("3500s", 2)):
        script = EVAL.replace("$TOOL", f"--max-age {age} $TOOL")
        assert output_of(script, environment=environment) == "0 hello\n"
        assert tool.runs == runs, age
        # The old entry is deleted and a new one put: the lease knows no ages.
        wait_for_puts(outputs, 2 if runs == 1 else 4)


def test_an_entry_of_the_future_has_no_age(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    """The clock was set back since: it could be young for years."""
    output_of(EVAL, environment=environment)
    wait_for_puts(outputs, 1)
    name, entry = only_entry(outputs)
    assert entry.cached_at_ns is not None
    later = entry.cached_at_ns + 3600 * 10**9
    outputs.put_many({name: Entry(entry.blob, entry.fingerprint, None, later)})
    assert output_of(EVAL, environment=environment) == "0 hello\n"
    assert tool.runs == 1
    with_age = EVAL.replace("$TOOL", "--max-age 1d $TOOL")
    assert output_of(with_age, environment=environment) == "0 hello\n"
    assert tool.runs == 2


@pytest.mark.parametrize(
    ("ends", "runs"),
    [("exit 3", 2), ("echo oops >&2", 2), ("echo oops >&2; exit 1", 2), ("exit 0", 1)],
)
def test_only_a_clean_run_is_kept(
    ends: str, runs: int, environment: dict[str, str], tool: Tool, daemon: Daemon
) -> None:
    tool.write(f"echo 'GREETING=hello; (exit 4)'; {ends}")
    plain = run_zsh('eval "$($TOOL)"; print -r -- $? $GREETING', environment=environment)
    for _ in range(2):
        ran = run_zsh(EVAL, environment=environment)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, plain.stdout, plain.stderr)
        assert ran.stdout == b"4 hello\n"
        wait_until(lambda: daemon.status()["connections"] == 1, 20, "the shell's end")
    assert tool.runs == 1 + runs


def test_what_goes_to_stderr_is_shown_at_once_and_whole(
    environment: dict[str, str], tool: Tool
) -> None:
    tool.write(
        r"""printf 'a\0autoloadd:b\n\0' >&2; head -c 100000 /dev/zero >&2; printf '\0' >&2"""
    )
    ran = run_zsh(EVAL, environment=environment)
    assert ran.stderr == b"a\0autoloadd:b\n\0" + bytes(100_000) + b"\0"


def test_a_process_that_the_tool_leaves_behind_is_not_waited_for(
    environment: dict[str, str], tool: Tool, home: Path
) -> None:
    """It holds stderr open, and may go on writing to it."""
    go, said = home / "go", home / "said"
    tool.write(f"(while [ ! -e {go} ]; do sleep 0.02; done; echo late >&2; echo ok > {said}) >&- &")
    script = EVAL + f"; print > {go}; while [[ ! -s {said} ]]; do sleep 0.02; done"
    ran = run_zsh(script, environment=environment)
    assert (ran.stdout, ran.stderr) == (b"0\n", b"late\n")


DECLARES = r"""
typeset -A table; table=(a b); declare word=1; integer number=3; export SHOWN=x
setopt auto_cd; hello() { typeset inner=2; print -r -- hello $1 $#; }
set -- one two
alias hi=hello
[[ -n $number ]] && false
"""
SEEN = r"""print -r -- $? ${(t)table} ${(t)word} ${(t)number} ${(t)SHOWN} $options[autocd] $+inner
print -r -- $+functions[hello] $+aliases[hi]; hello "$@" """


@pytest.mark.parametrize("command", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_text_is_evaluated_where_the_caller_stands(
    inside: bool, command: bool, environment: dict[str, str], tool: Tool, home: Path
) -> None:
    """Scope, options and status are those of a plain eval there."""
    (home / "text").write_text(DECLARES)
    tool.write(f"cat {home / 'text'}")
    printed = []
    for text in ('eval "$($TOOL)"', "autoloadd-eval $TOOL", "autoloadd-eval $TOOL"):
        body = f"{text}\n{SEEN}"
        script = f"f() {{\n{body}\n}}\nf 1 2 3\nprint -r -- ${{+table}}" if inside else body
        ran = run_zsh(script, environment=environment, command=command)
        assert ran.stderr == b""
        printed.append(ran.stdout.splitlines())
    plain, first, second = printed
    assert first == second
    assert plain[0].startswith(b"1 association")
    assert plain[2] == b"hello one 2"
    # Two things differ, and docs/shells.md says so: the caller's arguments stay as they are, and
    # where no alias reaches, a text that declares something has no status.
    assert first[0] == (b"0" + plain[0][1:] if command else plain[0])
    assert first[2] == (plain[2] if command else b"hello 1 3" if inside else b"hello 0")
    assert (first[1], first[3:]) == (plain[1], plain[3:])


def test_text_that_evaluates_more(environment: dict[str, str], tool: Tool) -> None:
    tool.write(
        "if [ \"$1\" = in ]; then echo 'typeset -A deep; deep=(x y)'\n"
        'else echo "typeset a; autoloadd-eval $0 in"; fi'
    )
    script = "autoloadd-eval $TOOL; print ${(t)deep}"
    assert output_of(script, environment=environment) == "association\n"


@pytest.mark.parametrize(
    "options",
    [
        "set -u",
        "setopt err_exit",
        "trap 'print zerr' ZERR",
        "emulate sh",
        "emulate ksh",
        "setopt ksh_arrays",
        "setopt no_nomatch null_glob extended_glob",
        "setopt warn_create_global warn_nested_var",
        "setopt xtrace; exec 2>/dev/null",
        "setopt posix_traps posix_builtins",
        "setopt no_multibyte",
        "setopt sh_word_split glob_subst ignore_braces",
        "alias -g local=oops; alias eval=oops source=oops print=print; alias if=if",
        "alias unset=oops alias=oops function=oops typeset=oops; alias -g emulate=oops",
        "setopt no_unset no_clobber; IFS=x",
        "setopt force_float",
    ],
)
def test_whatever_options_are_set(
    options: str, environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write("echo 'GREETING=hello'")
    script = f"{options}\nautoloadd-eval $TOOL\nprintf '%s\\n' \"$GREETING\""
    before = f"{options}\n\\source {PLUGIN}\nautoloadd-eval $TOOL\nprintf '%s\\n' \"$GREETING\""
    for each in (script, before):
        ran = run_zsh(each, environment=environment, sourced=each is script)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"hello\n", b"")
        wait_for_puts(outputs, 1)
    assert tool.runs == 1


def test_zsh_warns_of_nothing_of_ours(environment: dict[str, str], tool: Tool) -> None:
    tool.write("echo print hello")
    script = "setopt warn_nested_var\nf() { autoloadd-eval $TOOL }\nf; f"
    assert output_of(script, environment=environment) == "hello\nhello\n"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_bytes_in_every_locale(
    locale: str, environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write("printf 'GREETING=\"h\\303\\266 \\302\\240\\342\\202\\254\"'")
    for _ in range(2):
        ran = run_zsh(
            'autoloadd-eval $TOOL "hö"; printf %s "$GREETING"',
            environment={**environment, "LC_ALL": locale},
        )
        assert (ran.stdout, ran.stderr) == ("hö \u00a0€".encode(), b"")
        wait_for_puts(outputs, 1)
    assert tool.runs == 1


def test_what_cannot_be_cached_is_run(environment: dict[str, str], home: Path) -> None:
    """A function, a builtin, a version manager's shim, what reads from here, what is not there."""
    (home / "shims").mkdir()
    (home / "shims" / "shim").write_text("#!/bin/sh\necho GREETING=shim\n")
    (home / "shims" / "shim").chmod(0o755)
    script = (
        "f() { print GREETING=f$1 }; autoloadd-eval f 1; print $GREETING\n"
        "autoloadd-eval print GREETING=builtin; print $GREETING\n"
        f"autoloadd-eval {home}/shims/shim; print $GREETING\n"
        "for i in 1 2; do autoloadd-eval cat <(echo GREETING=$i); print $GREETING; done\n"
        "autoloadd-eval no-such-tool-here; print $?"
    )
    ran = run_zsh(script, environment=environment)
    assert ran.stdout == b"f1\nbuiltin\nshim\n1\n2\n0\n"
    assert ran.stderr.endswith(b"command not found: no-such-tool-here\n")


def test_names_and_fingerprints_that_are_too_long(
    environment: dict[str, str], tool: Tool, outputs: Cache
) -> None:
    tool.write("echo GREETING=long")
    for script in (f"autoloadd-eval $TOOL {'x' * 1100}", "autoloadd-eval --env HUE $TOOL"):
        for _ in range(2):
            ran = run_zsh(
                f"{script}; print $GREETING", environment={**environment, "HUE": "y" * 1100}
            )
            assert (ran.stdout, ran.stderr) == (b"long\n", b"")
    assert tool.runs == 4
    assert outputs.count() == 0


def test_a_large_text(environment: dict[str, str], tool: Tool, outputs: Cache) -> None:
    tool.write("printf 'GREETING='; head -c 1000000 /dev/zero | tr '\\0' x")
    for _ in range(2):
        assert (
            output_of("autoloadd-eval $TOOL; print $#GREETING", environment=environment)
            == "1000000\n"
        )
        wait_for_puts(outputs, 1)
    assert tool.runs == 1


WRONG = ("", "--max-age", "--max-age 1y $TOOL", "--env a-b $TOOL", "-x $TOOL")


def test_usage(environment: dict[str, str]) -> None:
    script = "".join(f"autoloadd-eval {wrong}; print $?\n" for wrong in WRONG)
    ran = run_zsh(script, environment=environment)
    assert ran.stdout == b"2\n" * len(WRONG)
    assert ran.stderr.count(b"usage: autoloadd-eval [--max-age AGE]") == len(WRONG)


def test_help(environment: dict[str, str]) -> None:
    assert "--max-age AGE" in output_of("autoloadd-eval --help", environment=environment)


def test_the_tool_gets_nothing_of_ours(environment: dict[str, str], tool: Tool) -> None:
    """No descriptor, no ignored signal, no variable more than without us."""
    tool.write(
        "ls /proc/$$/fd > $0.seen; grep -E 'Sig(Ign|Blk)' /proc/self/status >> $0.seen\n"
        "env | sort >> $0.seen; echo GREETING=$(base64 -w0 $0.seen)"
    )
    show = "; print -r -- $GREETING | base64 -d"
    plain = output_of('eval "$($TOOL)"' + show, environment=environment)
    assert output_of("autoloadd-eval $TOOL" + show, environment=environment) == plain


def test_ten_shells_at_once_run_it_once(
    environment: dict[str, str], tool: Tool, home: Path, outputs: Cache
) -> None:
    go = home / "go"
    tool.write("sleep 1; echo GREETING=once")
    script = f"while [[ ! -e {go} ]]; do :; sleep 0.01; done; autoloadd-eval $TOOL; print $GREETING"
    shells = [
        subprocess.Popen(
            ["zsh", "-fc", f"source {PLUGIN}\n{script}"],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for _ in range(10)
    ]
    go.touch()
    assert [shell.communicate(timeout=60)[0] for shell in shells] == [b"once\n"] * 10
    assert tool.runs == 1
    assert outputs.count() == 1


def test_who_waits_for_a_shell_that_is_killed_runs_the_tool(
    environment: dict[str, str], tool: Tool, home: Path, outputs: Cache, daemon: Daemon
) -> None:
    """The holder's connection ends: the next one is asked, before its wait is over."""
    tool.write(
        f"if mkdir {home}/first 2>/dev/null; then touch {home}/begun; exec sleep 20; fi\n"
        "sleep 0.2; echo GREETING=second"
    )
    script = f"source {PLUGIN}\nautoloadd-eval $TOOL; print -r -- $GREETING"
    command = ["zsh", "-fc", script]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    wait_until((home / "begun").exists, 20, "the tool to run")
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    wait_until(lambda: daemon.status()["leases"]["waiting"] == 2, 4, "the others to wait")
    first.kill()
    assert [shell.communicate(timeout=60)[0] for shell in others] == [b"second\n"] * 2
    assert first.wait() == -9
    assert tool.runs == 2
    assert outputs.count() == 1


@pytest.mark.parametrize("ends", ["echo oops >&2", "exit 3"])
def test_a_tool_whose_runs_are_not_kept_keeps_nobody_waiting(
    ends: str,
    environment: dict[str, str],
    tool: Tool,
    home: Path,
    outputs: Cache,
    daemon: Daemon,
) -> None:
    """Those that waited for the first run then make theirs all at the same time."""
    others = 5
    tool.write(
        f"if mkdir {home}/first 2>/dev/null; then mark=go; else touch {home}/$$.begun; mark=all; fi"
        f"\nuntil [ -e {home}/$mark ]; do sleep 0.02; done; echo GREETING=hello; {ends}"
    )
    command = ["zsh", "-fc", f"source {PLUGIN}\nautoloadd-eval $TOOL; print -r -- $GREETING"]
    shells = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(1 + others)
    ]
    wait_until(lambda: daemon.status()["leases"]["waiting"] == others, 4, "the others to wait")
    (home / "go").touch()
    # Each of these runs ends only when all have begun.
    wait_until(lambda: len(list(home.glob("*.begun"))) == others, 30, "the others' runs")
    # None of them has only waited for too long.
    assert daemon.status()["leases"]["held"] == 0
    (home / "all").touch()
    assert {shell.communicate(timeout=60)[0] for shell in shells} == {b"hello\n"}
    assert tool.runs == 1 + others
    # A run that can be kept is kept, and the next one is asked of the cache.
    tool.write("echo GREETING=clean")
    assert output_of(EVAL, environment=environment) == "0 clean\n"
    wait_until(lambda: outputs.count() == 2, 20, "the put")
    assert output_of(EVAL, environment=environment) == "0 clean\n"
    assert tool.runs == 2 + others
