# Sourced by scripts/bench: installs the peers that autoloadd is measured against.
# shellcheck shell=bash

bench_packages=(lmdb redis hiredis pymemcache pylibmc diskcache matplotlib)

# keep_programs PROGRAM:PACKAGE...: install what is missing, or say in one line what to install.
keep_programs() {
  local pair
  local -a missing=()
  for pair; do
    command -v -- "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    fail "what it measures is not here; Debian: sudo apt-get install ${missing[*]}"
  fi
  printf 'installing with apt-get: %s\n' "${missing[*]}"
  apt-get -qq update >/dev/null
  DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --no-install-recommends "${missing[@]}" libc6-dev >/dev/null ||
    fail "apt-get install ${missing[*]} failed"
}

# keep_bench_venv PYTHON: .bench/venv with autoloadd (editable) and the peers' libraries.
keep_bench_venv() {
  local python=$1 home=$checkout/.bench venv=$checkout/.bench/venv wanted
  mkdir -p -- "$home"
  printf '*\n' >"$home/.gitignore"
  wanted=$(cksum <"$checkout/pyproject.toml" && version_of "$python" && printf '%s\n' "$checkout" "${bench_packages[*]}")
  [[ -f $venv/.peers && $(<"$venv/.peers") == "$wanted" ]] && return
  printf 'installing autoloadd and its peers into .bench/venv: %s\n' "${bench_packages[*]}"
  "$python" -m venv --clear -- "$venv" || fail "no virtual environment; needed: $needed"
  "$venv/bin/python" -m pip install --quiet --editable "$checkout" "${bench_packages[@]}" >"$home/install.log" 2>&1 || {
    tail -n 20 -- "$home/install.log" >&2
    fail "the installation failed; see .bench/install.log"
  }
  printf '%s\n' "$wanted" >"$venv/.peers"
}
