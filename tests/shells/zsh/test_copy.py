"""The compiled copy of the plugin that a shell leaves beside the socket for those to come."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.running import own_environment, wait_until

from .terminal import Terminal
from .zsh import PLUGIN, READ_ALL, environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Daemon

    from .conftest import Tool

HOUR_NS = 3600 * 10**9

USES = """
print -r -- $_autoloadd_is_text
autoloadd-put name 'two words' && autoloadd-get name && print -r -- $reply[2]
autoloadd-eval $TOOL; print -r -- $GREETING $options[aliases] $+_autoloadd_inner
"""
"""What needs both parts of the plugin, and that nothing is left of how it was read."""


@pytest.fixture
def plugin(home: Path) -> Path:
    """The plugin in a place of its own, an hour old."""
    return lay_out(home / PLUGIN.name, PLUGIN.read_bytes(), time.time_ns() - HOUR_NS)


def lay_out(path: Path, text: bytes, mtime_ns: int) -> Path:
    """Write a file as it is, or a new one, and give it a time."""
    path.write_bytes(text)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def copies_of(daemon: Daemon) -> list[Path]:
    """Return the copies that are beside the socket."""
    return sorted(Path(daemon.socket_path).parent.glob("plugin-*"))


def start(plugin: Path, home: Path, daemon: Daemon, rc: str = "") -> str:
    """Start a shell to its first prompt; return whether it had to read the text: 1 or 0."""
    environment = environment_for(daemon.socket_path)
    with Terminal(home / "rc", f"{rc}\nsource {plugin}", environment=environment) as terminal:
        assert b"plugin" not in terminal.startup
        return terminal.run("print $_autoloadd_is_text").strip()


def leave_copy(plugin: Path, home: Path, daemon: Daemon) -> Path:
    """Have a shell leave a copy; return it."""
    before = copies_of(daemon)
    assert start(plugin, home, daemon) == "1"
    return wait_for_copy(daemon, lambda now: now != before)


def wait_for_copy(daemon: Daemon, is_it: Callable[[list[Path]], bool]) -> Path:
    """Wait until a shell in the background has come to an end; return the newest copy."""
    directory = Path(daemon.socket_path).parent
    wait_until(lambda: is_it(copies_of(daemon)), 20, "a copy")
    wait_until(lambda: not list(directory.glob(".plugin-*")), 20, "the end of the one that made it")
    return max(copies_of(daemon), key=lambda copy: copy.stat().st_ctime_ns)


def use(plugin: Path, tool: Tool, daemon: Daemon) -> list[str]:
    """Read the plugin in a script, and use it; return what that prints."""
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    return output_of(f"source {plugin}\n{USES}", environment=environment, sourced=False).split("\n")


def test_the_second_start_reads_it(plugin: Path, tool: Tool, home: Path, daemon: Daemon) -> None:
    copy = leave_copy(plugin, home, daemon)
    assert use(plugin, tool, daemon) == ["0", "two words", "hello on 0", ""]
    where = f"source {plugin}; print -r -- $functions_source[_autoloadd_fill]"
    environment = environment_for(daemon.socket_path)
    printed = output_of(where, environment=environment, sourced=False)
    assert printed == f"{copy.with_suffix('')}\n"
    assert start(plugin, home, daemon) == "0"
    assert copies_of(daemon) == [copy]


@pytest.mark.parametrize("options", ["sh", "ksh", "csh", "zsh"])
def test_under_options_of_others(
    options: str, plugin: Path, tool: Tool, home: Path, daemon: Daemon
) -> None:
    """Read in a foreign emulation, and in one that the functions of the caller would keep."""
    leave_copy(plugin, home, daemon)
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    for line in (f"emulate {options}\n. {plugin}\nemulate zsh",
                 f"emulate {options} -c '. {plugin}'"):  # fmt: skip
        shown = output_of(f"{line}\n{USES}", environment=environment, sourced=False)
        assert shown == "0\ntwo words\nhello on 0\n"


def test_options_that_make_much_of_little(
    plugin: Path, tool: Tool, home: Path, daemon: Daemon
) -> None:
    leave_copy(plugin, home, daemon)
    environment = environment_for(daemon.socket_path, TOOL=str(tool.path))
    line = f"""setopt err_exit err_return no_unset warn_create_global warn_nested_var no_clobber
    setopt glob_subst no_glob ksh_glob posix_builtins
    TRAPZERR() {{ print ZERR }}
    . {plugin}
    emulate zsh; unfunction TRAPZERR"""
    ran = run_zsh(f"{line}\n{USES}", environment=environment, sourced=False)
    assert (ran.stdout, ran.stderr) == (b"0\ntwo words\nhello on 0\n", b"")


def in_capitals(text: bytes) -> bytes:
    """Return another text of the same length, with something to know it by."""
    other = text.replace(b"of the cache. autoloadd-get", b"of the CACHE. autoloadd-get")
    assert other != text
    return other


def other_time(plugin: Path, text: bytes, mtime_ns: int) -> None:
    lay_out(plugin, text, mtime_ns - 1)


def other_inode(plugin: Path, text: bytes, mtime_ns: int) -> None:
    fresh = lay_out(plugin.with_suffix(".new"), text, mtime_ns)
    fresh.rename(plugin)


def other_size(plugin: Path, text: bytes, mtime_ns: int) -> None:
    lay_out(plugin, text + b"\n", mtime_ns)


@pytest.mark.parametrize("change", [other_time, other_inode, other_size])
def test_of_a_file_that_is_another_it_is_not_taken(
    change: Callable[[Path, bytes, int], None], plugin: Path, home: Path, daemon: Daemon
) -> None:
    """Not even where it is older: a package brings its files' old times along."""
    leave_copy(plugin, home, daemon)
    mtime_ns = plugin.stat().st_mtime_ns
    change(plugin, in_capitals(plugin.read_bytes()), mtime_ns)
    environment = environment_for(daemon.socket_path)
    script = f"source {plugin}; autoloadd-get --help"
    assert "of the CACHE." in output_of(script, environment=environment, sourced=False)


def emptied(copy: bytes) -> bytes:
    return copy[:0]


def cut_in_its_head(copy: bytes) -> bytes:
    return copy[:40]


def cut_in_the_middle(copy: bytes) -> bytes:
    return copy[: len(copy) // 4]


def cut_a_little(copy: bytes) -> bytes:
    """The second half is for machines of the other byte order."""
    return copy[: len(copy) // 2 - 64]


def of_another_version(copy: bytes) -> bytes:
    at = copy.index(b"5.")
    return copy[:at] + b"4" + copy[at + 1 :]


@pytest.mark.parametrize(
    "damage", [emptied, cut_in_its_head, cut_in_the_middle, cut_a_little, of_another_version]
)
def test_a_damaged_one_does_no_harm(
    damage: Callable[[bytes], bytes], plugin: Path, tool: Tool, home: Path, daemon: Daemon
) -> None:
    """The text is read, nothing is said, and the next shell finds a whole one."""
    copy = leave_copy(plugin, home, daemon)
    damaged = damage(copy.read_bytes())
    copy.unlink()
    copy.write_bytes(damaged)
    assert use(plugin, tool, daemon) == ["1", "two words", "hello on 0", ""]
    assert start(plugin, home, daemon) == "1"
    wait_until(lambda: copy.read_bytes() != damaged, 20, "a whole copy")
    assert use(plugin, tool, daemon)[0] == "0"


def test_none_is_left_where_nobody_is_asked(plugin: Path, home: Path) -> None:
    """Without a daemon the shell is as if we were not installed."""
    directory = home / "run"
    directory.mkdir(mode=0o700)
    environment = own_environment({"AUTOLOADD_SOCKET": str(directory / "socket")})
    with Terminal(home / "rc", f"source {plugin}", environment=environment) as terminal:
        terminal.run("wait; print $_autoloadd_is_text")
    assert not list(directory.iterdir())


def test_switched_off_none_is_read(plugin: Path, home: Path, daemon: Daemon) -> None:
    leave_copy(plugin, home, daemon)
    environment = environment_for(daemon.socket_path, AUTOLOADD_CACHE="0")
    script = f"source {plugin}; print $_autoloadd_is_text; zmodload"
    shown = output_of(script, environment=environment, sourced=False)
    assert shown.startswith("1\n")
    assert "zsh/stat" not in shown


def test_what_may_change_once_more_without_a_new_time_is_not_copied(
    plugin: Path, home: Path, daemon: Daemon
) -> None:
    """From the future, that is at any time; a shell that leaves one later is behind this one."""
    later = time.time_ns() + HOUR_NS
    lay_out(plugin, plugin.read_bytes(), later)
    assert start(plugin, home, daemon) == "1"
    (home / "other").mkdir()
    other = home / "other" / PLUGIN.name
    leave_copy(lay_out(other, plugin.read_bytes(), later - 2 * HOUR_NS), home, daemon)
    assert not [copy for copy in copies_of(daemon) if str(later) in copy.name]


def test_beside_a_compiled_one_there_is_no_other(plugin: Path, home: Path, daemon: Daemon) -> None:
    environment = own_environment({})
    output_of(f"zcompile {plugin}", environment=environment)
    assert start(plugin, home, daemon) == "0"
    assert not copies_of(daemon)


def test_one_beside_it_of_another_version_is_none(
    plugin: Path, tool: Tool, home: Path, daemon: Daemon
) -> None:
    """After an update of zsh: then it reads the text, until it finds a copy."""
    output_of(f"zcompile {plugin}", environment=own_environment({}))
    beside = plugin.with_name(f"{PLUGIN.name}.zwc")
    compiled = beside.read_bytes()
    beside.unlink()
    beside.write_bytes(of_another_version(compiled))
    leave_copy(plugin, home, daemon)
    assert use(plugin, tool, daemon) == ["0", "two words", "hello on 0", ""]


def test_four_are_kept(plugin: Path, home: Path, daemon: Daemon) -> None:
    """Of other versions, and of the file as it was; and nothing of a shell that was killed."""
    directory = Path(daemon.socket_path).parent
    for number in range(5):
        old = directory / f"plugin-5.8-1-1-{number}.zwc"
        lay_out(old, b"", time.time_ns() - (10 + number) * HOUR_NS)
    left = directory / ".plugin-1"
    left.mkdir()
    (left / "part").touch()
    os.utime(left, ns=(0, 0))
    assert start(plugin, home, daemon) == "1"
    wait_until(lambda: len(copies_of(daemon)) == 4, 20, "the older ones to go")
    wait_until(lambda: not list(directory.glob(".plugin-*")), 20, "what was left to go")
    assert {copy.name for copy in copies_of(daemon)} >= {
        f"plugin-5.8-1-1-{number}.zwc" for number in range(3)
    }


def test_a_file_that_changed_since_the_shell_read_it(
    plugin: Path, tool: Tool, home: Path, daemon: Daemon
) -> None:
    """The copy is of the file that its name stands for, not of what this shell has read."""
    environment = environment_for(daemon.socket_path)
    fresh = lay_out(home / "fresh", in_capitals(plugin.read_bytes()), plugin.stat().st_mtime_ns - 1)
    rc = f"source {plugin}\ncommand mv {fresh} {plugin}"
    with Terminal(home / "rc", rc, environment=environment) as terminal:
        assert terminal.run("print $_autoloadd_is_text").strip() == "1"
    wait_for_copy(daemon, lambda now: len(now) == 1)
    shown = output_of(
        f"source {plugin}; print $_autoloadd_is_text; autoloadd-get --help",
        environment=environment,
        sourced=False,
    )
    assert shown.startswith("0\n")
    assert "of the CACHE." in shown


def test_a_file_that_is_replaced_while_it_is_copied(
    plugin: Path, home: Path, daemon: Daemon
) -> None:
    """No name may stand for a text that it was not made from."""
    fresh = lay_out(home / "fresh", in_capitals(plugin.read_bytes()), plugin.stat().st_mtime_ns)
    script = f"""source {plugin}
    functions[read]=$functions[_autoloadd_read_source]
    _autoloadd_read_source() {{ command mv {fresh} {plugin}; read }}
    f() {{ local _autoloadd_place; _autoloadd_place; _autoloadd_leave_copy; print $? }}; f"""
    environment = environment_for(daemon.socket_path)
    assert output_of(script, environment=environment, sourced=False) == "1\n"
    assert list(Path(daemon.socket_path).parent.glob("*plugin-*")) == []


LEAVE = """
f() {
  local _autoloadd_place
  _autoloadd_place; _autoloadd_leave_copy 2>/dev/null; print -r -- $?
}; f"""
"""What a shell does in the background, behind its first prompt."""


def test_it_is_on_the_disk_before_it_has_its_name(plugin: Path, daemon: Daemon) -> None:
    """zsh may hang on a compiled file of which a part was never written."""
    script = f"""source {plugin}
    zmodload -F zsh/files b:zf_mv; {READ_ALL}
    syswrite() {{ grep flags /proc/self/fdinfo/$fd; builtin syswrite "$@" }}
    zf_mv() {{ print -r -- $3:t; builtin zf_mv "$@" }}{LEAVE}"""
    environment = environment_for(daemon.socket_path)
    shown = output_of(script, environment=environment, sourced=False).split()
    assert shown[0] == "flags:"
    assert int(shown[1], 8) & os.O_SYNC == os.O_SYNC
    assert shown[2:] == ["whole", "0"]
    assert len(copies_of(daemon)) == 1


def test_no_program_is_run_for_it(plugin: Path, home: Path, daemon: Daemon) -> None:
    """Somebody's `sync` may copy his files to afar; nor is it left out where there is none."""
    sync = home / "sync"
    sync.write_text(f"#!/bin/sh\necho ran >> {home}/ran\n")
    sync.chmod(0o755)
    script = f"path=({home})\nsource {plugin}{LEAVE}"
    environment = environment_for(daemon.socket_path)
    assert output_of(script, environment=environment, sourced=False) == "0\n"
    assert len(copies_of(daemon)) == 1
    assert not (home / "ran").exists()


def test_a_full_disk_leaves_none(plugin: Path, daemon: Daemon) -> None:
    """zcompile succeeds where it could write a part only. (In blocks of 512 bytes.)"""
    blocks = plugin.stat().st_size * 3 // 2 // 512
    script = f"""source {plugin}
    trap '' XFSZ; ulimit -f {blocks}{LEAVE}"""
    environment = environment_for(daemon.socket_path)
    assert output_of(script, environment=environment, sourced=False) == "1\n"
    assert list(Path(daemon.socket_path).parent.glob("*plugin-*")) == []
