"""Each parameter is read at its limits, and refused beyond them with what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from autoloadd_protocol.errors import RequestError
from autoloadd_protocol.limits import BLOB_BYTES, FINGERPRINT_BYTES, NAME_BYTES, NAMES
from autoloadd_protocol.parameters import (
    kind_of,
    read_blob,
    read_entries,
    read_entry,
    read_fingerprint,
    read_flag,
    read_hold,
    read_name,
    read_names,
    read_params,
    read_sync,
    read_time,
    read_token,
    read_wait,
    read_wanted,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(read: Callable[..., object], *args: object) -> tuple[str, str]:
    """Return code and message of a refusal."""
    with pytest.raises(RequestError) as caught:
        read(*args)
    return caught.value.code, caught.value.message


def too_large(read: Callable[[Any], object], value: object) -> dict[str, object] | None:
    """Return the detail of a refusal for size."""
    with pytest.raises(RequestError) as caught:
        read(value)
    assert caught.value.code == "too_large"
    return caught.value.detail


@pytest.mark.parametrize(
    ("params", "expected"),
    [(("a",), ["a", None, None]), (("a", None), ["a", None, None]), (("a", 1, 2), ["a", 1, 2])],
    ids=repr,
)
def test_parameters_left_out_are_none(params: tuple[Any, ...], expected: list[Any]) -> None:
    assert read_params(params, 1, 2) == expected


def test_a_wrong_number_of_parameters_is_refused() -> None:
    assert refused(read_params, (), 1, 2) == ("bad_request", "expected 1 to 3 parameters, got 0")
    extra = ("a", None, None, None)
    assert refused(read_params, extra, 1, 2) == ("bad_request", "expected 1 to 3 parameters, got 4")
    assert refused(read_params, (None,), 0) == ("bad_request", "expected 0 parameters, got 1")


@pytest.mark.parametrize("name", ["f", "\0", "\n", "é", "../x", "n" * NAME_BYTES, "é" * 512])
def test_a_name_is_read_as_its_bytes(name: str) -> None:
    assert read_name(name) == name.encode()


def test_what_is_no_name_is_refused() -> None:
    assert refused(read_name, "") == ("bad_request", "a name must have at least one byte")
    for value, kind in ((None, "nil"), (b"f", "a bin"), (7, "int"), (("f",), "an array")):
        message = f"a name: expected a str, got {kind}"
        assert refused(read_name, value) == ("bad_request", message)


def test_a_name_is_measured_in_bytes() -> None:
    expected = {"limit": "name_bytes", "max": 1024, "got": 1025}
    assert too_large(read_name, "n" * 1025) == expected
    assert too_large(read_name, "é" * 512 + "e") == expected


def test_a_blob_has_0_to_4_mib() -> None:
    largest = b"\0" * BLOB_BYTES
    assert read_blob(b"") == b""
    assert read_blob(largest) is largest
    expected = {"limit": "blob_bytes", "max": BLOB_BYTES, "got": BLOB_BYTES + 1}
    assert too_large(read_blob, largest + b"\0") == expected
    for value, kind in (("x", "a str"), (None, "nil")):
        message = f"a blob: expected a bin, got {kind}"
        assert refused(read_blob, value) == ("bad_request", message)


def test_a_fingerprint_has_1_to_1024_bytes_or_is_nil() -> None:
    assert read_fingerprint(None) is None
    assert read_fingerprint(b"\0") == b"\0"
    assert read_fingerprint(b"p" * FINGERPRINT_BYTES) == b"p" * 1024
    expected = {"limit": "fingerprint_bytes", "max": 1024, "got": 1025}
    assert too_large(read_fingerprint, b"p" * 1025) == expected
    message = "a fingerprint must have at least one byte"
    assert refused(read_fingerprint, b"") == ("bad_request", message)
    message = "a fingerprint: expected a bin or nil, got a str"
    assert refused(read_fingerprint, "p") == ("bad_request", message)


@pytest.mark.parametrize("value", [None, 0, -1, 2**63 - 1, -(2**63)])
def test_a_time_is_64_bits_with_a_sign(value: int | None) -> None:
    assert read_time(value) == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "0", b"0"], ids=repr)
def test_what_is_no_time_is_refused(value: object) -> None:
    message = "a time: expected a signed 64-bit integer (ns) or nil"
    assert refused(read_time, value) == ("bad_request", message)


def test_a_token_is_a_u32_of_at_least_1() -> None:
    assert read_token(1) == 1
    assert read_token(2**32 - 1) == 2**32 - 1
    for value in (0, -1, 2**32, True, None, "1", 1.0):
        message = "a token: expected a u32 of at least 1"
        assert refused(read_token, value) == ("bad_request", message)


def test_sync_is_write_unless_asked_otherwise() -> None:
    assert read_sync(None) == "write"
    for level in ("memory", "write", "fsync"):
        assert read_sync(level) == level
    wrong: tuple[object, ...] = ("disk", b"write", True, (), {}, 1.5)
    for value in wrong:
        message = 'sync: expected "memory", "write" or "fsync"'
        assert refused(read_sync, value) == ("bad_request", message)


def test_names_are_an_array_of_at_most_65536() -> None:
    names = ("a",) * NAMES
    assert read_names(names) is names
    assert read_names(()) == ()
    assert too_large(read_names, (*names, "a")) == {
        "limit": "names",
        "max": NAMES,
        "got": NAMES + 1,
    }
    for value, kind in (("abc", "a str"), ({}, "a map"), (None, "nil")):
        message = f"names: expected an array, got {kind}"
        assert refused(read_names, value) == ("bad_request", message)


def test_entries_are_a_map_of_at_most_65536() -> None:
    entries = dict.fromkeys(map(str, range(NAMES)))
    assert read_entries(entries) is entries
    expected = {"limit": "names", "max": NAMES, "got": NAMES + 1}
    assert too_large(read_entries, entries | {"one": None}) == expected
    message = "entries: expected a map, got an array"
    assert refused(read_entries, ()) == ("bad_request", message)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((b"x",), (b"x", None, None, None)),
        ((b"x", None, None, None), (b"x", None, None, None)),
        ((b"", b"p"), (b"", b"p", None, None)),
        ((b"", b"p", 0), (b"", b"p", 0, None)),
        ((b"", b"p", -1, 2), (b"", b"p", -1, 2)),
    ],
    ids=repr,
)
def test_trailing_items_of_an_entry_may_be_left_out(
    value: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    assert read_entry(value) == expected


@pytest.mark.parametrize(
    "value",
    [(), (b"", None, None, None, None), b"", None, (None,), ("x",), (b"", "p"), (b"", None, "")],
)
def test_what_is_no_entry_is_refused(value: object) -> None:
    assert refused(read_entry, value)[0] == "bad_request"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("f", (b"f", None, None)),
        (("f",), (b"f", None, None)),
        (("f", None, None), (b"f", None, None)),
        (("f", b"p"), (b"f", b"p", None)),
        (("f", b"p", 0), (b"f", b"p", 0)),
        (("f", None, -1), (b"f", None, -1)),
    ],
    ids=repr,
)
def test_a_wanted_name_may_carry_what_it_is_compared_with(value: object, expected: object) -> None:
    assert read_wanted(value) == expected


@pytest.mark.parametrize(
    "value", [(), ("f", None, None, None), b"f", None, 7, (7,), ("f", "p"), ("f", None, "now"), ""]
)
def test_what_is_no_wanted_name_is_refused(value: object) -> None:
    assert refused(read_wanted, value)[0] == "bad_request"


def test_types_are_named_as_messagepack_names_them() -> None:
    values: tuple[object, ...] = (None, True, 1, 1.5, "a", b"a", (), {})
    expected = ["nil", "bool", "int", "float", "a str", "a bin", "an array", "a map"]
    assert [kind_of(value) for value in values] == expected


def test_times_of_leases() -> None:
    assert [read_wait(each) for each in (None, 0, 1, 10_000)] == [0, 0, 1, 10_000]
    assert [read_hold(each) for each in (None, 1, 120_000)] == [30_000, 1, 120_000]
    wait = ("bad_request", "wait_ms: expected 0 to 10,000 (ms) or nil")
    assert {refused(read_wait, each) for each in (-1, 10_001, True, "1", 1.0, 2**64)} == {wait}
    hold = ("bad_request", "hold_ms: expected 1 to 120,000 (ms) or nil")
    assert {refused(read_hold, each) for each in (0, -1, 120_001, True, b"1")} == {hold}


def test_flags() -> None:
    assert [read_flag(each, "f") for each in (None, False, True)] == [False, False, True]
    expected = ("bad_request", "stale_ok: expected a bool or nil, got a str")
    assert refused(read_flag, "true", "stale_ok") == expected
    assert refused(read_flag, 1, "f")[0] == "bad_request"
