#!/usr/bin/env bash
# Checks the status page of a real receiver in Debian's Chromium, with axe-core. The modules come from npm,
# pinned in scripts/page/. Screenshots: bin/page/*.png.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in chromium node npm; do
  if command -v "$tool" >/dev/null; then continue; fi
  echo "page: $tool is missing" >&2
  if [ "${CI:-}" = true ]; then exit 1; fi
  exit 0
done
mkdir -p bin/page
cp scripts/page/package.json bin/page/
npm install --prefix bin/page --no-package-lock --no-audit --no-fund --loglevel=error
CIS490_PAGE=$PWD/bin/page/node_modules CHROMIUM=$(command -v chromium) go test -count=1 -timeout 20m -v -run 'TestStatusPageInABrowser$' ./internal/labtest
