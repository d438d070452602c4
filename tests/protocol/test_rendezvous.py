"""Daemon and clients find the same socket, from the environment, the uid and lstat alone."""

from __future__ import annotations

import os
import stat
import warnings
from typing import TYPE_CHECKING, NamedTuple

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_protocol.errors import RendezvousError
from autoloadd_protocol.limits import SOCKET_PATH_BYTES
from autoloadd_protocol.rendezvous import (
    cache_directory,
    check_private_directory,
    check_socket_path,
    config_file,
    is_switched_off,
    socket_path,
)

if TYPE_CHECKING:
    from pathlib import Path

UID = 1000


class Found(NamedTuple):
    """What lstat says of one path."""

    st_mode: int
    st_uid: int = UID


DIRECTORY = Found(stat.S_IFDIR | 0o700)


class Table(dict[str, Found]):
    """An lstat over a few paths; it remembers what it was asked."""

    def lstat(self, path: str) -> Found:
        if path not in self:
            raise FileNotFoundError(path)
        return self[path]


RUN = {"/run/user/1000": DIRECTORY}
XDG = {"/xdg": DIRECTORY}
HOME = {"HOME": "/home/u"}
RUN_SOCKET = "/run/user/1000/autoloadd/socket"
HOME_SOCKET = "/home/u/.cache/autoloadd/run/socket"


@pytest.mark.parametrize(
    ("environment", "directories", "expected"),
    [
        ({"AUTOLOADD_SOCKET": "/a/s", "XDG_RUNTIME_DIR": "/xdg"}, RUN | XDG, "/a/s"),
        (
            {"AUTOLOADD_SOCKET": "", "XDG_RUNTIME_DIR": "/xdg"},
            RUN,
            RUN_SOCKET,
        ),
        ({"XDG_RUNTIME_DIR": "/xdg"}, RUN | XDG, RUN_SOCKET),
        ({"XDG_RUNTIME_DIR": "/xdg"}, XDG, "/xdg/autoloadd/socket"),
        (
            {"XDG_RUNTIME_DIR": "xdg", **HOME},
            {"xdg": DIRECTORY},
            HOME_SOCKET,
        ),
        ({"XDG_RUNTIME_DIR": "/xdg", **HOME}, {}, HOME_SOCKET),
        ({"XDG_CACHE_HOME": "/c", **HOME}, {}, "/c/autoloadd/run/socket"),
        ({"XDG_CACHE_HOME": "/c"}, {}, "/c/autoloadd/run/socket"),
        ({"XDG_CACHE_HOME": "c", **HOME}, {}, HOME_SOCKET),
        (HOME, {}, HOME_SOCKET),
    ],
)
def test_the_socket_is_at_the_first_place_that_can_be_used(
    environment: dict[str, str], directories: dict[str, Found], expected: str
) -> None:
    assert socket_path(environment, UID, Table(directories).lstat) == expected


@pytest.mark.parametrize(
    "found",
    [
        Found(stat.S_IFDIR | 0o700, UID + 1),
        Found(stat.S_IFDIR | 0o755, 0),
        Found(stat.S_IFLNK | 0o777),
        Found(stat.S_IFREG | 0o600),
    ],
    ids=["another's", "root's", "a link", "a file"],
)
def test_a_runtime_directory_that_is_not_ours_is_passed_over(found: Found) -> None:
    table = Table({"/run/user/1000": found, "/xdg": found})
    environment = {"XDG_RUNTIME_DIR": "/xdg", **HOME}
    assert socket_path(environment, UID, table.lstat) == HOME_SOCKET


def test_under_su_the_place_comes_from_the_uid() -> None:
    """XDG_RUNTIME_DIR is still that of the user who called su."""
    environment = {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/root"}
    table = Table({"/run/user/0": Found(stat.S_IFDIR | 0o700, 0), **RUN})
    assert socket_path(environment, 0, table.lstat) == "/run/user/0/autoloadd/socket"


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "home"}], ids=repr)
def test_without_any_place_the_error_says_what_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(RendezvousError, match="set AUTOLOADD_SOCKET"):
        socket_path(environment, UID, Table().lstat)


def test_a_path_of_107_bytes_is_the_longest() -> None:
    longest = "/" + "s" * (SOCKET_PATH_BYTES - 1)
    assert check_socket_path(longest) == longest
    for path in (longest + "s", "/" + "é" * 54, "/" + os.fsdecode(b"\xff" * 107)):
        with pytest.raises(RendezvousError, match="bytes, a Unix socket may have at most 107"):
            check_socket_path(path)
    assert check_socket_path("/" + os.fsdecode(b"\xff" * 106))


@pytest.mark.parametrize("path", ["", "socket", "./socket", "@abstract", "\0abstract"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    with pytest.raises(RendezvousError, match="is not absolute"):
        check_socket_path(path)


def test_every_place_is_checked_for_its_length() -> None:
    for environment in (
        {"AUTOLOADD_SOCKET": "/" + "s" * 107},
        {"AUTOLOADD_SOCKET": "relative"},
        {"XDG_RUNTIME_DIR": "/" + "x" * 100},
        {"HOME": "/" + "h" * 100},
        {"XDG_CACHE_HOME": "/" + "c" * 100},
    ):
        directories = {"/" + "x" * 100: DIRECTORY}
        with pytest.raises(RendezvousError):
            socket_path(environment, UID, Table(directories).lstat)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Found(stat.S_IFLNK | 0o777), "/d is a symbolic link"),
        (Found(stat.S_IFREG | 0o600), "/d is not a directory"),
        (Found(stat.S_IFDIR | 0o700, 0), "/d belongs to uid 0, not to uid 1000"),
        (Found(stat.S_IFDIR | 0o755), "/d has mode 0755.*of its own with mode 0700"),
        (Found(stat.S_IFDIR | 0o710), "/d has mode 0710"),
        (Found(stat.S_IFDIR | 0o701), "/d has mode 0701"),
        (Found(stat.S_IFDIR | 0o1777), "/d has mode 1777"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_directory_that_others_can_reach_is_refused_with_path_and_reason(
    found: Found, reason: str
) -> None:
    with pytest.raises(RendezvousError, match=reason):
        check_private_directory("/d", UID, Table({"/d": found}).lstat)


@pytest.mark.parametrize("mode", [0o700, 0o500, 0o000])
def test_a_directory_of_ours_alone_is_accepted(mode: int) -> None:
    check_private_directory("/d", UID, Table({"/d": Found(stat.S_IFDIR | mode)}).lstat)


def test_a_missing_directory_is_the_callers_to_make() -> None:
    with pytest.raises(FileNotFoundError):
        check_private_directory("/d", UID, Table().lstat)


def test_real_directories(tmp_path: Path) -> None:
    uid = os.getuid()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    check_private_directory(str(private), uid, os.lstat)
    private.chmod(0o750)
    with pytest.raises(RendezvousError, match="mode 0750"):
        check_private_directory(str(private), uid, os.lstat)
    private.chmod(0o700)
    with pytest.raises(RendezvousError, match=f"belongs to uid {uid}"):
        check_private_directory(str(private), uid + 1, os.lstat)
    link = tmp_path / "link"
    link.symlink_to(private)
    with pytest.raises(RendezvousError, match="symbolic link"):
        check_private_directory(str(link), uid, os.lstat)
    (tmp_path / "file").touch(mode=0o600)
    with pytest.raises(RendezvousError, match="not a directory"):
        check_private_directory(str(tmp_path / "file"), uid, os.lstat)


def test_a_real_runtime_directory(tmp_path: Path) -> None:
    """Of a uid that has no /run/user of its own on this machine."""
    uid = os.getuid()
    if os.path.isdir(f"/run/user/{uid}"):
        expected = f"/run/user/{uid}/autoloadd/socket"
    else:
        expected = f"{tmp_path}/autoloadd/socket"
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert socket_path(environment, uid, os.lstat) == expected


@pytest.mark.parametrize("variable", ["AUTOLOADD_CACHE", "ZSHRS_CACHE"])
def test_0_false_and_no_switch_the_cache_off(variable: str) -> None:
    for word in ("0", "false", "no", "FALSE", "No", " no "):
        assert is_switched_off({variable: word})
    for word in ("", "1", "true", "yes", "00", "off"):
        assert not is_switched_off({variable: word})
    assert not is_switched_off({})


def test_either_variable_switches_it_off() -> None:
    assert is_switched_off({"AUTOLOADD_CACHE": "1", "ZSHRS_CACHE": "no"})
    assert is_switched_off({"AUTOLOADD_CACHE": "no", "ZSHRS_CACHE": "1"})


def test_cache_and_configuration_are_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/e")
    assert cache_directory({}) == "/c/autoloadd"
    assert cache_directory({"AUTOLOADD_CACHE_DIR": "/d"}) == "/d"
    assert config_file({}) == "/e/autoloadd/config.toml"
    assert config_file({"AUTOLOADD_CONFIG": "/f.toml"}) == "/f.toml"


@given(
    home=st.sampled_from(["", "/home/me", "/", "/home/me/", " /home/me", "relative"]),
    base=st.sampled_from([None, "", "/x", "/x/y", "/x/", " /x", "relative", "~", " "]),
)
def test_they_are_where_platformdirs_says(home: str, base: str | None) -> None:
    variables = {"XDG_CACHE_HOME": base, "XDG_CONFIG_HOME": base, "HOME": home}
    given = {name: value for name, value in variables.items() if value is not None}
    with pytest.MonkeyPatch.context() as patch:
        for name in variables:
            patch.delenv(name, raising=False)
        for name, value in given.items():
            patch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cache, config = cache_directory(given), config_file(given)
            assert cache == platformdirs.user_cache_dir("autoloadd", appauthor=False)
            directory = platformdirs.user_config_dir("autoloadd", appauthor=False)
            assert config == f"{directory}/config.toml"
