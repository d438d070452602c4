# Sourced by the scripts that run tests: the programs that tests start, with their Debian packages.
# shellcheck shell=bash

programs=(
  zsh:zsh
  fish:fish
  strace:strace
  cc:build-essential
  systemd-analyze:systemd
  systemd-socket-activate:systemd
  faketime:faketime
  groff:groff-base
  man:man-db
)
# Only root can mount what they make; a user's PATH would not even have them.
((EUID)) || programs+=(mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs)

# Install what is missing, or say in one line what to install.
install_programs() {
  local pair
  local -A packages=()
  for pair in "${programs[@]}"; do
    command -v -- "${pair%%:*}" >/dev/null || packages[${pair#*:}]=1
  done
  ((${#packages[@]})) || return 0
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    fail "the tests need programs that are not here; Debian: sudo apt-get install ${!packages[*]}"
  fi
  printf 'installing with apt-get: %s\n' "${!packages[*]}"
  apt-get -qq update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${!packages[@]}" >/dev/null ||
    fail "apt-get install ${!packages[*]} failed"
}
