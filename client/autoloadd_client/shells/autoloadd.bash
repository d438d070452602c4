# autoloadd for bash 5: what slow tools print, from the cache.
#
#   source /path/to/autoloadd.bash                 in .bashrc, behind what registers completions
#   autoloadd-eval [--max-age 1d] [--env NAME]... TOOL ARGS...     for `eval "$(TOOL ARGS)"`
#   autoloadd-complete TOOL...                     the completion that TOOL has, from the cache
#
# docs/shells.md says what is cached and what is not. Whatever goes wrong with the cache, the shell
# does what it would have done without it, and says nothing. Nothing here needs a process but the
# question itself.
#
# shellcheck shell=bash

# The alias `autoloadd-eval` reads this file with arguments: text that is sourced declares its
# variables where the caller stands, as in a plain `eval` there. In a function they were local to it.
if [[ ${1-} == :autoloadd-eval: ]]; then
  shift
  # The text has the positional parameters of no one else.
  eval "shift $#; $(_autoloadd_output "$@")"
  _autoloadd_rewrap "$?" || return
  return
fi

((${BASH_VERSINFO[0]-0} >= 5)) || return 0

unalias autoloadd-eval 2>/dev/null || :

# In POSIX mode the names of functions have no hyphen. To leave it and to enter it again takes the
# variable, or makes another one.
_autoloadd_posix=
if [[ :$SHELLOPTS: == *:posix:* ]]; then
  _autoloadd_posix=(1 "${POSIXLY_CORRECT-}" "${POSIXLY_CORRECT@a}")
  set +o posix
fi

# What has a completion that runs the tool, and prints the same for the same tool: at the positions
# that _autoloadd_is_safe knows.
_autoloadd_known=(aws black flask npm pip pip3 uvicorn)

# The completion function (or -C command, with a mark before it) that each tool had.
declare -gA _autoloadd_original

# Where a directory of PATH has the program $1: in REPLY. Fails where none has.
_autoloadd_search() {
  local directory rest=${PATH-}:
  while [[ -n $rest ]]; do
    directory=${rest%%:*} rest=${rest#*:}
    REPLY=${directory:-.}/$1
    [[ -f $REPLY && -x $REPLY ]] && return 0
  done
  return 1
}

# How the client is started: by its own Python without `site`, which is a third of its time. Where
# it is not found, nothing is asked. $1 is this package, if this file was not read through a link.
_autoloadd_find_client() {
  local REPLY line=
  _autoloadd_client=()
  # Never one of the directory where we happen to stand.
  _autoloadd_search autoloadctl && [[ $REPLY == /* ]] || return 0
  { IFS= read -r line <"$REPLY"; } 2>/dev/null || :
  if [[ $line != '#!'/*python* || $line == *' '* ]]; then
    _autoloadd_client=("$REPLY")
  elif [[ -x ${line#??} ]]; then
    _autoloadd_client=("$REPLY")
    [[ ! -r $1/cli/bare.py ]] || _autoloadd_client=("${line#??}" -I -S "$1/cli/bare.py")
  fi
}

# Whether there may be a daemon to ask. The path is that of docs/protocol.md.
_autoloadd_is_there() {
  local place=${AUTOLOADD_SOCKET-} base
  case ${AUTOLOADD_CACHE-},${ZSHRS_CACHE-} in
    0,*|*,0|[Ff][Aa][Ll][Ss][Ee],*|*,[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo],*|*,[Nn][Oo]) return 1 ;;
  esac
  if [[ -z $place ]]; then
    for base in "/run/user/$EUID" "${XDG_RUNTIME_DIR-}"; do
      if [[ $base == /* && -d $base && ! -h $base && -O $base ]]; then
        place=$base/autoloadd/socket
        break
      fi
    done
  fi
  if [[ -z $place ]]; then
    base=${HOME-}/.cache
    [[ ${XDG_CACHE_HOME-} == /* ]] && base=$XDG_CACHE_HOME
    place=$base/autoloadd/run/socket
  fi
  ((${#_autoloadd_client[@]})) && [[ -S $place && -x ${_autoloadd_client[0]} ]]
}

# Print what TOOL ARGS... prints. To be run in a subshell, which becomes the client.
_autoloadd_output() {
  local usage bad= form='^--(max-age=[0-9]+[smhd]?|env=[[:alpha:]_][[:alnum:]_]*)$'
  local -a options=()
  while [[ ${1-} == -* ]]; do
    case $1 in
      --) shift; break ;;
      --max-age=*|--env=*) options+=("$1"); shift ;;
      --max-age|--env) options+=("$1=${2-}"); shift; [[ $# == 0 ]] || shift ;;
      *) break ;;
    esac
    [[ ${options[-1]} =~ $form ]] || break
  done
  if [[ -n ${options[*]} && ! ${options[-1]} =~ $form ]]; then
    bad=${options[-1]}
  elif [[ ${1-} == -* ]]; then
    bad=$1
  fi
  if [[ -n $bad || $# == 0 ]]; then
    usage='usage: autoloadd-eval [--max-age AGE] [--env NAME]... TOOL ARGS...

Does what eval "$(TOOL ARGS...)" does, with the output of TOOL from the cache.
  --max-age AGE   run TOOL again after this time: 90 or 90s, 15m, 12h, 7d
  --env NAME      run TOOL again when this variable changed, too'
    case $bad in
      -h|--help) printf 'printf "%%s\\n" %s' "${usage@Q}" ;;
      *) printf '%s\n' ${bad:+"autoloadd-eval: bad option: $bad"} "$usage" >&2; printf 'return 2' ;;
    esac
  elif _autoloadd_is_there && ! _autoloadd_is_shells_own "$1"; then
    exec "${_autoloadd_client[@]}" cached --pid "$$" --shell "bash/${BASH_VERSION%%[!0-9.]*}" \
      "${options[@]}" -- "$@"
  else
    "$@"
  fi
}

# Whether a name is a function or a builtin: no program that could be cached.
_autoloadd_is_shells_own() {
  [[ $1 != */* && $(type -t -- "$1") == @(function|builtin|keyword) ]]
}

# For places that no alias reaches, such as scripts.
function autoloadd-eval {
  eval "$(_autoloadd_output "$@")"
  _autoloadd_rewrap "$?"
}

# ---- completion

# Answer each TOOL's completion from the cache: the one that is registered, or the tool's own.
function autoloadd-complete {
  local tool status=0
  local usage='usage: autoloadd-complete TOOL...

Serves TAB for TOOL from the cache, where its completion runs TOOL itself. Use it for tools whose
answer depends only on the tool and on the words of the command line. Those that are known to be so
need it only where bash completes nothing for them:
  '${_autoloadd_known[*]}
  case ${1-} in
    -h|--help) printf '%s\n' "$usage"; return ;;
    ''|-*) printf '%s\n' ${1:+"autoloadd-complete: bad option: $1"} "$usage" >&2; return 2 ;;
  esac
  for tool; do
    complete -p -- "$tool" &>/dev/null || _autoloadd_register "$tool"
    _autoloadd_wrap "$tool" "$(complete -p -- "$tool" 2>/dev/null)" || {
      printf '%s\n' "autoloadd-complete: bash completes nothing for $tool yet: load it first" >&2
      status=1
    }
  done
  return "$status"
}

# Register the completion that TOOL brings along, or that bash-completion would when it is asked.
_autoloadd_register() {
  case $1 in
    aws) complete -C aws_completer aws ;;
    black|flask|uvicorn) eval "$(_autoloadd_output env "_${1^^}_COMPLETE=bash_source" "$1")" ;;
    npm) eval "$(_autoloadd_output npm completion)" ;;
    pip|pip3) eval "$(_autoloadd_output "$1" completion --bash)" ;;
    *) declare -F _completion_loader >/dev/null && _completion_loader "$1" &>/dev/null ;;
  esac
}

# Register _autoloadd_tab in the place of what a `complete -p` line says.
_autoloadd_wrap() {
  local tool=$1 quoted="'([^']|'\\\\'')*'"
  local form="^(complete( -[[:alpha:]]( [[:alnum:]_-]+| $quoted)?)*) -(F [^ ']+|C $quoted) ([^ ]+)$"
  [[ $tool =~ ^[[:alnum:]_.+-]+$ && $2 =~ $form ]] || return 1
  local what=${BASH_REMATCH[5]:2}
  # It is ours already.
  [[ $what != _autoloadd_tab ]] || return 0
  if [[ $what == \'* ]]; then
    local command
    eval "command=$what"
    # shellcheck disable=SC2154
    _autoloadd_original[$tool]=:$command
  else
    _autoloadd_original[$tool]=$what
  fi
  eval "${BASH_REMATCH[1]} -F _autoloadd_tab $tool"
}

# The completion function of every wrapped tool: the tool's own, run while the tool is ours.
_autoloadd_tab() {
  local _autoloadd_tool=${1##*/}
  local _autoloadd_function=${_autoloadd_original[$_autoloadd_tool]-}
  local _autoloadd_watched=$1
  local plain='^[[:alnum:]_./+~-]+$'
  if [[ ! $1 =~ $plain ]] || ! _autoloadd_is_there || ! _autoloadd_is_safe "$_autoloadd_tool"; then
    _autoloadd_watched=
  fi
  if [[ $_autoloadd_function == :* ]]; then
    _autoloadd_tab_of_command "${_autoloadd_function#:}" "$@"
    return
  fi
  # In POSIX mode not every word can be a function's name.
  if [[ -z $_autoloadd_watched || :$SHELLOPTS: == *:posix:* ]] ||
    _autoloadd_is_users_function env || _autoloadd_is_users_function "$1"
  then
    "$_autoloadd_function" "$@"
    return
  fi
  # An interrupt may leave these two behind: they then do what the programs do.
  eval "function env { _autoloadd_instead env \"\$@\"; }"
  eval "function $1 { _autoloadd_instead ${1@Q} \"\$@\"; }"
  # `set -a` is not meant for these: a tool may be a script that calls env.
  export -nf env "$1"
  "$_autoloadd_function" "$@"
  local status=$?
  unset -f env "$1"
  return "$status"
}

# Whether there is a function of this name that _autoloadd_tab did not leave behind.
_autoloadd_is_users_function() {
  declare -F -- "$1" >/dev/null && [[ $(declare -f -- "$1") != *_autoloadd_instead* ]]
}

# What `env` and the tool are while a completion function runs: always in a subshell of it.
_autoloadd_instead() {
  local word= variable
  local -a words=("$@")
  if [[ $1 == env ]]; then
    for word in "${@:2}"; do [[ $word == *=* ]] || break; done
  else
    word=$1
    # What the call itself has put before the tool.
    for variable in COMP_WORDS COMP_CWORD COMP_LINE COMP_POINT PIP_AUTO_COMPLETE; do
      [[ -v $variable && ${!variable@a} == *x* ]] && words=("$variable=${!variable}" "${words[@]}")
    done
    words=(env "${words[@]}")
  fi
  # argcomplete's tools answer elsewhere: on a descriptor of their own.
  if [[ -z ${_autoloadd_watched-} || $word != "$_autoloadd_watched" || ! -p /dev/stdout ]]; then
    command "$@"
    return
  fi
  _autoloadd_ask "$word" "${words[@]}"
}

# Ask for what the words ${@:2}, which begin with env and run the tool $1, print.
_autoloadd_ask() {
  local status=0 file
  # A Python program that gets more packages does more.
  local -a options=(--env PYTHONPATH --packages python) words=("${@:2}")
  [[ ${1##*/} == pip* ]] && status=1
  case ${1##*/} in
    aws*)
      options+=(--env AWS_DATA_PATH)
      for file in ~/.aws/cli/alias "${AWS_CONFIG_FILE:-$HOME/.aws/config}" ~/.aws/models; do
        options+=(--file "$file")
      done ;;
    flask)
      # It loads the application that it finds here. What that imports is nobody's to know.
      options+=(--max-age 10m)
      words=(env "PWD=$PWD" "${words[@]:1}")
      for file in app.py wsgi.py .env .flaskenv; do options+=(--file "$file"); done ;;
  esac
  "${_autoloadd_client[@]}" cached --kind complete --shell "bash/${BASH_VERSION%%[!0-9.]*}" \
    --pid "$$" --status "$status" "${options[@]}" -- "${words[@]}"
}

# `complete -C COMMAND`: run with the line in the environment, one answer in each line.
_autoloadd_tab_of_command() {
  local -x COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT COMP_KEY=${COMP_KEY-} COMP_TYPE=${COMP_TYPE-}
  local -a words=(env "COMP_LINE=$COMP_LINE" "COMP_POINT=$COMP_POINT" "$1" "${@:2}")
  if [[ -n $_autoloadd_watched && $1 != *[[:space:]\'\"\$]* ]]; then
    mapfile -t COMPREPLY < <(_autoloadd_ask "$1" "${words[@]}")
  else
    mapfile -t COMPREPLY < <(eval "$1" '"${@:2}"')
  fi
}

# Whether what a tool completes at this place depends on nothing but the tool.
_autoloadd_is_safe() {
  local current=${COMP_WORDS[COMP_CWORD]} word
  case $1 in
    pip|pip3)
      # Else: packages that are installed, and files.
      ((COMP_CWORD == 1)) || [[ $current == -* ]] ;;
    npm)
      # Else: scripts of package.json, packages, configuration.
      ((COMP_CWORD == 1)) || [[ $current == -* && ${COMP_WORDS[1]} != run* ]] ;;
    aws)
      # Else: what is there in the account.
      [[ $current == -* ]] && return
      for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do [[ $word != -* ]] || return 1; done ;;
    flask)
      # Else: an application that is named elsewhere.
      local IFS=' '
      [[ -z ${FLASK_APP-} && " ${COMP_WORDS[*]} " != *' '-[Ae]* &&
        " ${COMP_WORDS[*]} " != *' --'@(app|env)* ]] && ! _autoloadd_has_dotenv_above ;;
  esac
}

# Whether flask would read an application's name from a file above this directory.
_autoloadd_has_dotenv_above() {
  local directory=$PWD
  while [[ $directory == */* ]]; do
    directory=${directory%/*}
    [[ -e $directory/.env || -e $directory/.flaskenv ]] && return 0
  done
  return 1
}

# Wrap what is registered for the known tools, and for those that were opted in. One process tells of
# all of them.
_autoloadd_wrap_known() {
  local tool specs= line=$'[^\n]*'
  for tool in "${_autoloadd_known[@]}" "${!_autoloadd_original[@]}"; do
    complete -p -- "$tool" &>/dev/null || continue
    [[ -n $specs ]] || specs=$'\n'$(complete -p)$'\n'
    [[ $specs =~ $'\n'("complete "$line" $tool")$'\n' ]] &&
      _autoloadd_wrap "$tool" "${BASH_REMATCH[1]}" || :
  done
}

# Wrap what a text has registered anew; return the status that it left.
_autoloadd_rewrap() {
  # Where nobody presses TAB, there is nothing to do.
  [[ $- != *i* ]] || _autoloadd_wrap_known || :
  return "$1"
}

# At the first prompt: what was registered behind our line.
_autoloadd_at_prompt() {
  local status=$?
  PROMPT_COMMAND=${PROMPT_COMMAND-}
  PROMPT_COMMAND=${PROMPT_COMMAND/_autoloadd_at_prompt;/}
  [[ -n ${PROMPT_COMMAND[*]} ]] || unset PROMPT_COMMAND
  # Another's prompt may have kept it.
  [[ -n ${_autoloadd_prompted-} ]] || _autoloadd_wrap_known || :
  _autoloadd_prompted=1
  return "$status"
}

# Whether PROMPT_COMMAND can be changed: an administrator who logs with it makes it read-only.
_autoloadd_may_prompt() {
  local PROMPT_COMMAND
} 2>/dev/null

_autoloadd_file=${BASH_SOURCE[0]}
[[ $_autoloadd_file == /* ]] || _autoloadd_file=$PWD/$_autoloadd_file
_autoloadd_find_client "${_autoloadd_file%/shells/*}"
_autoloadd_wrap_known
_autoloadd_prompted=
if [[ $- == *i* && ${PROMPT_COMMAND-} != *_autoloadd_at_prompt* ]] && _autoloadd_may_prompt; then
  PROMPT_COMMAND="_autoloadd_at_prompt;${PROMPT_COMMAND-}"
fi
# shellcheck disable=SC2139
alias autoloadd-eval=". ${_autoloadd_file@Q} :autoloadd-eval:"
if [[ -n $_autoloadd_posix ]]; then
  set -o posix
  POSIXLY_CORRECT=${_autoloadd_posix[1]}
  [[ ${_autoloadd_posix[2]} != *x* ]] || export POSIXLY_CORRECT
fi
unset _autoloadd_posix _autoloadd_file
