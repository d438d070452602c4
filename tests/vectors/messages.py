"""Makes requests.json and answers.json."""

from __future__ import annotations

from itertools import product
from typing import Any

from .shapes import (
    CACHED_AT,
    CLIENT,
    ENTRY,
    FINGERPRINT,
    ID,
    IDS,
    PRODUCER,
    TIME,
    Case,
    answer_frame,
    frame,
    pack,
    typed,
)

METHODS: dict[str, tuple[list[Any], list[Any]]] = {
    "hello": ([[1, 0]], [PRODUCER, CLIENT]),
    "ping": ([], []),
    "status": ([], []),
    "shutdown": ([], []),
    "shards": ([], []),
    "drop_shard": (["zsh-5.9-8-0011223344556677"], []),
    "get": (["_git"], [TIME, FINGERPRINT]),
    "get_many": ([["_git", "_ssh"]], [TIME]),
    "put": (["_git", b"\x00compiled\xff"], [TIME, FINGERPRINT, "fsync"]),
    "put_many": ([{"_git": ENTRY}], [TIME, "memory"]),
    "bulk_begin": (["replace"], [TIME, CACHED_AT]),
    "bulk_add": ([1, {"_git": ENTRY}], []),
    "bulk_commit": ([1], ["write"]),
    "bulk_abort": ([1], []),
    "delete": ([["_git"]], ["write"]),
    "clear": ([], ["write"]),
    "names": ([], ["_g", "_git", 1000, TIME]),
    "missing": ([["_git"]], [TIME]),
    "count": ([], []),
    "stats": ([], [TIME]),
    "flush": ([], []),
    "attach": ([[1], [1]], []),
    "lease": (["_git"], [TIME, FINGERPRINT, 10_000, 120_000, True]),
    "unlease": (["_git"], []),
    "watch": ([], [["put", "delete"]]),
}


def requests() -> list[Case]:
    """Return every method, each optional parameter left out, nil and given, and other shapes."""
    cases = [
        _request_case(method, [*required, *chosen])
        for method, (required, optional) in METHODS.items()
        for count in range(len(optional) + 1)
        for chosen in product(*((None, value) for value in optional[:count]))
    ]
    entries = (ENTRY[:1], ENTRY[:2], ENTRY[:3], [b"", None], [b"", None, None, None])
    cases += [_request_case("put_many", [{"_git": entry}]) for entry in entries]
    items = (["_git"], ["_git", None], ["_git", FINGERPRINT], ["_git", FINGERPRINT, TIME])
    cases += [_request_case("missing", [[item, "_ssh"]]) for item in items]
    cases += [_request_case("get_many", [[item, "_ssh"]]) for item in items]
    producers = (PRODUCER | {"build": build} for build in (None, "ubuntu-24.04"))
    cases += [_request_case("hello", [[1, 0], producer, CLIENT]) for producer in producers]
    cases.append(_request_case("bulk_begin", ["merge"]))
    least = ["_git", None, None, 0, 1, False]
    cases.append(_request_case("lease", least))
    cases += [_request_case("ping", [], request_id=number) for number in IDS]
    cases += [
        _request_case("put", ["_git", b"x"], notification=True),
        _request_case("put_many", [{"_git": [b"x"]}], notification=True),
        _request_case("delete", [["_git"]], notification=True),
    ]
    return cases


def _request_case(
    method: str, params: list[Any], *, request_id: int = ID, notification: bool = False
) -> Case:
    head: list[Any] = [2] if notification else [0, request_id]
    return {
        "method": method,
        "id": None if notification else request_id,
        "params": typed(params),
        "frame": frame(pack([*head, method, params])),
    }


RESULTS: list[tuple[str, Any]] = [
    ("hello, as far as it is fixed", {"protocol": [1, 0], "shard": None}),
    ("ping", "pong"),
    ("shutdown, drop_shard, bulk_abort, unlease, watch; get, lease: a miss", None),
    ("shards: none", []),
    ("get", ["_git", *ENTRY]),
    ("get: no fingerprint, no time", ["_git", b"", None, 0, CACHED_AT]),
    ("get: a time before 1970", ["_git", b"", None, -1, -(2**63)]),
    ("lease: the asker makes the entry", "fill"),
    ("get_many", [{"_git": ENTRY}, []]),
    ("get_many: nothing", [{}, []]),
    ("get_many: the frame was full", [{"_git": ENTRY}, ["_ssh"]]),
    ("put, put_many, bulk_commit: a generation", 1),
    ("a generation of 2**32", 2**32),
    ("a generation of 2**64 - 1", 2**64 - 1),
    ("names", [["_git", None]]),
    ("names: asked with a time", [["_git", True], ["_ssh", False]]),
    ("names: the end", []),
    ("missing", ["_git", "_ssh"]),
    ("stats, as far as it is fixed", {"entries": 1, "fresh": None, "stale": None}),
    ("flush", [7, 0, None]),
    ("attach", {"image_version": 1, "page_version": 1}),
]
ERRORS: list[tuple[int | None, str, str, dict[str, Any] | None]] = [
    (ID, "bad_request", "a name must have at least one byte", None),
    (None, "bad_frame", "a frame of 0 bytes", None),
    (ID, "unknown_method", "unknown method", None),
    (
        ID,
        "unsupported_protocol",
        "the server speaks 1, the client 2",
        {"server": [1, 0], "client": [2, 0], "fix": "update the server"},
    ),
    (ID, "no_producer", "say hello with a producer first", None),
    (ID, "too_large", "too large", {"limit": "blob_bytes", "max": 4194304, "got": 4194305}),
    (ID, "not_durable", "no space left on device", None),
    (ID, "busy", "4 bulk writes are open", None),
    (ID, "shutting_down", "the server stops", None),
    (ID, "internal", "a bug in the server", None),
]


def answers() -> list[Case]:
    """Return each shape of result, every error code, and every width of an id."""
    cases: list[Case] = [
        {
            "name": name,
            "id": ID,
            "error": None,
            "result": typed(result),
            "frame": answer_frame(result),
        }
        for name, result in RESULTS
    ]
    for number in IDS:
        name = f"a miss, id {number}"
        cases.append(
            {
                "name": name,
                "id": number,
                "error": None,
                "result": None,
                "frame": answer_frame(None, number),
            }
        )
    for request_id, *error in ERRORS:
        payload = pack([1, request_id, error, None])
        cases.append(
            {
                "name": error[0],
                "id": request_id,
                "error": typed(error),
                "result": None,
                "frame": frame(payload),
            }
        )
    return cases
