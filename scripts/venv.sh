# Sourced by the other scripts: finds a Python and keeps a virtual environment up to date.
# shellcheck shell=bash

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
needed='Python 3.11 or later with venv (Debian: apt install python3 python3-venv)'

fail() {
  printf '%s: %s\n' "scripts/${0##*/}" "$*" >&2
  exit 1
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Print the Python to use: $PYTHON, or else the first of the usual names that is new enough.
find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run or is too old; needed: $needed"
    command -v -- "$PYTHON"
    return
  fi
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if is_new_enough "$candidate"; then
      command -v -- "$candidate"
      return
    fi
  done
  fail "needed: $needed; or set PYTHON to one"
}

# Print X.Y of a Python.
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# keep_venv DIRECTORY PYTHON GROUP...: make the virtual environment if it is missing, and install
# the project (editable) with the dependency groups, unless that was done for this pyproject.toml.
keep_venv() {
  local directory=$1 python=$2 group stamp wanted log
  shift 2
  # The marker's name holds the groups: a venv made for fewer of them is not up to date for more.
  stamp=$directory/.autoloadd-${*:-runtime}
  stamp=${stamp// /-}
  wanted=$(cksum <"$checkout/pyproject.toml" && printf '%s\n' "$checkout")
  if [[ -x $directory/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  printf 'installing autoloadd and what it needs%s into %s\n' "${*:+ (groups: $*)}" "${directory#"$checkout"/}"
  if [[ ! -x $directory/bin/python ]]; then
    "$python" -m venv -- "$directory" || fail "no virtual environment; needed: $needed"
  fi
  local -a groups=()
  for group; do groups+=(--group "$group"); done
  log=$directory/install.log
  # pip reads dependency groups from 25.1 on; older Pythons bring an older one.
  {
    if ((${#groups[@]})); then
      "$directory/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
    fi &&
      (cd -- "$checkout" && "$directory/bin/python" -m pip install --quiet --editable . "${groups[@]}")
  } >"$log" 2>&1 || {
    tail -n 20 -- "$log" >&2
    fail "the installation failed; see ${directory#"$checkout"/}/install.log"
  }
  printf '%s\n' "$wanted" >"$stamp"
}
