"""autoloadctl and the daemon itself: its state, its shards, its end, and its absence."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autoloadd_protocol import __version__
from autoloadd_protocol.connection import Connection
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import Request, decode_request, encode_answer

if TYPE_CHECKING:
    from .conftest import Ctl, Daemon

PRODUCER = ("--producer", "zsh/5.9/8")
OTHER = ("--producer", "fish/3.6/8")

COMMANDS = (
    ["status"],
    ["ping"],
    ["get", "name"],
    ["get", "one", "two"],
    ["put", "name"],
    ["ls"],
    ["missing", "name"],
    ["rm", "name"],
    ["clear"],
    ["count"],
    ["stats"],
    ["shards"],
    ["drop", "id"],
    ["flush"],
    ["warm", "zsh"],
    ["import", "zshrs", "file"],
    ["import", "file"],
    ["export", "zshrs", "file"],
    ["export", "file"],
    ["shutdown"],
)


def test_ping_says_who_answers(ctl: Ctl, daemon: Daemon) -> None:
    done = ctl("ping")
    assert done.returncode == 0
    assert done.stdout.startswith(b"autoloadd (pid %d) answers: " % daemon.pid)
    answer = json.loads(ctl("ping", "--json").stdout)
    assert answer["pid"] == daemon.pid
    assert 0 < answer["ns"] < 10**9


def test_status_shows_the_daemon(ctl: Ctl, daemon: Daemon) -> None:
    ctl("put", "name", *PRODUCER, given=b"blob")
    lines = ctl("status").stdout.decode().splitlines()
    shown = dict(re.split("  +", line, maxsplit=1) for line in lines)
    assert (shown["version"], shown["pid"]) == (__version__, str(daemon.pid))
    assert shown["socket"] == str(daemon.socket_path)
    assert shown["cache"] == str(daemon.cache_dir)
    assert shown["storage"] == "healthy"
    assert shown["shards"] == "1"
    assert "1 write" in re.split(", ", shown["since start"])
    assert shown["at most"].endswith(" MiB")
    assert "stored" in shown
    assert not shown.keys() & {"refused", "mapped"}
    status = json.loads(ctl("status", "--json").stdout)
    assert status["pid"] == daemon.pid
    assert status["storage"]["state"] == "healthy"


def test_shards_lists_whose_entries_there_are(ctl: Ctl, daemon: Daemon) -> None:
    assert ctl("shards").stdout == b"no shards: nothing has been stored yet\n"
    assert json.loads(ctl("shards", "--json").stdout) == []
    ctl("put", "name", *PRODUCER, given=b"x" * 1500)
    ctl("put", "name", *OTHER, given=b"")
    header, *rows = ctl("shards").stdout.decode().splitlines()
    assert header.split() == ["ID", "PRODUCER", "ENTRIES", "BLOBS", "STORED", "USED"]
    shown = {row.split()[1]: row.split()[2:5] for row in rows}
    assert shown == {"zsh/5.9/8": ["1", "1.5", "kB"], "fish/3.6/8": ["1", "0", "B"]}
    shards = json.loads(ctl("shards", "--json").stdout)
    assert {shard["producer"]["name"] for shard in shards} == {"zsh", "fish"}


def test_drop_removes_the_shard_that_shards_lists(ctl: Ctl, daemon: Daemon) -> None:
    ctl("put", "name", *PRODUCER, given=b"zsh's")
    ctl("put", "name", *OTHER, given=b"fish's")
    ids = {row["producer"]["name"]: row["id"] for row in json.loads(ctl("shards", "--json").stdout)}
    done = ctl("drop", ids["fish"])
    assert done.returncode == 0
    assert done.stdout.decode() == f"dropped {ids['fish']} with all its entries\n"
    assert ctl("get", "name", *OTHER).returncode == 1
    assert ctl("get", "name", *PRODUCER).stdout == b"zsh's"


def test_drop_of_what_is_not_there_is_refused(ctl: Ctl, daemon: Daemon) -> None:
    done = ctl("drop", "no-such-shard")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"autoloadctl: the daemon refused: bad_request: ")


def test_shutdown_stops_the_daemon_with_everything_stored(ctl: Ctl, daemon: Daemon) -> None:
    ctl("put", "name", *PRODUCER, given=b"blob")
    done = ctl("shutdown")
    expected = f"autoloadd (pid {daemon.pid}) has stored everything and stops\n"
    assert (done.returncode, done.stdout.decode()) == (0, expected)
    assert daemon.wait() == 0
    assert ctl("ping").returncode == 3


def test_version_of_both(ctl: Ctl, daemon: Daemon) -> None:
    first, second = ctl("version").stdout.decode().splitlines()
    assert first == f"autoloadctl {__version__}"
    assert second == f"autoloadd {__version__} (protocol 1.0, pid {daemon.pid})"
    version = json.loads(ctl("version", "--json").stdout)
    daemon_version = {"version": __version__, "protocol": [1, 0], "pid": daemon.pid}
    assert version == {"client": __version__, "daemon": daemon_version}


def test_version_where_no_daemon_runs(ctl: Ctl, run_directory: Path) -> None:
    done = ctl("version")
    assert done.returncode == 0
    first, second = done.stdout.decode().splitlines()
    assert first == f"autoloadctl {__version__}"
    assert second.startswith(f"autoloadd: no daemon at {run_directory}/socket: ")
    version = json.loads(ctl("version", "--json").stdout)
    assert (version["client"], version["daemon"]) == (__version__, None)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_daemon_every_command_says_where_it_looked_and_what_to_do(
    ctl: Ctl, run_directory: Path, command: list[str]
) -> None:
    done = ctl(*command)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == (
        f"autoloadctl: no daemon at {run_directory}/socket: No such file or directory; "
        f"start it with `autoloadd --socket {run_directory}/socket &`\n"
    )


def test_a_directory_that_others_can_reach_is_not_trusted(ctl: Ctl, run_directory: Path) -> None:
    run_directory.chmod(0o755)
    done = ctl("ping")
    assert done.returncode == 3
    assert b"of its own with mode 0700" in done.stderr


def test_a_socket_path_that_is_too_long_is_told(ctl: Ctl) -> None:
    done = ctl("ping", environment={"AUTOLOADD_SOCKET": "/" + "x" * 107})
    assert done.returncode == 3
    assert b"has 108 bytes, a Unix socket may have at most 107" in done.stderr


def test_another_users_directory_is_not_trusted(ctl: Ctl, run_directory: Path) -> None:
    directory = Path("/usr")  # root's, where the tests run as anyone else
    if os.geteuid() == 0:
        directory = run_directory
        os.chown(directory, 65534, -1)
    done = ctl("ping", environment={"AUTOLOADD_SOCKET": f"{directory}/socket"})
    assert done.returncode == 3
    uid = directory.stat().st_uid
    assert f"belongs to uid {uid}, not to uid {os.geteuid()}" in done.stderr.decode()


def play_daemon(listening: socket.socket, results: dict[str, object]) -> None:
    """Answer one connection's requests with the given results, by method, until it ends."""
    accepted, _address = listening.accept()
    messages = Connection(decode_request)
    with accepted:
        while data := accepted.recv(65536):
            messages.receive_data(data)
            while isinstance(request := messages.next_message(), Request):
                result = results[request.method]
                accepted.sendall(encode_frame(encode_answer(request.id, result)))


HELLO = {"protocol": [1, 9], "server_version": "9.8", "pid": 7}
DEGRADED = {
    "server_version": "9.8",
    "storage": {
        "state": "degraded",
        "since_ns_ago": 61_000_000_000,
        "error": "No space left on device",
        "next_try_ns": 2_500_000_000,
        "set_aside": [
            {
                "file": "/c/a.image.set-aside-1",
                "reason": "/c/a.image: the header's checksum does not match",
            }
        ],
    },
    "refused_notifications": 2,
    "counters": {"writes": 2, "misses": 1, "something_new": 1, "gets": 0},
    "something new": 1,
}


_MADE = "pid         7\nbeing made  2 entries, 9 clients waiting\n"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (
            DEGRADED,
            (
                "version      9.8\n"
                "refused      2 writes whose sender did not wait for an answer\n"
                "since start  2 writes, 1 miss, 1 something new\n"
                "storage      degraded, since 1 min 1 s, No space left on device, "
                "next try in 2.5 s\n"
                "set aside    /c/a.image.set-aside-1: the header's checksum does not match; "
                "`autoloadctl warm zsh` makes zsh's entries anew; the file may be deleted\n"
            ),
        ),
        ({"pid": 7, "storage": {"state": "degraded"}}, "pid      7\nstorage  degraded\n"),
        ({"pid": 7, "leases": {"held": 2, "waiting": 9}}, _MADE),
        ({"pid": 7, "leases": {"held": 0, "waiting": 0}}, "pid  7\n"),
        ({}, ""),
    ],
)
def test_status_of_a_daemon_of_another_version(
    ctl: Ctl, run_directory: Path, status: dict[str, object], shown: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run_directory / "socket"))
        listening.listen()
        results: dict[str, object] = {"hello": HELLO, "status": status}
        thread = threading.Thread(target=play_daemon, args=(listening, results))
        thread.start()
        done = ctl("status")
        thread.join()
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, shown, b"")
