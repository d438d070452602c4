"""`autoloadctl why`: the part of the fingerprint that differs, and nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_client import TOOL_OUTPUT, Entry
from autoloadd_client.outputs.comparing import Difference, differences
from autoloadd_client.shells.fingerprint import fingerprint_file
from autoloadd_client.shells.zsh import find_zsh

from .conftest import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from ...running import Daemon
    from ..slow_tool import Tool
    from .conftest import Cached

CTL = COMMAND[:-1]


def ask(cached: Cached, *words: str, status: int = 0, **more: str) -> list[dict[str, Any]]:
    ran = cached("why", "--json", *words, command=CTL, **more)
    assert (ran.returncode, ran.stderr) == (status, b"")
    said: list[dict[str, Any]] = json.loads(ran.stdout)
    return said


def test_an_output_that_is_used(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    cached("--shell", "bash/5.2", "slow", "init", "-x")
    (said,) = ask(cached, "slow", "init", "--", "-x")
    assert said.pop("cached_at_ns") > 0
    assert said == {
        "what": "eval", "shell": "bash/5.2", "words": ["slow", "init", "-x"],
        "cached": True, "fresh": True, "blob_bytes": 13, "reasons": [],
    }  # fmt: skip
    ran = cached("why", "slow", command=CTL)
    assert ran.stdout == b"eval bash/5.2: slow init -x: is used\n  stored just now, 13 B\n"


def test_each_part_that_differs_is_named(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    setting = tmp_path / "setting"
    setting.write_text("1")
    options = ("--env", "WHERE", "--env", "HOW", "--file", str(setting), "--file", "/none")
    cached(*options, "slow", WHERE="here")
    before = tool.path.stat()
    tool.write("echo longer than it was before")
    setting.unlink()
    os.utime(tool.path, ns=(5, 5))
    (said,) = ask(cached, "slow", status=1, WHERE="there", HOW="so")
    path = str(tool.path)
    now = tool.path.stat()
    differing = [tuple(reason.values()) for reason in said["reasons"]]
    assert differing == [
        (path, "size", str(before.st_size), str(now.st_size)),
        (path, "mtime_ns", str(before.st_mtime_ns), "5"),
        ("WHERE", "variable", "here", "there"),
        ("HOW", "variable", None, "so"),
        (str(setting), "path", str(setting), None),
    ]
    shown = cached("why", "slow", command=CTL, WHERE="there", HOW="so")
    assert shown.returncode == 1
    assert shown.stdout.decode().splitlines()[0] == "eval: slow: is not used"
    assert shown.stdout.decode().splitlines()[2:] == [
        f"  {path}: its size was {before.st_size}, it is {now.st_size}",
        f"  {path}: its mtime_ns was {before.st_mtime_ns}, it is 5",
        "  $WHERE: it was 'here', it is 'there'",
        "  $HOW: it was not set, it is 'so'",
        f"  {setting}: it is not there any more",
    ]


def test_another_program_of_that_name(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    cached("env", "A=1", "slow")
    (tmp_path / "other").write_text("#!/bin/sh\n")
    (tmp_path / "other").chmod(0o755)
    tool.path.unlink()
    tool.path.symlink_to(tmp_path / "other")
    shown = cached("why", "slow", command=CTL).stdout.decode().splitlines()
    assert shown[-1] == f"  path: it was {tool.path}, it is {tmp_path}/other"
    tool.path.unlink()
    shown = cached("why", "slow", command=CTL).stdout.decode().splitlines()
    assert shown[-1] == f"  {tool.path}: it is not there any more"
    setting = tmp_path / "setting"
    tool.write("echo")
    cached("--file", str(setting), "slow", "x")
    setting.touch()
    shown = cached("why", "slow", "x", command=CTL).stdout.decode().splitlines()
    assert shown[-1] == f"  {setting}: it was not there"


def test_another_name_of_the_same_program(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    cached("slow")
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "slow").symlink_to(tool.path)
    one, two = ({"PATH": f"{tmp_path}/{name}:{os.environ['PATH']}"} for name in ("one", "two"))
    (said,) = ask(cached, "slow", status=1, PATH=one["PATH"])
    assert [reason["part"] for reason in said["reasons"]] == ["path"]
    cached("slow", **one)
    assert ask(cached, "slow", PATH=one["PATH"])[0]["fresh"]
    shown = cached("why", "slow", command=CTL, **two).stdout.decode().splitlines()
    assert shown[2:] == [f"  path: it was {tmp_path}/one/slow, it is {tmp_path}/two/slow"]


def test_age_and_what_has_no_form_of_ours(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        cache.put("eval\0zsh/5.9\0slow\0a", b"x", fingerprint=b"of another form")
        cache.put("eval\0zsh/5.9\0slow\0b", b"x")
        cache.put("complete\0zsh/5.9\0aws_completer\0aws s3", b"x")
        cache.put("other", b"x")
    shown = cached("why", "slow", "a", command=CTL).stdout.decode()
    assert "its fingerprint is of another form: b'of another form'" in shown
    # `cached` takes nothing that does not say what it was made from.
    lines = cached("why", "slow", "b", command=CTL).stdout.decode().splitlines()
    assert lines[0] == "eval zsh/5.9: slow b: is not used"
    assert lines[2:] == ["  it was stored without a fingerprint"]
    assert ask(cached, "aws", status=1)[0]["words"] == ["aws_completer", "aws s3"]
    cached("slow", "c")
    assert ask(cached, "slow", "c", "--max-age", "1d")[0]["fresh"]


def test_too_old_is_told(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        cache.put_many({"eval\0zsh/5.9\0slow\0b": Entry(b"x", None, 0, 10**9)})
    ran = cached("why", "slow", "b", "--max-age", "1d", command=CTL)
    assert ran.returncode == 1
    assert b" s old, more than 86400\n" in ran.stdout


def test_a_program_that_is_not_found_any_more(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    cached("slow")
    shown = cached("why", "slow", command=CTL, PATH="/usr/bin:/bin")
    assert shown.returncode == 1
    assert shown.stdout.decode().splitlines()[2:] == [
        "  slow: no program of that name is found now, or only a shim"
    ]
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims" / "slow").symlink_to(tool.path)
    path = f"{tmp_path}/shims:{tool.directory}:/usr/bin:/bin"
    (said,) = ask(cached, "slow", status=1, PATH=path)
    assert [reason["part"] for reason in said["reasons"]] == ["program"]


def test_a_path_is_no_function(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    cached(str(tool.path))
    (said,) = ask(cached, str(tool.path))
    assert (said["what"], said["fresh"]) == ("eval", True)


def test_functions(cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    zsh = find_zsh()
    functions = tmp_path / "functions"
    functions.mkdir()
    path = functions / "greet"
    path.write_text("print hi\n")
    where = ("--fpath", str(functions))
    (said,) = ask(cached, "greet", *where, status=1)
    assert (said["what"], said["cached"], said["shell"]) == ("function", False, str(zsh.producer))
    shown = cached("why", "greet", *where, command=CTL).stdout.decode()
    assert shown == (
        f"function {zsh.producer}: greet: is not used\n  it is not cached; the function is {path}\n"
    )
    cached("warm", "zsh", str(functions), command=CTL)
    assert ask(cached, "greet", *where)[0]["fresh"]
    os.utime(path, ns=(5, 5))
    (said,) = ask(cached, "greet", *where, status=1)
    assert [reason["part"] for reason in said["reasons"]] == ["mtime_ns"]
    (said,) = ask(cached, "greet", status=1)
    assert [reason["part"] for reason in said["reasons"]] == ["mtime_ns"]
    with daemon.cache(str(zsh.producer)) as cache:
        cache.put("greet", b"x")
        shown = cached("why", "greet", *where, command=CTL).stdout.decode()
        assert "  it was stored without a fingerprint\n" in shown
        assert (
            f"  {zsh.real} is newer than the one that compiled it: {zsh.mtime_ns}, not 0" in shown
        )


def test_nothing_is_cached_and_no_zsh_and_no_daemon(
    cached: Cached, daemon: Daemon, tool: Tool
) -> None:
    ran = cached("why", "nothing\x1b", command=CTL)
    assert (ran.returncode, ran.stdout) == (1, b"nothing\\x1b: nothing is cached for it\n")
    assert ask(cached, "nothing", status=1, PATH=str(tool.directory)) == []
    ran = cached("why", "x", "--max-age", "soon", command=CTL)
    assert (ran.returncode, ran.stderr[:26]) == (2, b"autoloadctl: --max-age soo")
    assert daemon.stop() == 0
    assert cached("why", "x", "y", command=CTL).returncode == 3


@pytest.mark.parametrize("text", [b"no end", b"\0", b"name\0\0", b"/path\x001\x002\0"])
def test_what_is_no_fingerprint(text: bytes) -> None:
    if text == b"/path\x001\x002\0":
        # A variable's name may look like anything: it is not set.
        assert differences(text, {"/path": "", "1": "", "2": ""})
    else:
        with pytest.raises(ValueError, match="a fingerprint"):
            differences(text, {})


def test_differences_of_files_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "file"
    absent = os.fsencode(path) + b"\0\0\0\0"
    assert differences(absent, {}) == []
    path.touch()
    present = fingerprint_file(str(path))
    assert differences(absent, {}) == [Difference(str(path), "path", None, str(path))]
    assert differences(present + absent[:0], {}, program=str(path)) == []
    path.unlink()
    path.write_text("")
    os.link(path, tmp_path / "keeps the inode")
    (tmp_path / "new").write_text("")
    found = os.stat(path)
    os.utime(tmp_path / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    stored = fingerprint_file(str(path))
    os.replace(tmp_path / "new", path)
    assert [each.part for each in differences(stored, {})] == ["inode"]


def test_a_variable_as_it_was() -> None:
    assert differences(b"HUE=red\0", {"HUE": "red"}) == []
    assert differences(b"HUE=red\0", {}) == [Difference("HUE", "variable", "red", None)]
