#!/bin/sh
# Prints the version of a package made of this tree. It sorts: a commit after a tag
# above the tag, and one without any tag below the first.
set -eu
cd "$(dirname "$0")/.."

if described=$(git describe --tags --match 'v[0-9]*' --dirty=+dirty 2>/dev/null); then
  # v1.2.3-5-gabcdef -> 1.2.3+5.gabcdef
  printf '%s\n' "$described" | sed -e 's/^v//' -e 's/-\([0-9]*\)-g/+\1.g/' -e 's/+dirty/.dirty/2'
else
  day=$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S)
  printf '0.0~%s.%s\n' "$day" "$(git describe --always --dirty=+dirty)"
fi
