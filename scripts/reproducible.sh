#!/usr/bin/env bash
# Builds everything in dist/ twice, from two checkouts of this commit in different
# directories, and compares. Run it with `make reproducible`.
set -euo pipefail
cd "$(dirname "$0")/.."

other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
if [ -n "$(git status --porcelain)" ]; then
  echo "reproducible: uncommitted changes are ignored" >&2
fi
# Through a bundle, since git refuses to clone a tree of another user.
git bundle create --quiet "$other/bundle" HEAD
for build in first second/deeper; do
  git clone --quiet "$other/bundle" "$other/$build" 2>/dev/null
  make --no-print-directory -C "$other/$build" dist >/dev/null
done
diff "$other/first/dist/SHA256SUMS" "$other/second/deeper/dist/SHA256SUMS"
echo "two builds of $(git rev-parse --short HEAD): the same bytes"
