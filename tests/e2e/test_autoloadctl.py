"""autoloadctl against the real daemon: entries, and who they belong to."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Ctl, Daemon

pytestmark = pytest.mark.usefixtures("daemon")

PRODUCER = ("--producer", "zsh/5.9/8")
OTHER = ("--producer", "fish/3.6/8")
EVERY_BYTE = bytes(range(256)) * 4096


def put(ctl: Ctl, name: str, blob: bytes = b"blob", *options: str) -> None:
    done = ctl("put", name, *PRODUCER, *options, given=blob)
    assert (done.returncode, done.stderr) == (0, b"")


def test_put_from_stdin_and_get_give_every_byte_back(ctl: Ctl) -> None:
    done = ctl("put", "name", *PRODUCER, given=EVERY_BYTE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"stored name: 1.0 MB\n", b"")
    got = ctl("get", "name", *PRODUCER)
    assert (got.returncode, got.stdout, got.stderr) == (0, EVERY_BYTE, b"")


@pytest.mark.parametrize("file", [["-"], []])
def test_put_reads_stdin_by_name_or_by_default(ctl: Ctl, file: list[str]) -> None:
    ctl("put", "name", *file, *PRODUCER, given=b"from stdin")
    assert ctl("get", "name", *PRODUCER).stdout == b"from stdin"


def test_put_reads_a_file(ctl: Ctl, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    done = ctl("put", "name", source, *PRODUCER, "--sync", "fsync", "--json")
    assert json.loads(done.stdout) == {"generation": 1, "blob_bytes": 11}
    assert ctl("get", "name", *PRODUCER).stdout == b"from a file"


def test_an_empty_blob_is_found_not_missed(ctl: Ctl) -> None:
    put(ctl, "empty", b"")
    got = ctl("get", "empty", *PRODUCER)
    assert (got.returncode, got.stdout) == (0, b"")


def test_a_miss_says_nothing_and_exits_1(ctl: Ctl) -> None:
    for arguments in (["get", "none"], ["get", "none", "--timeout", "5"]):
        got = ctl(*arguments, *PRODUCER)
        assert (got.returncode, got.stdout, got.stderr) == (1, b"", b"")


def test_get_of_several_names_writes_what_is_there_and_names_what_is_not(ctl: Ctl) -> None:
    put(ctl, "a", b"1")
    put(ctl, "c", b"3")
    got = ctl("get", "a", "b", "c", *PRODUCER)
    assert (got.returncode, got.stdout, got.stderr) == (1, b"13", b"missing: b\n")
    got = ctl("get", "c", "a", *PRODUCER)
    assert (got.returncode, got.stdout, got.stderr) == (0, b"31", b"")


def test_get_as_json_has_everything_that_is_stored(ctl: Ctl, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_text("tool")
    put(ctl, "ä", b"\x00\xff", "--mtime", "7", "--fingerprint-file", str(source))
    got = ctl("get", "ä", "none", "--json", *PRODUCER)
    found, missed = json.loads(got.stdout)
    status = source.stat()
    fingerprint = f"{source}\0{status.st_size}\0{status.st_ino}\0{status.st_mtime_ns}\0"
    assert got.returncode == 1
    assert missed == {"name": "none", "found": False}
    assert found.pop("cached_at_ns") > 10**18
    assert found == {
        "name": "ä",
        "found": True,
        "blob": base64.b64encode(b"\x00\xff").decode(),
        "fingerprint": base64.b64encode(fingerprint.encode()).decode(),
        "binary_mtime_ns": 7,
    }


def test_get_misses_what_is_older_than_the_binary(ctl: Ctl, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.touch()
    os.utime(binary, ns=(0, 1_000))
    put(ctl, "name", b"old", "--mtime", "999")
    assert ctl("get", "name", *PRODUCER, "--binary", binary).returncode == 1
    assert ctl("get", "name", *PRODUCER, "--mtime", "999").stdout == b"old"
    put(ctl, "name", b"new", "--binary", str(binary))
    assert ctl("get", "name", *PRODUCER, "--binary", binary).stdout == b"new"
    assert ctl("get", "name", *PRODUCER, "--mtime=1001").returncode == 1


def test_get_misses_what_was_made_from_another_file(ctl: Ctl, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("one")
    put(ctl, "name", b"output", "--fingerprint-file", str(tool))
    option = ("--fingerprint-file", str(tool))
    assert ctl("get", "name", *PRODUCER, *option).stdout == b"output"
    tool.write_text("another")
    assert ctl("get", "name", *PRODUCER, *option).returncode == 1
    assert ctl("get", "name", *PRODUCER).stdout == b"output"


def test_a_fingerprint_follows_links_to_the_file_itself(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("tool")
    (tmp_path / "link").symlink_to(tmp_path / "tool")
    put(ctl, "name", b"output", "--fingerprint-file", str(tmp_path / "link"))
    got = ctl("get", "name", *PRODUCER, "--fingerprint-file", tmp_path / "tool")
    assert got.stdout == b"output"


def test_ls_lists_names_in_order_over_several_pages(ctl: Ctl, tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    functions.mkdir()
    names = [f"f{number:04}" for number in range(1100)]
    for name in names:
        (functions / name).write_text(":")
    assert ctl("warm", "zsh", functions).returncode == 0
    producer = json.loads(ctl("shards", "--json").stdout)[0]["producer"]["version"]
    option = ("--producer", f"zsh/{producer}/8")
    assert ctl("ls", *option).stdout.decode().split() == names
    assert ctl("ls", "f109", *option).stdout.decode().split() == names[1090:]
    listed = json.loads(ctl("ls", "--json", *option).stdout)
    assert listed == [{"name": name, "fresh": None} for name in names]


def test_ls_with_a_time_tells_fresh_from_stale(ctl: Ctl) -> None:
    put(ctl, "old", b"", "--mtime", "1")
    put(ctl, "new", b"", "--mtime", "2")
    done = ctl("ls", *PRODUCER, "--mtime", "2")
    assert done.stdout == b"fresh  new\nstale  old\n"
    done = ctl("ls", *PRODUCER, "--mtime", "2", "--json")
    assert json.loads(done.stdout) == [
        {"name": "new", "fresh": True},
        {"name": "old", "fresh": False},
    ]


def test_ls_of_nothing_is_nothing(ctl: Ctl) -> None:
    done = ctl("ls", *PRODUCER)
    assert (done.returncode, done.stdout) == (0, b"")
    assert json.loads(ctl("ls", *PRODUCER, "--json").stdout) == []


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["count"], ["stats"]], ids=" ".join)
def test_a_producer_that_the_daemon_does_not_know_is_noted(ctl: Ctl, command: list[str]) -> None:
    put(ctl, "name")
    done = ctl(*command, *OTHER)
    assert (done.returncode, done.stderr.decode()) == (
        0,
        "there are no entries of fish/3.6/8; `autoloadctl shards` lists whose there are\n",
    )
    ctl("rm", "name", *PRODUCER)
    assert ctl(*command, *PRODUCER).stderr == b""


def test_ls_writes_names_as_they_are_to_a_pipe(ctl: Ctl) -> None:
    put(ctl, "\x1b[31mred")
    assert ctl("ls", *PRODUCER).stdout == b"\x1b[31mred\n"


def test_missing_lists_what_is_absent_or_stale(ctl: Ctl) -> None:
    put(ctl, "fresh", b"", "--mtime", "2")
    put(ctl, "stale", b"", "--mtime", "1")
    asked = ("z", "stale", "fresh", "a")
    for arguments, given in (
        (asked, b""),
        ((), "\n".join(asked).encode()),
        (("-",), "\n".join(asked).encode() + b"\n"),
    ):
        done = ctl("missing", *arguments, *PRODUCER, "--mtime", "2", given=given)
        assert (done.returncode, done.stdout) == (0, b"z\nstale\na\n")
    done = ctl("missing", *asked, *PRODUCER, "--json")
    assert json.loads(done.stdout) == ["z", "a"]


def test_rm_removes_and_says_how_many(ctl: Ctl) -> None:
    put(ctl, "a")
    put(ctl, "b")
    done = ctl("rm", "a", "none", *PRODUCER)
    assert (done.returncode, done.stdout) == (0, b"removed 1 of 2 names\n")
    assert json.loads(ctl("rm", "b", *PRODUCER, "--json").stdout) == {"removed": 1}
    assert ctl("get", "a", *PRODUCER).returncode == 1


def test_clear_removes_one_producers_entries_only(ctl: Ctl) -> None:
    put(ctl, "a")
    put(ctl, "b")
    ctl("put", "a", *OTHER, given=b"fish")
    done = ctl("clear", *PRODUCER)
    assert (done.returncode, done.stdout) == (0, b"removed 2 entries\n")
    assert ctl("count", *PRODUCER).stdout == b"0\n"
    assert ctl("get", "a", *OTHER).stdout == b"fish"


def test_count_and_stats(ctl: Ctl) -> None:
    put(ctl, "old", b"12345", "--mtime", "1")
    put(ctl, "new", b"123", "--mtime", "2")
    ctl("get", "new", *PRODUCER)
    ctl("get", "none", *PRODUCER)
    assert ctl("count", *PRODUCER).stdout == b"2\n"
    assert json.loads(ctl("count", *PRODUCER, "--json").stdout) == {"entries": 2}
    stats = json.loads(ctl("stats", *PRODUCER, "--json", "--mtime", "2").stdout)
    wanted = {"entries": 2, "fresh": 1, "stale": 1, "blob_bytes": 8, "hits": 1, "misses": 1}
    assert {key: stats[key] for key in wanted} == wanted
    assert stats["generation"] == 2
    lines = ctl("stats", *PRODUCER, "--mtime", "2").stdout.decode().splitlines()
    assert lines[:4] == ["entries     2", "  fresh     1", "  stale     1", "blobs       8 B"]
    assert "hits        1 (50% of gets)" in lines
    assert b"fresh" not in ctl("stats", *PRODUCER).stdout


def test_flush_says_what_is_on_stable_storage(ctl: Ctl) -> None:
    put(ctl, "name")
    done = ctl("flush", *PRODUCER)
    assert (done.returncode, done.stdout) == (
        0,
        b"everything up to generation 1 is on stable storage\n",
    )
    flushed = json.loads(ctl("flush", *PRODUCER, "--json").stdout)
    assert flushed == {"generation": 1, "refused": 0, "first_error": None, "unconfirmed": 0}


def test_the_only_producer_is_taken_where_none_is_named(ctl: Ctl) -> None:
    put(ctl, "name", b"zsh's")
    assert ctl("get", "name").stdout == b"zsh's"
    assert ctl("count").stdout == b"1\n"


def test_without_any_producer_one_has_to_be_named(ctl: Ctl) -> None:
    done = ctl("get", "name")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--producer NAME/VERSION/WIDTH" in done.stderr
    assert b"the daemon has none yet" in done.stderr


def test_of_several_producers_one_has_to_be_named(ctl: Ctl) -> None:
    put(ctl, "name")
    ctl("put", "name", *OTHER, given=b"")
    done = ctl("ls")
    assert (done.returncode, done.stdout) == (2, b"")
    listed = done.stderr.decode().splitlines()[1:]
    assert sorted(listed) == ["  --producer fish/3.6/8", "  --producer zsh/5.9/8"]


def test_the_environment_names_the_producer(ctl: Ctl) -> None:
    put(ctl, "name", b"zsh's")
    ctl("put", "name", *OTHER, given=b"fish's")
    environment = {"AUTOLOADD_PRODUCER": "fish/3.6/8"}
    for arguments in (["get", "name"], ["get", "name", "--timeout", "5"]):
        assert ctl(*arguments, environment=environment).stdout == b"fish's"
        assert ctl(*arguments, *PRODUCER, environment=environment).stdout == b"zsh's"


def test_a_build_is_a_producer_of_its_own(ctl: Ctl) -> None:
    put(ctl, "name", b"zsh's")
    build = ("--producer", "zsh/5.9/8/debug/x")
    ctl("put", "name", *build, given=b"debug's")
    assert ctl("get", "name", *PRODUCER).stdout == b"zsh's"
    assert ctl("get", "name", *build).stdout == b"debug's"
    assert ctl("get", "name", "--json", *build).returncode == 0


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
@pytest.mark.parametrize("command", [["get", "name"], ["get", "name", "--json"], ["count"]])
def test_a_cache_that_is_switched_off_misses(ctl: Ctl, variable: str, command: list[str]) -> None:
    put(ctl, "name")
    done = ctl(*command, *PRODUCER, environment={variable: "no"})
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"switches the cache off" in done.stderr
    assert ctl("ping", environment={variable: "no"}).returncode == 0


@pytest.mark.parametrize("command", [["get", "name"], ["count"], ["put", "name"]])
def test_a_cache_that_is_switched_off_misses_also_where_nobody_is_to_be_asked(
    ctl: Ctl, run_directory: Path, command: list[str]
) -> None:
    nobody = {"AUTOLOADD_CACHE": "0", "AUTOLOADD_SOCKET": f"{run_directory}/nobody"}
    done = ctl(*command, environment=nobody)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"switches the cache off" in done.stderr


def test_options_may_stand_before_the_command(ctl: Ctl, daemon: Daemon) -> None:
    put(ctl, "name", b"zsh's")
    done = ctl("--socket", daemon.socket_path, *PRODUCER, "--json", "count")
    assert json.loads(done.stdout) == {"entries": 1}


def test_a_socket_may_be_given_relative_to_where_we_stand(ctl: Ctl, daemon: Daemon) -> None:
    put(ctl, "name", b"zsh's")
    path = os.path.relpath(daemon.socket_path)
    nowhere = {"AUTOLOADD_SOCKET": "/nowhere/socket"}
    for arguments in (["get", "name"], ["get", "name", "--timeout", "5"]):
        got = ctl(*arguments, *PRODUCER, "--socket", path, environment=nowhere)
        assert (got.returncode, got.stdout) == (0, b"zsh's")
