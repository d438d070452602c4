"""What autoloadctl says when it is not used as it should be, and what its help teaches."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import ctl_environment

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Ctl, Daemon

PRODUCER = ("--producer", "zsh/5.9/8")

AUTOLOADCTL = (sys.executable, "-m", "autoloadd_client.cli")

MISUSES = {
    (): "the following arguments are required: COMMAND (see `autoloadctl --help`)",
    ("gat", "x"): "there is no command 'gat'; did you mean get? (see `autoloadctl --help`)",
    ("zzz",): "there is no command 'zzz' (see `autoloadctl --help`)",
    ("help", "gat"): "there is no command 'gat'",
    ("ping", "x"): "unrecognized arguments: x (see `autoloadctl ping --help`)",
    ("ping", "--", "-x"): "unrecognized arguments: -x (see `autoloadctl ping --help`)",
    ("--sock", "x", "ping"): "(see `autoloadctl --help`)",
    ("get",): "the following arguments are required: NAME (see `autoloadctl get --help`)",
    ("get", "x", "--producer", "zsh"): "'zsh' is not NAME/VERSION/WIDTH[/BUILD], such as zsh/5.9/8",
    ("get", "x", "--producer", "zsh/5.9/16"): "(WIDTH is 4 or 8)",
    ("get", "x", "--producer="): "is not NAME/VERSION/WIDTH",
    ("get", "x", *PRODUCER, "--mtime", "yesterday"): "'yesterday' is no number of ns",
    ("get", "x", *PRODUCER, "--mtime", str(2**63)): f"{2**63} does not fit 64 bits",
    ("get", "x", *PRODUCER, "--mtime", "1", "--binary", "/bin/sh"): "not allowed with argument",
    ("get", "x", *PRODUCER, "--binary", "/no/shell"): (
        "--binary /no/shell: No such file or directory"
    ),
    ("get", "x", *PRODUCER, "--fingerprint-file", "/no/file"): (
        "--fingerprint-file /no/file: No such file or directory"
    ),
    ("get", "", *PRODUCER): "a name has 1 to 1,024 bytes, this one 0: ''",
    ("get", "ä" * 513, *PRODUCER): "a name has 1 to 1,024 bytes, this one 1,026",
    ("get", b"\xff", *PRODUCER): r"the name b'\xff' is not valid UTF-8",
    ("ping", "--timeout", "0"): "0 s is no time to wait; it must be over 0",
    ("ping", "--timeout", "nan"): "nan s is no time to wait",
    ("ping", "--timeout", "soon"): "'soon' is no number of seconds",
    ("put", "x", "/no/file", *PRODUCER): "/no/file: No such file or directory",
    ("put", "x", b"/no/\xfd", *PRODUCER): r"/no/\xfd: No such file or directory",
    ("put", "x", "/", *PRODUCER): "/: Is a directory",
    ("put", "x", "--sync", "always", *PRODUCER): "argument --sync: invalid choice: 'always'",
    ("import",): "the following arguments are required: FILE (see `autoloadctl import --help`)",
    ("import", "a", "b"): "one FILE at a time, not 2: a b",
    ("import", "zshrs", "a", "b"): "one FILE at a time, not 2: a b",
    ("import", "a", *PRODUCER): "leave out --producer, --binary and --mtime",
    ("import", "a", "--mtime", "1"): "leave out --producer, --binary and --mtime",
    ("import", "a", "--binary", "/bin/sh"): "leave out --producer, --binary and --mtime",
    ("export", "zshrs"): "where to? `autoloadctl export zshrs FILE`, or `autoloadctl export FILE`",
    ("export", "a", "b"): "one FILE at a time, not 2: a b",
    ("export", "a", "--layout", "1.95"): "--layout is for `autoloadctl export zshrs FILE`",
    ("export", "zshrs", "a", "--layout", "1.50"): "invalid choice: '1.50'",
    ("export", "zshrs", "a", *PRODUCER): "(zshrs/VERSION/WIDTH), not zsh/5.9/8; `autoloadctl",
    ("warm",): "the following arguments are required: zsh (see `autoloadctl warm --help`)",
    ("warm", "fish"): "argument zsh: zsh is the only shell so far, not 'fish'",
    ("warm", "zsh", "/no/directory"): "/no/directory: No such file or directory",
    ("warm", "zsh", "/bin/sh"): "/bin/sh: Not a directory",
    ("warm", "zsh", *PRODUCER): "leave out --producer and --mtime",
    ("warm", "zsh", "--binary", "/no/zsh"): (
        "there is no program /no/zsh; install it with `apt install zsh` or `brew install zsh`"
    ),
    ("warm", "zsh", "--binary", "/bin/false"): (
        "/bin/false is not a zsh: asked for its version and fpath, it ended with status 1"
    ),
    ("warm", "zsh", "--binary", "/bin/true"): "/bin/true is not a zsh: it answers b''",
}


@pytest.mark.parametrize(("arguments", "message"), MISUSES.items(), ids=str)
def test_misuse_ends_with_2_and_says_what_is_wrong(
    ctl: Ctl, arguments: tuple[str | bytes, ...], message: str
) -> None:
    done = ctl(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"autoloadctl: ")
    assert message in done.stderr.decode()


def test_a_bad_producer_in_the_environment_is_told_as_such(ctl: Ctl) -> None:
    done = ctl("get", "x", environment={"AUTOLOADD_PRODUCER": "zsh"})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"autoloadctl: AUTOLOADD_PRODUCER: 'zsh' is not NAME/VERSION")


def test_a_blob_over_the_limit_is_refused_without_reading_all_of_it(
    ctl: Ctl, daemon: Daemon
) -> None:
    done = ctl("put", "x", "/dev/zero", *PRODUCER)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode() == (
        "autoloadctl: nothing was stored: "
        "/dev/zero has more than 4,194,304 bytes, which is the most for one entry\n"
    )


def test_a_stdin_over_the_limit_is_called_so(ctl: Ctl, daemon: Daemon) -> None:
    done = ctl("put", "x", *PRODUCER, given=bytes((4 << 20) + 1))
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"autoloadctl: nothing was stored: stdin has more than 4,194,304")


def test_a_blob_of_the_largest_size_goes_in_and_out(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    largest = bytes(range(256)) * (4 * 1024 * 1024 // 256)
    (tmp_path / "blob").write_bytes(largest)
    assert ctl("put", "x", tmp_path / "blob", *PRODUCER).returncode == 0
    assert ctl("get", "x", *PRODUCER).stdout == largest


def listed_commands(ctl: Ctl) -> list[str]:
    return re.findall(r"^    (\w+)  +\w", ctl("--help").stdout.decode(), re.MULTILINE)


def test_the_main_help_lists_every_command_and_the_exit_codes(ctl: Ctl) -> None:
    assert listed_commands(ctl) == [
        "get", "put", "ls", "missing", "rm", "count", "stats", "clear", "flush", "warm",
        "import", "export", "status", "ping", "shards", "drop", "shutdown", "version", "verify",
    ]  # fmt: skip
    text = ctl("--help").stdout.decode()
    for code in ("0  found", "1  miss", "2  the command", "3  the daemon", "4  the daemon"):
        assert f"\n  {code}" in text


def test_the_help_of_every_command_ends_with_examples_of_it(ctl: Ctl) -> None:
    for command in listed_commands(ctl):
        done = ctl(command, "--help")
        assert (done.returncode, done.stderr) == (0, b"")
        usage, *_, last = done.stdout.decode().split("\n\n")
        assert usage.startswith(f"usage: autoloadctl {command} [OPTION]...")
        title, *examples = last.rstrip("\n").split("\n")
        assert title == "examples:"
        assert all(example.startswith("  ") for example in examples)
        assert any(f"autoloadctl {command}" in example for example in examples)


def test_version_option(ctl: Ctl) -> None:
    done = ctl("--version")
    assert (done.returncode, done.stdout) == (0, b"autoloadctl 0.1.0\n")


@pytest.mark.parametrize("command", [["put", "name"], ["missing"], ["import", "-"]], ids=" ".join)
def test_a_closed_stdin_is_not_an_empty_one(
    ctl: Ctl, daemon: Daemon, run_directory: Path, command: list[str]
) -> None:
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *AUTOLOADCTL, *command],
        capture_output=True, check=False,
        env=ctl_environment(run_directory, {"AUTOLOADD_PRODUCER": "zsh/5.9/8"}),
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr == b"autoloadctl: stdin is closed: there is nothing to read\n"
    assert ctl("shards", "--json").stdout == b"[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "greet", "-", "--producer", "zsh/5.9/8"),
        ("put", "greet", "--producer", "zsh/5.9/8", "-"),
        ("put", "--producer", "zsh/5.9/8", "greet", "-"),
        ("--producer", "zsh/5.9/8", "put", "--sync", "fsync", "greet"),
    ],
)
def test_operands_may_stand_before_and_behind_options(
    ctl: Ctl, daemon: Daemon, arguments: tuple[str, ...]
) -> None:
    assert ctl(*arguments, given=b"print hello").returncode == 0
    assert ctl("get", "greet", "--producer", "zsh/5.9/8").stdout == b"print hello"


def test_behind_two_dashes_everything_is_an_operand(
    ctl: Ctl, daemon: Daemon, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"blob")
    assert ctl("put", *PRODUCER, "--", "-dash", source).returncode == 0
    assert ctl("put", "x", *PRODUCER, "--", "-", given=b"stdin").returncode == 0
    assert ctl("get", "--", "-dash").stdout == b"blob"
    assert ctl("get", "--json", "x", *PRODUCER, "--", "-dash").returncode == 0
    assert ctl("ls", "--", "-d").stdout == b"-dash\n"
    assert ctl("missing", "--", "-x", "-dash", "--").stdout == b"-x\n--\n"
    assert ctl("rm", "--", "-dash").stdout == b"removed 1 of 1 name\n"


def test_the_help_is_also_a_command(ctl: Ctl) -> None:
    assert ctl("help").stdout == ctl("--help").stdout
    assert ctl("help", "get").stdout == ctl("get", "--help").stdout


def test_the_help_of_warm_says_how_to_take_ones_own_fpath_along(ctl: Ctl) -> None:
    text = ctl("warm", "--help").stdout.decode()
    assert "startup files (.zshenv, .zshrc) are not read" in text
    assert "\n  autoloadctl warm zsh $fpath\n" in text
