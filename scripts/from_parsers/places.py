"""Where on a command line which kind of value stands, as patterns for `case` and `switch`.

A place is COMMAND:NUMBER: behind COMMAND and 0, 1, or 2 and more of its operands. A program
without commands has no operands either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .commands import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .commands import Command, Program, Value

MOST = 2
"""More operands are counted as so many."""

_REST = {Kind.COMMAND: Kind.COMMAND_LINE, Kind.ENTRY_OR_COMMAND: Kind.COMMAND_LINE}
"""What follows a first operand that is a command."""


class Offer(NamedTuple):
    """What a TAB offers: words, and whatever is of a kind."""

    kind: Kind
    words: tuple[str, ...] = ()


def options_by_offer(program: Program) -> dict[Offer, list[str]]:
    """Return the options behind which each offer stands."""
    found: dict[Offer, list[str]] = {}
    for flag, value in program.valued_options().items():
        found.setdefault(_offer(value), []).append(flag)
    return found


def places_by_offer(program: Program) -> dict[Offer, list[str]]:
    """Return the places of each offer; a place has one."""
    found: dict[Offer, list[str]] = {}
    for command in program.commands:
        for place, offer in _operands(command):
            found.setdefault(offer, []).append(place)
    return found


def places_of_options(command: Command) -> str:
    """Return the places where a command takes options."""
    return f"{command.name}:0" if command.ends_options else f"{command.name}:*"


def switches_with_many(program: Program) -> list[str]:
    """Return the options that take all words up to the next option."""
    return [flag for flag, value in program.valued_options().items() if value.many]


def _operands(command: Command) -> Iterator[tuple[str, Offer]]:
    for number, operand in enumerate(command.operands):
        offer = _offer(operand.value)
        if rest := _REST.get(offer.kind):
            yield f"{command.name}:0", offer
            yield from _from(command, 1, Offer(rest))
        elif command.first_words:
            yield f"{command.name}:0", Offer(offer.kind, command.first_words)
            yield from _from(command, 1, offer)
        elif operand.value.many:
            yield from _from(command, number, offer)
        else:
            yield f"{command.name}:{number}", offer


def _from(command: Command, number: int, offer: Offer) -> Iterator[tuple[str, Offer]]:
    numbers = ["*"] if number == 0 else range(number, MOST + 1)
    for place in numbers:
        yield f"{command.name}:{place}", offer


def _offer(value: Value) -> Offer:
    return Offer(value.kind, value.words)
