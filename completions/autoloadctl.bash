# shellcheck shell=bash disable=SC2034,SC2046
# Made by scripts/manual from the parser of autoloadctl.

# Offer words, those that begin as what is typed does.
_autoloadctl_words() {
  local word
  compopt +o default
  for word; do
    word=$before$word
    [[ $word != "$typed"* ]] || COMPREPLY+=("${word#"$lead"}")
  done
}

# Run `autoloadctl "$@"` with the --socket and --producer that were typed; an answer is waited for
# half a second.
_autoloadctl_ask() {
  "${words[0]/#\~\//$HOME/}" "$1" --timeout 0.5 "${given[@]}" "${@:2}" 2>/dev/null
}

# A name may hold whatever a shell obeys: it is quoted, and never expanded.
_autoloadctl_entries() {
  local name quoted
  compopt +o default
  [[ $typed != [\"\']* ]] || return
  while IFS= read -r name; do
    printf -v quoted %q "$name"
    [[ $quoted != "$typed"* ]] || COMPREPLY+=("${quoted#"$lead"}")
  done < <(_autoloadctl_ask ls -- "${typed//\\/}")
}

_autoloadctl_shards() {
  local shard producer _ shards=() producers=()
  while read -r shard producer _; do
    shards+=("$shard")
    producers+=("$producer")
  done < <(_autoloadctl_ask shards)
  # The first line is a heading.
  if [[ $1 == producers ]]; then shards=("${producers[@]}"); fi
  _autoloadctl_words "${shards[@]:1}"
}

# A tool's own words, as it completes them where it stands first.
_autoloadctl_command_line() {
  local function
  for function in _comp_command_offset _command_offset; do
    if declare -F "$function" >/dev/null; then
      "$function" "$tool"
      return
    fi
  done
}

_autoloadctl() {
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
        --fpath) many=$word ;;
        --socket | --producer)
          if ((++i == last)); then
            option=$word
          else
            ahead=${words[i]//[\"\'\\]/}
            given+=("$word" "${ahead/#\~\//$HOME/}")
          fi
          ;;
        --socket=* | --producer=*) given+=("$word") ;;
        --timeout | --binary | --mtime | --fingerprint-file | --sync | --layout | --max-age | --env | --file | --packages | --shell | --kind | --status | --pid | --rc | --cache-dir) ((++i < last)) || option=$word ;;
      esac
    elif [[ -n $many ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((operands)) || tool=${starts[i]}
      ((operands == 2)) || operands+=1
      case $command in
        cached) plain=1 ;;
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
    --socket | --binary | --fingerprint-file | --file | --rc)
      :
      return
      ;;
    --timeout | --mtime | --max-age | --shell | --status)
      compopt +o default
      return
      ;;
    --producer)
      _autoloadctl_shards producers
      return
      ;;
    --sync)
      _autoloadctl_words memory write fsync
      return
      ;;
    --layout)
      _autoloadctl_words 1.95 1.63
      return
      ;;
    --fpath | --cache-dir)
      compopt +o default -o dirnames
      return
      ;;
    --env)
      _autoloadctl_words $(compgen -e)
      return
      ;;
    --packages)
      _autoloadctl_words python
      return
      ;;
    --kind)
      _autoloadctl_words eval complete
      return
      ;;
    --pid)
      _autoloadctl_words $(ps -eo pid=)
      return
      ;;
  esac
  if [[ -z $plain && $typed == -* ]]; then
    case $command:$operands in
      :*) _autoloadctl_words -h --help --version --socket --timeout --json --producer --binary --mtime ;;
      get:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --fingerprint-file ;;
      put:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --fingerprint-file --sync ;;
      ls:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      missing:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      rm:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --sync ;;
      count:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      stats:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      clear:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --sync ;;
      flush:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      warm:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime ;;
      import:*) _autoloadctl_words -h --help --socket --timeout --json --dry-run --sync ;;
      export:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --layout ;;
      publish:*) _autoloadctl_words -h --help --socket --timeout --json --producer --binary --mtime --fpath --print-dir --dry-run ;;
      cached:0) _autoloadctl_words -h --help --socket --timeout --json --max-age --env --file --packages --shell --kind --status --pid ;;
      shell:*) _autoloadctl_words -h --help --socket --timeout --json --rc --dry-run ;;
      why:*) _autoloadctl_words -h --help --socket --timeout --json --max-age --fpath ;;
      status:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      ping:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      shards:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      drop:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      shutdown:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      version:*) _autoloadctl_words -h --help --socket --timeout --json ;;
      verify:*) _autoloadctl_words -h --help --socket --timeout --json --cache-dir ;;
    esac
    compopt +o default
    return
  fi
  case $command:$operands in
    :*)
      _autoloadctl_words get put ls missing rm count stats clear flush warm import export publish cached shell why status ping shards drop shutdown version verify
      ;;
    get:* | put:0 | ls:0 | missing:* | rm:*)
      _autoloadctl_entries
      ;;
    put:1 | import:1 | import:2 | export:1 | export:2)
      :
      ;;
    warm:0 | publish:0)
      _autoloadctl_words zsh
      ;;
    warm:1 | warm:2)
      compopt +o default -o dirnames
      ;;
    import:0 | export:0)
      _autoloadctl_words zshrs
      compopt -o default
      ;;
    cached:0)
      mapfile -t COMPREPLY < <(compgen -c -- "$typed")
      ;;
    cached:1 | cached:2 | why:1 | why:2)
      _autoloadctl_command_line
      ;;
    shell:0)
      _autoloadctl_words install uninstall status
      ;;
    shell:1)
      _autoloadctl_words zsh bash fish
      ;;
    why:0)
      _autoloadctl_entries
      mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$typed")
      ;;
    drop:0 | verify:*)
      _autoloadctl_shards shards
      ;;
    *) compopt +o default ;;
  esac
}

complete -o default -F _autoloadctl autoloadctl
