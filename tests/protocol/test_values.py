"""Values without the dataclasses module behave like its frozen ones."""

from __future__ import annotations

import copy
import pickle

import pytest

from autoloadd_protocol.producer import Producer
from autoloadd_protocol.values import FrozenValue


class Other(FrozenValue):
    """Has a producer's fields, and is none."""

    __slots__ = __match_args__ = ("name", "version", "pointer_width", "build")

    def __init__(self) -> None:
        for field, value in zip(self.__match_args__, ("zsh", "5.9", 8, None), strict=True):
            object.__setattr__(self, field, value)


def test_equal_when_type_and_fields_are() -> None:
    zsh = Producer("zsh", "5.9")
    assert zsh == Producer("zsh", "5.9", 8, None)
    assert hash(zsh) == hash(Producer("zsh", "5.9", 8, None))
    assert zsh != Producer("zsh", "5.9", 4)
    assert zsh != Other()
    assert Other() == Other()
    assert {zsh, Producer("zsh", "5.9"), Producer("zsh", "5.9", 8, "b")} == {
        zsh,
        Producer("zsh", "5.9", build="b"),
    }


def test_shown_as_the_call_that_makes_it() -> None:
    shown = repr(Producer("zsh", "5.9", build="b"))
    assert shown == "Producer(name='zsh', version='5.9', pointer_width=8, build='b')"


def test_copied_and_pickled() -> None:
    zsh = Producer("zsh", "5.9", 4, "b")
    assert copy.deepcopy(zsh) == pickle.loads(pickle.dumps(zsh)) == zsh


def test_frozen() -> None:
    zsh = Producer("zsh", "5.9")
    with pytest.raises(AttributeError, match=r"Producer\.name cannot be set"):
        zsh.name = "bash"
    with pytest.raises(AttributeError, match=r"Producer\.name cannot be deleted"):
        del zsh.name
    with pytest.raises(AttributeError):
        zsh.other = 1


def test_matched_by_position() -> None:
    match Producer("zsh", "5.9"):
        case Producer(name, version, width, build):
            assert (name, version, width, build) == ("zsh", "5.9", 8, None)
