"""Makes dialogue.json."""

from __future__ import annotations

from typing import Any

from .shapes import (
    CACHED_AT,
    CLIENT,
    ENTRY,
    FINGERPRINT,
    ID,
    IDS,
    LATER,
    PRODUCER,
    TIME,
    Case,
    answer,
    answer_frame,
    frame,
    hexed,
    joined,
    length,
    notify,
    pack,
    request,
    token_frame,
    typed,
)


def dialogues() -> list[Case]:
    """Return conversations, each on a connection and in a shard of its own."""
    told: dict[str, list[Case]] = {
        "control without a producer": _control(),
        "put and get": _put_and_get(),
        "freshness": _freshness(),
        "many": _many(),
        "names and missing": _names(),
        "delete and clear": _delete(),
        "bulk": _bulk(),
        "bulk and hello": _bulk_and_hello(),
        "lease": _lease(),
        "refused notifications": _refused_notifications(),
        "ids and pipelining": _pipelining(),
        "every form of a value": _forms(),
        "hello again": _hello_again(),
        "boundary sizes": _sizes(),
    }
    return [{"name": name, "steps": steps} for name, steps in told.items()]


def _call(result: object, method: str, *params: object, request_id: int = ID) -> Case:
    return {
        "send": frame(request(method, *params, request_id=request_id)),
        "receive": answer_frame(result, request_id),
    }


def _refusal(code: str, method: str, *params: object) -> Case:
    return {"send": frame(request(method, *params)), "receive_error": {"id": ID, "code": code}}


def _tell(method: str, *params: object) -> Case:
    return {"send": frame(notify(method, *params)), "receive": ""}


def _hello(shard: str, **producer: object) -> Case:
    made = {"name": shard, "version": "1", "pointer_width": 8} | producer
    return {
        "send": frame(request("hello", [1, 0], made, CLIENT)),
        "receive_map": {"id": ID, "includes": typed({"protocol": [1, 0]})},
    }


def _control() -> list[Case]:
    return [
        _call("pong", "ping"),
        _refusal("no_producer", "get", "f"),
        {
            "send": frame(request("hello", [1, 0])),
            "receive_map": {"id": ID, "includes": typed({"protocol": [1, 0], "shard": None})},
        },
        _refusal("no_producer", "count"),
        {
            "send": frame(request("hello", [1, 7], None, CLIENT)),
            "receive_map": {"id": ID, "includes": typed({"protocol": [1, 0], "shard": None})},
        },
        _refusal("unsupported_protocol", "hello", [2, 0], PRODUCER),
        _call("pong", "ping"),
    ]


def _put_and_get() -> list[Case]:
    return [
        _hello("vectors-put"),
        _call(None, "get", "_git"),
        _call(0, "count"),
        _call([], "names"),
        _call(1, "put", "_git", b"one"),
        _call(1, "count"),
        _call(2, "put_many", {"_git": ENTRY}),
        _call(["_git", *ENTRY], "get", "_git"),
        _call(1, "count"),
        _call(3, "put_many", {"_git": [b"", None, None, CACHED_AT]}),
        _call(["_git", b"", None, 0, CACHED_AT], "get", "_git"),
        _call(4, "put_many", {"_git": [b"x", None, None, CACHED_AT]}, TIME, "memory"),
        _call(["_git", b"x", None, TIME, CACHED_AT], "get", "_git"),
        _call(5, "put_many", {"_git": [b"x", None, -5, -(2**63)]}, TIME, "fsync"),
        _call(["_git", b"x", None, -5, -(2**63)], "get", "_git"),
        _call(6, "put_many", {"_git": [b"x", None, 2**63 - 1, 2**63 - 1]}),
        _call(["_git", b"x", None, 2**63 - 1, 2**63 - 1], "get", "_git"),
        _tell("put", "_ssh", b"told"),
        _call(2, "count"),
        _tell("put_many", {"_ssh": ENTRY}),
        _call(["_ssh", *ENTRY], "get", "_ssh"),
        _call([8, 0, None], "flush"),
    ]


def _freshness() -> list[Case]:
    entry = ["f", b"x", FINGERPRINT, TIME, CACHED_AT]
    other = FINGERPRINT + b"\x00"
    return [
        _hello("vectors-fresh"),
        _call(1, "put_many", {"f": entry[1:], "plain": [b"y", None, TIME, CACHED_AT]}),
        _call(entry, "get", "f"),
        _call(entry, "get", "f", None, None),
        _call(entry, "get", "f", TIME),
        _call(entry, "get", "f", TIME - 1),
        _call(None, "get", "f", LATER),
        _call(entry, "get", "f", None, FINGERPRINT),
        _call(entry, "get", "f", TIME, FINGERPRINT),
        _call(None, "get", "f", LATER, FINGERPRINT),
        _call(None, "get", "f", None, other),
        _call(None, "get", "f", None, FINGERPRINT[:-1]),
        _call(["plain", b"y", None, TIME, CACHED_AT], "get", "plain"),
        _call(None, "get", "plain", None, FINGERPRINT),
        _call([{"f": entry[1:]}, []], "get_many", ["f", "plain"], None) | _only_f(),
        _call([], "missing", ["f", "plain"], TIME),
        _call(["f", "plain"], "missing", ["f", "plain"], LATER),
    ]


def _only_f() -> Case:
    asked = ["f", ["plain", FINGERPRINT]]
    return {"send": frame(request("get_many", asked))}


def _many() -> list[Case]:
    return [
        _hello("vectors-many"),
        _call([{}, []], "get_many", []),
        _call([{}, []], "get_many", ["a", "b"]),
        _call(1, "put_many", {"a": ENTRY, "b": [b"", None, LATER, CACHED_AT]}),
        _call([{"a": ENTRY}, []], "get_many", ["a", "c"]),
        _call([{"b": [b"", None, LATER, CACHED_AT]}, []], "get_many", ["a", "b"], LATER),
        _call([{"a": ENTRY}, []], "get_many", [["a", FINGERPRINT, TIME], ["b", FINGERPRINT]]),
        _call([{"a": ENTRY}, []], "get_many", [["a", None, TIME]], LATER),
        _refusal("bad_request", "put_many", {"c": [b""], "d": "no entry"}),
        _call(None, "get", "c"),
        _call(2, "count"),
    ]


def _names() -> list[Case]:
    made = {
        name: [b"", None, TIME, CACHED_AT]
        for name in ("b", "a", "ab", "é", "\U0001f41a", "Z", "a\x00")
    }
    made["new"] = [b"", FINGERPRINT, LATER, CACHED_AT]
    ordered = sorted(made, key=str.encode)
    return [
        _hello("vectors-names"),
        _call(1, "put_many", made),
        _call([[name, None] for name in ordered], "names"),
        _call([[name, None] for name in ordered], "names", None, None, None, None),
        _call([[name, name == "new"] for name in ordered], "names", "", "", 1000, LATER),
        _call([["a", None], ["a\x00", None], ["ab", None]], "names", "a"),
        _call([["a\x00", None]], "names", "a", "a", 1),
        _call([["ab", None]], "names", "a", "a\x00", 1),
        _call([], "names", "a", "ab", 1),
        _call([["b", None], ["new", None]], "names", None, "ab", 2),
        _call([], "names", "nothing"),
        _call([["\U0001f41a", None]], "names", None, "é"),
        _call(["c", "d"], "missing", ["c", "a", "d", "b"]),
        _call(["a"], "missing", ["a", "new"], LATER),
        _call(["a"], "missing", ["new", ["a", FINGERPRINT]]),
        _call([], "missing", [["new", FINGERPRINT, LATER], "é"]),
        _call(["new"], "missing", [["new", FINGERPRINT, LATER + 1]]),
        _call([], "missing", []),
        _call(8, "count"),
        {
            "send": frame(request("stats", LATER)),
            "receive_map": {
                "id": ID,
                "includes": {
                    "map": [["entries", 8], ["fresh", 1], ["stale", 7], ["generation", 1]]
                },
            },
        },
    ]


def _delete() -> list[Case]:
    entry = [b"x", None, TIME, CACHED_AT]
    return [
        _hello("vectors-delete"),
        _call(0, "delete", ["a"]),
        _call(0, "delete", []),
        _call(0, "clear"),
        _call(3, "count") | _call(0, "count"),
        {
            "send": frame(request("put_many", {"a": entry, "b": entry, "c": entry})),
            "receive_uint": ID,
        },
        _call(1, "delete", ["a", "d"]),
        _call(None, "get", "a"),
        _call(0, "delete", ["a"], "fsync"),
        _call(["b", *entry], "get", "b"),
        _tell("delete", ["b"]),
        _call([["c", None]], "names"),
        {"send": frame(request("put_many", {"b": entry})), "receive_uint": ID},
        _call(2, "clear", "write"),
        _call(0, "count"),
        _call([], "names"),
        _call(None, "get", "c"),
        _call(["c"], "missing", ["c"]),
        {"send": frame(request("put_many", {"c": entry})), "receive_uint": ID},
        _call(["c", *entry], "get", "c"),
        _call(1, "count"),
    ]


def _with_token(result: object, method: str, *params: object) -> Case:
    return {"send": token_frame(method, *params), "receive": answer_frame(result)}


def _begin(*params: object) -> Case:
    return {"send": frame(request("bulk_begin", *params)), "receive_token": ID}


def _bulk() -> list[Case]:
    old, new = [b"old", None, TIME, CACHED_AT], [b"new", FINGERPRINT, LATER, CACHED_AT]
    bare = [b"bare", None, None, CACHED_AT]
    return [
        _hello("vectors-bulk"),
        _call(1, "put_many", {"a": old, "b": old}),
        _begin("merge", TIME),
        _refusal("busy", "bulk_begin", "merge"),
        _with_token(1, "bulk_add", {"b": new}),
        _with_token(2, "bulk_add", {"c": bare}),
        _call(["b", *old], "get", "b"),
        _call(2, "count"),
        _with_token(2, "bulk_commit"),
        _call(["b", *new], "get", "b"),
        _call(["c", b"bare", None, TIME, CACHED_AT], "get", "c"),
        _call(3, "count"),
        {"send": token_frame("bulk_commit"), "receive_error": {"id": ID, "code": "bad_request"}},
        _begin("replace", None, CACHED_AT),
        _with_token(2, "bulk_add", {"c": bare, "d": new}),
        _call(3, "count"),
        {"send": token_frame("bulk_commit", "fsync"), "receive_uint": ID},
        _call(2, "count"),
        _call(None, "get", "a"),
        _call(["c", b"bare", None, 0, CACHED_AT], "get", "c"),
        _call([["c", None], ["d", None]], "names"),
        _begin("replace"),
        _with_token(1, "bulk_add", {"e": new}),
        _with_token(None, "bulk_abort"),
        _call([["c", None], ["d", None]], "names"),
        _begin("replace"),
        {"send": token_frame("bulk_commit"), "receive_uint": ID},
        _call(0, "count"),
    ]


def _bulk_and_hello() -> list[Case]:
    """Return a bulk during which the connection turns to another producer, and to none."""
    entry = [b"x", None, TIME, CACHED_AT]
    return [
        _hello("vectors-bulk-one"),
        _begin("merge"),
        _hello("vectors-bulk-two"),
        _with_token(1, "bulk_add", {"f": entry}),
        _refusal("bad_request", "hello"),
        _with_token(2, "bulk_add", {"g": entry}),
        {"send": token_frame("bulk_commit"), "receive_uint": ID},
        _hello("vectors-bulk-two"),
        _call(0, "count"),
        _hello("vectors-bulk-one"),
        _call([["f", None], ["g", None]], "names"),
    ]


def _lease() -> list[Case]:
    """Return what one connection alone can see: it never waits for itself."""
    old, new = [b"old", b"p", TIME, CACHED_AT], [b"new", FINGERPRINT, TIME, CACHED_AT]
    wanted = (None, FINGERPRINT, 10_000)
    return [
        _hello("vectors-lease"),
        _call("fill", "lease", "f"),
        _call("fill", "lease", "f", None, None, 10_000, 120_000, True),
        _call(None, "get", "f"),
        _call(0, "count"),
        _call(1, "put_many", {"f": old}),
        _call(["f", *old], "lease", "f"),
        _call(["f", *old], "lease", "f", TIME, b"p", None, None, False),
        _call("fill", "lease", "f", LATER),
        _call(None, "unlease", "f"),
        _call(None, "unlease", "f"),
        _call(None, "unlease", "other"),
        _call("fill", "lease", "f", *wanted, None, True),
        _call("fill", "lease", "f", *wanted, 1, True),
        _call(2, "put_many", {"f": new}),
        _call(["f", *new], "lease", "f", *wanted),
        _refusal("bad_request", "lease", "f", None, None, 10_001),
        _call(["f", *new], "get", "f"),
    ]


def _refused_notifications() -> list[Case]:
    not_utf8 = b"\x93\x02" + pack("put") + b"\x92\xa1\xff\xc4\x00"
    twice = b"\x93\x02" + pack("put_many") + b"\x91\x82" + (b"\xa1f\x91\xc4\x00" * 2)
    return [
        _hello("vectors-refused"),
        _call([0, 0, None], "flush"),
        _tell("put", "f"),
        _tell("put", "f", "no blob"),
        _tell("put", "n" * 1025, b""),
        _tell("delete", "f"),
        _tell("ping"),
        _tell("nothing"),
        {"send": frame(not_utf8), "receive": ""},
        {"send": frame(twice), "receive": ""},
        {"send": frame(pack([2, 7, []])), "receive": ""},
        {"send": frame(pack([2, "put"])), "receive": ""},
        {
            "send": frame(request("flush")),
            "receive_flush": {"id": ID, "generation": 0, "refused": 10},
        },
        _call([0, 0, None], "flush"),
        _call(1, "put", "f", b""),
        _call([1, 0, None], "flush"),
    ]


def _pipelining() -> list[Case]:
    pairs = [(number, request("ping", request_id=number)) for number in IDS]
    sent = b"".join(length(payload) + payload for _, payload in pairs)
    received = [answer("pong", number) for number, _ in pairs]
    writes = [
        request("put_many", {"f": [b"1", None, 1, 1]}, request_id=1),
        request("get", "f", request_id=2),
        notify("put_many", {"f": [b"2", None, 2, 2]}),
        request("get", "f", request_id=2),
        request("delete", ["f"], request_id=1),
        request("get", "f", request_id=2),
    ]
    answered = [
        answer(1, 1),
        answer(["f", b"1", None, 1, 1], 2),
        answer(["f", b"2", None, 2, 2], 2),
        answer(1, 1),
        answer(None, 2),
    ]
    return [
        _hello("vectors-pipelining"),
        {"send": hexed(sent), "receive": hexed(joined(received))},
        {"send": hexed(joined(writes)), "receive": hexed(joined(answered))},
    ]


def _forms() -> list[Case]:
    """Return requests in forms that are longer than they need be: the values count."""
    wide_id = b"\xdd\x00\x00\x00\x04\xcf" + bytes(8) + b"\xcf\x00\x00\x00\x00\x00\x00\x00\x05"
    ping = wide_id + b"\xdb\x00\x00\x00\x04ping\xdd\x00\x00\x00\x00"
    name, blob = b"\xdb\x00\x00\x00\x01f", b"\xc6\x00\x00\x00\x01x"
    entry = (
        b"\xdc\x00\x04" + blob + b"\xc5\x00\x01p" + b"\xd3" + bytes(7) + b"\x05\xd3" + b"\xff" * 8
    )
    put = b"\x94\xd0\x00\xcd\x00\x05\xd9\x08put_many\xdc\x00\x01\xdf\x00\x00\x00\x01" + name + entry
    get = b"\x94\xcc\x00\x05\xda\x00\x03get\x93" + name + b"\xd1\x00\x05\xc6\x00\x00\x00\x01p"
    return [
        _hello("vectors-forms"),
        {"send": frame(ping), "receive": answer_frame("pong", 5)},
        {"send": frame(put), "receive": answer_frame(1, 5)},
        {"send": frame(get), "receive": answer_frame(["f", b"x", b"p", 5, -1], 5)},
    ]


def _hello_again() -> list[Case]:
    entry = [b"x", None, 0, 0]
    return [
        _hello("vectors-again"),
        _call(1, "put_many", {"f": entry}),
        _hello("vectors-again", build="other"),
        _call(None, "get", "f"),
        _hello("vectors-again", version="2"),
        _call(None, "get", "f"),
        _hello("vectors-again", pointer_width=4),
        _call(None, "get", "f"),
        _hello("vectors-again", build=None),
        _call(["f", *entry], "get", "f"),
        _refusal("bad_request", "hello", [1, 0], {"name": "vectors-again"}),
        _refusal("no_producer", "get", "f"),
        _hello("vectors-again", unknown="ignored"),
        _call(["f", *entry], "get", "f"),
        _refusal("unsupported_protocol", "hello", [2, 0], PRODUCER),
        _refusal("no_producer", "count"),
    ]


def _sizes() -> list[Case]:
    names = ["n" * size for size in (1, 31, 32, 39, 40, 255, 256, 1024)]
    blobs = [b"\xff" * size for size in (0, 255, 256, 65535, 65536)]
    entries: list[tuple[str, list[Any]]] = [
        *((name, [b"x", None, TIME, CACHED_AT]) for name in names),
        *(("f", [blob, None, TIME, CACHED_AT]) for blob in blobs),
        *(("f", [b"", b"p" * size, TIME, CACHED_AT]) for size in (1, 255, 256, 1024)),
    ]
    steps = [_hello("vectors-sizes")]
    for generation, (name, entry) in enumerate(entries, 1):
        steps.append(_call(generation, "put_many", {name: entry}))
        steps.append(_call([name, *entry], "get", name))
    return steps
