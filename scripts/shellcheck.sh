#!/usr/bin/env bash
# Checks the given shell scripts. Versions of shellcheck differ in their findings, so
# this names the version of CI, that of Debian 12.
set -euo pipefail

readonly pinned=0.9.0

if ! command -v shellcheck >/dev/null; then
  echo "shellcheck is missing: install it with 'apt-get install shellcheck' or 'brew install shellcheck'" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "scripts were not checked" >&2
  exit 0
fi
found=$(shellcheck --version | sed -n 's/^version: //p')
if [ "$found" != "$pinned" ]; then
  echo "shellcheck is $found, CI has $pinned: their findings may differ" >&2
fi
shellcheck --external-sources "$@"
