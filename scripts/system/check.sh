# shellcheck shell=bash disable=SC2154 # run in cell.sh
# How a cell reports results. A check is a function or a command that ends with 0 and may print
# what it saw, which is shown if it fails.

readonly patience=45 # seconds that a check waits for something

# check runs one and prints one line. It must not be called in a condition: the shell would
# continue after an error inside it.
check() {
  local name=$1 code out=$work/check.out took=$EPOCHREALTIME
  shift
  set +e
  (
    set -euo pipefail
    trap 'echo "${FUNCNAME[0]:-}: $BASH_COMMAND" >&2' ERR
    set -E
    "$@"
  ) >"$out" 2>&1 </dev/null
  code=$?
  set -e
  took=$(((${EPOCHREALTIME/./} - ${took/./}) / 1000))
  if [ "$code" -eq 0 ]; then
    printf 'ok   %-17s %s (%d ms)\n' "$cell" "$name" "$took"
    echo "$cell $name" >>"$logs/$cell.passed"
    return
  fi
  printf 'FAIL %-17s %s (exit %d, %d ms)\n' "$cell" "$name" "$code" "$took"
  tail -n 25 "$out" | sed 's/^/     | /'
  echo "$cell $name" >>"$logs/$cell.failed"
}

# eventually runs a command until it succeeds.
eventually() {
  local deadline=$((SECONDS + patience))
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "waited $patience s for: $*"
      "$@"
      return 1
    fi
    sleep 0.05
  done
}

# fails turns a command's failure into success.
fails() {
  if "$@"; then
    echo "did not fail: $*"
    return 1
  fi
}

# same compares a value with what is wanted.
same() {
  if [ "$2" != "$3" ]; then
    printf '%s: got %q, want %q\n' "$1" "$2" "$3"
    return 1
  fi
}
