#!/usr/bin/env bash
# Checks the shipped programs for known vulnerabilities. If the database cannot be reached,
# it prints a note and exits with 0, so that make check works without a network.
set -euo pipefail
cd "$(dirname "$0")/.."

code=0
said=$(go tool -modfile=scripts/tools.mod govulncheck ./cmd/... 2>&1) || code=$?
if [ "$code" -ne 0 ] && grep -q '^govulncheck: fetching vulnerabilities:' <<<"$said"; then
  echo "known vulnerabilities were not checked: ${said#govulncheck: }" >&2
  exit 0
fi
if [ "$code" -ne 0 ]; then printf '%s\n' "$said" >&2; fi
exit "$code"
