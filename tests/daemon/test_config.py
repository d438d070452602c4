"""The configuration: who wins, what each value may be, and that every refusal names its source."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_daemon.config import (
    DEFAULT_MAX_BYTES,
    MIN_MAX_BYTES,
    CommandLine,
    Settings,
    load_settings,
    make_parser,
    read_command_line,
    read_plain,
)
from autoloadd_daemon.errors import ConfigError
from autoloadd_protocol.limits import SOCKET_PATH_BYTES

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


class Place:
    """A home of its own: environment and configuration file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "config.toml"
        self.environment = {
            "HOME": str(directory),
            "AUTOLOADD_CONFIG": str(self.file),
            "AUTOLOADD_SOCKET": str(directory / "socket"),
            "AUTOLOADD_CACHE_DIR": str(directory / "cache"),
        }
        self.file.write_text("")

    def load(self, *argv: str) -> Settings:
        return load_settings(read_command_line(argv), self.environment)

    def refusal(self, *argv: str) -> str:
        """Return what the error says."""
        with pytest.raises(ConfigError) as caught:
            self.load(*argv)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_anything_the_defaults_hold(place: Place) -> None:
    settings = place.load()
    assert settings.max_bytes == DEFAULT_MAX_BYTES
    assert settings.sync_interval == 1.0
    assert settings.log_level == "info"
    assert settings.sources["max_bytes"] == "default"
    assert settings.sources["socket"] == "environment AUTOLOADD_SOCKET"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("max_bytes", ("32 MiB", "64M", "128m"), (32 * MIB, 64 * MIB, 128 * MIB)),
        ("sync_interval", ("0.5", "2s", "3"), (0.5, 2.0, 3.0)),
        ("log_level", ("debug", "warning", "error"), ("debug", "warning", "error")),
        ("cache_dir", ("/a", "/b", "/c"), ("/a", "/b", "/c")),
        ("socket", ("/a", "/b", "/c"), ("/a", "/b", "/c")),
    ],
)
def test_the_command_line_wins_over_the_environment_over_the_file(
    name: str, values: tuple[str, str, str], expected: tuple[object, ...], place: Place
) -> None:
    option, variable = f"--{name.replace('_', '-')}", f"AUTOLOADD_{name.upper()}"
    place.environment.pop(variable, None)
    place.file.write_text(f'# settings\n\n{name} = "{values[0]}"\n')
    settings = place.load()
    assert getattr(settings, name) == expected[0]
    assert settings.sources[name] == f"{place.file}:3"
    place.environment[variable] = values[1]
    settings = place.load()
    assert getattr(settings, name) == expected[1]
    assert settings.sources[name] == f"environment {variable}"
    settings = place.load(option, values[2])
    assert getattr(settings, name) == expected[2]
    assert settings.sources[name] == f"command line {option}"


def test_an_empty_variable_is_none(place: Place) -> None:
    place.environment["AUTOLOADD_MAX_BYTES"] = ""
    assert place.load().sources["max_bytes"] == "default"


# Values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16777216", 16 * MIB),
        ("16384k", 16 * MIB),
        ("16384 KiB", 16 * MIB),
        ("16m", 16 * MIB),
        ("16 MB", 16 * MIB),
        ("  1 GiB ", 1024 * MIB),
        ("1T", 1024 * 1024 * MIB),
        ("16777216b", 16 * MIB),
    ],
)
def test_sizes(text: str, expected: int, place: Place) -> None:
    assert place.load("--max-bytes", text).max_bytes == expected


@given(size=st.integers(MIN_MAX_BYTES, 2**60))
def test_every_size_in_bytes_is_taken(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = Place(tmp_path_factory.getbasetemp())
    assert place.load("--max-bytes", str(size)).max_bytes == size


@pytest.mark.parametrize("text", ["", "x", "1.5 GiB", "-1", "512 XB", "512 MiBs", "1 2", "MiB"])
def test_what_is_no_size_is_refused(text: str, place: Place) -> None:
    assert place.refusal(f"--max-bytes={text}") == (
        f"command line --max-bytes: max_bytes: {text!r}: expected a size, such as 512 MiB or "
        "536870912"
    )


def test_too_small_a_size_is_refused(place: Place) -> None:
    assert place.refusal("--max-bytes", "15 MiB") == (
        "command line --max-bytes: max_bytes: '15 MiB': expected at least 16 MiB"
    )


@pytest.mark.parametrize(
    ("text", "expected"), [("0.01", 0.01), ("1s", 1.0), (" 2.5 s", 2.5), ("3600", 3600.0)]
)
def test_seconds(text: str, expected: float, place: Place) -> None:
    assert place.load("--sync-interval", text).sync_interval == expected


@pytest.mark.parametrize("text", ["", "0", "0.009", "3601", "-1", "nan", "inf", "1m", "one"])
def test_what_is_no_time_is_refused(text: str, place: Place) -> None:
    assert place.refusal(f"--sync-interval={text}") == (
        f"command line --sync-interval: sync_interval: {text!r}: expected seconds from 0.01 to 3600"
    )


def test_what_is_no_level_is_refused(place: Place) -> None:
    place.environment["AUTOLOADD_LOG_LEVEL"] = "INFO"
    assert place.refusal() == (
        "environment AUTOLOADD_LOG_LEVEL: log_level: 'INFO': "
        "expected one of debug, info, warning, error"
    )


def test_paths_are_made_absolute(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(place.directory)
    settings = place.load("--cache-dir", "~/cache", "--socket", "run/../s")
    assert settings.cache_dir == "/home/me/cache"
    assert settings.socket == os.path.join(os.getcwd(), "s")


@pytest.mark.parametrize("option", ["--cache-dir", "--socket"])
def test_an_empty_path_is_refused(option: str, place: Place) -> None:
    assert place.refusal(f"{option}=").endswith(": expected a path")


def test_a_path_with_a_zero_byte_is_refused(place: Place) -> None:
    del place.environment["AUTOLOADD_CACHE_DIR"]
    place.file.write_text(r'cache_dir = "/a\u0000b"')
    assert place.refusal() == f"{place.file}:1: cache_dir: expected a path"


def test_a_socket_path_may_have_107_bytes(place: Place) -> None:
    longest = "/" + "x" * (SOCKET_PATH_BYTES - 1)
    assert place.load("--socket", longest).socket == longest
    message = place.refusal("--socket", longest + "x")
    assert message.startswith("command line --socket: socket: socket path '/xxx")
    assert "has 108 bytes, a Unix socket may have at most 107" in message


def test_no_place_for_the_socket_is_refused(place: Place) -> None:
    del place.environment["AUTOLOADD_SOCKET"]
    place.environment["XDG_CACHE_HOME"] = "/" + "x" * 200
    if os.path.isdir(f"/run/user/{os.geteuid()}"):
        assert place.load().sources["socket"] == "default"
    else:
        assert place.refusal().startswith("default: socket: socket path")


# The file


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("max_byte = 1\n", 1, "unknown setting 'max_byte'; known: socket, cache_dir"),
        ('\n# x\nlog_level = "info"\n[storage]\nx = 1\n', 4, "unknown setting 'storage'; known:"),
        ('"log level" = "info"', 1, "unknown setting 'log level'; known:"),
        ("\n\nmax_bytes = 1.5\n", 3, "max_bytes: 1.5: expected a size"),
        ("max_bytes = true", 1, "max_bytes: True: expected a size"),
        ("max_bytes = [1]", 1, r"max_bytes: [1]: expected a size"),
        ("max_bytes = 1", 1, "max_bytes: 1: expected at least 16 MiB"),
        ("\nsync_interval = true", 2, "sync_interval: True: expected seconds"),
        ("sync_interval = 1979-05-27", 1, "expected seconds"),
        ("\n  cache_dir = 5", 2, "cache_dir: expected a path"),
        ("log_level = 1", 1, "log_level: 1: expected one of"),
    ],
)  # fmt: skip
def test_a_refusal_names_file_and_line(text: str, line: int, message: str, place: Place) -> None:
    del place.environment["AUTOLOADD_CACHE_DIR"]
    place.file.write_text(text)
    refusal = place.refusal()
    assert refusal.startswith(f"{place.file}:{line}: ")
    assert message in refusal


def test_numbers_need_no_quotes(place: Place) -> None:
    place.file.write_text("max_bytes = 33554432\nsync_interval = 2\n")
    settings = place.load()
    assert (settings.max_bytes, settings.sync_interval) == (32 * MIB, 2.0)
    assert settings.sources["sync_interval"] == f"{place.file}:2"


def test_what_is_no_toml_is_refused_with_its_place(place: Place) -> None:
    place.file.write_text("max_bytes = 512\nsync_interval 2\n")
    refusal = place.refusal()
    assert refusal.startswith(f"{place.file}: ")
    assert "line 2" in refusal
    assert refusal.endswith('expected TOML, such as max_bytes = "256 MiB"')


def test_what_is_not_utf_8_is_refused_with_its_line(place: Place) -> None:
    place.file.write_bytes(b'# one\n# two\nlog_level = "\xff"\n')
    assert place.refusal() == f"{place.file}:3: not UTF-8, expected a TOML file"


def test_a_file_that_was_named_must_be_there(place: Place) -> None:
    missing = str(place.directory / "none.toml")
    message = f"{missing}: there is no such configuration file"
    assert place.refusal("--config", missing) == message
    place.environment["AUTOLOADD_CONFIG"] = missing
    assert place.refusal() == message


def test_the_usual_file_need_not_be_there(place: Place) -> None:
    del place.environment["AUTOLOADD_CONFIG"]
    place.environment["XDG_CONFIG_HOME"] = str(place.directory / "config")
    assert place.load().max_bytes == DEFAULT_MAX_BYTES
    usual = place.directory / "config" / "autoloadd"
    usual.mkdir(parents=True)
    (usual / "config.toml").write_text('max_bytes = "20 MiB"')
    assert place.load().max_bytes == 20 * MIB


def test_a_file_that_cannot_be_read_is_refused(place: Place) -> None:
    assert place.refusal("--config", str(place.directory)) == (
        f"{place.directory}: cannot be read: Is a directory"
    )


# What it says of itself


def test_each_setting_is_described_with_its_source(place: Place) -> None:
    place.file.write_text("sync_interval = 0.5\n")
    lines = place.load("--log-level", "debug").describe().splitlines()
    rows = [re.split(r" {2,}", line) for line in lines]
    assert rows == [
        ["socket", str(place.directory / "socket"), "environment AUTOLOADD_SOCKET"],
        ["cache_dir", str(place.directory / "cache"), "environment AUTOLOADD_CACHE_DIR"],
        ["max_bytes", "536870912", "default"],
        ["sync_interval", "0.5", f"{place.file}:1"],
        ["log_level", "debug", "command line --log-level"],
    ]
    assert len({line.index(row[2]) for line, row in zip(lines, rows, strict=True)}) == 1


def test_the_command_line_is_read() -> None:
    arguments = read_command_line(["--check-config", "--max-bytes", "1 GiB"])
    assert arguments.check_config
    assert arguments.max_bytes == "1 GiB"
    assert arguments.socket is None


OPTIONS = ("--socket", "--cache-dir", "--config", "--max-bytes", "--sync-interval", "--log-level")
VALUES = ("", "/a", "a=b", "-", "--", "-1", "--socket", "1 GiB", " ", "é")


@given(
    words=st.lists(
        st.one_of(
            st.sampled_from((*OPTIONS, *VALUES, "--check-config", "--sock", "--cache_dir")),
            st.builds("{}={}".format, st.sampled_from(OPTIONS), st.sampled_from(VALUES)),
        ),
        max_size=4,
    )
)
def test_usual_options_are_read_without_the_parser_and_mean_the_same(words: list[str]) -> None:
    plain = read_plain(words)
    if plain is not None:
        parsed = make_parser().parse_args(words, namespace=CommandLine())
        assert vars(plain) == vars(parsed)


def test_the_parser_is_left_out_where_it_is_not_needed() -> None:
    for name in OPTIONS:
        for argv in ([], [name, "value"], [f"{name}=-v"], [name, "1", name, "2"]):
            assert read_plain(argv) is not None, argv
    assert read_plain(["--check-config"]) is None


@pytest.mark.parametrize("argv", [["--max"], ["--log", "info"], ["extra"], ["--max-bytes"]])
def test_what_is_no_option_leaves_with_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read_command_line(argv)
    assert caught.value.code == 2
    assert "usage: autoloadd" in capsys.readouterr().err


def test_help_and_version_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for option, expected in (("--help", "exit status:"), ("--version", "autoloadd ")):
        with pytest.raises(SystemExit) as caught:
            read_command_line([option])
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out
