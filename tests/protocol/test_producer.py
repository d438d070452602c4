"""Which shard a producer's entries lie in: never another's, and never outside its directory."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_protocol.errors import RequestError
from autoloadd_protocol.producer import TOOL_OUTPUT, Producer, parse_producer, producer_from_map

ZSH = {"name": "zsh", "version": "5.9", "pointer_width": 8}
TEXTS = st.text(min_size=1, max_size=30)
PRODUCERS = st.builds(
    Producer, TEXTS, TEXTS, st.sampled_from([4, 8]), st.none() | st.text(min_size=1, max_size=9)
)


@given(PRODUCERS)
def test_the_wire_form_is_read_back(producer: Producer) -> None:
    assert producer_from_map(producer.as_map()) == producer


def test_the_wire_form() -> None:
    assert Producer("zsh", "5.9").as_map() == ZSH
    assert Producer("zsh", "5.9", 8, "x").as_map() == {**ZSH, "build": "x"}
    assert producer_from_map({**ZSH, "build": None, "unknown": [1]}) == Producer("zsh", "5.9")


def test_output_of_tools_has_one_producer_for_all() -> None:
    expected = {"name": "tool-output", "version": "1", "pointer_width": 8}
    assert TOOL_OUTPUT.as_map() == expected


@given(PRODUCERS)
def test_a_shard_id_is_safe_as_a_file_name(producer: Producer) -> None:
    shard_id = producer.shard_id()
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*-[0-9a-f]{16}", shard_id)
    assert len(shard_id) <= 64


@given(PRODUCERS, PRODUCERS)
def test_producers_share_a_shard_only_if_they_are_equal(one: Producer, other: Producer) -> None:
    assert (one.shard_id() == other.shard_id()) == (one == other)


LOOKALIKES = [
    Producer("zsh", "5.9"),
    Producer("zsh", "5.9", 4),
    Producer("zsh", "5.9.1"),
    Producer("zsh", "5.9", 8, "a"),
    Producer("zsh", "5.9", 8, "8"),
    Producer("zsh\0005.9", "8"),
    Producer("zsh", "5.9\0008"),
    Producer("zsh-5.9", "8"),
    Producer("Zsh", "5.9"),
    Producer("zsh", "5/9"),
    Producer("zsh", "5-9"),
    Producer("zsh", "5.9\0008\0008"),
    Producer("zsh", "5.9", 8, "8\0"),
    Producer("zs", "h5.9"),
    Producer("x" * 128, "1"),
    Producer("x" * 127 + "y", "1"),
]


def test_producers_that_look_alike_have_shards_of_their_own() -> None:
    assert len({producer.shard_id() for producer in LOOKALIKES}) == len(LOOKALIKES)


def test_no_build_and_nil_are_the_same_shard() -> None:
    with_nil = producer_from_map({**ZSH, "build": None})
    assert with_nil.shard_id() == producer_from_map(ZSH).shard_id()


def test_a_shard_id_is_readable_and_stays_as_it_is() -> None:
    """The files of a shard are found by it, also by the next version of the daemon."""
    assert Producer("zsh", "5.9").shard_id() == "zsh-5.9-8-10c966ddd44835b4"


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "/etc/passwd", "-rf", "--", "a/../../b", "\0", "\n", "é", "~", "x" * 128],
)
def test_hostile_names_stay_inside_the_directory(name: str) -> None:
    shard_id = Producer(name, name).shard_id()
    assert "/" not in shard_id
    assert "\0" not in shard_id
    assert shard_id[0] not in ".-~"
    assert shard_id.isascii()
    assert len(shard_id) <= 64


@pytest.mark.parametrize(
    "text", ["zsh/5.9/8", "zsh/5.9/4", "zsh/5.9/8/ubuntu", "zsh/5.9/8/a/b", "tool-output/1/8"]
)
def test_a_producer_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_producer(text)) == text


def test_the_parts_of_a_written_producer() -> None:
    assert parse_producer("zsh/5.9/4/a/b") == Producer("zsh", "5.9", 4, "a/b")
    assert parse_producer("zsh/5.9/8") == Producer("zsh", "5.9")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zsh",
        "zsh/5.9",
        "zsh/5.9/16",
        "zsh/5.9/",
        "/5.9/8",
        "zsh//8",
        "zsh/5.9/8/",
        "zsh/5.9/eight",
    ],
)
def test_a_producer_that_is_written_wrong_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not NAME/VERSION/WIDTH[/BUILD]")):
        parse_producer(text)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": None}, "producer.name: expected a str that is not empty"),
        ({"name": ""}, "producer.name: expected a str that is not empty"),
        ({"name": b"zsh"}, "producer.name: expected a str that is not empty"),
        ({"version": 5}, "producer.version: expected a str that is not empty"),
        ({"build": ""}, "producer.build: expected a str that is not empty"),
        ({"build": 1}, "producer.build: expected a str that is not empty"),
        ({"pointer_width": None}, "producer.pointer_width: expected 4 or 8 (bytes)"),
        ({"pointer_width": 2}, "producer.pointer_width: expected 4 or 8 (bytes)"),
        ({"pointer_width": 8.0}, "producer.pointer_width: expected 4 or 8 (bytes)"),
        ({"pointer_width": "8"}, "producer.pointer_width: expected 4 or 8 (bytes)"),
    ],
    ids=repr,
)
def test_a_wrong_wire_form_is_a_bad_request(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        producer_from_map(ZSH | change)
    assert (caught.value.code, caught.value.message) == ("bad_request", expected)


@pytest.mark.parametrize("value", [None, "zsh/5.9/8", (), 7])
def test_what_is_no_map_is_a_bad_request(value: object) -> None:
    with pytest.raises(RequestError, match="expected a map"):
        producer_from_map(value)


@pytest.mark.parametrize("key", ["name", "version", "build"])
def test_texts_have_at_most_128_bytes(key: str) -> None:
    longest = producer_from_map({**ZSH, key: "é" * 64})
    assert getattr(longest, key) == "é" * 64
    with pytest.raises(RequestError) as caught:
        producer_from_map({**ZSH, key: "é" * 64 + "e"})
    assert caught.value.code == "too_large"
    assert caught.value.detail == {"limit": f"producer_{key}_bytes", "max": 128, "got": 129}


def test_a_producer_is_a_frozen_value() -> None:
    producer = Producer("zsh", "5.9", 8, "b")
    assert producer == copy.deepcopy(producer)
    assert hash(producer) == hash(Producer("zsh", "5.9", 8, "b"))
    assert producer != Producer("zsh", "5.9")
    assert producer != ("zsh", "5.9", 8, "b")
    with pytest.raises(AttributeError):
        producer.name = "bash"
    with pytest.raises(AttributeError):
        del producer.name
    assert repr(producer) == "Producer(name='zsh', version='5.9', pointer_width=8, build='b')"
