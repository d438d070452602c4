# shellcheck shell=bash disable=SC2034,SC2046
# Made by scripts/manual from the parser of autoloadd.

# Offer words, those that begin as what is typed does.
_autoloadd_words() {
  local word
  compopt +o default
  for word; do
    word=$before$word
    [[ $word != "$typed"* ]] || COMPREPLY+=("${word#"$lead"}")
  done
}

_autoloadd() {
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
        --socket | --cache-dir | --config | --max-bytes | --sync-interval | --log-level) ((++i < last)) || option=$word ;;
      esac
    elif [[ -n $many ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((operands)) || tool=${starts[i]}
      ((operands == 2)) || operands+=1
      case $command in
        '') plain=1 ;;
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
    --socket | --config)
      :
      return
      ;;
    --cache-dir)
      compopt +o default -o dirnames
      return
      ;;
    --max-bytes | --sync-interval)
      compopt +o default
      return
      ;;
    --log-level)
      _autoloadd_words debug info warning error
      return
      ;;
  esac
  if [[ -z $plain && $typed == -* ]]; then
    case $command:$operands in
      :*) _autoloadd_words -h --help --socket --cache-dir --config --max-bytes --sync-interval --log-level --check-config --version ;;
    esac
    compopt +o default
    return
  fi
  case $command:$operands in
    *) compopt +o default ;;
  esac
}

complete -o default -F _autoloadd autoloadd
