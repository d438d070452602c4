"""Makes refused.json."""

from __future__ import annotations

from typing import Any

from .messages import METHODS
from .shapes import ID, PRODUCER, Case, Piece, frame, pack, request

_PING = request("ping")


def refused() -> list[Case]:
    """Return what must be refused, with the code, the id of the answer, and what comes after."""
    return [*_bad_frames(), *_bombs(), *_bad_messages(), *_bad_params(), *_others(), *_too_large()]


def _case(
    why: str,
    code: str,
    *payload: Piece,
    answer_id: int | None = ID,
    detail: dict[str, Any] | None = None,
    hello: bool = True,
) -> Case:
    case: Case = {
        "why": why,
        "send": frame(*payload),
        "code": code,
        "id": answer_id,
        "stays_open": code != "bad_frame",
        "after_hello": hello,
    }
    return case if detail is None else case | {"detail": detail}


def _raw(why: str, sent: bytes) -> Case:
    return _case(why, "bad_frame", answer_id=None) | {"send": sent.hex()}


def _with_param(encoded: bytes, method: str = "ping") -> bytes:
    return b"\x94\x00" + pack(ID) + pack(method) + b"\x91" + encoded


def _nested(levels: int) -> bytes:
    """Return a ping whose innermost array is at this level; the frame's own array is level 1."""
    return b"\x94\x00" + pack(ID) + pack("ping") + b"\x91" * (levels - 2) + b"\x90"


def _bad_frames() -> list[Case]:
    bad = "bad_frame"
    odd: list[tuple[str, bytes]] = [
        ("fixext 1", b"\xd4\x05\x00"),
        ("fixext 2", b"\xd5\x05\x00\x00"),
        ("fixext 4, a timestamp", b"\xd6\xff\x00\x00\x00\x00"),
        ("fixext 8, a timestamp", b"\xd7\xff" + bytes(8)),
        ("fixext 16", b"\xd8\x05" + bytes(16)),
        ("ext 8", b"\xc7\x03\x05abc"),
        ("ext 8 of zero length", b"\xc7\x00\x05"),
        ("ext 8 of zero length, a timestamp", b"\xc7\x00\xff"),
        ("ext 8, a timestamp of 12 bytes", b"\xc7\x0c\xff" + bytes(12)),
        ("ext 16 of zero length", b"\xc8\x00\x00\x05"),
        ("ext 32 of zero length", b"\xc9\x00\x00\x00\x00\x05"),
        ("float 32", b"\xca" + bytes(4)),
        ("float 64", b"\xcb" + bytes(8)),
        ("a float in a map", b"\x81\xa1a\xcb" + bytes(8)),
        ("a float as a map's key", b"\x81\xcb" + bytes(8) + b"\xc0"),
        ("the byte that MessagePack never uses", b"\xc1"),
        ("a str that ends behind the payload", b"\xd9\x05abc"),
        ("a str of 4 GiB that is not there", b"\xdb\xff\xff\xff\xff"),
        ("a bin of 4 GiB that is not there", b"\xc6\xff\xff\xff\xff"),
        ("an array of 4 G items that are not there", b"\xdd\xff\xff\xff\xff"),
        ("a map of 4 G pairs that are not there", b"\xdf\xff\xff\xff\xff"),
    ]
    wide = request("ping", *[None] * 17)
    return [
        _raw("a length of 0", bytes(4)),
        _raw("a length of 8 MiB and 1", (8 * 2**20 + 1).to_bytes(4, "big")),
        _raw("a length of 4 GiB", b"\xff\xff\xff\xff"),
        _case("a kind that is a float", bad, b"\x94\xcb" + bytes(8) + _PING[2:], answer_id=None),
        _case("an id that is a float", bad, pack([0, 1.0, "ping", []]), answer_id=None),
        _case("the value ends early", bad, _PING[:-1]),
        _case("bytes after the value", bad, _PING + b"\xc0"),
        _case("a second value", bad, _PING + _PING),
        _case("nesting of 9, the frame's own array is level 1", bad, _nested(9)),
        _case("17 parameters", bad, wide),
        *(_case(why, bad, _with_param(encoded)) for why, encoded in odd),
        _case("a float where nobody reads", bad, request("hello", [1, 0], None, {"load": 0.5})),
        _case("a float for a time", bad, request("get", "f", 1.5)),
        _case("a float in an unknown method", bad, request("nothing", 1.5)),
    ]


def _bombs() -> list[Case]:
    bad = "bad_frame"
    million = 1_000_000
    array = b"\xdd" + million.to_bytes(4, "big")
    head = b"\x94\x00" + pack(ID) + pack("ping")
    items = b"\x91\xdd" + (60_000).to_bytes(4, "big")
    return [
        _case("headers of 65,535 items, nested", bad, (b"\xdc\xff\xff", 1024), answer_id=None),
        _case("the same in parameters", bad, head, (b"\xdc\xff\xff", 1024)),
        _case("headers of 511 items, nested", bad, (b"\xdc\x01\xff", 1300), answer_id=None),
        _case("map headers of 511 pairs, nested", bad, (b"\xde\x01\xff", 1300), answer_id=None),
        _case("1,000,000 empty arrays", bad, array, (b"\x90", million), answer_id=None),
        _case("1,000,000 empty arrays as parameters", bad, head, array, (b"\x90", million)),
        _case(
            "60,000 names of 15 empty arrays", bad, head, items, (b"\x9f" + b"\x90" * 15, 60_000)
        ),
        _case("60,000 names that are maps", bad, head, items, (b"\x82\x00\x00\x01\x00", 60_000)),
        _case("nesting of 1,000", bad, head, (b"\x91", 1000), b"\x90"),
        _case("nesting of 100,000", bad, head, (b"\x91", 100_000), b"\x90"),
        _case("maps nested 5,000 deep", bad, head, b"\x91", (b"\x81\x00", 5000), b"\x00"),
    ]


def _bad_messages() -> list[Case]:
    bad = "bad_request"
    without_id: list[tuple[str, object]] = [
        ("nil", None),
        ("a number", 7),
        ("a str", "ping"),
        ("a map", {"id": ID}),
        ("an empty array", []),
        ("kind 3", [3, ID, "ping", []]),
        ("an answer", [1, ID, None, None]),
        ("a kind that is false", [False, ID, "ping", []]),
        ("no id", [0]),
        ("an id that is nil", [0, None, "ping", []]),
        ("an id that is true", [0, True, "ping", []]),
        ("an id that is a str", [0, "1", "ping", []]),
        ("a negative id", [0, -1, "ping", []]),
        ("an id of 2**32", [0, 2**32, "ping", []]),
    ]
    with_id: list[tuple[str, object]] = [
        ("only kind and id", [0, ID]),
        ("no params", [0, ID, "ping"]),
        ("five items", [0, ID, "ping", [], None]),
        ("a method that is a bin", [0, ID, b"ping", []]),
        ("a method that is nil", [0, ID, None, []]),
        ("params that are nil", [0, ID, "ping", None]),
        ("params that are a map", [0, ID, "ping", {}]),
    ]
    return [
        *(_case(why, bad, pack(value), answer_id=None) for why, value in without_id),
        *(_case(why, bad, pack(value)) for why, value in with_id),
        _case("a method that is not UTF-8", bad, b"\x94\x00" + pack(ID) + b"\xa1\xff\x90"),
        _case("a name that is not UTF-8", bad, _with_param(b"\xa2\xc3\x28", "get")),
        _case("a surrogate in a name", bad, _with_param(b"\xa3\xed\xa0\x80", "get")),
        _case("a NUL in two bytes", bad, _with_param(b"\xa2\xc0\x80", "get")),
        _case(
            "a key twice", bad, _with_param(b"\x82\xa1f\x91\xc4\x00\xa1f\x91\xc4\x00", "put_many")
        ),
        _case("a map as a key", bad, _with_param(b"\x81\x80\x91\xc4\x00", "put_many")),
        _case("nesting of 8 is allowed, the parameter is not", bad, _nested(8)),
        _case("16 parameters", bad, request("ping", *[None] * 16)),
    ]


def _bad_params() -> list[Case]:
    calls: list[tuple[str, list[Any]]] = [
        ("hello", []),
        ("hello", [None]),
        ("hello", ["1.0"]),
        ("hello", [[1]]),
        ("hello", [[1, 0], "zsh"]),
        ("hello", [[1, 0], {"version": "5.9", "pointer_width": 8}]),
        ("hello", [[1, 0], PRODUCER | {"name": ""}]),
        ("hello", [[1, 0], PRODUCER | {"version": 5}]),
        ("hello", [[1, 0], PRODUCER | {"pointer_width": 5}]),
        ("hello", [[1, 0], PRODUCER | {"pointer_width": True}]),
        ("hello", [[1, 0], PRODUCER | {"build": ""}]),
        ("ping", [None]),
        ("status", [1]),
        ("shards", [1]),
        ("drop_shard", []),
        ("get", []),
        ("get", [None]),
        ("get", [""]),
        ("get", [7]),
        ("get", [b"f"]),
        ("get", ["f", "now"]),
        ("get", ["f", True]),
        ("get", ["f", 2**63]),
        ("get", ["f", None, "fingerprint"]),
        ("get", ["f", None, b""]),
        ("get", ["f", None, None, None]),
        ("lease", []),
        ("lease", [b"f"]),
        ("lease", ["f", "now"]),
        ("lease", ["f", None, "fingerprint"]),
        ("lease", ["f", None, None, -1]),
        ("lease", ["f", None, None, 10_001]),
        ("lease", ["f", None, None, True]),
        ("lease", ["f", None, None, 0, 0]),
        ("lease", ["f", None, None, 0, 120_001]),
        ("lease", ["f", None, None, 0, "1"]),
        ("lease", ["f", None, None, 0, 1, 1]),
        ("lease", ["f", None, None, 0, 1, True, None]),
        ("unlease", []),
        ("unlease", [7]),
        ("unlease", ["f", None]),
        ("get_many", ["f"]),
        ("get_many", [[7]]),
        ("get_many", [["f", ["f", None, None, None]]]),
        ("put", ["f"]),
        ("put", ["f", "blob"]),
        ("put", ["f", None]),
        ("put", ["f", b"", None, None, "disk"]),
        ("put", ["f", b"", None, None, True]),
        ("put_many", [[["f", [b""]]]]),
        ("put_many", [{"f": b""}]),
        ("put_many", [{"f": []}]),
        ("put_many", [{"f": [None]}]),
        ("put_many", [{"f": [b"", None, None, None, None]}]),
        ("put_many", [{7: [b""]}]),
        ("put_many", [{"": [b""]}]),
        ("bulk_begin", []),
        ("bulk_begin", ["append"]),
        ("bulk_add", [0, {}]),
        ("bulk_add", [4_000_000_000, {}]),
        ("bulk_add", [1]),
        ("bulk_commit", [4_000_000_000]),
        ("bulk_abort", [4_000_000_000]),
        ("bulk_abort", ["1"]),
        ("delete", ["f"]),
        ("delete", [[""]]),
        ("clear", ["disk"]),
        ("names", [7]),
        ("names", ["", 7]),
        ("names", ["", "", "all"]),
        ("missing", [None]),
        ("missing", [[[]]]),
        ("count", [None]),
        ("stats", ["now"]),
        ("flush", [1]),
    ]
    return [
        _case(f"{method} {params!r}", "bad_request", request(method, *params))
        for method, params in calls
    ]


def _others() -> list[Case]:
    # Without a bulk every token is unknown, whoever asks; watch is reserved.
    others = ("bulk_add", "bulk_commit", "bulk_abort", "watch")
    data = [method for method in list(METHODS)[6:] if method not in others]
    return [
        *(
            _case(f"the method {method!r}", "unknown_method", request(method))
            for method in ("", "nothing", "PING", "get ", "watch")
        ),
        *(
            _case(
                f"{method} before hello",
                "no_producer",
                request(method, *METHODS[method][0]),
                hello=False,
            )
            for method in data
        ),
        _case("major version 2", "unsupported_protocol", request("hello", [2, 0], PRODUCER)),
        _case("major version 0", "unsupported_protocol", request("hello", [0, 9], PRODUCER)),
    ]


def _too_large() -> list[Case]:
    blob = 4 * 2**20 + 1
    put = b"\x94\x00" + pack(ID) + pack("put") + b"\x92" + pack("f")
    many = b"\xdd" + (65_537).to_bytes(4, "big")
    long = "n" * 1025
    print_large = {"max": 1024, "got": 1025}
    name = {"limit": "name_bytes"} | print_large
    return [
        _large("a name of 1,025 bytes", name, request("get", long)),
        _large("a name of 1,025 bytes in 513 characters", name, request("get", "é" * 512 + "e")),
        _large("a name to lease", name, request("lease", long)),
        _large("a name to put", name, request("put", long, b"")),
        _large("a name to delete", name, request("delete", [long])),
        _large("a name among entries", name, request("put_many", {long: [b""]})),
        _large(
            "a fingerprint of 1,025 bytes",
            {"limit": "fingerprint_bytes"} | print_large,
            request("get", "f", None, b"p" * 1025),
        ),
        _large(
            "a blob of 4 MiB and 1",
            {"limit": "blob_bytes", "max": blob - 1, "got": blob},
            put,
            b"\xc6" + blob.to_bytes(4, "big"),
            (b"\x00", blob),
        ),
        *(
            _large(
                f"65,537 names for {method}",
                {"limit": "names", "max": 65_536, "got": 65_537},
                b"\x94\x00" + pack(ID) + pack(method) + b"\x91" + many,
                (b"\xa1a", 65_537),
            )
            for method in ("get_many", "missing", "delete")
        ),
        *(
            _large(
                f"a producer's {key} of 129 bytes",
                {"limit": f"producer_{key}_bytes", "max": 128, "got": 129},
                request("hello", [1, 0], PRODUCER | {key: "z" * 129}),
            )
            for key in ("name", "version", "build")
        ),
    ]


def _large(why: str, detail: dict[str, Any], *payload: Piece) -> Case:
    return _case(why, "too_large", *payload, detail=detail)
