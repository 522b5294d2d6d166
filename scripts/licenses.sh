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
  local file
  printf '\n==== %s\n' "$1"
  for file in "$2"/LICENSE* "$2"/COPYING* "$2"/NOTICE*; do
    if [ -f "$file" ]; then
      echo
      # Debian has the text of this licence, and requires packages to refer to it.
      if grep -q 'Apache License' "$file" && grep -q 'TERMS AND CONDITIONS' "$file"; then
        echo 'Apache License, Version 2.0: see /usr/share/common-licenses/Apache-2.0'
      else
        cat "$file"
      fi
    fi
  done
}

# Debian installs Go's licence beside the tree that GOROOT names.
terms "go ($(go env GOVERSION))" "$(go env GOROOT)"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}}{{end}}{{end}}' "$1" | sort -u |
  while read -r module dir; do terms "$module" "$dir"; done
