"""A program's completion for bash 4.3 and later, with bash-completion or without."""

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

    from .commands import Program

_HEAD = """\
# shellcheck shell=bash disable=SC2034,SC2046
# Made by scripts/manual from the parser of {name}.

# Offer words, those that begin as what is typed does.
_{name}_words() {
  local word
  compopt +o default
  for word; do
    word=$before$word
    [[ $word != "$typed"* ]] || COMPREPLY+=("${word#"$lead"}")
  done
}
"""

_ASKING = r"""
# Run `autoloadctl "$@"` with the --socket and --producer that were typed; an answer is waited for
# half a second.
_{name}_ask() {
  "${words[0]/#\~\//$HOME/}" "$1" --timeout 0.5 "${given[@]}" "${@:2}" 2>/dev/null
}

# A name may hold whatever a shell obeys: it is quoted, and never expanded.
_{name}_entries() {
  local name quoted
  compopt +o default
  [[ $typed != [\"\']* ]] || return
  while IFS= read -r name; do
    printf -v quoted %q "$name"
    [[ $quoted != "$typed"* ]] || COMPREPLY+=("${quoted#"$lead"}")
  done < <(_{name}_ask ls -- "${typed//\\/}")
}

_{name}_shards() {
  local shard producer _ shards=() producers=()
  while read -r shard producer _; do
    shards+=("$shard")
    producers+=("$producer")
  done < <(_{name}_ask shards)
  # The first line is a heading.
  if [[ $1 == producers ]]; then shards=("${producers[@]}"); fi
  _{name}_words "${shards[@]:1}"
}

# A tool's own words, as it completes them where it stands first.
_{name}_command_line() {
  local function
  for function in _comp_command_offset _command_offset; do
    if declare -F "$function" >/dev/null; then
      "$function" "$tool"
      return
    fi
  done
}
"""

_PARSE = r"""
_{name}() {
  local rest=${COMP_LINE:0:COMP_POINT} ahead word option='' before='' many='' plain='' command=''
  local IFS=$' \t\n' words=() starts=() given=() tool=0 last i typed lead
  local -i operands=0
  COMPREPLY=()
  # Words as the shell has them: COMP_WORDBREAKS divides `--socket=/x` and `a:b`.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    ahead=${rest%%[![:space:]]*}
    rest=${rest#"$ahead"}
    word=${COMP_WORDS[i]}
    ((i < COMP_CWORD)) || word=$rest
    if [[ -n $ahead || ${#words[@]} -eq 0 ]]; then
      words+=("$word")
      starts+=("$i")
    else
      words[-1]+=$word
    fi
    rest=${rest#"$word"}
  done
  typed=${words[-1]}
  lead=${typed%"$2"}
  last=$((${#words[@]} - 1))
  for ((i = 1; i < last; i++)); do
    word=${words[i]}
    if [[ -z $plain && $word == -- ]]; then
      plain=1 many=''
    elif [[ -z $plain && $word == -?* ]]; then
      many=''
      case $word in
"""

_PARSED = r"""
      esac
    elif [[ -n $many ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((operands)) || tool=${starts[i]}
      ((operands == {most})) || operands+=1
      case $command in
        {ending}) plain=1 ;;
      esac
    fi
  done
  if [[ -n $plain || $typed == -* ]]; then
    many=''
  fi
  option=${option:-$many}
  if [[ -z $option && -z $plain && $typed == --*=* ]]; then
    option=${typed%%=*} before=${typed%%=*}=
  fi
  case $option in
"""

_SOCKET = ("--socket", "--producer")
"""The options that decide what the daemon is asked."""


def script(program: Program) -> str:
    """Return the file."""
    ending = [command.name for command in program.commands if command.ends_options]
    text = "\n".join(
        [
            _HEAD + (_ASKING if program.commands else "") + _PARSE.rstrip("\n"),
            *_values(program),
            _PARSED.strip("\n"),
            *_option_cases(program),
            "  esac",
            "  if [[ -z $plain && $typed == -* ]]; then",
            "    case $command:$operands in",
            *_options(program),
            "    esac",
            "    compopt +o default",
            "    return",
            "  fi",
            "  case $command:$operands in",
            *_operand_cases(program),
            "    *) compopt +o default ;;",
            "  esac",
            "}",
            "",
            "complete -o default -F _{name} {name}",
            "",
        ]
    )
    names = {"most": str(MOST), "ending": " | ".join(ending) or "''", "name": program.name}
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _values(program: Program) -> Iterator[str]:
    """Walk over what an option takes; note which one has its value at the cursor."""
    many = switches_with_many(program)
    single = [flag for flag in program.valued_options() if flag not in (*many, *_SOCKET)]
    if many:
        yield f"        {' | '.join(many)}) many=$word ;;"
    if program.commands:
        yield f"        {' | '.join(_SOCKET)})"
        yield "          if ((++i == last)); then"
        yield "            option=$word"
        yield "          else"
        yield "            ahead=${words[i]//[\\\"\\'\\\\]/}"
        yield '            given+=("$word" "${ahead/#\\~\\//$HOME/}")'
        yield "          fi"
        yield "          ;;"
        yield f'        {" | ".join(f"{flag}=*" for flag in _SOCKET)}) given+=("$word") ;;'
    else:
        single = list(program.valued_options())
    yield f"        {' | '.join(single)}) ((++i < last)) || option=$word ;;"


def _option_cases(program: Program) -> Iterator[str]:
    for offer, flags in options_by_offer(program).items():
        yield from _case(flags, _action(offer), more="return")


def _operand_cases(program: Program) -> Iterator[str]:
    if program.commands:
        yield from _case([":*"], "_{name}_words " + " ".join(c.name for c in program.commands))
    for offer, places in places_by_offer(program).items():
        yield from _case(places, _action(offer))


def _case(patterns: Iterable[str], action: str, *, more: str = "") -> Iterator[str]:
    yield f"    {' | '.join(patterns)})"
    yield from (f"      {line}" for line in (*action.split("\n"), more) if line)
    yield "      ;;"


def _options(program: Program) -> Iterator[str]:
    for command in program.everything():
        place = ":*" if command is program.top else places_of_options(command)
        flags = " ".join(flag for option in command.options for flag in option.flags)
        yield f"      {place}) _{{name}}_words {flags} ;;"


def _action(offer: Offer) -> str:
    words = "_{name}_words " + " ".join(offer.words) if offer.words else ""
    match offer.kind:
        case Kind.WORDS:
            return words
        case Kind.NOTHING:
            return "compopt +o default"
        case Kind.FILE:
            # bash's own completion of files comes where nothing else is offered.
            return f"{words}\ncompopt -o default" if words else ":"
        case Kind.DIRECTORY:
            return "compopt +o default -o dirnames"
        case Kind.ENTRY:
            return "_{name}_entries"
        case Kind.SHARD:
            return "_{name}_shards shards"
        case Kind.PRODUCER:
            return "_{name}_shards producers"
        case Kind.VARIABLE:
            return "_{name}_words $(compgen -e)"
        case Kind.PROCESS:
            return "_{name}_words $(ps -eo pid=)"
        case Kind.COMMAND:
            return 'mapfile -t COMPREPLY < <(compgen -c -- "$typed")'
        case Kind.ENTRY_OR_COMMAND:
            return (
                '_{name}_entries\nmapfile -t -O "${#COMPREPLY[@]}" COMPREPLY '
                '< <(compgen -c -- "$typed")'
            )
        case Kind.COMMAND_LINE:
            return "_{name}_command_line"
