#!/usr/bin/env bash
# Makes everything in dist/ twice, of two checkouts of this commit in two folders,
# and compares. Run it with `make reproducible`.
set -euo pipefail
cd "$(dirname "$0")/.."

other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
if [ -n "$(git status --porcelain)" ]; then
  echo "reproducible: what is not committed is not looked at" >&2
fi
# By way of a bundle: git refuses to clone a tree that belongs to somebody else.
git bundle create --quiet "$other/bundle" HEAD
for build in first second/deeper; do
  git clone --quiet "$other/bundle" "$other/$build" 2>/dev/null
  make --no-print-directory -C "$other/$build" dist >/dev/null
done
diff "$other/first/dist/SHA256SUMS" "$other/second/deeper/dist/SHA256SUMS"
echo "two builds of $(git rev-parse --short HEAD): the same bytes"
