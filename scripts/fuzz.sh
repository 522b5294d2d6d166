#!/usr/bin/env bash
# Runs every fuzz target for the given time, one per core at a time. Each package is
# compiled once. A failing input stays below testdata/fuzz of its package, and go test runs
# it as a test case from then on.
set -euo pipefail
cd "$(dirname "$0")/.."

export fuzztime=${1:-10s} work cache
work=$(mktemp -d)
cache=$(go env GOCACHE)/fuzz/cis490
trap 'rm -rf "$work"' EXIT

# fuzz runs one target: fuzz PACKAGE TARGET. Until Go 1.27 the end of the time may be
# reported as a failure without a failing input (https://go.dev/issue/75804); fuzz ignores
# that.
fuzz() {
  local code=0 log=$work/$2.${1//\//.}.log
  (cd "$1" && "$work/${1//\//.}.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$fuzztime" \
    -test.fuzzcachedir "$cache/$1" -test.parallel 1) >"$log" 2>&1 || code=$?
  printf '%s %s\n' "$1" "$2"
  cat "$log"
  if [ "$code" -ne 0 ] && grep -qx '    context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"; then
    echo "$2: its time ended, which this version of Go reports as a failure"
    return
  fi
  return "$code"
}
export -f fuzz

grep -rE --include='*_test.go' '^func Fuzz[A-Z]' cmd internal |
  sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]+).*|\1 \2|' | sort >"$work/targets"
if [ ! -s "$work/targets" ]; then
  echo "found no fuzz target" >&2
  exit 1
fi
for package in $(cut -d ' ' -f 1 "$work/targets" | uniq); do
  go test -c -fuzz=. -o "$work/${package//\//.}.test" "./$package"
done
xargs -P "$(nproc)" -L 1 bash -c 'fuzz "$@"' fuzz <"$work/targets"
echo "$(wc -l <"$work/targets") fuzz targets, $fuzztime each: nothing found"
