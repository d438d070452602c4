"""`autoloadctl publish zsh`: what it says and does, and how little where nothing has changed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_client.cli.publish_zsh import _tell_of_wait
from autoloadd_client.publishing.farm import lock, place_of
from autoloadd_client.shells.fingerprint import fingerprint_file
from autoloadd_client.shells.zsh import find_zsh

from ...e2e.conftest import ctl_environment
from ...e2e.test_autoloadctl_fast import HEAVY, imported
from ..slow_tool import UNMEASURED

if TYPE_CHECKING:
    from ...e2e.conftest import Ctl
    from ...running import Daemon
    from .conftest import Farm


def place_for(farm: Farm) -> str:
    """Return where the farm for a test's own functions is, or will be."""
    socket = f"{farm.run_directory}/socket"
    return place_of(socket, find_zsh().version, [str(farm.directory)])


def print_dir(farm: Farm, *options: str) -> str:
    ran = farm.ctl("publish", "zsh", "--print-dir", *options, "--fpath", farm.directory)
    return ran.stdout.decode()


UNCHANGED = b"zsh: nothing has changed in fpath since it was published\n"


def test_it_says_where_and_how_many(farm: Farm) -> None:
    ran = farm.ctl("publish", "zsh", "--fpath", farm.directory)
    version = find_zsh().version
    where = f"{place_for(farm)}/farm"
    assert ran.stdout.decode().startswith(f"zsh {version}: 2 functions published in {where}: ")
    assert b", 2 compiled, " in ran.stdout
    assert print_dir(farm) == f"{where}\n"
    printed = print_dir(farm, "--json")
    assert json.loads(printed) == {"directory": where}
    assert (farm.place / "fpath").read_bytes() == bytes(farm.directory)


def test_nothing_changed_says_so_both_ways(farm: Farm) -> None:
    farm.publish()
    fast = farm.ctl("publish", "zsh", "--fpath", farm.directory)
    full = farm.ctl("publish", "--timeout", "15", "zsh", "--fpath", farm.directory)
    assert (fast.returncode, fast.stdout, fast.stderr) == (0, UNCHANGED, b"")
    assert (full.returncode, full.stdout, full.stderr) == (0, UNCHANGED, b"")
    said = farm.publish()
    assert (said["changed"], said["published"], said["functions"]) == (False, False, 0)
    # Another fpath has another farm, also one that is a part of it.
    assert farm.publish(farm.directory, farm.directory.parent)["changed"]
    assert not farm.publish()["changed"]


def test_nothing_changed_and_nowhere_to_say_it(farm: Farm) -> None:
    farm.publish()
    command = [sys.executable, "-m", "autoloadd_client.cli", "publish", "zsh", "--fpath"]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [*command, farm.directory], stdout=full, stderr=subprocess.PIPE, check=False,
            env=ctl_environment(farm.run_directory, {}),
        )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr == b"autoloadctl: stdout: No space left on device\n"


def test_ctrl_c_while_it_looks_is_quiet(farm: Farm) -> None:
    script = """
import os, signal, sys
from autoloadd_client.cli import main, publish
publish.find_unchanged = lambda *_: os.kill(os.getpid(), signal.SIGINT)
main()
"""
    command = [sys.executable, "-c", script, "publish", "zsh", "--fpath", str(farm.directory)]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")


def test_a_directory_named_zsh_is_no_zsh(farm: Farm, daemon: Daemon, tmp_path: Path) -> None:
    farm.publish()
    assert daemon.stop() == 0
    (tmp_path / "share" / "zsh").mkdir(parents=True)
    ran = farm.ctl(
        "publish", "zsh", "--fpath", farm.directory,
        environment={"PATH": f"{tmp_path}/share:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, UNCHANGED)


def test_nothing_changed_needs_no_daemon_and_loads_almost_nothing(
    farm: Farm, daemon: Daemon
) -> None:
    farm.publish()
    assert daemon.stop() == 0
    environment = ctl_environment(farm.run_directory, UNMEASURED)
    python = [sys.executable, "-X", "importtime"]
    base = imported([*python, "-c", "import runpy"], environment)
    command = [*python, "-m", "autoloadd_client.cli", "publish", "zsh", "--fpath"]
    loaded = imported([*command, str(farm.directory)], environment) - base
    assert loaded & {*HEAVY, "subprocess", "fcntl", "tempfile"} == set()
    assert "autoloadd_client.publishing.watching" in loaded


def test_a_dry_run_changes_nothing(farm: Farm) -> None:
    ran = farm.ctl("publish", "zsh", "--dry-run", "--fpath", farm.directory)
    assert b"would publish 2 functions in " in ran.stdout
    assert ran.stdout.endswith(b"/farm, 2 of them compiled anew\n")
    said = farm.ctl("publish", "zsh", "--dry-run", "--json", "--fpath", farm.directory).stdout
    assert (json.loads(said)["functions"], json.loads(said)["published"]) == (2, False)
    assert not list(farm.run_directory.glob("*zsh-*"))
    assert farm.publish()["compiled"] == 2
    seen_at = (farm.place / "state").stat().st_mtime_ns
    ran = farm.ctl("publish", "zsh", "--dry-run", "--fpath", farm.directory)
    assert ran.stdout == UNCHANGED
    assert (farm.place / "state").stat().st_mtime_ns == seen_at


def test_what_is_cached_is_not_compiled_again(farm: Farm) -> None:
    farm.ctl("warm", "zsh", farm.directory)
    farm.write("more", "print more\n")
    assert farm.publish()["compiled"] == 1


def test_what_does_not_compile_is_left_to_zsh_and_named(farm: Farm) -> None:
    path = farm.write("broken", "if true; then\n")
    said = farm.publish()
    assert said["functions"] == 2
    assert [left["path"] for left in said["left_out"]] == [str(path)]
    assert "parse error" in said["left_out"][0]["reason"]
    script = "autoload -Uz broken; broken"
    assert farm.call(script) == farm.call(script, without=True)
    assert not farm.publish()["changed"]
    path.unlink()
    ran = farm.ctl("publish", "zsh", "--fpath", farm.directory, farm.directory.parent)
    assert b"left out" not in ran.stdout
    # Another size: it may get the same inode, and has the same time.
    farm.write("broken", "if false; then\n")
    ran = farm.ctl("publish", "zsh", "--fpath", farm.directory)
    assert f"left out {path}: ".encode() in ran.stdout


@pytest.mark.parametrize("blob", [b"no bytecode", b""])
def test_what_another_client_stored_under_the_name_is_compiled_anew(
    farm: Farm, daemon: Daemon, blob: bytes
) -> None:
    zsh = find_zsh()
    with daemon.cache(str(zsh.producer), binary=zsh.real) as cache:
        cache.put("hello", blob, fingerprint=fingerprint_file(str(farm.directory / "hello")))
        assert farm.publish()["functions"] == 2
        assert farm.is_served("hello")
        assert cache.get("hello") != blob


def test_what_has_no_room_is_left_out(farm: Farm) -> None:
    # 17 times 1.1 MB of bytecode: more than the 16 MiB that a digest can have.
    text = "print some words\n" * 40_000
    for number in range(17):
        farm.write(f"long{number:02}", text)
    said = farm.publish()
    assert said["functions"] + len(said["left_out"]) == 2 + 17
    assert {left["reason"] for left in said["left_out"]} == {
        "a digest has no room for more than 16,777,215 bytes"
    }
    assert 0 < farm.digest.stat().st_size <= 2**24 - 1
    assert farm.is_served("hello")


def test_ten_at_once_build_it_once(farm: Farm) -> None:
    command = [sys.executable, "-m", "autoloadd_client.cli", "publish", "zsh", "--json", "--fpath"]
    environment = ctl_environment(farm.run_directory, UNMEASURED)
    started = [
        subprocess.Popen(
            [*command, str(farm.directory)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )
        for _ in range(10)
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    assert {stderr for _, stderr in ended} == {b""}
    assert [json.loads(stdout)["published"] for stdout, _ in ended].count(True) == 1


def test_what_stands_in_the_way_is_told(farm: Farm) -> None:
    Path(place_for(farm)).mkdir()
    ran = farm.ctl("publish", "zsh", "--fpath", farm.directory)
    assert ran.returncode == 2
    assert ran.stderr.startswith(b"autoloadctl: ")
    assert ran.stderr.endswith(b": Is a directory\n")


def test_no_daemon_and_no_wish_for_one(ctl: Ctl, functions: Path, run_directory: Path) -> None:
    ran = ctl("publish", "zsh", "--fpath", functions)
    assert (ran.returncode, ran.stdout) == (3, b"")
    assert b"no daemon at " in ran.stderr
    ran = ctl("publish", "zsh", "--fpath", functions, environment={"AUTOLOADD_CACHE": "0"})
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert b"switches the cache off" in ran.stderr
    assert list(run_directory.iterdir()) == []
    ran = ctl("publish", "zsh", "--print-dir")
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bash"], b"invalid choice: 'bash'"),
        (["zsh", "--fpath"], b"expected at least one argument"),
        (["zsh", "--producer", "zsh/5.9/8"], b"leave out --producer"),
        (["zsh", "--binary", "/none"], b"there is no program /none; install it with"),
    ],
)
def test_usage(ctl: Ctl, arguments: list[str], message: bytes) -> None:
    ran = ctl("publish", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_without_zsh_in_the_path_it_is_told(farm: Farm, tmp_path: Path) -> None:
    ran = farm.ctl("publish", "zsh", "--fpath", farm.directory, environment={"PATH": str(tmp_path)})
    assert ran.returncode == 2
    assert b"zsh is not in PATH" in ran.stderr


def test_someone_else_at_it_for_too_long_is_told(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys; from autoloadd_client.publishing import farm; farm.LOCK_SECONDS = 0.1\n"
        "farm.lock.__wrapped__.__kwdefaults__['seconds'] = 0.1\n"
        "from autoloadd_client.cli.run import run; sys.exit(run(sys.argv[1:]))"
    )
    with lock(place_for(farm)):
        ran = subprocess.run(
            [sys.executable, "-c", program, "publish", "zsh", "--fpath", str(farm.directory)],
            capture_output=True, check=False, env=ctl_environment(farm.run_directory, {}),
        )  # fmt: skip
    assert ran.returncode == 4
    assert ran.stderr.endswith(
        b"has been locked for 0.1 s by another autoloadctl publish: try again, or end that one\n"
    )


@pytest.mark.parametrize("command", ["publish", "why"])
def test_an_fpath_without_any_directory_is_refused(farm: Farm, command: str) -> None:
    ran = farm.ctl(command, "zsh", "--fpath", "/none", "/nor/this")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert b"--fpath: none of these " in ran.stderr
    assert not list(farm.run_directory.glob("zsh-*"))


def test_what_fpath_has_swallowed_is_told(farm: Farm) -> None:
    ran = farm.ctl("publish", "--fpath", farm.directory, "zsh")
    assert ran.returncode == 2
    assert b"required: zsh: what stands behind --fpath is taken for its own" in ran.stderr


def test_a_wait_is_told_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    said, terminal = pty.openpty()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        _tell_of_wait("/run/zsh.lock")
        stderr.flush()
        expected = b"another autoloadctl publish is at work: waiting for /run/zsh.lock\r\n"
        assert os.read(said, 1000) == expected
    os.close(said)
    with open(os.devnull, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        _tell_of_wait("/run/zsh.lock")
