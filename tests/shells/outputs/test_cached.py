"""`autoloadctl cached`: the tool's output, status and stderr, and how often it is run for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import autoloadd_client
from autoloadd_client import TOOL_OUTPUT, Entry
from autoloadd_client.shells.fingerprint import fingerprint_file

from ...client.scripted import Peer, ScriptedServer
from ...e2e.test_autoloadctl_fast import HEAVY, imported
from ...running import wait_until
from ..slow_tool import UNMEASURED, shell_environment
from .conftest import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...running import Daemon
    from ..slow_tool import Tool
    from .conftest import Cached

BARE = [
    sys.executable, "-I", "-S",
    str(Path(autoloadd_client.__file__).parent / "cli" / "bare.py"), "cached",
]  # fmt: skip


@pytest.mark.parametrize("command", [COMMAND, BARE], ids=["module", "bare"])
def test_it_is_run_once_and_every_byte_comes_back(
    cached: Cached, tool: Tool, daemon: Daemon, command: list[str]
) -> None:
    tool.write(r"""printf 'a\0b\377\n\n'""")
    answers = [cached("slow", "init", command=command) for _ in range(3)]
    assert {(ran.returncode, ran.stdout, ran.stderr) for ran in answers} == {
        (0, b"a\0b\xff\n\n", b"")
    }
    assert tool.runs == 1
    # What stands behind the tool is its own, whatever it looks like.
    assert cached("slow", "init", "--env", "-x", command=command).returncode == 0
    assert cached("--", "slow", "init", "--env", "-x", command=command).returncode == 0
    assert tool.runs == 2


def test_a_hit_loads_almost_nothing(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    cached("slow")
    environment = shell_environment(tmp_path, tool, daemon, **UNMEASURED)
    python = [sys.executable, "-X", "importtime"]
    base = imported([*python, "-c", "import runpy"], environment)
    hit = imported([*python, *COMMAND[1:], "slow"], environment) - base
    assert hit & {*HEAVY, "subprocess", "selectors", "signal", "site"} == set()
    assert "autoloadd_client.outputs.answering" in hit


def test_whatever_differs_makes_it_run_again(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    arguments = ("--env", "WHERE", "--file", "setting", "slow", "init")

    def is_run(*given: str, **more: str) -> bool:
        before = tool.runs
        assert cached(*(given or arguments), **UNMEASURED, **more).returncode == 0
        return tool.runs > before

    assert is_run()
    assert not is_run()
    os.utime(tool.path, ns=(1, 1))  # an older time is another one
    assert is_run()
    found = tool.path.stat()
    copy = tool.directory / "copy"
    copy.write_bytes(tool.path.read_bytes())
    copy.chmod(0o755)
    os.utime(copy, ns=(1, 1))
    copy.rename(tool.path)
    assert tool.path.stat().st_ino != found.st_ino
    assert is_run()
    assert is_run(WHERE="")
    assert is_run(WHERE="there")
    assert not is_run(WHERE="there")
    (tmp_path / "setting").write_text("x")
    assert is_run(WHERE="there")
    assert is_run("slow", "init")
    assert is_run("--shell", "bash/5.2", "slow", "init")
    assert is_run("--kind", "complete", "slow", "init")
    assert is_run("slow", "in", "it")
    assert is_run("env", "A=1", "slow", "init")
    assert is_run("env", "A=2", "slow", "init")
    assert not is_run("env", "A=2", "slow", "init")
    assert not is_run("slow", "in", "it")


@pytest.mark.parametrize(
    ("text", "status", "stderr"),
    [
        ("echo out; exit 7", 7, b""),
        ("echo out; echo oops >&2", 0, b"oops\n"),
        ("echo out; kill -TERM $$", 143, b""),
    ],
)
def test_what_went_wrong_is_shown_each_time_and_never_cached(
    cached: Cached, tool: Tool, daemon: Daemon, text: str, status: int, stderr: bytes
) -> None:
    tool.write(text)
    for times in (1, 2):
        ran = cached("--kind", "complete", "slow")
        assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"out\n", stderr)
        assert tool.runs == times
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        assert cache.count() == 0
    ran = cached("slow")
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"out\n", stderr)


def test_another_status_can_be_the_good_one(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    tool.write("echo out; exit 1")
    for _ in range(2):
        ran = cached("--status", "1", "slow")
        assert (ran.returncode, ran.stdout) == (1, b"out\n")
    assert tool.runs == 1


def test_too_old_is_run_again(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    cached("slow")
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        ((name, _),) = list(cache.names())
        entry = cache.get_entry(name)
        assert entry is not None
        an_hour_ago = time.time_ns() - 3600 * 10**9
        cache.put_many({name: Entry(entry.blob, entry.fingerprint, 0, an_hour_ago)})
    for age in ("2h", "7000", "119m", "1d"):
        assert cached("--max-age", age, "slow").stdout == b"slow\n"
    assert tool.runs == 1
    assert cached("--max-age=59m", "slow").stdout == b"slow\n"
    assert tool.runs == 2
    assert cached("--max-age=59m", "slow").stdout == b"slow\n"
    assert tool.runs == 2


def test_what_was_stored_before_the_clock_was_set_back_is_run_again(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    cached("slow")
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        ((name, _),) = list(cache.names())
        entry = cache.get_entry(name)
        assert entry is not None
        in_an_hour = time.time_ns() + 3600 * 10**9
        cache.put_many({name: Entry(entry.blob, entry.fingerprint, 0, in_an_hour)})
    shown = cached("why", "slow", "--max-age", "1d", command=COMMAND[:-1])
    assert b"  it is from later than now, and --max-age was given\n" in shown.stdout
    assert cached("slow").stdout == b"slow\n"
    assert tool.runs == 1
    assert cached("--max-age", "1d", "slow").stdout == b"slow\n"
    assert tool.runs == 2


def test_ten_at_once_run_it_once(tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    tool.write(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo slow")
    environment = shell_environment(tmp_path, tool, daemon, **UNMEASURED)
    started = [
        subprocess.Popen([*COMMAND, "slow"], stdout=subprocess.PIPE, env=environment)
        for _ in range(10)
    ]
    # Those that come too late to wait find it cached. Nobody waits for more than 5 s.
    until = time.monotonic() + 3
    while daemon.status()["leases"]["waiting"] < 9 and time.monotonic() < until:
        time.sleep(0.05)
    (tmp_path / "go").touch()
    assert {process.communicate(timeout=60)[0] for process in started} == {b"slow\n"}
    assert tool.runs == 1


def test_who_waits_for_one_that_is_killed_runs_it(
    tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write(f"mkdir {tmp_path}/first 2>/dev/null && exec sleep 20; sleep 0.2; echo slow")
    environment = shell_environment(tmp_path, tool, daemon)
    first = subprocess.Popen([*COMMAND, "slow"], stdout=subprocess.DEVNULL, env=environment)
    wait_until((tmp_path / "first").exists, 30, "the tool to run")
    others = [
        subprocess.Popen([*COMMAND, "slow"], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    wait_until(lambda: daemon.status()["leases"]["waiting"] == 2, 4, "the others to wait")
    first.kill()
    assert {process.communicate(timeout=60)[0] for process in others} == {b"slow\n"}
    assert first.wait() == -9
    assert tool.runs == 2


@pytest.mark.parametrize(("ends", "status"), [("exit 3", 3), ("echo oops >&2", 0)])
def test_runs_that_are_not_kept_keep_nobody_waiting(
    tool: Tool, daemon: Daemon, tmp_path: Path, ends: str, status: int
) -> None:
    """Those that waited for the first one make theirs all at the same time."""
    tool.write(
        f"if mkdir {tmp_path}/first 2>/dev/null; then mark=go; else touch $0.$$; mark=all; fi\n"
        f"until [ -e {tmp_path}/$mark ]; do sleep 0.02; done; echo slow; {ends}"
    )
    environment = shell_environment(tmp_path, tool, daemon)
    started = [
        subprocess.Popen(
            [*COMMAND, "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        for _ in range(4)
    ]
    wait_until(lambda: daemon.status()["leases"]["waiting"] == 3, 4, "the others to wait")
    (tmp_path / "go").touch()
    # Each of these runs ends only when all have begun.
    wait_until(lambda: len(list(tool.directory.glob("slow.*"))) == 3, 30, "the others' runs")
    # None of them has only waited for too long.
    assert daemon.status()["leases"]["held"] == 0
    (tmp_path / "all").touch()
    assert {process.communicate(timeout=60)[0] for process in started} == {b"slow\n"}
    assert {process.returncode for process in started} == {status}
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        assert [name.partition("\0")[0] for name, _ in cache.names()] == ["unkept"]
    ran = subprocess.run(
        [*COMMAND[:-1], "why", "slow"], capture_output=True, check=False, env=environment
    )
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert b"unkept" not in ran.stdout


def test_a_tool_that_is_replaced_while_it_runs_is_not_cached(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    for text in ('touch -d @5 "$0"', 'rm "$0"'):
        tool.write(f"echo old; {text}")
        assert cached("slow").stdout == b"old\n"
        with daemon.cache(str(TOOL_OUTPUT)) as cache:
            assert cache.count() == 0
    tool.write("echo new")
    assert cached("slow").stdout == b"new\n"


def test_a_daemon_that_goes_meanwhile_costs_nothing(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    for status in (0, 3):
        tool.write(f"kill -KILL {daemon.pid}; echo slow; exit {status}")
        ran = cached("slow")
        assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"slow\n", b"")
        daemon.wait()
        daemon.start()


def test_a_daemon_that_does_not_say_how_the_last_run_was(
    cached: Cached, tool: Tool, idle_daemon: Daemon
) -> None:
    """The tool is run with the lease held, as the first time."""
    stored = []

    def miss(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("get"), None)
        peer.wait_for_end()

    def give_the_lease(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.read_request("lease"), "fill")
        put = peer.read_request("put")
        stored.append(put.params)
        peer.answer(put, 1)
        peer.wait_for_end()

    def refuse(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.read_request("get").id, "busy")
        peer.wait_for_end()

    server = ScriptedServer(Path(idle_daemon.socket_path), (miss, give_the_lease, refuse))
    ran = cached("slow")
    server.stop()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"slow\n", b"")
    assert [params[1] for params in stored] == [b"slow\n"]


def test_output_that_is_too_large_is_printed_and_not_cached(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    tool.write("head -c 5000000 /dev/zero")
    for times in (1, 2):
        assert cached("slow").stdout == bytes(5_000_000)
        assert tool.runs == times


def test_a_key_that_is_too_long_is_not_cached(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    for arguments, more in ((("slow", "x" * 1024), {}), (("--env", "V", "slow"), {"V": "y" * 1024}),
                            (("slow", b"\xff".decode(errors="surrogateescape")), {})):  # fmt: skip
        before = tool.runs
        for times in (1, 2):
            assert cached(*arguments, **more).returncode == 0
            assert tool.runs == before + times


@pytest.mark.parametrize("more", [{}, {"AUTOLOADD_CACHE": "no"}, {"AUTOLOADD_SOCKET": "x"}])
def test_without_a_cache_the_tool_takes_over_the_process(
    cached: Cached, tool: Tool, more: dict[str, str]
) -> None:
    # Its own parent is this one, it has no pipe for stderr, and SIGPIPE ends it.
    tool.write('echo $PPID; [ "$(readlink /proc/$$/fd/2)" = "$ERR" ]; yes | head -1; exit 9')
    ran = cached("slow", **more)
    assert (ran.returncode, ran.stdout) == (9, b"%d\ny\n" % os.getpid())
    assert ran.stderr == b""


def test_a_daemon_that_hangs_is_asked_once(cached: Cached, tool: Tool, idle_daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(idle_daemon.socket_path)
        listening.listen()
        listening.settimeout(20)
        for _ in range(2):
            assert cached("slow", AUTOLOADD_WAIT_MS="50").stdout == b"slow\n"
        listening.accept()[0].close()
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
        away = idle_daemon.directory / "zsh-away"
        said, process = away.read_text().split()
        assert process == str(os.getpid())
        # Half a minute later it is asked again, and the file begins anew.
        away.write_text(f"{int(said) - 31} {process}\nnonsense\n")
        assert cached("slow", AUTOLOADD_WAIT_MS="x").stdout == b"slow\n"
        listening.accept()[0].close()
        assert len(away.read_text().splitlines()) == 1
        # Two shells that saw it speak for all the others; one does not.
        away.write_text(f"{int(time.time())} 1\n")
        assert cached("slow", AUTOLOADD_WAIT_MS="50").stdout == b"slow\n"
        listening.accept()[0].close()
        assert len(away.read_text().splitlines()) == 2
        # A shell may say which it is.
        away.write_text(f"{int(time.time())} 1\n")
        assert cached("--pid", "1", "slow").stdout == b"slow\n"
        away.write_text("".join(f"{int(time.time())} {shell}\n" for shell in (1, 2)))
        assert cached("slow").stdout == b"slow\n"
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert tool.runs == 6


def test_where_the_absence_cannot_be_noted_nothing_is_said(
    cached: Cached, idle_daemon: Daemon
) -> None:
    (idle_daemon.directory / "zsh-away").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(idle_daemon.socket_path)
        listening.listen()
        ran = cached("slow", AUTOLOADD_WAIT_MS="50")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"slow\n", b"")


def test_what_the_tool_leaves_running_still_has_its_stderr(
    tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write(f"""
    (until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo late >&2; touch {tmp_path}/said) >&- &
    echo slow""")
    with (tmp_path / "stderr").open("wb") as stderr:
        ran = subprocess.run(
            [*COMMAND, "slow"], stdout=subprocess.PIPE, stderr=stderr, check=False, timeout=60,
            env=shell_environment(tmp_path, tool, daemon),
        )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, b"slow\n")
    (tmp_path / "go").touch()
    wait_until((tmp_path / "stderr").read_bytes, 20, "what is said late")
    assert (tmp_path / "stderr").read_bytes() == b"late\n"
    wait_until((tmp_path / "said").exists, 20, "the end of what was left running")


def test_what_is_said_behind_the_output_counts_too(
    cached: Cached, tool: Tool, daemon: Daemon
) -> None:
    tool.write("echo slow; exec >&-; sleep 0.3; echo oops >&2")
    for times in (1, 2):
        ran = cached("slow")
        assert (ran.stdout, ran.stderr, tool.runs) == (b"slow\n", b"oops\n", times)


def test_a_stderr_that_nobody_reads_hinders_nothing(
    tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write("echo oops >&2; echo slow")
    for word, expected in (("slow", (0, b"slow\n")), ("nosuchtool", (127, b"")), ("-x", (2, b""))):
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(
                [*COMMAND, word], stdout=subprocess.PIPE, stderr=full, check=False, timeout=60,
                env=shell_environment(tmp_path, tool, daemon),
            )  # fmt: skip
        assert (ran.returncode, ran.stdout) == expected


def test_a_reader_that_goes_away_and_a_full_disk_under_stdout(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    cached("slow")
    environment = shell_environment(tmp_path, tool, daemon)
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run([*COMMAND, "slow"], stdout=writing, check=False, env=environment)
    os.close(writing)
    assert gone.returncode == 141
    with open("/dev/full", "wb") as full:
        process = [*COMMAND, "slow"]
        ran = subprocess.run(
            process, stdout=full, stderr=subprocess.PIPE, check=False, env=environment
        )
    assert (ran.returncode, ran.stderr) == (2, b"autoloadctl: stdout: No space left on device\n")


def test_an_interrupt_ends_it(tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    tool.write(f"touch {tmp_path}/begun; exec sleep 60")
    process = subprocess.Popen(
        [*COMMAND, "slow"], stderr=subprocess.PIPE, start_new_session=True,
        env=shell_environment(tmp_path, tool, daemon),
    )  # fmt: skip
    wait_until((tmp_path / "begun").exists, 20, "the tool to run")
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, b"")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, b"which tool? Give TOOL and its arguments behind the options"),
        (["--bad", "x", "slow"], 2, b"--bad: no such option; see `autoloadctl cached --help`"),
        (["--max-age"], 2, b"--max-age: its value is missing"),
        (["--max-age", "soon", "slow"], 2, b"--max-age soon: give 90 or 90s, 15m, 12h, 7d"),
        (["--max-age=", "slow"], 2, b"--max-age : give 90 or 90s, 15m, 12h, 7d"),
        (["--env", "A=1", "slow"], 2, b"--env A=1: see `autoloadctl cached --help`"),
        (["--env=", "slow"], 2, b"--env : see `autoloadctl cached --help`"),
        (["--kind", "x", "slow"], 2, b"--kind x: see `autoloadctl cached --help`"),
        (["--status", "x", "slow"], 2, b"--status x: see `autoloadctl cached --help`"),
        (["no-such-tool"], 127, b"no-such-tool: No such file or directory"),
        (["./no-such-tool"], 127, b"./no-such-tool: No such file or directory"),
        (["env"], 0, b""),
        (["/etc"], 126, b"/etc: Permission denied"),
    ],
)
def test_usage_and_what_cannot_be_run(
    cached: Cached, daemon: Daemon, arguments: list[str], status: int, message: bytes
) -> None:
    ran = cached(*arguments)
    assert ran.returncode == status
    assert ran.stderr == (b"autoloadctl: " + message + b"\n" if message else b"")


def test_what_the_system_cannot_run_is_told(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    tool.path.write_bytes(b"\0no program")
    ran = cached("slow")
    assert (ran.returncode, ran.stderr) == (126, b"autoloadctl: slow: Exec format error\n")


def test_a_shim_is_not_cached(cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "shimmed").write_bytes(tool.path.read_bytes())
    (shims / "shimmed").chmod(0o755)
    for times in (1, 2):
        assert cached(str(shims / "shimmed")).returncode == 0
        assert tool.runs == times


def test_a_link_to_a_shim_and_a_link_that_is_one_are_not_cached(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / "shimmed"
    shim.write_bytes(tool.path.read_bytes())
    shim.chmod(0o755)
    (tool.directory / "linked").symlink_to(shim)
    (tmp_path / "shims" / "other").symlink_to(tool.path)
    for command, times in (("linked", 1), ("linked", 2), ("shims/other", 3), ("shims/other", 4)):
        assert cached(command if "/" not in command else f"./{command}").returncode == 0
        assert tool.runs == times


def test_a_program_of_many_names_is_told_by_them(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write('echo "${0##*/}"')
    named = [tmp_path / name for name in ("one", "two")]
    for directory in named:
        directory.mkdir()
        (directory / "multi").symlink_to(tool.path)
    for times, directory in enumerate(named, 1):
        for _ in range(2):
            path = f"{directory}:{os.environ['PATH']}"
            assert cached("multi", PATH=path).stdout == b"multi\n"
            assert tool.runs == times
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        ((name, _),) = list(cache.names())
        entry = cache.get_entry(name)
    assert entry is not None
    assert entry.fingerprint == fingerprint_file(str(tool.path)) + f"{named[1]}/multi\0".encode()


@pytest.mark.parametrize(
    "words",
    [
        ("env", "PATH={other}", "slow"),
        ("env", "-i", "A=1", "{path}"),
        ("env", "--chdir={other}", "{path}"),
        ("env", "A=1", "env", "B=2", "{path}"),
        ("/usr/bin/env", "-u", "HOME", "{path}"),
        ("env", "a-b=1", "{path}"),
    ],
)
def test_where_env_decides_what_is_run_it_is_not_cached(
    cached: Cached, tool: Tool, daemon: Daemon, words: tuple[str, ...]
) -> None:
    given = [word.format(path=tool.path, other=tool.directory) for word in words]
    cached(*given)
    cached(*given)
    with daemon.cache(str(TOOL_OUTPUT)) as cache:
        assert cache.count() == 0


def test_an_answer_to_another_fingerprint_is_not_used(
    cached: Cached, tool: Tool, idle_daemon: Daemon
) -> None:
    def answer_wrongly(method: str) -> Callable[[Peer], None]:
        def play(peer: Peer) -> None:
            peer.greet()
            request = peer.read_request(method)
            peer.answer(request, [request.params[0], b"evil", b"another", 0, 1])
            peer.wait_for_end()

        return play

    def refuse(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.read_request("put").id, "busy")
        peer.wait_for_end()

    script = (answer_wrongly("get"), answer_wrongly("lease"), refuse)
    server = ScriptedServer(Path(idle_daemon.socket_path), script)
    ran = cached("slow")
    server.stop()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"slow\n", b"")


def test_a_run_that_is_kept_takes_the_mark_away(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    again = tool.directory / "again"
    tool.write(f"echo slow; [ -e {again} ]")
    kinds = []
    for _ in range(2):
        cached("slow")
        with daemon.cache(str(TOOL_OUTPUT)) as cache:
            kinds.append([name.partition("\0")[0] for name, _ in cache.names()])
        again.touch()
    assert kinds == [["unkept"], ["eval"]]


def test_packages_beside_the_real_tool(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "linked").symlink_to(tool.path)
    # Where a tool has no library beside it, it has no packages either.
    assert cached("--packages", "python", str(tmp_path / "links" / "linked")).returncode == 0
    runs = []
    for kind in ("site", "dist"):
        packages = tmp_path / "lib" / "python3.11" / f"{kind}-packages"
        packages.mkdir(parents=True)
        for package in ("one", "two"):
            (packages / package).mkdir()
            for _ in range(2):
                cached("--packages", "python", str(tmp_path / "links" / "linked"))
            runs.append(tool.runs)
    assert runs == [2, 3, 4, 5]


def test_help_teaches(cached: Cached) -> None:
    ran = cached("--help")
    assert ran.returncode == 0
    assert b'eval "$(autoloadctl cached starship init bash)"' in ran.stdout
    behind = cached(command=[*COMMAND[:-1], "--json", "cached", "slow"])
    assert behind.returncode == 2
    assert behind.stderr == (
        b"autoloadctl: put `cached` first: autoloadctl cached [OPTION]... TOOL ARGS...\n"
    )


def test_zsh_and_autoloadctl_ask_the_same_question(
    cached: Cached, tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    plugin = Path(autoloadd_client.__file__).parent / "shells" / "autoloadd.plugin.zsh"
    script = f"source {plugin}; autoloadd-eval --env A --env B slow 'print -r' hello"
    tool.write('echo "print -r -- $*"')
    ran = cached(command=["zsh", "-fc", script], A="1")
    assert (ran.stdout, ran.stderr, tool.runs) == (b"print -r hello\n", b"", 1)
    version = subprocess.run(
        ["zsh", "-fc", "print -rn $ZSH_VERSION"], capture_output=True, check=True, text=True
    ).stdout
    question = ("--env", "A", "--env", "B", "--shell", f"zsh/{version}", "slow", "print -r")
    assert cached(*question, "hello", A="1").stdout == b"print -r -- print -r hello\n"
    assert tool.runs == 1


def test_bare_finds_its_packages_itself(cached: Cached, tool: Tool, daemon: Daemon) -> None:
    for _ in range(2):
        assert cached("slow", command=[sys.executable, *BARE[3:]]).stdout == b"slow\n"
    assert tool.runs == 1


def test_who_waits_too_long_runs_it_without_the_lease(
    tool: Tool, daemon: Daemon, tmp_path: Path
) -> None:
    tool.write(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo slow")
    environment = shell_environment(tmp_path, tool, daemon)
    command = [*COMMAND, "--kind", "complete", "slow"]
    started = []
    for number in (1, 2):
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
        wait_until(lambda: tool.runs == number, 30, "the tool to run")  # noqa: B023
    (tmp_path / "go").touch()
    assert {process.communicate(timeout=60)[0] for process in started} == {b"slow\n"}
    assert tool.runs == 2


def test_a_daemon_that_ends_before_the_lease_costs_nothing(
    cached: Cached, tool: Tool, idle_daemon: Daemon
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(idle_daemon.socket_path)
        listening.listen()

        def miss_and_end() -> None:
            connection, _ = listening.accept()
            listening.close()
            with connection:
                asked = connection.recv(65536)
                for result in (b"\x80", b"\xc0"):  # to hello, and to get
                    end = 4 + int.from_bytes(asked[:4], "big")
                    payload = b"\x94\x01" + asked[6:11] + b"\xc0" + result
                    connection.sendall(len(payload).to_bytes(4, "big") + payload)
                    asked = asked[end:]

        peer = threading.Thread(target=miss_and_end)
        peer.start()
        ran = cached("slow")
        peer.join()
    assert (ran.returncode, ran.stdout, ran.stderr, tool.runs) == (0, b"slow\n", b"", 1)
