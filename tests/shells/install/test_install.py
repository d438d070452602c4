"""`autoloadctl shell`: a line in the file that the shell reads, and no trace of it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import autoloadd_client
from autoloadd_client.shells import rc_file as rc_module
from autoloadd_client.shells.compiled import compile_beside, remove_compiled
from autoloadd_client.shells.errors import ShellFailedError
from autoloadd_client.shells.rc_file import make_command, rc_file, source_path

from ...running import own_environment, private_directory, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from ...running import Daemon

    Shell = Callable[..., subprocess.CompletedProcess[str]]

SHELLS = {"zsh": ".zshrc", "bash": ".bashrc", "fish": ".config/fish/conf.d/autoloadd.fish"}
CTL = [sys.executable, "-m", "autoloadd_client.cli", "shell"]
BACKUP = ".before-autoloadd"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = os.path.dirname(sys.executable)
    path = f"{programs}:{os.environ['PATH']}"
    # Without TERM, fish warns of that.
    found = own_environment({"HOME": str(tmp_path), "PATH": path, "TERM": "dumb"})
    return {key: value for key, value in found.items() if key not in ("ZDOTDIR", "XDG_CONFIG_HOME")}


@pytest.fixture
def shell(environment: dict[str, str]) -> Shell:
    """Run `autoloadctl shell` in a home of the test's own."""

    def run(*arguments: str, status: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*CTL, *arguments], capture_output=True, text=True, check=False, timeout=60,
            env={**environment, **more},
        )  # fmt: skip
        assert ran.returncode == status, ran.stderr
        return ran

    return run


PLUGIN = Path(source_path("zsh"))
COMPILED = Path(f"{PLUGIN}.zwc")


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Leave the plugin as it is in the repository."""
    yield
    COMPILED.unlink(missing_ok=True)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(BACKUP)
    }


@pytest.mark.parametrize(
    ("name", "content"), [("bash", b"x=1\r\ny=2"), ("zsh", b"x=1"), ("zsh", None), ("fish", None)]
)
def test_in_and_out_leaves_every_byte_as_it_was(
    shell: Shell, tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / SHELLS[name]
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = files(tmp_path)
    shown = shell("install", name).stdout
    assert shown.startswith(f"{path}:\n  {make_command(name, source_path(name)).decode()}  # auto")
    assert "\nadded; new shells have it. Write `autoloadd-eval starship init " in shown
    once = files(tmp_path)
    assert once[SHELLS[name]].startswith(content or b"")
    assert shell("install", name).stdout.startswith(f"{path}: it is there already\n")
    assert files(tmp_path) == once
    assert shell("status", name).stdout == f"{name:<4}  on         {path}\n"
    if content is not None:
        assert Path(f"{path}{BACKUP}").read_bytes() == content
    assert "taken out" in shell("uninstall", name).stdout
    assert files(tmp_path) == before
    assert shell("uninstall", name, status=1).stdout == f"{path}: it is not there\n"
    assert shell("status", name, status=1).stdout == f"{name:<4}  off        {path}\n"


@pytest.mark.parametrize("content", [None, b"", b"x=1\n", b"x=1", b"x=1\r\n", b"\xff\n"])
def test_every_byte_of_a_file_however_it_ends(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "rc"
    if content is not None:
        path.write_bytes(content)
    before = files(tmp_path)
    file = rc_file("bash", path=str(path), environment={})
    assert file.install()
    assert path.read_bytes().startswith(content or b"")
    assert (file.find(), file.preview()) == (file.command, None)
    if content is not None:
        assert Path(f"{path}{BACKUP}").read_bytes() == content
    assert file.uninstall()
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_reads_it_and_a_package_that_is_gone_is_silent(
    shell: Shell, tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    shell("install", name)
    path = tmp_path / SHELLS[name]
    options = {"zsh": ["-d"], "bash": [], "fish": []}[name]
    known = {"zsh": "whence -w autoloadd-complete", "bash": "type -t autoloadd-complete",
             "fish": "type -t autoloadd-complete"}[name]  # fmt: skip

    def run(command: str) -> tuple[str, list[str]]:
        ran = subprocess.run(
            [name, *options, "-ic", command], capture_output=True, text=True, check=False,
            timeout=60, env=environment, stdin=subprocess.DEVNULL,
            start_new_session=True,  # it would take the terminal of whoever runs the tests
        )  # fmt: skip
        noise = ("bash: cannot set terminal process group", "bash: no job control")
        return ran.stdout, [x for x in ran.stderr.splitlines() if not x.startswith(noise)]

    assert run(known) in (("autoloadd-complete: function\n", []), ("function\n", []))
    gone = path.read_text().replace("autoloadd_client", "gone")
    path.write_text(gone)
    assert run("echo on") == ("on\n", [])
    # A prompt that shows the status, `set -e`: the line is often the last one.
    command = "source $argv[1]; echo $status" if name == "fish" else 'source "$1"; echo $?'
    none = {"zsh": ["-f", "-c"], "bash": ["-c"], "fish": ["-N", "-c"]}[name]
    zeroth = [] if name == "fish" else [name]
    words = [name, *none, command, *zeroth, str(path)]
    bare = subprocess.run(words, capture_output=True, check=False)
    assert (bare.stdout, bare.stderr) == (b"0\n", b"")


def test_a_dry_run_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    before = files(tmp_path)
    shown = shell("install", "bash", "--dry-run").stdout
    line = make_command("bash", source_path("bash")).decode()
    assert shown == f"{tmp_path}/.bashrc: would add\n  {line}  # autoloadd\n"
    assert files(tmp_path) == before
    shell("install", "bash")
    once = files(tmp_path)
    assert shell("install", "bash", "--dry-run").stdout.endswith("it is there already\n")
    shown = shell("uninstall", "bash", "--dry-run").stdout
    assert shown == f"{tmp_path}/.bashrc: would take out\n  {line}\n"
    assert files(tmp_path) == once


def test_mode_links_and_inode_stay(shell: Shell, tmp_path: Path) -> None:
    real, other = tmp_path / "dotfiles" / "bashrc", tmp_path / "hard"
    real.parent.mkdir()
    real.write_text("x=1\n")
    real.chmod(0o640)
    os.link(real, other)
    if os.geteuid() == 0:
        os.chown(real, 65534, 65534)
    (tmp_path / ".bashrc").symlink_to("dotfiles/bashrc")
    before = real.stat()
    for action in ("install", "uninstall"):
        shell(action, "bash")
        assert (tmp_path / ".bashrc").is_symlink()
        now = real.stat()
        assert (now.st_mode, now.st_uid, now.st_ino) == (
            before.st_mode,
            before.st_uid,
            before.st_ino,
        )
        backup = tmp_path / f".bashrc{BACKUP}"
        assert backup.exists() == (action == "install")
        assert action != "install" or stat.S_IMODE(backup.stat().st_mode) == 0o640
    assert other.read_text() == "x=1\n"


def test_zsh_says_itself_where_its_file_is(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "zsh").mkdir()
    (tmp_path / ".zshenv").write_text("print noise; ZDOTDIR=~/zsh\n")
    shell("install", "zsh")
    assert (tmp_path / "zsh" / ".zshrc").exists()
    shell("install", "fish", XDG_CONFIG_HOME=str(tmp_path / "xdg"))
    assert (tmp_path / "xdg/fish/conf.d/autoloadd.fish").exists()


def test_another_file_and_another_installation(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "profile"
    shell("install", "bash", "--rc", str(path))
    path.write_bytes(path.read_bytes().replace(b"autoloadd_client/", b"old/"))
    assert "on, other  " in shell("status", "bash", "--rc", str(path)).stdout
    assert "added" in shell("install", "bash", "--rc", str(path)).stdout
    assert b"old/" not in path.read_bytes()
    assert path.read_bytes().count(b"# autoloadd") == 1
    shell("uninstall", "bash", "--rc", str(path))
    assert not path.exists()


def test_json(shell: Shell, tmp_path: Path) -> None:
    path = str(tmp_path / ".bashrc")
    line = make_command("bash", source_path("bash")).decode()

    def said(*arguments: str, status: int = 0) -> Any:
        return json.loads(shell(*arguments, "--json", status=status).stdout)

    wanted = {"shell": "bash", "file": path, "changed": True, "line": line}
    added = {**wanted, "compiled": None}
    assert said("install", "bash", "--dry-run") == {**added, "changed": False}
    assert said("install", "bash") == added
    assert said("install", "bash") == {**added, "changed": False}
    (bash,) = (each for each in said("status") if each["shell"] == "bash")
    assert bash == {"shell": "bash", "file": path, "installed": True, "current": True, "line": line}
    assert said("uninstall", "bash") == wanted
    assert said("uninstall", "bash", status=1) == {**wanted, "changed": False, "line": None}


def is_compiled(script: Path) -> bool:
    """Tell whether zsh reads the compiled form of a script, and the script does what it says."""
    # Of what is compiled nothing is left as text that zsh could read.
    ran = subprocess.run(
        ["strace", "-f", "-e", "trace=openat", "zsh", "-fc", f"source {script}; print hello"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout == "hello\n"
    return f'"{script}", ' not in ran.stderr


def test_the_plugin_is_compiled_beside_itself(shell: Shell) -> None:
    assert not COMPILED.exists()
    shell("install", "zsh", "--dry-run")
    assert not COMPILED.exists()
    assert shell("install", "zsh").stdout.endswith(f"\ncompiled: {COMPILED}\n")
    assert COMPILED.stat().st_mtime_ns == PLUGIN.stat().st_mtime_ns
    assert is_compiled(PLUGIN)
    made = COMPILED.stat().st_ino
    assert json.loads(shell("install", "zsh", "--json").stdout)["compiled"] == str(COMPILED)
    assert COMPILED.stat().st_ino != made
    shell("uninstall", "zsh", "--dry-run")
    assert COMPILED.exists()
    shell("uninstall", "zsh")
    assert not COMPILED.exists()
    assert [path.name for path in PLUGIN.parent.iterdir() if path.name.startswith(".a")] == []
    shell("uninstall", "zsh", status=1)


def test_a_plugin_that_cannot_be_compiled_is_installed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "zsh").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "zsh").chmod(0o755)
    ran = shell("install", "zsh", "--rc", str(tmp_path / "rc"), PATH=str(tmp_path / "bin"))
    assert ran.stdout.endswith("\ncompiled: no, zsh could not write it: read as text\n")
    assert (tmp_path / "rc").exists()
    assert not COMPILED.exists()


def test_what_is_compiled_for_another_version_or_text_is_not_read(tmp_path: Path) -> None:
    script = tmp_path / "script.zsh"
    script.write_text("true\n")
    assert compile_beside(str(script)) == f"{script}.zwc"
    assert is_compiled(script)
    compiled = Path(f"{script}.zwc")
    data = compiled.read_bytes()
    compiled.unlink()
    compiled.write_bytes(data.replace(b"\x005.", b"\x004.").replace(b"5.", b"4.", 2))
    os.utime(compiled, ns=(0, script.stat().st_mtime_ns))
    assert not is_compiled(script)
    compile_beside(str(script))
    assert is_compiled(script)
    later = int(script.stat().st_mtime) + 1
    os.utime(script, (later, later))
    assert not is_compiled(script)


def test_where_nothing_can_be_written_it_is_not_compiled(tmp_path: Path) -> None:
    assert compile_beside("/proc/version") is None
    remove_compiled("/proc/version")
    broken = tmp_path / "broken"
    broken.write_text("if true; then\n")
    assert compile_beside(str(broken)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_two_at_once_add_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / ".bashrc"
    path.write_text("x=1\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started = [
            subprocess.Popen([*CTL, "install", "bash"], env=environment, stdout=subprocess.DEVNULL)
            for _ in range(2)
        ]

        def waiting() -> int:
            """Both have seen that the line is missing."""
            inode = f":{path.stat().st_ino} "
            locks = Path("/proc/locks").read_text().splitlines()
            return sum("->" in line and inode in line for line in locks)

        wait_until(lambda: waiting() == 2, 30, "both to wait for the lock")
    assert [process.wait(60) for process in started] == [0, 0]
    assert path.read_bytes().count(b"# autoloadd") == 1


def test_what_cannot_be_done_is_refused_with_the_reason(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / ".bashrc"
    by_hand = "give another file with --rc FILE, or write this line yourself: [ ! -r "
    path.mkdir()
    assert f"{path} is no regular file: {by_hand}" in shell("install", "bash", status=2).stderr
    path.rmdir()
    path.symlink_to("/none/bashrc")
    message = f"{path} is a link to /none/bashrc, which is not there: {by_hand}"
    assert message in shell("install", "bash", status=2).stderr
    path.unlink()
    (tmp_path / "file").touch()
    where = str(tmp_path / "file" / "bashrc")
    message = f"{where}: Not a directory: {by_hand}"
    assert message in shell("install", "bash", "--rc", where, status=2).stderr
    message = shell("install", "bash", "--rc", "/proc/none/bashrc", status=2).stderr
    assert f": No such file or directory: {by_hand}" in message
    for action in ("install", "uninstall"):
        message = shell(action, status=2).stderr
        assert f"which shell? autoloadctl shell {action} zsh, bash or fish" in message
    message = shell("status", "--rc", "x", status=2).stderr
    assert "which shell reads --rc FILE? Give zsh, bash or fish" in message
    message = shell("install", "bash", status=2, HOME="").stderr
    assert "HOME is not set; --rc FILE says which file the shell reads" in message
    message = shell("install", "fish", status=2, PATH=str(tmp_path)).stderr
    assert "fish is not in PATH; --rc FILE says which file it reads" in message


def test_a_zsh_that_does_not_run_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "zsh").write_bytes(b"\0")
    (tmp_path / "bin" / "zsh").chmod(0o755)
    message = shell("install", "zsh", status=2, PATH=str(tmp_path / "bin")).stderr
    assert "zsh could not say its ZDOTDIR: " in message
    assert message.endswith("; give --rc FILE\n")


def test_autoloadctl_that_no_shell_finds_is_told(shell: Shell, tmp_path: Path) -> None:
    rc = str(tmp_path / "rc")
    ran = shell("install", "bash", "--rc", rc, PATH="/usr/bin:/bin")
    assert ran.stderr == (
        "autoloadctl is not in PATH: the shell will do without the cache until it is there\n"
    )


def test_a_daemon_that_is_missing_is_told(shell: Shell, tmp_path: Path, daemon: Daemon) -> None:
    rc, nowhere = str(tmp_path / "rc"), str(tmp_path / "none" / "socket")
    assert shell("install", "bash", "--rc", rc, "--dry-run", AUTOLOADD_SOCKET=nowhere).stderr == ""
    said = shell("install", "bash", "--rc", rc, AUTOLOADD_SOCKET=nowhere).stderr
    assert said.startswith(
        f"the shell does without the cache until a daemon answers: no daemon at {nowhere}: "
    )
    assert "start it with `autoloadd &`" in said
    assert shell("install", "bash", "--rc", rc, AUTOLOADD_SOCKET=nowhere).stderr == ""
    shell("uninstall", "bash", "--rc", rc)
    there = daemon.socket_path
    assert shell("install", "bash", "--rc", rc, AUTOLOADD_SOCKET=there).stderr == ""


def test_a_daemon_that_is_busy_is_not_missing(shell: Shell, tmp_path: Path) -> None:
    """Its queue is full, as with a daemon that is stopped."""
    with private_directory() as directory, contextlib.ExitStack() as stack:
        path = str(directory / "socket")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(path)
        ran = shell("install", "bash", "--rc", str(tmp_path / "rc"), AUTOLOADD_SOCKET=path)
        assert ran.stderr == ""


def test_an_installation_without_the_file_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autoloadd_client, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ShellFailedError, match=r"autoloadd\.bash is missing: install autoloadd"):
        rc_file("bash", path="rc", environment={})
    odd = tmp_path / "odd\nname"
    (odd / "shells").mkdir(parents=True)
    (odd / "shells" / "autoloadd.bash").touch()
    monkeypatch.setattr(autoloadd_client, "__file__", str(odd / "__init__.py"))
    with pytest.raises(ShellFailedError, match="no one line can hold this path"):
        rc_file("bash", path="rc", environment={})


def test_once_is_enough_also_for_two_that_both_saw_it_missing(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    file = rc_file("bash", path=str(path), environment={})
    assert not file.uninstall()
    assert [file.install(), file.install()] == [True, False]
    assert [file.uninstall(), file.uninstall()] == [True, False]


def test_what_needs_autoloadd_is_named_when_it_goes(shell: Shell, tmp_path: Path) -> None:
    for name, instead in (("bash", 'eval "$(starship init)"'), ("fish", "starship init | source")):
        path = tmp_path / f"rc.{name}"
        shell("install", name, "--rc", str(path))
        with path.open("a") as file:
            file.write("  autoloadd-eval --max-age 7d --env=X starship init\nx=1\n")
            file.write("autoloadd-complete black\n# autoloadd-eval x\n")
        assert shell("uninstall", name, "--rc", str(path)).stderr == (
            f"{path}:1: autoloadd-eval --max-age 7d --env=X starship init\n"
            f"  without autoloadd: {instead}\n"
            f"{path}:3: autoloadd-complete black\n"
            "  without autoloadd: leave it out, or write what the tool's manual says\n"
        )


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("(( $+commands[x] )) && autoloadd-eval x init zsh", 'eval "$(x init zsh)"'),
        ("if type x; then autoloadd-eval x init; fi", 'eval "$(x init)"'),
        ("{ autoloadd-eval x; }", 'eval "$(x)"'),
        ("# x && autoloadd-eval x", None),
        ("echo autoloadd-eval x", None),
        ("command -v autoloadd-eval", None),
    ],
)
def test_a_use_behind_a_condition_is_named_too(
    shell: Shell, tmp_path: Path, line: str, instead: str | None
) -> None:
    path = tmp_path / "rc"
    path.write_text(f"{line}\n")
    shell("install", "bash", "--rc", str(path))
    said = shell("uninstall", "bash", "--rc", str(path)).stderr
    assert said == (f"{path}:1: {line}\n  without autoloadd: {instead}\n" if instead else "")


def test_a_backup_goes_where_the_file_is_as_it_was(tmp_path: Path) -> None:
    path, backup = tmp_path / "rc", tmp_path / f"rc{BACKUP}"
    file = rc_file("bash", path=str(path), environment={})
    path.write_text("x=1\n")
    assert file.install()
    assert file.uninstall()
    assert [each.name for each in tmp_path.iterdir()] == ["rc"]
    assert file.install()
    path.write_bytes(path.read_bytes() + b"y=2\n")
    assert file.uninstall()
    assert (path.read_text(), backup.read_text()) == ("x=1\ny=2\n", "x=1\n")


def test_a_copy_that_stays_is_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("x=1\n")
    shell("install", "bash", "--rc", str(path))
    path.write_bytes(path.read_bytes() + b"y=2\n")
    assert BACKUP not in shell("uninstall", "bash", "--rc", str(path), "--dry-run").stdout
    said = shell("uninstall", "bash", "--rc", str(path)).stdout.splitlines()[-1]
    assert said == f"{path}{BACKUP}: what it was before stays, since more has changed"


def test_a_second_install_says_that_it_compiled(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "rc"
    shell("install", "zsh", "--rc", str(path))
    COMPILED.unlink()
    said = shell("install", "zsh", "--rc", str(path)).stdout
    assert said == f"{path}: it is there already\ncompiled: {COMPILED}\n"
    said = shell("install", "zsh", "--rc", str(path), "--dry-run").stdout
    assert said == f"{path}: it is there already\n"


def test_a_new_line_in_the_place_of_the_old_one_keeps_the_first_copy(tmp_path: Path) -> None:
    path, backup = tmp_path / "rc", tmp_path / f"rc{BACKUP}"
    file = rc_file("bash", path=str(path), environment={})
    path.write_text("x=1\n")
    file.install()
    path.write_bytes(path.read_bytes().replace(b"autoloadd_client/", b"old/"))
    assert file.install()
    assert backup.read_text() == "x=1\n"
    assert file.uninstall()
    assert [each.name for each in tmp_path.iterdir()] == ["rc"]
    assert path.read_text() == "x=1\n"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A bound on the size of files acts as a full disk does: a write takes only a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    file = rc_file("bash", path=str(path), environment={})
    content = "x=1\n" * 1000
    message = f"{path}: File too large: give another file"
    path.write_text(content)
    # In the middle of the line that is written.
    with files_of_at_most(len(content) + 20), pytest.raises(ShellFailedError, match=message):
        file.install()
    assert path.read_text() == content
    path.unlink()
    with files_of_at_most(20), pytest.raises(ShellFailedError, match=message):
        file.install()
    assert not path.exists()


def test_ctrl_c_while_it_is_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rc"
    path.write_text("x=1\n")
    file = rc_file("bash", path=str(path), environment={})
    write, interrupts = rc_module._overwrite, iter([True])

    def write_a_part(opened: FileIO, content: bytes) -> None:
        if next(interrupts, False):
            opened.write(content[:-7])
            raise KeyboardInterrupt
        write(opened, content)

    monkeypatch.setattr(rc_module, "_overwrite", write_a_part)
    with pytest.raises(KeyboardInterrupt):
        file.install()
    assert path.read_text() == "x=1\n"


def test_a_file_that_became_a_link_stays_there(tmp_path: Path) -> None:
    path, target = tmp_path / "rc", tmp_path / "dotfiles"
    file = rc_file("bash", path=str(path), environment={})
    file.install()
    path.rename(target)
    path.symlink_to(target)
    assert file.uninstall()
    assert path.is_symlink()
    assert target.read_bytes() == b""
    assert file.install()


def test_no_directory_is_made_for_a_given_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "typo" / "rc"
    for options in ([], ["--dry-run"]):
        ran = shell("install", "bash", "--rc", str(path), *options, status=2)
        assert ran.stdout == ""
        assert f"{path.parent}: No such file or directory: give another file" in ran.stderr
    assert not path.parent.exists()


def test_a_refused_install_prints_nothing_first(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("x=1\n")
    # Root may write everywhere, but puts no file in a directory's place.
    Path(f"{path}{BACKUP}").mkdir()
    (Path(f"{path}{BACKUP}") / "rc").mkdir()
    ran = shell("install", "bash", "--rc", str(path), status=2)
    assert ran.stdout == ""
    assert path.read_text() == "x=1\n"


@pytest.mark.parametrize(
    ("content", "is_refused"),
    [("x=1 \\", True), ("x=1 \\\n", True), ("x=1 \\\\\n", False), ("# x \\\n", False)],
)
def test_a_last_line_that_goes_on_is_refused(
    content: str, *, is_refused: bool, tmp_path: Path
) -> None:
    path = tmp_path / "rc"
    path.write_text(content)
    file = rc_file("bash", path=str(path), environment={})
    if is_refused:
        with pytest.raises(ShellFailedError, match="ends in a backslash"):
            file.install()
        assert path.read_text() == content
    else:
        assert file.install()
