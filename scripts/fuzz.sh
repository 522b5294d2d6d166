#!/usr/bin/env bash
# Runs every fuzz target for the time given: go test runs one target of one
# package at a time. What a target finds stays below its package's testdata/fuzz;
# from then on go test runs it as a case.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=${1:-10s}
count=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]+).*/\1/' <<<"$line")
  package=./$(dirname "$file")
  echo "$package $target"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package"
  count=$((count + 1))
done < <(grep -rE --include='*_test.go' '^func Fuzz[A-Z]' cmd internal | sort)

if [ "$count" -eq 0 ]; then
  echo "found no fuzz target" >&2
  exit 1
fi
echo "$count fuzz targets, $fuzztime each: nothing found"
