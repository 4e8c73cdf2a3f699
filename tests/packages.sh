# shellcheck shell=bash
# Debian packages that tests need, installed where they are missing: `need` for each, then `install_needed`.
missing=()
need() { command -v "$1" >/dev/null || [ -e "$1" ] || missing+=("$2"); } # PROGRAM-OR-FILE PACKAGE
install_needed() {
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}"
  ( # one at a time
    flock 9
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  ) 9>"${TMPDIR:-/tmp}/pod-checkpointer-packages.lock"
}
