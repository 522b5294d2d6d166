#!/usr/bin/env bash
# Prints Debian's copyright file for a program: whose code is linked into it, and
# under which terms. scripts/licenses.sh ./cmd/shipper
set -euo pipefail
cd "$(dirname "$0")/.."

cat <<'EOF'
Source: the repository of the project CIS490
Copyright: the authors of CIS490, as its history names them

The program contains the Go runtime and standard library and the modules below,
each under the terms that follow its name.
EOF

terms() {
  local file found=
  printf '\n==== %s\n' "$1"
  for file in "$2"/LICENSE* "$2"/COPYING* "$2"/NOTICE*; do
    if [ -f "$file" ]; then
      found=1
      echo
      # Debian has the text of this licence, and requires packages to refer to it.
      if grep -q 'Apache License' "$file" && grep -q 'TERMS AND CONDITIONS' "$file"; then
        echo 'Apache License, Version 2.0: see /usr/share/common-licenses/Apache-2.0'
      else
        cat "$file"
      fi
    fi
  done
  if [ -z "$found" ]; then
    echo "$1 has no licence in $2" >&2
    return 1
  fi
}

# inner prints the directories between a package and its module that have terms of their own: code
# that the module has copied. inner MODULE MODULE-DIRECTORY DIRECTORY
inner() {
  local dir=$3 file
  while [ "$dir" != "$2" ]; do
    for file in "$dir"/LICENSE* "$dir"/COPYING*; do
      if [ -f "$file" ]; then echo "$1${dir#"$2"} $dir"; fi
    done
    dir=${dir%/*}
  done
}

# Debian installs Go's licence beside the tree that GOROOT names, so it may be missing here.
terms "go ($(go env GOVERSION))" "$(go env GOROOT)" || true
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}' "$1" |
  while read -r module top dir; do
    echo "$module $top"
    inner "$module" "$top" "$dir"
  done | sort -u | while read -r part dir; do terms "$part" "$dir"; done
