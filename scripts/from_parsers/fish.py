"""A program's completion for fish 3.4 and later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .commands import Kind
from .places import (
    MOST,
    Offer,
    options_by_offer,
    places_by_offer,
    places_of_options,
    switches_with_many,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .commands import Option, Program

_HEAD = "# Made by scripts/manual from the parser of {name}.\n"

_HELPERS = r"""
# Print what stands before the cursor: COMMAND:NUMBER, behind COMMAND and so many operands; the
# number of the first operand's word, or 0; and an option that takes all words up to the next one.
function __{name}_place
    set -l words (commandline -opc)
    set -l command
    set -l operands 0
    set -l first 0
    set -l many
    set -l plain 0
    set -l i 1
    while test $i -lt (count $words)
        set i (math $i + 1)
        set -l word $words[$i]
        if test $plain = 0; and string match -q -- '-?*' $word
            set many
            switch $word
                case --
                    set plain 1
                case {many}
                    set many $word
                case {single}
                    set i (math $i + 1)
            end
        else if set -q many[1]
            continue
        else if not set -q command[1]
            set command $word
        else
            test $operands = 0; and set first $i
            test $operands = {most}; or set operands (math $operands + 1)
            contains -- $command {ending}; and set plain 1
        end
    end
    printf '%s\n' "$command:$operands" $first $many
end

# Whether the cursor is at one of these places, or behind one of these options.
function __{name}_at
    set -l place (__{name}_place)
    for pattern in $argv
        string match -q -- $pattern $place[1] $place[3..3]; and return 0
    end
    return 1
end

# A tool's own words, as they are completed where it stands first.
function __{name}_command_line
    set -l words (commandline -opc)
    set -l first (__{name}_place)[2]
    set -l line "$(commandline -ct)"
    test $first -gt 0; and set -p line (string escape -- $words[$first..])
    # No tool has such a name, and `complete` would take it for an option of its own.
    string match -q -- '-*' "$line"; or complete -C "$line"
end

# Run `autoloadctl $argv` with the --socket and --producer that were typed; an answer is waited for
# half a second.
function __{name}_ask
    set -l words (commandline -opc)
    set -l given
    for i in (seq 2 (count $words))
        switch $words[$i]
            case --
                break
            case --socket --producer
                set -l value $words[(math $i + 1)]
                set -q value[1]
                and set -a given $words[$i] (string replace -r '^~/' "$HOME/" -- $value)
            case '--socket=*' '--producer=*'
                set -a given $words[$i]
        end
    end
    command $words[1] $argv[1] --timeout 0.5 $given $argv[2..] 2>/dev/null
end

function __{name}_entries
    # An option, unless what stands before says that there are no more.
    string match -q -- '-*' (commandline -ct)
    and not contains -- -- (commandline -opc)
    and return
    set -l prefix (commandline -ct | string unescape)
    __{name}_ask ls -- "$prefix"
end

# The first line of the table is a heading.
function __{name}_shards -a column
    __{name}_ask shards | string replace -r -a ' +' ' ' | string split -f $column ' ' | sed 1d
end
"""

_ACTIONS = {
    Kind.DIRECTORY: "(__fish_complete_directories)",
    Kind.ENTRY: "(__{name}_entries)",
    Kind.SHARD: "(__{name}_shards 1)",
    Kind.PRODUCER: "(__{name}_shards 2)",
    Kind.VARIABLE: "(set -nx)",
    Kind.PROCESS: "(__fish_complete_pids)",
    Kind.COMMAND: "(__{name}_command_line)",
    Kind.ENTRY_OR_COMMAND: "(__{name}_entries; __{name}_command_line)",
    Kind.COMMAND_LINE: "(__{name}_command_line)",
}


def script(program: Program) -> str:
    """Return the file."""
    text = "\n".join(
        [
            _HEAD + (_HELPERS if program.commands else ""),
            # No files, but where an option or an operand is one.
            "complete -c {name} -f",
            *_commands(program),
            *_operands(program),
            *_options(program),
            "",
        ]
    )
    ending = " ".join(command.name for command in program.commands if command.ends_options)
    many = switches_with_many(program)
    for key, value in {
        "single": " ".join(flag for flag in program.valued_options() if flag not in many),
        "many": " ".join(many),
        "most": str(MOST),
        "ending": ending,
        "name": program.name,
    }.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _commands(program: Program) -> Iterator[str]:
    for command in program.commands:
        yield _line([":*"], f"-a {command.name} -d {_quote(command.summary)}")


def _operands(program: Program) -> Iterator[str]:
    for offer, places in places_by_offer(program).items():
        if offer.kind is Kind.FILE:
            words = f" -a {_quote(' '.join(offer.words))}" if offer.words else ""
            yield _line(places, f"-F{words}")
        else:
            yield _line(places, f"-a {_quote(_values(offer))}")
    for offer, flags in options_by_offer(program).items():
        many = [flag for flag in flags if flag in switches_with_many(program)]
        if many:
            yield _line(many, f"-a {_quote(_values(offer))}")


def _options(program: Program) -> Iterator[str]:
    """Return a line for each option, with the places of all commands that have it."""
    found: dict[Option, list[str]] = {}
    for command in program.everything():
        for option in command.options:
            place = ":*" if command is program.top else places_of_options(command)
            found.setdefault(option, []).append(place)
    for option, places in found.items():
        yield _line(places if program.commands else [], " ".join(_option(option)))


def _option(option: Option) -> Iterator[str]:
    for flag in option.flags:
        yield f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
    if option.value is not None:
        offer = Offer(option.value.kind, option.value.words)
        if offer.kind is Kind.FILE:
            yield "-r -F"
        elif offer.kind is Kind.NOTHING:
            yield "-x"
        else:
            yield f"-x -a {_quote(_values(offer))}"
    yield f"-d {_quote(option.text)}"


def _values(offer: Offer) -> str:
    return _ACTIONS[offer.kind] if offer.kind in _ACTIONS else " ".join(offer.words)


def _line(places: Iterable[str], what: str) -> str:
    listed = " ".join(f'"{place}"' for place in places)
    condition = f" -n '__{{name}}_at {listed}'" if listed else ""
    return f"complete -c {{name}}{condition} {what}"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
