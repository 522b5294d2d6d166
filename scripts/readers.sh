#!/usr/bin/env bash
# Runs every snippet of docs/index.md with the real tools on an index and archives. DuckDB and Polars come from npm, pinned in scripts/readers/.
set -euo pipefail
cd "$(dirname "$0")/.."

modules=bin/readers
mkdir -p "$modules"
cp scripts/readers/package.json "$modules/"
# No lock file: it would list the builds for all other platforms.
npm install --prefix "$modules" --no-package-lock --no-audit --no-fund --loglevel=error
CIS490_READERS=$PWD/$modules/node_modules go test -count=1 -run 'TestReaders' ./internal/labtest
