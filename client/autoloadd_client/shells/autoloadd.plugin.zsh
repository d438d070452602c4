# autoloadd for zsh 5.8 and later: what slow tools print, and compiled functions, from the cache.
#
#   source /path/to/autoloadd.plugin.zsh          in .zshrc, or as a plugin of a plugin manager
#   autoloadd-eval [--max-age 1d] [--env NAME]... TOOL ARGS...     for `eval "$(TOOL ARGS)"`
#   autoloadd-complete [--max-age 1d] [--env NAME]... TOOL...      TOOL's own completion, cached
#   autoloadd-get, autoloadd-put                                   for other plugins
#
# docs/shells.md says what is cached and what is not; docs/protocol.md is the wire. Whatever goes
# wrong with the cache, the shell does what it would have done without it, and says nothing.
#
# The file is read in three ways, which the first two conditions tell apart: for one
# `autoloadd-eval`; by the user; and by itself, under zsh's own options: then from a compiled copy, if
# an earlier shell has left one. Where zsh reads text, what stands behind the lines `---- read when`
# is read when it is needed.

# The alias `autoloadd-eval` reads this file with arguments: only what `source` runs has the scope,
# the options and the status of a plain `eval` at that place. A function has a scope of its own.
if [[ ${1-} == ':autoloadd-eval:' ]]; then
  'builtin' 'shift'
  '_autoloadd_output' "$@"
  'builtin' 'set' '--'
  'builtin' 'eval' "'builtin' 'unset' '_autoloadd_text';$_autoloadd_text"
  'builtin' 'return'
fi

if [[ -z ${_autoloadd_inner-} ]]; then
  # The user's aliases must not change what the lines below mean. (zsh reads all of an `if` at once.)
  # Nothing is assigned without `typeset -g`: of that WARN_NESTED_VAR tells, where a function reads us.
  'builtin' 'typeset' '-g' _autoloadd_aliases=no_aliases
  [[ -o aliases ]] && 'builtin' 'typeset' '-g' _autoloadd_aliases=aliases
  'builtin' 'setopt' 'no_aliases'
fi

if [[ -z ${_autoloadd_inner-} ]]; then
  # What finds the compiled copy is read, and may be run, under the caller's options: SH_GLOB wants
  # patterns quoted, IGNORE_BRACES each closing brace on a line of its own.

  # Set $place to the socket's path, as docs/protocol.md says; to '' where none can be used, and fail:
  # its directory has to be ours alone, and zsocket cuts a path of more than 107 bytes; one of just 107
  # it does not end.
  function _autoloadd_place {
    builtin emulate -L zsh -o extended_glob -o no_multibyte
    builtin local socket base off='[[:space:]]#(0|false|no)[[:space:]]#' is_private='(N/Uf:go-rwx:)'
    builtin local -a found
    _autoloadd_place=
    # (It may neither redirect nor load a module.)
    [[ ! -o restricted ]] || builtin return 1
    [[ ${(L)AUTOLOADD_CACHE-} != ${~off} ]] || builtin return 1
    [[ ${(L)ZSHRS_CACHE-} != ${~off} ]] || builtin return 1
    socket=${AUTOLOADD_SOCKET-}
    if [[ -z $socket ]]; then
      for base in /run/user/$EUID ${XDG_RUNTIME_DIR-}; do
        [[ $base == /* && -d $base && ! -h $base && -O $base ]] || builtin continue
        socket=$base/autoloadd/socket
        builtin break
      done
    fi
    if [[ -z $socket ]]; then
      [[ ${XDG_CACHE_HOME-} == /* ]] && base=$XDG_CACHE_HOME || base=${HOME-}/.cache
      socket=$base/autoloadd/run/socket
    fi
    [[ $socket == /* ]] && (( $#socket <= 106 )) || builtin return 1
    found=( ${socket:h}${~is_private} )
    (( $#found )) && _autoloadd_place=$socket
  }

  # Set $size, $inode and $mtime (in ns) to those of the file $1. One by one: all at once, with times
  # as texts, would look up the names of owner and group, too.
  function _autoloadd_stat {
    zstat -A size +size -- "$1" && zstat -A inode +inode -- "$1" &&
      zstat -A mtime -F %s%9. +mtime -- "$1"
  }

  # Set $copy to where the compiled copy of this file belongs, as it is now, without its `.zwc`.
  function _autoloadd_place_copy {
    builtin emulate -L zsh
    builtin local -a size inode mtime
    {
      zmodload -F zsh/stat b:zstat && _autoloadd_stat $_autoloadd_file &&
        _autoloadd_copy=${_autoloadd_place:h}/plugin-$ZSH_VERSION-$size-$inode-$mtime
    } 2>/dev/null
  }

  # Set $place; $copy if there is one; and whether zsh has to read the text: what is beside the file it
  # takes by itself, as long as it is of its version.
  function _autoloadd_find_copy {
    builtin emulate -L zsh
    builtin local any='-*.zwc(N)'
    builtin local -a found
    _autoloadd_place
    if [[ -e $_autoloadd_file.zwc && ! $_autoloadd_file -nt $_autoloadd_file.zwc ]] &&
      zcompile -t $_autoloadd_file.zwc ${_autoloadd_file:t} 2>/dev/null
    then
      _autoloadd_is_text=0
      builtin return 1
    fi
    [[ -n $_autoloadd_place ]] && found=( ${_autoloadd_place:h}/plugin-$ZSH_VERSION${~any} ) &&
      (( $#found )) && _autoloadd_place_copy && [[ -e $_autoloadd_copy.zwc ]]
  }

  # In quotes: SH_WORD_SPLIT and GLOB_SUBST would take the path apart.
  builtin typeset -g _autoloadd_inner=1 _autoloadd_is_text=1 _autoloadd_place= _autoloadd_copy= \
    _autoloadd_file="${${(%):-%x}:A}"
  # What is not printable (in the C locale an accented letter) a prompt shows in another way.
  [[ -r $_autoloadd_file ]] ||
    builtin typeset -g _autoloadd_file="${${functions_source[_autoloadd_place]-}:A}"
  # Plugin managers may evaluate the text, and say where it came from.
  [[ ${ZERO-} == */autoloadd.plugin.zsh && -r $ZERO ]] &&
    builtin typeset -g _autoloadd_file="${ZERO:A}"
  # Functions that are defined here run under these options, whoever calls them, and leave the
  # caller's as they were. Bytes, not characters: lengths are lengths on the wire. A copy that
  # is damaged is not read to its end.
  {
    builtin emulate zsh -o no_aliases -o no_multibyte -o extended_glob -o local_traps \
      -o no_hash_list_all -o no_err_exit -o no_err_return -o no_xtrace -o no_warn_create_global \
      -o no_bg_nice -o no_force_float -o typeset_silent -c \
      '_autoloadd_find_copy && builtin source "$_autoloadd_copy" 2>/dev/null;'\
' [[ $_autoloadd_inner == whole ]] || { _autoloadd_copy=; builtin source "$_autoloadd_file"; }'
  } always {
    # Also after Ctrl-C.
    builtin setopt "$_autoloadd_aliases"
    unset _autoloadd_inner _autoloadd_copy _autoloadd_aliases
  }

  # From here on: what has to run under the caller's own options.

  # For places that no alias reaches. Text that declares something is evaluated by an EXIT trap,
  # which zsh runs in the caller's scope; it cannot give its status back, so all other text is
  # evaluated here, unless zsh would warn of it. Traps do not nest: in one, this is the scope.
  function autoloadd-eval {
    _autoloadd_output "$@"
    if [[ -o warn_create_global || -o warn_nested_var ]] || _autoloadd_declares &&
      [[ " ${zsh_eval_context[*]-} " != *' trap '* ]]; then
      # Under POSIX_TRAPS the trap would be the shell's own.
      builtin emulate -L zsh
      builtin trap -- 'builtin eval "builtin unset _autoloadd_text;$_autoloadd_text"' EXIT
      builtin return 0
    fi
    builtin set --
    builtin eval "builtin unset _autoloadd_text;$_autoloadd_text"
  }

  # _autoloadd_tab TOOL FUNCTION ARGS...: a completion function, run while TOOL is ours.
  function _autoloadd_tab {
    builtin local -a _autoloadd_watched
    _autoloadd_watch "$@"
    builtin shift
    {
      "$@"
    } always {
      _autoloadd_unwatch
    }
  }

  function autoloadd-complete {
    _autoloadd_choose "$@" || builtin return
    # Its functions get the options that completion functions have.
    builtin eval "builtin unset _autoloadd_text;$_autoloadd_text"
    _autoloadd_hook
  }

  function _autoloadd_first_prompt {
    _autoloadd_wake
    builtin eval "builtin unset _autoloadd_text;$_autoloadd_text"
    _autoloadd_hook
  }

  _autoloadd_begin
  unset _autoloadd_place
  alias autoloadd-eval="builtin source ${(q)_autoloadd_file} :autoloadd-eval:"
  return 0
fi

# ---- whether there is a daemon

typeset -gi _autoloadd_away_until=0

# A daemon that did not answer in time is left alone for 30 seconds: by this shell, which keeps the
# time in a variable; by those that cannot (the subshells of a completion), and once two shells have
# seen it by new ones too, which find both in a file beside the socket. One alone may have been
# unlucky on a busy machine.
_autoloadd_is_away() {
  local -i now=${(%):-%D{%s}}
  (( now >= _autoloadd_away_until || now < _autoloadd_away_until - 30 )) || return 0
  # Nor does an old file say anything of a daemon that came later.
  [[ -s ${_autoloadd_place:h}/zsh-away &&
    ! $_autoloadd_place -nt ${_autoloadd_place:h}/zsh-away ]] || return 1
  local said
  local -aU seen
  { said=$(<${_autoloadd_place:h}/zsh-away) } 2>/dev/null
  for said in ${(f)said}; do
    [[ $said == <->' '<-> ]] || continue
    (( now - ${said% *} >= 0 && now - ${said% *} < 30 )) && seen+=( ${said#* } )
  done
  (( $#seen > 1 || ${seen[(Ie)$$]} )) || _autoloadd_is_stopped
}

# Set $place, and tell whether there is somebody to ask. Asked before all else: where no daemon is,
# nothing else is looked at.
_autoloadd_is_there() {
  _autoloadd_place && [[ -S $_autoloadd_place ]] && ! _autoloadd_is_away
}

# Only what is used is loaded: zsh/stat would else replace the command stat.
_autoloadd_modules() {
  (( $+builtins[zsocket] && $+builtins[zstat] && $+builtins[syswrite] )) || {
    zmodload -F zsh/net/socket b:zsocket && zmodload -F zsh/stat b:zstat &&
      zmodload -F zsh/system b:sysread b:syswrite
  } 2>/dev/null
}

# ---- start-up, and compiled functions

typeset -g _autoloadd_text=       # what the last call found or captured
# Until its first prompt a shell asks for what the last one did, whose requests are in a file beside the
# socket. They are sent at once: with a connection for each, an `autoloadd-eval` takes three times as long.
typeset -gi _autoloadd_is_starting=0    # before the first prompt; 2: also before the first question
typeset -gaU _autoloadd_asked_for=()    # the names that this shell asked for
typeset -ga _autoloadd_announced=()     # those that the last one did
typeset -gA _autoloadd_early_blobs=() _autoloadd_early_fingerprints=() _autoloadd_early_times=()

# Set $others to fpath without what is ours, and $farm to where `autoloadctl publish zsh` laid out the
# functions of this very fpath; to '' where it did not.
_autoloadd_find_farm() {
  local _autoloadd_path mine said
  local -aU directories
  _autoloadd_farm=
  [[ -n $_autoloadd_place ]] || return 1
  _autoloadd_others=( ${fpath:#${_autoloadd_place:h}/zsh-*/(farm|completions)} )
  directories=( ${(M)_autoloadd_others:#/*} )
  mine=${(pj:\0:)directories}
  {
    for _autoloadd_path in ${_autoloadd_place:h}/zsh-$ZSH_VERSION-$#mine-*/fpath(N); do
      said=$(<$_autoloadd_path)
      [[ $said == $mine && -O $_autoloadd_path ]] || continue
      _autoloadd_farm=${_autoloadd_path:h}
      break
    done
  } 2>/dev/null
}

# Put it before the first directory of fpath that it stands for: its names are looked up before theirs.
# Not around a relative directory: that may hide what comes later. $1: the parts to put there.
_autoloadd_take_farm() {
  local -i first=${_autoloadd_others[(i)/*]} last=${_autoloadd_others[(I)/*]}
  if [[ -n $_autoloadd_farm && -z ${(M)_autoloadd_others[first,last]:#[^/]*} ]]; then
    fpath=( $_autoloadd_others[1,first-1] $_autoloadd_farm/$^@ $_autoloadd_others[first,-1] )
  elif (( $#_autoloadd_others && $#_autoloadd_others < $#fpath )); then
    fpath=( $_autoloadd_others )
  fi
}

# At the end of this file. compinit would look at each file of the completions, so they have time.
_autoloadd_begin() {
  local _autoloadd_farm
  local -a _autoloadd_others
  trap - ZERR DEBUG
  _autoloadd_find_farm
  _autoloadd_take_farm farm
  [[ -o interactive ]] || return 0
  _autoloadd_is_starting=2
  precmd_functions=( ${precmd_functions:#_autoloadd_first_prompt} _autoloadd_first_prompt )
}

# Before the first prompt, when fpath and the completions are what they will be.
_autoloadd_wake() {
  local _autoloadd_farm _autoloadd_place
  local -a _autoloadd_others
  trap - ZERR DEBUG
  {
    precmd_functions=( ${precmd_functions:#_autoloadd_first_prompt} )
    (( $#precmd_functions )) || unset precmd_functions
    _autoloadd_place
    _autoloadd_find_farm
    # This order: nearly all that is loaded from here on are completions.
    _autoloadd_take_farm completions farm
    _autoloadd_publish
    _autoloadd_text=
    (( ! $#_autoloadd_wanted )) || [[ ! -v _comps ]] || _autoloadd_load 2>/dev/null
  } always {
    # Also where a tool was interrupted.
    _autoloadd_end_start
  }
  return 0
}

# At the first prompt.
_autoloadd_end_start() {
  _autoloadd_is_starting=0
  _autoloadd_early_blobs=() _autoloadd_early_fingerprints=() _autoloadd_early_times=()
  _autoloadd_asked_for=( "${(@)_autoloadd_asked_for[1,16]}" )
  [[ ${(pj:\0\0:)_autoloadd_asked_for} == "${(pj:\0\0:)_autoloadd_announced}" ]] || _autoloadd_announce
}

# Leave a compiled copy of this file for the shells to come, where there was none. Have the functions
# of $others published anew, by one shell at a time, where one of them changed: a changed file needs
# no haste, since zsh itself takes a newer source.
_autoloadd_publish() {
  local _autoloadd_place
  _autoloadd_is_there && _autoloadd_modules || return 0
  # What was changed in this very second may change once more without a new time.
  if (( _autoloadd_is_text )) && [[ -n $_autoloadd_file(#qNms+1) ]]; then
    _autoloadd_leave_copy </dev/null &>/dev/null &!
  fi
  if [[ -n $_autoloadd_farm ]]; then
    # The farms that are used stay.
    { : >| $_autoloadd_farm/used } 2>/dev/null
    _autoloadd_others_changed || return 0
  fi
  _autoloadd_publish_alone </dev/null &>/dev/null &!
}

# Whether a directory of $others is newer than $farm. (Asked for in ns, times take three times as long.)
_autoloadd_others_changed() {
  local format
  local -a times newest
  for format in %s %s%9.; do
    zstat -A times -F $format +mtime -- $_autoloadd_farm/state $^_autoloadd_others(N-/) || return
    newest=( ${(On)times[2,-1]} )
    (( times[1] == newest[1] )) || break
  done 2>/dev/null
  (( times[1] < newest[1] ))
}

# ---- whose completion is known

# The tools whose completion asks the tool itself, and whose answer is known to depend on what its
# name and fingerprint hold: tool -> MAX_AGE:VARIABLE,...
typeset -gA _autoloadd_tools=(
  aws :AWS_CONFIG_FILE,AWS_DATA_PATH
  black ''
  flask 60:FLASK_APP
  npm ''
  pip ''
  pip3 ''
  uvicorn ''
)
typeset -ga _autoloadd_wanted=()   # those that get a completion where zsh has none

# Put our function before the completion of TOOL..., or of all known tools that have one.
_autoloadd_hook() {
  local _autoloadd_tool REPLY
  # ($+_comps would copy its values: 0.1 ms.)
  [[ -v _comps ]] || return 0
  for _autoloadd_tool in ${@:-${(k)_autoloadd_tools}}; do
    _autoloadd_completion_of $_autoloadd_tool
    # A list of plain words, that is.
    [[ $REPLY == [[:alnum:]_]*~_autoloadd_tab* && $REPLY != *[^][:alnum:]\ _./:=+\'\"\\-]* ]] &&
      _comps[$_autoloadd_tool]="_autoloadd_tab $_autoloadd_tool $REPLY"
  done
  return 0
}

# Set $REPLY to what zsh runs to complete the arguments of TOOL.
_autoloadd_completion_of() {
  REPLY=${_comps[$1]:-${_postpatcomps[(k)$1]-}}
}

# ---- the rest of this file

# What has been read of it last, and all behind it. (Not for those who have `set` list all variables.)
typeset -gH _autoloadd_source=

# Read the next part of this file. Its text was kept, since the file may be another by now.
_autoloadd_read_on() {
  [[ -n $_autoloadd_source ]] || return 1
  trap - ZERR DEBUG
  local -a parts=( "${(@ps:\n# ---- read :)_autoloadd_source}" )
  # Who finds half of a part would call the rest.
  trap '' INT
  builtin eval "# $parts[2]"
  _autoloadd_source=
  (( $#parts == 2 )) || _autoloadd_source=${(pj:\n# ---- read :)parts[2,-1]}
}

# Functions of the parts behind that are called from before them: whoever comes first has one part read
# after the other until there is a function of its name.
function autoloadd-get autoloadd-put autoloadd_plugin_unload _autoloadd_announce _autoloadd_choose \
  _autoloadd_declares _autoloadd_fill _autoloadd_is_absent _autoloadd_is_stopped _autoloadd_lease \
  _autoloadd_leave_copy _autoloadd_load _autoloadd_output _autoloadd_print_usage \
  _autoloadd_publish_alone _autoloadd_surroundings _autoloadd_unwatch _autoloadd_watch \
  _autoloadd_wrong {
  _autoloadd_read_on && $0 "$@"
}

# Set $source to the text of this file. (A builtin reads it five times as fast as $(<FILE). It makes
# room for all that it may read first: the more, the slower.)
_autoloadd_read_source() {
  {
    zmodload -F zsh/system b:sysread b:syswrite && sysread -s 98304 _autoloadd_source <$_autoloadd_file
  } 2>/dev/null || _autoloadd_source=$(<$_autoloadd_file)
}

# (Where our text was evaluated, and nobody said where it came from, the file is whose line did so.)
[[ -z $_autoloadd_copy && $_autoloadd_file == */autoloadd.plugin.zsh ]] || _autoloadd_is_text=0
if (( _autoloadd_is_text )); then
  _autoloadd_read_source
  return 0
fi

# ---- read when something is asked

# ---- bytes

# Append a number as $2 bytes, the highest first, to $packed.
_autoloadd_bytes() {
  if (( $2 == 4 )); then
    _autoloadd_packed+=${(#):-$(( $1 >> 24 & 255 ))}${(#):-$(( $1 >> 16 & 255 ))}
    _autoloadd_packed+=${(#):-$(( $1 >> 8 & 255 ))}${(#):-$(( $1 & 255 ))}
    return
  fi
  local -i shift=$(( 8 * ($2 - 1) ))
  for (( ; shift >= 0; shift -= 8 )); do
    _autoloadd_packed+=${(#):-$(( ($1 >> shift) & 255 ))}
  done
}

# Append TYPE VALUE... to $packed as MessagePack, in shortest form. Types: str, bin, int, bool
# (true or false), array and map (their length; the items follow), nil (no value), packed (bytes that
# are that already: each step takes 8 us).
_autoloadd_pack() {
  while (( $# )); do
    case $1 in
      (nil) _autoloadd_packed+=$'\xc0'; shift; continue ;;
      (bool) [[ $2 == true ]] && _autoloadd_packed+=$'\xc3' || _autoloadd_packed+=$'\xc2' ;;
      (str)
        if (( $#2 < 32 )); then _autoloadd_packed+=${(#):-$(( 0xa0 | $#2 ))}
        elif (( $#2 < 256 )); then _autoloadd_packed+=$'\xd9'${(#):-$#2}
        elif (( $#2 < 65536 )); then _autoloadd_packed+=$'\xda'; _autoloadd_bytes $#2 2
        else _autoloadd_packed+=$'\xdb'; _autoloadd_bytes $#2 4
        fi
        _autoloadd_packed+=$2 ;;
      (bin)
        if (( $#2 < 256 )); then _autoloadd_packed+=$'\xc4'${(#):-$#2}
        elif (( $#2 < 65536 )); then _autoloadd_packed+=$'\xc5'; _autoloadd_bytes $#2 2
        else _autoloadd_packed+=$'\xc6'; _autoloadd_bytes $#2 4
        fi
        _autoloadd_packed+=$2 ;;
      (packed) _autoloadd_packed+=$2 ;;
      (array) _autoloadd_packed+=${(#):-$(( 0x90 | $2 ))} ;;
      (map) _autoloadd_packed+=${(#):-$(( 0x80 | $2 ))} ;;
      (int) _autoloadd_integer $2 ;;
    esac
    shift 2
  done
}

_autoloadd_integer() {
  if (( $1 >= -32 && $1 < 128 )); then _autoloadd_packed+=${(#):-$(( $1 & 255 ))}
  elif (( $1 < 0 )); then
    if (( $1 >= -128 )); then _autoloadd_packed+=$'\xd0'; _autoloadd_bytes $1 1
    elif (( $1 >= -32768 )); then _autoloadd_packed+=$'\xd1'; _autoloadd_bytes $1 2
    elif (( $1 >= -2147483648 )); then _autoloadd_packed+=$'\xd2'; _autoloadd_bytes $1 4
    else _autoloadd_packed+=$'\xd3'; _autoloadd_bytes $1 8
    fi
  elif (( $1 < 256 )); then _autoloadd_packed+=$'\xcc'; _autoloadd_bytes $1 1
  elif (( $1 < 65536 )); then _autoloadd_packed+=$'\xcd'; _autoloadd_bytes $1 2
  elif (( $1 < 4294967296 )); then _autoloadd_packed+=$'\xce'; _autoloadd_bytes $1 4
  else _autoloadd_packed+=$'\xcf'; _autoloadd_bytes $1 8
  fi
}

# Append a request's frame to $frames: the last four bytes of its id, or '' for a notification; the
# method; its parameters as TYPE VALUE...
_autoloadd_request() {
  local id=$1 method=$2 _autoloadd_packed=
  shift 2
  if [[ -n $id ]]; then
    _autoloadd_packed=$'\x94\x00\xce'$id
  else
    _autoloadd_packed=$'\x93\x02'
  fi
  _autoloadd_pack str $method "$@"
  local payload=$_autoloadd_packed
  _autoloadd_packed=
  _autoloadd_bytes $#payload 4
  frames+=$_autoloadd_packed$payload
}

# ---- the daemon

typeset -gA _autoloadd_hellos     # producer -> the frame that says hello for it
typeset -gi _autoloadd_status=0   # how the last tool ended
typeset -g _autoloadd_process=$'\xa3pid-'   # and its value, in the hello of who answered last

_autoloadd_give_up() {
  local -i now=${(%):-%D{%s}}
  local _autoloadd_path=${_autoloadd_place:h}/zsh-away
  local -a old=( $_autoloadd_path(N.Ums+30) )
  _autoloadd_away_until=now+30
  {
    if (( $#old )) || [[ ! -e $_autoloadd_path ]]; then
      print -r -- $now $$ >| $_autoloadd_path
    else
      print -r -- $now $$ >> $_autoloadd_path
    fi
  } 2>/dev/null
}

# Read exactly $1 bytes into $bytes, within $patience seconds for each part. A daemon that is at work
# gets up to 50 ms more, as long as it is; else it is left alone from now on. So is one whose answer
# is not whole a second after its first byte ($deadline). While another shell's run is waited for, it is
# looked at now and then.
_autoloadd_read() {
  bytes=
  # Nearly always it is there, and what follows would take longer.
  (( $1 )) && sysread -i $_autoloadd_fd -s $1 -t 0 bytes && (( $#bytes == $1 )) && return
  local part
  local -F wait now rest=_autoloadd_patience
  local -i left=10
  while (( $#bytes < $1 )); do
    (( wait = rest < 0.1 ? rest : 0.1 ))
    if sysread -i $_autoloadd_fd -s $(( $1 - $#bytes )) -t $wait part; then
      bytes+=$part rest=_autoloadd_patience now=${(%):-%D{%s.%6.}}
      if (( deadline == 0 )); then
        deadline=now+1
      elif (( now > deadline )); then
        _autoloadd_give_up
        return 1
      fi
    elif (( $? != 4 )); then
      return 1
    elif (( (rest -= wait) > 0 )) && ! _autoloadd_is_stopped; then
      continue
    elif (( left-- > 0 )) && _autoloadd_is_busy; then
      rest=0.005
    elif (( wait )); then
      # It may have come while we looked what the daemon does.
      rest=0
    else
      _autoloadd_give_up
      return 1
    fi
  done
}

# Set $number to the big-endian value of one to four bytes.
_autoloadd_number() {
  local a=${1[-4]} b=${1[-3]} c=${1[-2]} d=${1[-1]}
  (( number = #a << 24 | #b << 16 | #c << 8 | #d ))
}

# Connect, and send hello for the producer NAME/VERSION/WIDTH $1 with $2 behind it, in one write.
# Sets $fd, which the caller closes. What zsh says of it goes to the caller's stderr.
_autoloadd_open() {
  local REPLY bytes
  local -i number
  local -F deadline=0
  [[ -n ${_autoloadd_hellos[$1]-} ]] || _autoloadd_make_hello $1 || return 1
  zsocket $_autoloadd_place || return 1
  _autoloadd_fd=$REPLY
  # For the answer to begin. (An integer: a variable from outside must not be evaluated.)
  _autoloadd_patience=5
  [[ ${AUTOLOADD_WAIT_MS-} != <1-60000> ]] || _autoloadd_patience=$AUTOLOADD_WAIT_MS
  _autoloadd_patience=$(( _autoloadd_patience / 1000 ))
  syswrite -o $_autoloadd_fd -- $_autoloadd_hellos[$1]$2 || return 1
  if _autoloadd_read 13 && [[ $bytes[5,12] == $'\x94\x01\xce\0\x01\0\0\xc0' ]]; then
    _autoloadd_number $bytes[1,4]
    if (( number < 65536 )) && _autoloadd_read $(( number - 9 )); then
      [[ $bytes == *$_autoloadd_process* ]] || _autoloadd_note_process
      return 0
    fi
  fi
  _autoloadd_is_away || _autoloadd_give_up
  return 1
}

_autoloadd_make_hello() {
  local frames=
  local -a producer=( ${(s:/:)1} )
  _autoloadd_modules || return 1
  _autoloadd_request $'\0\x01\0\0' hello packed $'\x93\x92\x01\0\x83\xa4name' str $producer[1] \
    packed $'\xa7version' str $producer[2] packed $'\xadpointer_width' int $producer[3] \
    packed $'\x83\xa4name\xb4autoloadd.plugin.zsh\xa7version\xa11\xa3pid' int $$
  _autoloadd_hellos[$1]=$frames
}

# Write down beside the socket which process has said hello ($bytes), for _autoloadd_is_busy.
_autoloadd_note_process() {
  local -i _autoloadd_stamp
  local known= _autoloadd_path=${_autoloadd_place:h}/zsh-daemon said=$bytes
  bytes=${bytes#*$'\xa3pid'}
  said=${said%"$bytes"}
  [[ -n $said ]] && local after=$bytes && _autoloadd_integer_of &&
    (( _autoloadd_stamp > 0 )) || return
  _autoloadd_process=$'\xa3pid'${after%"$bytes"}
  {
    [[ -r $_autoloadd_path ]] && known=$(<$_autoloadd_path)
    [[ $known == $_autoloadd_stamp ]] || print -r -- $_autoloadd_stamp >| $_autoloadd_path
  } 2>/dev/null
}

# Whether a daemon that has not answered yet is at work, or waits for a processor: then it will. One
# that is stopped, or sleeps with our question before it, may never. (Linux; elsewhere nobody knows.)
_autoloadd_is_busy() {
  local _autoloadd_path stat pid
  _autoloadd_daemon_pid || return 1
  for _autoloadd_path in /proc/$pid/task/<->/stat(N); do
    { stat=$(<$_autoloadd_path) } 2>/dev/null
    [[ ${stat##*\) } == R* ]] && return 0
  done
  return 1
}

# Whether it is stopped. Asked before it is tried again: each try would take a place in its queue, and
# in a full one zsocket waits for ever.
_autoloadd_is_stopped() {
  local stat pid
  _autoloadd_daemon_pid || return 1
  { [[ -r /proc/$pid/stat ]] && stat=$(</proc/$pid/stat) } 2>/dev/null
  [[ ${stat##*\) } == T* ]]
}

_autoloadd_daemon_pid() {
  { [[ -r ${_autoloadd_place:h}/zsh-daemon ]] && pid=$(<${_autoloadd_place:h}/zsh-daemon) } 2>/dev/null
  [[ $pid == <1-> ]]
}

# Read the answer to the request with the id $1, which asked for the name that is $2 when packed.
# Sets for an entry $blob, $stored (its fingerprint) and $times (two integers as they came:
# binary_mtime_ns, cached_at). Returns 0: an entry; 1: nil; 2: nothing that can be used, close; 3: "fill";
# 4: refused; 5: any other result.
_autoloadd_answer() {
  local bytes
  local -i number size
  local -F deadline=0
  _autoloadd_read 13 || return 2
  _autoloadd_number $bytes[1,4]
  size=$(( number - 9 ))
  if [[ $bytes[5,11] != $'\x94\x01\xce'$1 ]] || (( size > 8388608 )); then return 2
  elif [[ $bytes[12,13] == $'\xc0\xc0' ]]; then (( size == 0 )) && return 1 || return 2
  elif [[ $bytes[12,13] == $'\xc0\x95' && -n $2 ]]; then _autoloadd_entry $2; return
  elif [[ $bytes[12] == $'\xc0' ]]; then
    local first=$bytes[13]
    _autoloadd_read $size || return 2
    [[ $first$bytes == $'\xa4fill' ]] && return 3 || return 5
  fi
  _autoloadd_read $size && return 4 || return 2
}

# Read an entry's name, blob, fingerprint and times: the $size bytes after its 95.
_autoloadd_entry() {
  local -a match mbegin mend
  _autoloadd_read $size && [[ $bytes == $1(#b)($'\xc4'?|$'\xc5'??|$'\xc6'????)* ]] || return 2
  _autoloadd_number ${match[1][2,-1]}
  local -i start=mend[1]+1
  local content=$bytes[start,start+number-1]
  (( $#content == number )) || return 2
  bytes=$bytes[start+number,-1] _autoloadd_stored=
  case $bytes[1] in
    ($'\xc0') bytes=$bytes[2,-1] ;;
    ($'\xc4') _autoloadd_number $bytes[2]; _autoloadd_stored=$bytes[3,2+number] bytes=$bytes[3+number,-1] ;;
    ($'\xc5') _autoloadd_number $bytes[2,3]; _autoloadd_stored=$bytes[4,3+number] bytes=$bytes[4+number,-1] ;;
    (*) return 2 ;;
  esac
  [[ $bytes == ${~_autoloadd_integer_form}${~_autoloadd_integer_form} ]] || return 2
  _autoloadd_blob=$content _autoloadd_times=$bytes
}

# An integer, as it comes: an entry's times are seldom needed, and to compute them is slow.
typeset -g _autoloadd_integer_form=$'(\0|[\x01-\x7f\xe0-\xff]|[\xcc\xd0]?|[\xcd\xd1]??|[\xce\xd2]????|'
_autoloadd_integer_form+=$'[\xcf\xd3]????????)'

# Take an integer off the front of $bytes; leave it in $stamp.
_autoloadd_integer_of() {
  local -i number width high
  local head=$bytes[1]
  case $head in
    ([$'\x01'-$'\x7f']|$'\0') _autoloadd_stamp=$(( #head )) bytes=$bytes[2,-1]; return ;;
    ([$'\xe0'-$'\xff']) _autoloadd_stamp=$(( #head - 256 )) bytes=$bytes[2,-1]; return ;;
    ($'\xcc'|$'\xd0') width=1 ;;
    ($'\xcd'|$'\xd1') width=2 ;;
    ($'\xce'|$'\xd2') width=4 ;;
    ($'\xcf'|$'\xd3') width=8 ;;
    (*) return 1 ;;
  esac
  (( $#bytes > width )) || return 1
  if (( width == 8 )); then
    _autoloadd_number $bytes[2,5]
    high=number
    _autoloadd_number $bytes[6,9]
    # In arithmetic throughout: as a text the lowest number is too long for zsh.
    (( number |= high << 32 ))
  else
    _autoloadd_number $bytes[2,1+width]
    [[ $head == [$'\xd0'-$'\xd2'] ]] && (( number >> (8 * width - 1) )) &&
      (( number -= 1 << 8 * width ))
  fi
  (( _autoloadd_stamp = number ))
  bytes=$bytes[2+width,-1]
}

# ---- what a tool prints

# Variables that are local while a tool runs, or while exported ones are looked at, have our prefix:
# else they would hide those of the same name from the tool.

# Leave in $_autoloadd_text what "$5..." prints: from the cache, or by running it. $1: how old the
# answer may be, in seconds; '' for any age. $2: its name ($fingerprint is there). $3: the status of a
# run that may be kept. $4: how long to wait for another shell that runs it already, in ms.
# Fails where the cache at $place does not answer: then nothing was run.
_autoloadd_fetch() {
  local _autoloadd_max_age=$1 _autoloadd_name=$2 _autoloadd_packed
  local _autoloadd_blob _autoloadd_stored _autoloadd_times
  local -i _autoloadd_expected=$3 _autoloadd_wait_ms=$4 _autoloadd_fd=-1
  local -i _autoloadd_is_marked
  local -F _autoloadd_patience
  shift 4
  (( $#_autoloadd_name <= 1024 && $#_autoloadd_fingerprint <= 1024 )) || return 1
  {
    _autoloadd_status=$_autoloadd_expected
    if _autoloadd_find 2>/dev/null; then
      _autoloadd_text=$_autoloadd_blob
    else
      (( _autoloadd_fd >= 0 )) && _autoloadd_fill "$@" || return
    fi
    # (To read more, where it is not asked for after all, would take its time.)
    (( ! _autoloadd_is_starting || $#_autoloadd_text > 131072 )) ||
      _autoloadd_asked_for+=( "$_autoloadd_name" )
  } always {
    # Ends the lease too: where nothing was stored, the next shell is asked to run the tool.
    (( _autoloadd_fd < 0 )) || exec {_autoloadd_fd}>&-
  }
}

# Look for $name's $blob. Where it is not there, $fd is open, and this shell is to run the tool:
# it was asked to, or another was and did not come to an end; or $fd is -1, and nobody answered.
_autoloadd_find() {
  local frames=
  trap '' PIPE
  if (( _autoloadd_is_starting )); then
    (( _autoloadd_is_starting == 1 )) || _autoloadd_fetch_early
    _autoloadd_find_early && return
    ! _autoloadd_is_away || return 1
  fi
  _autoloadd_pack str "$_autoloadd_name"
  _autoloadd_request $'\0\x01\0\x01' get packed $'\x93'$_autoloadd_packed$'\xc0' \
    bin $_autoloadd_fingerprint
  if _autoloadd_open tool-output/1/8 $frames; then
    _autoloadd_answer $'\0\x01\0\x01' $_autoloadd_packed
    case $? in
      (0)
        [[ $_autoloadd_stored == "$_autoloadd_fingerprint" ]] || { _autoloadd_close; return 1 }
        _autoloadd_is_young && return 0; _autoloadd_lease delete; return ;;
      (1) _autoloadd_lease; return ;;
    esac
  fi
  _autoloadd_close
  return 1
}

_autoloadd_close() {
  (( _autoloadd_fd < 0 )) || exec {_autoloadd_fd}>&-
  _autoloadd_fd=-1
}

_autoloadd_is_young() {
  [[ -n $_autoloadd_max_age ]] || return 0
  local bytes=$_autoloadd_times
  local -i _autoloadd_stamp age=${(%):-%D{%s}}
  _autoloadd_integer_of && _autoloadd_integer_of
  (( age -= _autoloadd_stamp / 1000000000 ))
  # One that is of the future was stored before the clock was set back.
  (( 0 <= age && age <= _autoloadd_max_age ))
}

# Append the canonical text of the file $1 to $fingerprint; one that is not there has no numbers.
_autoloadd_file_text() {
  local -a size inode mtime
  local real=${1:P}
  if [[ -e $real ]] && _autoloadd_stat $real; then
    _autoloadd_fingerprint+=$real$'\0'$size$'\0'$inode$'\0'$mtime$'\0'
  else
    _autoloadd_fingerprint+=$1$'\0\0\0\0'
  fi
}

# Append the program's text; behind it the path it was found at, where that is a link's: a program may
# do as its name says, or as the directory of its link does.
_autoloadd_program_text() {
  _autoloadd_file_text $_autoloadd_path
  [[ ${_autoloadd_path:a} == ${_autoloadd_path:P} ]] ||
    _autoloadd_fingerprint+=${_autoloadd_path:a}$'\0'
}

# Set $fingerprint: for TAB with what a completion depends on.
_autoloadd_look() {
  _autoloadd_fingerprint=
  if (( ${+_autoloadd_key} )); then
    _autoloadd_surroundings
  else
    _autoloadd_program_text
  fi
  _autoloadd_variable_texts "${_autoloadd_variables[@]}"
}

# Append each of the variables to $fingerprint.
_autoloadd_variable_texts() {
  local _autoloadd_variable
  for _autoloadd_variable; do
    if [[ ${(Pt)_autoloadd_variable-} == *export* ]]; then
      _autoloadd_fingerprint+=$_autoloadd_variable=${(P)_autoloadd_variable}$'\0'
    else
      _autoloadd_fingerprint+=$_autoloadd_variable$'\0'
    fi
  done
}

# Set $path to the program that TOOL or `env NAME=VALUE... TOOL` runs. Fails for what is no file, for
# what `env` could do besides, and for the shims of version managers: which program they run depends
# on more than we can see.
_autoloadd_find_tool() {
  local directory is_by_env=
  if [[ $1 == env ]]; then
    is_by_env=1
    shift
    while [[ ${1-} == [[:alpha:]_][[:alnum:]_]#=* ]]; do
      [[ $1 != PATH=* ]] || return 1
      shift
    done
    [[ ${1-} != (-*|*=*) ]] || return 1
  fi
  _autoloadd_path=
  case ${1-} in
    (''|env|*/env) return 1 ;;
    (*/*) _autoloadd_path=$1 ;;
    (*)
      for directory in "${path[@]}"; do
        _autoloadd_path=${directory:-.}/$1
        [[ -f $_autoloadd_path && -x $_autoloadd_path ]] && break
      done
      # By `hash`, or from a PATH that was another: zsh runs what it knows.
      [[ -n $is_by_env || -z ${commands[$1]-} || $commands[$1] == $_autoloadd_path ]] || return 1 ;;
  esac
  [[ -f $_autoloadd_path && -x $_autoloadd_path && $_autoloadd_path != */shims/* &&
    ${_autoloadd_path:a} != */shims/* && ${_autoloadd_path:P} != */shims/* ]] && _autoloadd_modules
}

# Read --max-age and --env off the front of $words, into $max_age (seconds) and $variables.
_autoloadd_options() {
  while [[ ${_autoloadd_words[1]-} == -* ]]; do
    case $_autoloadd_words[1] in
      (--) shift _autoloadd_words; return 0 ;;
      (--max-age|--env)
        (( $#_autoloadd_words > 1 )) || { _autoloadd_wrong; return 1 }
        _autoloadd_words[1]+="=$_autoloadd_words[2]"
        _autoloadd_words[2]=() ;&
      (--max-age=*|--env=*) ;;
      (*) _autoloadd_wrong; return 1 ;;
    esac
    case $_autoloadd_words[1] in
      (--max-age=<->) _autoloadd_max_age=${_autoloadd_words[1]#*=} ;;
      (--max-age=<->[smhd])
        local -A seconds=( s 1 m 60 h 3600 d 86400 )
        local age=${_autoloadd_words[1]#*=}
        _autoloadd_max_age=$(( ${age%?} * $seconds[$age[-1]] )) ;;
      (--env=[[:alpha:]_][[:alnum:]_]#) _autoloadd_variables+=( ${_autoloadd_words[1]#*=} ) ;;
      (*) _autoloadd_wrong; return 1 ;;
    esac
    shift _autoloadd_words
  done
}

# autoloadd-eval without the eval: the text is left in $_autoloadd_text. Always succeeds.
_autoloadd_output() {
  local _autoloadd_max_age= _autoloadd_path= _autoloadd_fingerprint= _autoloadd_place
  local -a _autoloadd_words=( "$@" ) _autoloadd_variables
  trap - ZERR DEBUG
  if [[ ${1-} == (-h|--help) ]]; then
    _autoloadd_print_usage
    _autoloadd_text=
    return 0
  elif [[ ${1-} == -* ]] && ! _autoloadd_options || (( ! $#_autoloadd_words )); then
    _autoloadd_print_usage >&2
    _autoloadd_text='(builtin exit 2)'
    return 0
  fi
  if _autoloadd_is_there &&
    (( ! $+functions[$_autoloadd_words[1]] && ! $+builtins[$_autoloadd_words[1]] )) &&
    [[ ${(j::)_autoloadd_words} != *($'\0'|/dev/fd/|/proc/self/fd/)* ]] &&
    _autoloadd_find_tool "${_autoloadd_words[@]}" &&
    _autoloadd_look && _autoloadd_fetch "$_autoloadd_max_age" \
      eval$'\0'zsh/$ZSH_VERSION$'\0'${(pj:\0:)_autoloadd_words} 0 5000 "${_autoloadd_words[@]}"
  then
    # As $(...) does.
    [[ $_autoloadd_text != *$'\n' ]] || _autoloadd_text=${(M)_autoloadd_text##*[^$'\n']}
  elif _autoloadd_is_absent $_autoloadd_words[1]; then
    print -ru2 -- "zsh: command not found: $_autoloadd_words[1]"
    _autoloadd_text=
  else
    _autoloadd_text=$("${_autoloadd_words[@]}")
  fi
  return 0
}

# Whether the text may declare variables, or do something else that depends on its scope.
_autoloadd_declares() {
  local start='(*[^[:alnum:]_-]|)' end='([^[:alnum:]_-]*|)'
  local word='(typeset|declare|local|integer|float|readonly|export|private|source|set|shift|return)'
  [[ $_autoloadd_text == ${~start}(${~word}${~end}|.[[:space:]]*) ]]
}

# ---- what a start asks for

# Before the first question: fetch what the last shell asked for, if $name is among it.
_autoloadd_fetch_early() {
  local name said frames= _autoloadd_path=${_autoloadd_place:h}/zsh-asked
  local _autoloadd_blob _autoloadd_stored _autoloadd_times
  local -a packed
  local -i number id=0 _autoloadd_fd=-1
  _autoloadd_is_starting=1
  [[ -s $_autoloadd_path ]] && sysread -s 32768 said <$_autoloadd_path || return 0
  # For what is no request, the daemon would end the connection.
  while (( id < 16 )) && [[ $said[5,16] == $'\x94\0\xce\0\x01\x02'${(#):-$id}$'\xa3get\x93' ]]; do
    _autoloadd_number $said[1,4]
    [[ $said[number+3,number+4] == $'\xc0\xc0' ]] || break
    name=$said[17,number+2]
    packed+=( "$name" ) frames+=$said[1,number+4] said=$said[number+5,-1] id+=1
    case $name[1] in
      ($'\xd9') name=$name[3,-1] ;;
      ($'\xda') name=$name[4,-1] ;;
      (*) name=$name[2,-1] ;;
    esac
    _autoloadd_announced+=( "$name" )
  done
  (( ${_autoloadd_announced[(Ie)$_autoloadd_name]} )) || return 0
  {
    _autoloadd_open tool-output/1/8 $frames || return
    id=0
    for name in "${_autoloadd_announced[@]}"; do
      _autoloadd_answer $'\0\x01\x02'${(#):-$id} "$packed[++id]"
      case $? in
        (0)
          _autoloadd_early_blobs[$name]=$_autoloadd_blob
          _autoloadd_early_fingerprints[$name]=$_autoloadd_stored
          _autoloadd_early_times[$name]=$_autoloadd_times ;;
        (2) return ;;
      esac
    done
  } always {
    _autoloadd_close
  }
}

# Look for $name's $blob in what was fetched.
_autoloadd_find_early() {
  [[ -n ${_autoloadd_early_times[$_autoloadd_name]-} &&
    $_autoloadd_early_fingerprints[$_autoloadd_name] == "$_autoloadd_fingerprint" ]] || return
  _autoloadd_times=$_autoloadd_early_times[$_autoloadd_name]
  _autoloadd_blob=$_autoloadd_early_blobs[$_autoloadd_name]
  _autoloadd_is_young
}

# Leave for the next shell what this one asked for.
_autoloadd_announce() {
  local _autoloadd_place name frames=
  local -i id=0
  (( $#_autoloadd_asked_for )) && _autoloadd_place || return 0
  for name in "${_autoloadd_asked_for[@]}"; do
    _autoloadd_request $'\0\x01\x02'${(#):-$(( id++ ))} get array 3 str "$name" nil nil
  done
  { print -rn -- $frames >| ${_autoloadd_place:h}/zsh-asked } 2>/dev/null
}

# ---- read when something has to be made, or completed

# Leave in $_autoloadd_text what "$@" prints, and store it where it may be kept.
_autoloadd_fill() {
  local _autoloadd_before=$_autoloadd_fingerprint
  local -i _autoloadd_is_clean
  _autoloadd_run "$@"
  if (( _autoloadd_is_clean && _autoloadd_status == _autoloadd_expected &&
        $#_autoloadd_text <= 4194304 )); then
    # Not where it was replaced meanwhile: which of the two ran?
    _autoloadd_look
    [[ $_autoloadd_fingerprint != "$_autoloadd_before" ]] ||
      _autoloadd_store $_autoloadd_name "$_autoloadd_text"
  elif [[ $_autoloadd_name == eval* ]]; then
    # (Nobody presses TAB in ten shells at once.)
    _autoloadd_store unkept$'\0'$_autoloadd_name ''
  fi
  return 0
}

# Ask to be the one that runs the tool, and wait for another that does. With $1, what is there is
# too old: the server knows fingerprints, but no ages, so it is deleted first.
_autoloadd_lease() {
  local frames=
  [[ -z $1 ]] || _autoloadd_request '' delete array 1 array 1 str $_autoloadd_name
  _autoloadd_request $'\0\x01\0\x02' lease array 4 str $_autoloadd_name \
    nil bin $_autoloadd_fingerprint int $_autoloadd_wait_ms
  _autoloadd_patience=$(( _autoloadd_wait_ms / 1000. + 0.05 ))
  syswrite -o $_autoloadd_fd -- $frames && _autoloadd_answer $'\0\x01\0\x02' $_autoloadd_packed
  case $? in
    (0) [[ $_autoloadd_stored == "$_autoloadd_fingerprint" ]] && _autoloadd_is_young; return ;;
    (3) _autoloadd_yield && return 1 ;;
    (1|4) return 1 ;;
  esac
  _autoloadd_close
  return 1
}

# Give the lease back where the tool's last run could not be kept: all who wait for this one would run
# it one after the other. Fails where the connection does.
_autoloadd_yield() {
  local frames= _autoloadd_packed= _autoloadd_blob _autoloadd_stored _autoloadd_times
  local _autoloadd_mark=unkept$'\0'$_autoloadd_name
  _autoloadd_patience=1
  _autoloadd_pack str "$_autoloadd_mark"
  _autoloadd_request $'\0\x01\0\x03' get array 3 str "$_autoloadd_mark" nil \
    bin $_autoloadd_fingerprint
  syswrite -o $_autoloadd_fd -- $frames && _autoloadd_answer $'\0\x01\0\x03' $_autoloadd_packed
  case $? in
    (1|4) return 0 ;;
    (2) return 1 ;;
  esac
  _autoloadd_is_marked=1 frames=
  _autoloadd_request $'\0\x01\0\x04' unlease array 1 str "$_autoloadd_name"
  syswrite -o $_autoloadd_fd -- $frames && _autoloadd_answer $'\0\x01\0\x04' ''
  (( $? != 2 ))
}

# Store $2 as $1. No answer is waited for: the server runs what it received. What
# the socket does not take at once is written by a process that nobody waits for.
_autoloadd_store() {
  local frames=
  trap '' PIPE
  _autoloadd_request '' put array 4 str "$1" bin "$2" nil bin $_autoloadd_fingerprint
  # After a good run, the last one that was not says nothing more.
  [[ $1 != "$_autoloadd_name" ]] || (( ! _autoloadd_is_marked )) ||
    _autoloadd_request '' delete array 1 array 1 str unkept$'\0'$1
  if (( $#frames <= 65536 )); then
    syswrite -o $_autoloadd_fd -- $frames 2>/dev/null
  else
    syswrite -o $_autoloadd_fd -- $frames </dev/null &>/dev/null &!
  fi
}

# Run "$@". Sets $_autoloadd_text to exactly what it printed, $_autoloadd_status, and $is_clean:
# whether it wrote nothing to stderr, which passes through _autoloadd_forward for that.
_autoloadd_run() {
  local _autoloadd_mark=$'\0autoloadd:'$$:
  # The connection stays with us. By exec, since zsh does not wait then for the process that copies:
  # the tool may have left something running. (In $(...) an interactive shell knows no comments.)
  _autoloadd_text=$(
    exec {_autoloadd_fd}>&-
    exec 2> >(_autoloadd_forward $_autoloadd_mark)
    "$@"
    print -rnu2 -- $_autoloadd_mark$?';'
  )
  # From here on: the tool sees variables of these names that are exported. (What it has left running
  # may have written behind the mark.)
  local -a match mbegin mend
  if [[ $_autoloadd_text == (#b)(*)$_autoloadd_mark(<->)';'([01])(*) ]]; then
    _autoloadd_text=$match[1]$match[4] _autoloadd_status=$match[2]
    _autoloadd_is_clean=$(( ! match[3] ))
  else
    _autoloadd_status=1 _autoloadd_is_clean=0
  fi
}

# Copy stdin to stderr. When the tool has ended (its mark $1 and status come), say so on stdout with
# 1 where there was something to copy, else 0; then go on for what the tool has left running.
_autoloadd_forward() {
  local part held _autoloadd_mark=$1
  local -a match mbegin mend
  local -i is_dirty=0
  trap '' INT
  while sysread part; do
    held+=$part
    if [[ $held == (#b)(*)$_autoloadd_mark(<->)';'(*) ]]; then
      [[ -z $match[1] ]] || { is_dirty=1; print -rnu2 -- $match[1] }
      print -rn -- $_autoloadd_mark$match[2]';'$is_dirty
      exec >&-
      held=$match[3] _autoloadd_mark=$'\0\0'
    elif [[ $held == (#b)(*)($'\0'*) ]] && (( $#match[2] < $#_autoloadd_mark + 4 )); then
      # This may be the beginning of the mark.
      [[ -z $match[1] ]] || { is_dirty=1; print -rnu2 -- $match[1] }
      held=$match[2]
      continue
    fi
    [[ -z $held ]] || { is_dirty=1; print -rnu2 -- $held; held= }
  done
}

# Whether zsh finds nothing to run as $1: it would say so with the name of our function.
_autoloadd_is_absent() {
  [[ $1 != */* && ! -o restricted ]] && (( ! $+functions[command_not_found_handler] )) &&
    ! whence -- $1 >/dev/null
}

_autoloadd_usage='usage: autoloadd-eval [--max-age AGE] [--env NAME]... TOOL ARGS...

Does what eval "$(TOOL ARGS...)" does, with the output of TOOL from the cache: it runs again when
its file changed, or what stands here.
  --max-age AGE   run it again after this time: 90 or 90s, 15m, 12h, 7d
  --env NAME      run it again when this variable changed, too'

_autoloadd_print_usage() {
  print -r -- $_autoloadd_usage
}

# Which option it is that we cannot use.
_autoloadd_wrong() {
  print -ru2 -- "autoloadd: bad option: $_autoloadd_words[1]"
}

# ---- for other plugins

_autoloadd_get_usage='usage: autoloadd-get [--producer P] [--fingerprint F] [--mtime NS] NAME...
       autoloadd-put [--producer P] [--fingerprint F] [--mtime NS] [--sync HOW] NAME BLOB

Entries of the cache. autoloadd-get sets the array reply to NAME BLOB NAME BLOB ... of those that
are there and fresh; autoloadd-put waits until the entry is stored.
  --producer P     NAME/VERSION/WIDTH, whose entries (default: zsh/VERSION/8)
  --fingerprint F  what tells whether the entry is fresh: compared byte for byte
  --mtime NS       the time of the binary that made it, in ns: older entries are stale
  --sync HOW       write (survives kill -9: the default) or fsync (on stable storage)
Status: 0 all found, or stored; 1 a miss; 2 usage; 3 no daemon; 4 refused'

# Read the options of autoloadd-get and -put off the front of $words.
_autoloadd_read_options() {
  while [[ ${_autoloadd_words[1]-} == --* ]]; do
    case $_autoloadd_words[1] in
      (--) shift _autoloadd_words; return 0 ;;
      (--producer)
        [[ ${_autoloadd_words[2]-} == [^/]##/[^/]##/(4|8) ]] || return 1
        producer=$_autoloadd_words[2] ;;
      (--fingerprint)
        (( $#_autoloadd_words > 1 )) || return 1
        _autoloadd_fingerprint=( bin "$_autoloadd_words[2]" ) ;;
      (--mtime)
        [[ ${_autoloadd_words[2]-} == (-|)[0-9](#c1,18) ]] || return 1
        mtime=( int $_autoloadd_words[2] ) ;;
      (--sync)
        [[ ${_autoloadd_words[2]-} == (write|fsync) ]] || return 1
        sync=( str $_autoloadd_words[2] ) ;;
      (*) return 1 ;;
    esac
    shift 2 _autoloadd_words
  done
}

autoloadd-get() {
  local producer=zsh/$ZSH_VERSION/8
  local -a _autoloadd_words=( "$@" ) _autoloadd_fingerprint=( nil ) mtime=( nil ) sync
  local -i all=1
  trap - ZERR DEBUG
  reply=()
  if [[ ${1-} == (-h|--help) ]]; then
    print -r -- $_autoloadd_get_usage
    return 0
  elif ! _autoloadd_read_options || (( ! $#_autoloadd_words || $#sync )); then
    print -ru2 -- $_autoloadd_get_usage
    return 2
  fi
  # What is sent at once has to fit the buffers of the socket together with what comes back.
  while (( $#_autoloadd_words )); do
    _autoloadd_get_some "${(@)_autoloadd_words[1,64]}"
    case $? in
      (0) ;;
      (1) all=0 ;;
      (*) return $? ;;
    esac
    _autoloadd_words=( "${(@)_autoloadd_words[65,-1]}" )
  done
  (( all ))
}

# Ask for up to 64 names on one connection, all before the first answer is read.
_autoloadd_get_some() {
  local _autoloadd_name _autoloadd_place _autoloadd_blob _autoloadd_stored _autoloadd_times
  local _autoloadd_packed frames=
  local -F _autoloadd_patience
  local -i _autoloadd_fd=-1 id=0 misses=0
  _autoloadd_is_there || return 3
  trap '' PIPE
  for _autoloadd_name; do
    _autoloadd_request $'\0\x01\x01'${(#):-$(( id++ ))} get array 3 str "$_autoloadd_name" \
      $mtime "${_autoloadd_fingerprint[@]}"
  done
  {
    _autoloadd_open $producer $frames || return 3
    id=0
    for _autoloadd_name; do
      _autoloadd_packed=
      _autoloadd_pack str "$_autoloadd_name"
      _autoloadd_answer $'\0\x01\x01'${(#):-$(( id++ ))} $_autoloadd_packed
      case $? in
        (0) reply+=( "$_autoloadd_name" "$_autoloadd_blob" ) ;;
        (1) misses=1 ;;
        (2) return 3 ;;
        (*) return 4 ;;
      esac
    done
    return $misses
  } always {
    _autoloadd_close
  } 2>/dev/null
}

autoloadd-put() {
  local producer=zsh/$ZSH_VERSION/8 _autoloadd_place frames=
  local -a _autoloadd_words=( "$@" ) _autoloadd_fingerprint=( nil ) mtime=( nil ) sync=( nil )
  local -F _autoloadd_patience
  local -i _autoloadd_fd=-1
  trap - ZERR DEBUG
  if [[ ${1-} == (-h|--help) ]]; then
    print -r -- $_autoloadd_get_usage
    return 0
  elif ! _autoloadd_read_options || (( $#_autoloadd_words != 2 )); then
    print -ru2 -- $_autoloadd_get_usage
    return 2
  fi
  _autoloadd_is_there || return 3
  trap '' PIPE
  {
    _autoloadd_open $producer '' || return 3
    _autoloadd_request $'\0\x01\0\x01' put array 5 str "$_autoloadd_words[1]" bin "$_autoloadd_words[2]" \
      $mtime "${_autoloadd_fingerprint[@]}" $sync
    syswrite -o $_autoloadd_fd -- $frames || return 3
    _autoloadd_patience=10
    _autoloadd_answer $'\0\x01\0\x01' ''
    case $? in
      (5) return 0 ;;
      (2) return 3 ;;
      (*) return 4 ;;
    esac
  } always {
    _autoloadd_close
  } 2>/dev/null
}

# ---- completion

# Let the completion of TOOL ARGS... find functions of ours for the programs that it may ask.
_autoloadd_watch() {
  local _autoloadd_tool=$1 _autoloadd_name
  local -aU names=( env $_autoloadd_tool ${words[1]-} )
  (( ! ${argv[(Ie)-C]} )) || names+=( ${(Q)argv[argv[(Ie)-C]+1]} )
  _autoloadd_watched=( $_autoloadd_tool )
  for _autoloadd_name in $names; do
    (( $+functions[$_autoloadd_name] )) && continue
    functions[$_autoloadd_name]="_autoloadd_asked ${(q)_autoloadd_name} \"\$@\""
    _autoloadd_watched+=( $_autoloadd_name )
  done
}

_autoloadd_unwatch() {
  (( $#_autoloadd_watched < 2 )) || unfunction -- $_autoloadd_watched[2,-1]
  # A completion may have replaced itself when it was first run.
  _autoloadd_hook $_autoloadd_watched[1]
}

# What a completion that is watched runs as $1: answered from the cache, where it asks for what a
# completion prints and nothing but its key decides that; else run.
_autoloadd_asked() {
  local _autoloadd_asked=$1 _autoloadd_program= _autoloadd_path=
  local _autoloadd_fingerprint= _autoloadd_max_age _autoloadd_place
  local -a _autoloadd_key _autoloadd_files _autoloadd_variables=( PYTHONPATH )
  local -i _autoloadd_expected=0
  shift
  trap - ZERR DEBUG
  _autoloadd_max_age=${_autoloadd_tools[$_autoloadd_watched[1]]%%:*}
  _autoloadd_variables+=( ${(s:,:)${(M)_autoloadd_tools[$_autoloadd_watched[1]]%:*}#:} )
  if _autoloadd_is_there && _autoloadd_understand $_autoloadd_asked "$@" &&
    [[ ${(j::)_autoloadd_key} != *$'\0'* ]] && _autoloadd_find_tool $_autoloadd_program &&
    _autoloadd_look && _autoloadd_fetch "$_autoloadd_max_age" \
      complete$'\0'zsh/$ZSH_VERSION$'\0'${(pj:\0:)_autoloadd_key} $_autoloadd_expected 2000 \
      command $_autoloadd_asked "$@"
  then
    print -rn -- $_autoloadd_text
    return $_autoloadd_status
  fi
  command $_autoloadd_asked "$@"
}

# Set $program and $key where ASKED ARGS... is a question of a completion that may be answered from
# the cache; $files that it depends on; $expected, the status of a good answer.
_autoloadd_understand() {
  case $1 in
    (env) _autoloadd_understand_click "$@" ;;
    (aws_completer|*/aws_completer) (( $# == 1 )) && _autoloadd_understand_aws $1 ;;
    (npm) _autoloadd_understand_npm "$@" ;;
    (*) (( $# == 1 && ${+PIP_AUTO_COMPLETE} )) && _autoloadd_understand_pip $1 ;;
  esac
}

# env COMP_WORDS=... COMP_CWORD=... _FLASK_COMPLETE=zsh_complete flask, and typer's likewise. Files
# and directories are left to the shell, by a word in the answer.
_autoloadd_understand_click() {
  local -i is_question=0
  _autoloadd_key=( "$@" )
  shift
  while [[ ${1-} == [[:alpha:]_][[:alnum:]_]#=* ]]; do
    [[ $1 == _*_COMPLETE=(zsh_complete|complete_zsh) ]] && is_question=1
    shift
  done
  (( is_question && $# == 1 )) && [[ ${1:t} == $_autoloadd_watched[1] ]] || return 1
  _autoloadd_program=$1
  if [[ ${1:t} == flask ]]; then
    # It loads the application that it finds here.
    _autoloadd_key+=( $PWD )
    _autoloadd_files=( $PWD/{app.py,wsgi.py,.env,.flaskenv} )
  fi
}

# Its answer is the same for a line's part before the cursor; for values of options it asks AWS.
_autoloadd_understand_aws() {
  local line=${COMP_LINE[1,${COMP_POINT:-0}]}
  local -a before=( ${=line} )
  # COMP_POINT counts characters.
  [[ $line$COMP_LINE != *[$'\x80'-$'\xff']* ]] || return 1
  [[ $line != *[[:space:]] ]] || before+=( '' )
  [[ $before[-1] == -*~*=* ]] || (( $#before <= 3 && ! ${before[(I)-*]} )) || return 1
  _autoloadd_program=$1 _autoloadd_key=( aws_completer $line )
  _autoloadd_files=( ~/.aws/cli/alias ${AWS_CONFIG_FILE:-~/.aws/config} ~/.aws/models )
}

# Names of commands and of options. What follows a command may come from package.json, or from afar.
_autoloadd_understand_npm() {
  _autoloadd_program=npm
  if [[ $2 == completion ]] && (( $# == 2 && ! ${+COMP_CWORD} )); then
    _autoloadd_key=( npm completion )
    return
  fi
  [[ $2 == completion && $3 == -- && ${COMP_CWORD-} == <1-> ]] || return 1
  local -a given=( "${@[4,-1]}" )
  local word=${given[COMP_CWORD+1]-}
  local -i dashes=${given[(Ie)--]}
  # Then it takes the words from the line, wherever the command stands in it.
  [[ ${COMP_LINE-} != *' -'* || -n ${(M)given:#-*} ]] || return 1
  [[ $word == -* ]] && (( ! dashes || dashes > COMP_CWORD )) || (( COMP_CWORD == 1 )) || return 1
  _autoloadd_key=( npm completion -- "${(@)given[1,COMP_CWORD+1]}" )
  # Of the line it uses only what is before this point, to find the cursor in the word.
  (( ! ${COMP_POINT:-0} )) || _autoloadd_key+=( ${COMP_LINE[1,COMP_POINT]} )
}

# After install, show and uninstall come files or what is installed; after an option its value.
_autoloadd_understand_pip() {
  local -a given=( ${=COMP_WORDS-} )
  local word=${given[COMP_CWORD+1]-}
  [[ ${given[COMP_CWORD]-} != -* ]] || return 1
  [[ $word == -*~*=* || -z ${(M)given:#(install|show|uninstall)} ]] || return 1
  _autoloadd_program=$1 _autoloadd_expected=1 _autoloadd_key=( pip "${given[@]}" $COMP_CWORD )
}

# Set $fingerprint to the texts of the program, of the packages it can load, and of $files.
_autoloadd_surroundings() {
  local real=${_autoloadd_path:P} beside
  _autoloadd_program_text
  for beside in ${real:h:h}/lib*/python3*/{site,dist}-packages(N/) \
    ${real:h:h}/package.json(N.) $_autoloadd_files
  do
    _autoloadd_file_text $beside
  done
}

_autoloadd_complete_usage='usage: autoloadd-complete [--max-age AGE] [--env NAME]... TOOL...

Serves TAB for TOOL from the cache, where its completion runs TOOL itself (programs made with click
or typer, npm, pip, aws). Use it for tools whose answer depends only on the tool and on the words of
the command line. Those that are known to be so need it only where zsh completes nothing for them:
  aws black flask npm pip pip3 uvicorn
  --max-age AGE   ask the tool again after this time: 90 or 90s, 15m, 12h, 7d
  --env NAME      ask the tool again when this variable changed, too'

# autoloadd-complete, up to the text of completions that are still to be loaded.
_autoloadd_choose() {
  local _autoloadd_max_age= _autoloadd_tool
  local -a _autoloadd_words=( "$@" ) _autoloadd_variables
  trap - ZERR DEBUG
  _autoloadd_text=
  if [[ ${1-} == (-h|--help) ]]; then
    print -r -- $_autoloadd_complete_usage
    return 0
  elif ! _autoloadd_options || (( ! $#_autoloadd_words )); then
    print -ru2 -- $_autoloadd_complete_usage
    return 2
  fi
  for _autoloadd_tool in $_autoloadd_words; do
    if [[ -n $_autoloadd_max_age$_autoloadd_variables ||
      -z ${_autoloadd_tools[$_autoloadd_tool]+known} ]]; then
      _autoloadd_tools[$_autoloadd_tool]=$_autoloadd_max_age:${(j:,:)_autoloadd_variables}
    fi
    _autoloadd_wanted+=( $_autoloadd_tool )
  done
  [[ ! -v _comps ]] || _autoloadd_load
}

# Leave in $_autoloadd_text the completions of the tools that are wanted and have none.
_autoloadd_load() {
  local _autoloadd_tool _autoloadd_texts= REPLY
  local -i _autoloadd_missing=0
  for _autoloadd_tool in ${(u)_autoloadd_wanted}; do
    _autoloadd_completion_of $_autoloadd_tool
    [[ -z $REPLY ]] || continue
    case $_autoloadd_tool in
      (black|flask|uvicorn)
        _autoloadd_output env _${(U)_autoloadd_tool}_COMPLETE=zsh_source $_autoloadd_tool ;;
      (npm) _autoloadd_output npm completion ;;
      (pip*) _autoloadd_text="_autoloadd_pip() { compadd \$(COMP_WORDS=\"\$words[*]\" \
COMP_CWORD=\$((CURRENT-1)) PIP_AUTO_COMPLETE=1 \$words[1] 2>/dev/null) }
compdef _autoloadd_pip $_autoloadd_tool" ;;
      (aws) _autoloadd_text="(( \$+functions[complete] )) || {
autoload -Uz bashcompinit; bashcompinit }; complete -C aws_completer aws" ;;
      (*)
        print -ru2 -- "autoloadd-complete: zsh completes nothing for $_autoloadd_tool yet:" \
          'load its completion first'
        _autoloadd_missing=1
        continue ;;
    esac
    _autoloadd_texts+=$_autoloadd_text$'\n'
  done
  _autoloadd_wanted=()
  _autoloadd_text=$_autoloadd_texts
  [[ -n $_autoloadd_texts ]] || (( ! _autoloadd_missing ))
}

# Plugin managers call it by this name. Nothing of this file is left.
autoloadd_plugin_unload() {
  local _autoloadd_tool
  trap - ZERR DEBUG
  precmd_functions=( ${precmd_functions:#_autoloadd_first_prompt} )
  (( $#precmd_functions )) || unset precmd_functions
  fpath=( ${fpath:#*/zsh-$ZSH_VERSION-<->-[[:xdigit:]]##/(farm|completions)} )
  for _autoloadd_tool in ${(k)_comps[(R)*_autoloadd_*]}; do
    _comps[$_autoloadd_tool]=${_comps[$_autoloadd_tool]#_autoloadd_tab $_autoloadd_tool }
    [[ $_comps[$_autoloadd_tool] != *_autoloadd_* ]] || unset "_comps[$_autoloadd_tool]"
  done
  # zinit does this itself, and says so where it is done.
  [[ -n ${(M)funcstack:#.zinit-*} ]] || unalias autoloadd-eval 2>/dev/null
  unfunction -m '(_|)autoloadd[_-]*'
  unset -m '_autoloadd_*'
}

_autoloadd_publish_alone() {
  # A name has room for most of an fpath.
  local frames= _autoloadd_packed=
  local _autoloadd_name=publish$'\0'zsh/$ZSH_VERSION$'\0'${${(pj:\0:)_autoloadd_others}[1,900]}
  local -F _autoloadd_patience
  local -i _autoloadd_fd=-1
  _autoloadd_request $'\0\x01\0\x02' lease array 1 str $_autoloadd_name
  _autoloadd_pack str "$_autoloadd_name"
  _autoloadd_open tool-output/1/8 $frames || return
  _autoloadd_patience=1
  _autoloadd_answer $'\0\x01\0\x02' $_autoloadd_packed
  # Refused by a server that has no leases.
  case $? in
    (3|4) ( exec {_autoloadd_fd}>&-; exec autoloadctl publish zsh --fpath $_autoloadd_others ) ;;
  esac
}

# Leave this file in compiled form beside the socket, under a name that no other text of it gets: one
# shell at a time.
_autoloadd_leave_copy() {
  local _autoloadd_copy _autoloadd_source name fresh compiled
  local -a found
  local -i number fd=-1
  zmodload -F zsh/files b:zf_mkdir b:zf_mv b:zf_rm && zmodload -F zsh/system b:sysopen &&
    _autoloadd_place_copy || return
  name=${_autoloadd_copy:t} fresh=${_autoloadd_copy:h}/.${_autoloadd_copy:t}
  # Of a shell that was killed.
  found=( ${_autoloadd_copy:h}/.plugin-*(N/mm+1) )
  (( ! $#found )) || zf_rm -rf -- $found
  zf_mkdir -m 700 $fresh || return
  {
    _autoloadd_read_source && print -rn -- $_autoloadd_source >$fresh/$name || return
    # Not to be mapped: a file that lost its end would kill those who do.
    zcompile -UR -- $fresh/$name.zwc $fresh/$name &&
      sysread -s 1048576 compiled <$fresh/$name.zwc || return
    # On a full disk zcompile leaves a part, and succeeds. Behind the code is as much again, for the
    # other byte order; where that begins stands in the head, the lowest byte first.
    _autoloadd_number $'\0'$compiled[8]$compiled[7]$compiled[6]
    (( $#compiled == 2 * number )) || return
    # Written once more, since zcompile does not sync: in a power loss, in a cache directory, some of
    # it may never be written, and on that zsh may hang. (A `sync` in PATH may be anything.)
    sysopen -w -o creat,excl,sync -m 400 -u fd $fresh/whole && syswrite -o $fd -- $compiled || return
    # While it was read, it was the file that the name stands for.
    _autoloadd_place_copy && [[ $_autoloadd_copy:t == $name ]] || return
    zf_mv -f -- $fresh/whole $_autoloadd_copy.zwc
    # Those of other versions, and of the file as it was.
    found=( ${_autoloadd_copy:h}/plugin-*.zwc(N.om[5,-1]) )
    (( ! $#found )) || zf_rm -f -- $found
  } always {
    (( fd < 0 )) || exec {fd}>&-
    zf_rm -rf -- $fresh
  }
}

# Who reads a copy knows by this that it is whole.
[[ -z ${_autoloadd_inner-} ]] || _autoloadd_inner=whole
