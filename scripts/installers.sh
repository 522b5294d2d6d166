#!/usr/bin/env bash
# Tests both installers in a directory, as far as possible without systemd: which files
# they install, that a second run changes nothing, and that errors are found before any
# change. Run it with `make installers`; `make system` has the rest.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=$(mktemp -d)
trap 'rm -rf "$lab"' EXIT

die() {
  echo "installers: $*" >&2
  exit 1
}

# tree prints all files below a directory with their digests.
tree() { (cd "$1" && find . \( -type f -o -type l \) -printf '%p %m %l ' -exec sh -c 'test -L "$1" || sha256sum <"$1"' sh {} \; | sort); }

# refuses fails unless a command gives the exit code and the message, and changes nothing.
refuses() {
  local want=$1 said=$2 code=0 before after out
  shift 2
  before=$(tree "$lab")
  out=$("$@" 2>&1) || code=$?
  after=$(tree "$lab")
  [ "$code" -eq "$want" ] || die "$*: exit code $code, want $want: $out"
  grep -qF -e "$said" <<<"$out" || die "$*: want a message with '$said', got: $out"
  [ "$before" = "$after" ] || die "$*: it changed something"
}

try() {
  local script=$1 config=$2 root=$lab/$1 out
  mkdir "$root"
  refuses 0 'nothing was changed' "scripts/$script" --prefix "$root" --dry-run
  "scripts/$script" --prefix "$root" >/dev/null
  refuses 0 'no change' "scripts/$script" --prefix "$root"

  grep -qi "print the version" "$root"/usr/local/share/man/man1/*-version.1 || die "$script: no manual page"
  grep -q "log_format" "$root"/usr/local/share/man/man5/*.toml.5 || die "$script: no manual page of the configuration"
  bash -n "$root"/usr/local/share/bash-completion/completions/* || die "$script: no completion of bash"

  echo '# mine' >>"$root/etc/cis490/$config"
  rm "$root"/etc/sysusers.d/*
  out=$("scripts/$script" --prefix "$root")
  grep -q '^1 changes' <<<"$out" || die "$script: one file was missing, and it said: $out"
  grep -q '^# mine' "$root/etc/cis490/$config" || die "$script: it overwrote the configuration"

  cp "$root/etc/cis490/$config" "$lab/config"
  sed -i '1i frob = 1' "$root/etc/cis490/$config"
  refuses 1 'unknown key' "scripts/$script" --prefix "$root"
  cp "$lab/config" "$root/etc/cis490/$config"

  refuses 2 'unknown option' "scripts/$script" --prefix "$root" --frob
  refuses 1 'is missing' "scripts/$script" --prefix "$root" --from "$lab"

  mkdir -p "$root/var/lib/cis490" && echo recording >"$root/var/lib/cis490/kept"
  "scripts/$script" --prefix "$root" --uninstall >/dev/null
  refuses 0 'no change' "scripts/$script" --prefix "$root" --uninstall
  left=$(cd "$root" && find . -type f -o -type l | sort | tr '\n' ' ')
  case $left in
    "./etc/cis490/$config ./var/lib/cis490/kept " | "./etc/cis490/$config ./etc/cis490/orchestrator.env ./var/lib/cis490/kept ") ;;
    *) die "$script --uninstall left: $left" ;;
  esac
}

try install-receiver.sh receiver.toml
try install-lab-host.sh lab-host.toml

# --papers is the former name of --credentials.
for flag in --credentials --papers; do
  refuses 1 'is missing: --credentials requires' scripts/install-lab-host.sh --prefix "$lab/install-lab-host.sh" "$flag" "$lab"
done

# Without a running systemd, or without root, they change nothing.
if [ ! -d /run/systemd/system ] || [ "$(id -u)" -ne 0 ]; then
  for script in install-receiver.sh install-lab-host.sh; do refuses 1 'nothing was changed' "scripts/$script"; done
fi
echo "installers: ok"
