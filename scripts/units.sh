#!/usr/bin/env bash
# Checks the unit files with systemd: no warnings (systemd only warns about an unknown
# key), and a sandbox as strict as documented. The programs need not be installed:
# verify requires existing programs, so copies of the units name others.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly exposure=15 # tenths: systemd-analyze calls up to 2.0 OK
readonly sandboxed=(cis490-shipper cis490-receiver cis490-shipper-once cis490-episodes cis490-hook)

if ! command -v systemd-analyze >/dev/null; then
  echo "systemd-analyze is missing: install it with 'apt-get install systemd'" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "unit files were not checked" >&2
  exit 0
fi

copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
for unit in etc/*.service etc/*.socket etc/*.timer etc/*.path etc/*.target; do
  sed 's,^\(Exec[A-Za-z]*=\)/usr/bin/cis490-[a-z]*,\1/bin/true,; /^Documentation=man:/d' "$unit" >"$copies/${unit##*/}"
done

failed=0
said=$(systemd-analyze verify "$copies"/* 2>&1) || failed=1
# Without a running systemd, verify reports units of other packages.
said=$(grep -v -e '^$' <<<"$said" || true)
if [ -n "$said" ]; then
  printf 'systemd-analyze verify:\n%s\n' "${said//$copies\//}" >&2
  failed=1
fi

for name in "${sandboxed[@]}"; do
  if verdict=$(systemd-analyze security --offline=true --threshold="$exposure" --no-pager "$copies/$name.service" 2>&1); then
    echo "$name: $(tail -n 1 <<<"$verdict")"
  else
    printf '%s\n' "$verdict" >&2
    failed=1
  fi
done

# The settings of a unit from a line on that begins with a text.
settings() { sed -n "/^$2/,\$p" "$1" | grep -E '^[A-Z][A-Za-z]*=' | grep -v -e '^LoadCredential=' -e '^WantedBy='; }
if ! diff <(settings etc/cis490-shipper.service 'User=') <(settings etc/cis490-shipper-once.service 'User='); then
  echo "cis490-shipper-once.service: its sandbox differs from that of cis490-shipper.service" >&2
  failed=1
fi
exit "$failed"
