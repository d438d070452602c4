"""Frozen values without the dataclasses module, which costs 20 ms that a shell would wait for."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import NoReturn


class FrozenValue:
    """Base of a value with `__slots__` and, in the order of its `__init__`, `__match_args__`.

    Equal when type and all fields are. `__init__` sets the fields with `object.__setattr__`.
    """

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, field) for field in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        """Compare by type and fields."""
        if type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        """Return a hash of type and fields."""
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        """Return the call that makes an equal value."""
        pairs = zip(self.__match_args__, self._fields(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle by making the value anew: its fields cannot be set."""
        return type(self), self._fields()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: the value is frozen."""
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        """Refuse: the value is frozen."""
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")
