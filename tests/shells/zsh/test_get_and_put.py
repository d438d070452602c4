"""`autoloadd-get` and `autoloadd-put`, for other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.running import own_environment

from .zsh import environment_for, output_of, run_zsh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Daemon

GET_AND_PUT = r"""
blob=$'\0\xff'$(print -rn -- {a..z})
autoloadd-put --fingerprint f --mtime 5 --sync fsync n "$blob"; print $? $#reply
autoloadd-get --fingerprint f --mtime 5 n; print $? $#reply $reply[1]
[[ $reply[2] == $blob ]]; print $?
autoloadd-get --fingerprint g n; print $? $#reply
autoloadd-get --mtime 6 n; print $? $#reply
autoloadd-put '' x; print $?; autoloadd-get ''; print $?
autoloadd-put empty ''; autoloadd-get empty; print $? $#reply
autoloadd-put --producer o/1/4 n other; autoloadd-get --producer o/1/4 n; print $? $reply
for i in {1..200}; do names+=( n$i ); autoloadd-put n$i "${(l:900::x:)}$i" || print -u2 $i; done
autoloadd-get $names; print $? $#reply $reply[1] $reply[-2] ${#reply[-1]}
autoloadd-get $names none n; print $? $#reply
"""


def test_get_and_put(daemon: Daemon) -> None:
    environment = environment_for(daemon.socket_path, LC_ALL="C")
    assert output_of(GET_AND_PUT, environment=environment).splitlines() == [
        *("0 0", "0 2 n", "0", "1 0", "1 0", "4", "4", "0 2", "0 n other"),
        *("0 400 n1 n200 903", "1 402"),
    ]


WRONG = (
    "autoloadd-get",
    "autoloadd-get --sync write n",
    "autoloadd-get --producer x n",
    "autoloadd-get --mtime x n",
    "autoloadd-get --what n",
    "autoloadd-put n",
    "autoloadd-put --sync never n b",
    "autoloadd-put --fingerprint",
)


def test_get_and_put_usage(home: Path) -> None:
    """Told before anybody is asked: here is no daemon."""
    environment = environment_for(str(home / "socket"))
    ran = run_zsh("".join(f"{wrong}; print $?\n" for wrong in WRONG), environment=environment)
    assert ran.stdout == b"2\n" * len(WRONG)
    assert ran.stderr.count(b"usage: autoloadd-get ") == len(WRONG)


def test_get_and_put_without_a_daemon(home: Path) -> None:
    script = (
        "autoloadd-get n; print $?; autoloadd-put n b; print $?; autoloadd-get -- --help; print $?"
    )
    environment = own_environment({"AUTOLOADD_SOCKET": str(home / "socket")})
    assert output_of(script, environment=environment) == "3\n3\n3\n"
    assert "Status: 0 all found" in output_of(
        "autoloadd-get -h; autoloadd-put -h", environment=environment
    )
