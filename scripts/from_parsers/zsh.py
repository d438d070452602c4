"""A program's completion for zsh: an autoload function for fpath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .commands import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .commands import Command, Operand, Option, Program, Value

_HEAD = """\
#compdef {name}
# Made by scripts/manual from the parser of {name}.
"""

_ASKING = r"""
# Set `asked` to the lines of `autoloadctl "$@"`, with the --socket and --producer that were typed,
# and `others` to the other words of the line. An answer is waited for half a second.
(( $+functions[_autoloadctl_ask] )) ||
_autoloadctl_ask() {
  local -a given
  local word
  integer i
  for (( i = 2; i <= $#typed; i++ )); do
    (( i == at )) && continue
    word=${(Q)typed[i]}
    case $word in
      --) break ;;
      --socket|--producer)
        (( ++i == at )) || given+=($word "${${(Q)typed[i]}/#\~\//$HOME/}") ;;
      --socket=*|--producer=*) given+=("$word") ;;
    esac
  done
  others=("${(@Q)typed[1,at-1]}" "${(@Q)typed[at+1,-1]}")
  given=("${(Q)typed[1]}" "$1" --timeout 0.5 "${given[@]}" "${(@)@[2,-1]}")
  asked=(${(f)"$(_call_program names ${(q)given} 2>/dev/null)"})
}

(( $+functions[_autoloadctl_entries] )) ||
_autoloadctl_entries() {
  local -a asked others expl
  # An option, unless what stands before says that there are no more.
  [[ $PREFIX != -* || -n ${(M)typed[1,at-1]:#--} ]] || return
  _autoloadctl_ask ls -- "${(Q)PREFIX}"
  asked=("${(@)asked:|others}")
  _wanted entries expl entry compadd -a asked
}

(( $+functions[_autoloadctl_shards] )) ||
_autoloadctl_shards() {
  local -a asked others expl
  _autoloadctl_ask shards
  asked=(${${asked[2,-1]}%% *})
  asked=("${(@)asked:|others}")
  _wanted shards expl shard compadd -a asked
}

(( $+functions[_autoloadctl_producers] )) ||
_autoloadctl_producers() {
  local -a asked others expl found
  local row
  _autoloadctl_ask shards
  for row in "${(@)asked[2,-1]}"; do found+=("${${=row}[2]}"); done
  _wanted producers expl producer compadd -a found
}

(( $+functions[_autoloadctl_entries_and_commands] )) ||
_autoloadctl_entries_and_commands() {
  _alternative 'entries: :_autoloadctl_entries' 'commands:command:_command_names -e'
}
"""

# A space before an action: it takes none of the words that _arguments would add.
_ACTIONS = {
    Kind.NOTHING: "",
    Kind.FILE: "_files",
    Kind.DIRECTORY: "_directories",
    Kind.ENTRY: " _autoloadctl_entries",
    Kind.SHARD: " _autoloadctl_shards",
    Kind.PRODUCER: " _autoloadctl_producers",
    Kind.VARIABLE: '_parameters -g "*export*"',
    Kind.PROCESS: "_pids",
}

_REST = "'*:: :_normal'"
"""The words of a tool, completed as if it stood first."""

_SPECIAL = {
    Kind.COMMAND: ("'(-)1:command:_command_names -e'", _REST),
    Kind.ENTRY_OR_COMMAND: ("'1: : _autoloadctl_entries_and_commands'", _REST),
}


def script(program: Program) -> str:
    """Return the file."""
    body = _with_commands(program) if program.commands else _alone(program)
    asking = _ASKING if program.commands else ""
    return "\n".join([_HEAD.format(name=program.name) + asking, *body, ""])


def _alone(program: Program) -> Iterator[str]:
    yield "_arguments -S \\"
    yield from _specs(_options(program.top.options), indent=2)


def _with_commands(program: Program) -> Iterator[str]:
    yield f"_{program.name}() {{"
    yield "  local curcontext=$curcontext context state state_descr line ret=1"
    yield "  typeset -A opt_args"
    yield "  # The whole line: below, `words` begins with the command."
    yield '  local -a typed=("${(@)words}") commands'
    yield "  integer at=CURRENT"
    yield "  commands=("
    for command in program.commands:
        yield f"    {_quote(f'{command.name}:{_colons(command.summary)}')}"
    yield "  )"
    yield "  # Options behind the command are the command's: else they would hide what it is."
    yield "  _arguments -C -S -A '-*' \\"
    own = [*_options(program.top.options), "'1: :->command'", "'*:: :->operands'"]
    yield from _specs(own, indent=4, end=" && ret=0")
    yield "  case $state in"
    yield "    command) _describe -t commands command commands && ret=0 ;;"
    yield "    operands)"
    yield f"      curcontext=${{curcontext%:*:*}}:{program.name}-$words[1]:"
    yield "      case $words[1] in"
    for command in program.commands:
        yield from _command(command)
    yield "      esac ;;"
    yield "  esac"
    yield "  return ret"
    yield "}"
    yield ""
    yield f'_{program.name} "$@"'


def _command(command: Command) -> Iterator[str]:
    # What follows the first operand of another program's command line is that program's own.
    stop = " -A '-*'" if command.ends_options else ""
    yield f"        {command.name})"
    yield f"          _arguments -S{stop} \\"
    specs = [*_options(command.options), *_operands(command)]
    yield from _specs(specs, indent=12, end=" && ret=0 ;;")


def _specs(specs: Iterable[str], *, indent: int, end: str = "") -> Iterator[str]:
    listed = list(specs)
    for spec in listed[:-1]:
        yield f"{' ' * indent}{spec} \\"
    yield f"{' ' * indent}{listed[-1]}{end}"


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        text = option.text.replace("\\", "\\\\").replace("[", r"\[").replace("]", r"\]")
        for flag in option.flags:
            yield f"{_rivals(option)}{flag}{_quote(_option_value(option, text))}"


def _rivals(option: Option) -> str:
    """Return what may stand beside an option no more."""
    if option.ends:
        return "'(- *)'"
    if option.repeats:
        return "'*'"
    others = (*option.flags, *option.rivals)
    return f"'({' '.join(others)})'" if len(others) > 1 else ""


def _option_value(option: Option, text: str) -> str:
    if option.value is None:
        return f"[{text}]"
    # A pattern that ends the list of words: the next option.
    many = ":*-*" if option.value.many else ""
    equals = "" if option.value.many else "="
    return f"{equals}[{text}]{many}:{_colons(option.value.metavar)}:{_action(option.value)}"


def _operands(command: Command) -> Iterator[str]:
    for operand in command.operands:
        yield from _SPECIAL.get(operand.value.kind) or [_operand(command, operand)]


def _operand(command: Command, operand: Operand) -> str:
    place = "*" if operand.place == "*" else str(int(operand.place) + 1)
    optional = ":" if operand.may_miss and place != "*" else ""
    action = _action(operand.value)
    if command.first_words:
        words = " ".join(command.first_words)
        action = f' _alternative "formats:format:({words})" "files:file:{action}"'
    return _quote(f"{place}{optional}:{_colons(operand.value.metavar)}:{action}")


def _action(value: Value) -> str:
    if value.kind is Kind.WORDS:
        return f"({' '.join(value.words)})"
    return _ACTIONS[value.kind]


def _colons(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", r"\:")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
