#!/usr/bin/env bash
# Tests the project as it is installed, on Debian 12 and 13: each as two machines with a real
# systemd (receiver and lab host, in systemd-nspawn) and a network between them, installed by
# script, by package and by apt; a host that joins with one line; and an old release that is upgraded,
# downgraded and upgraded again. Run it as root with `make system`. Arguments name the cells to run
# (bookworm-script, trixie-package, bookworm-join, bookworm-upgrade, ...); none means all.
#
# Everything that it starts is in namespaces of its own and ends with them: processes, mounts,
# interfaces. Only control groups outlive them, and are removed here.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly cells=(bookworm-script bookworm-package trixie-script trixie-package bookworm-join trixie-join bookworm-repo trixie-repo bookworm-upgrade)
readonly cache=${XDG_CACHE_HOME:-/var/cache}/cis490-system
readonly logs=$PWD/bin/system-logs

# shellcheck source=scripts/system/prepare.sh
source scripts/system/prepare.sh

require_host
for suite in bookworm trixie; do
  make_tree "$suite"
done

rm -rf "$logs"
mkdir -p "$logs"
work=$(mktemp -d "${TMPDIR:-/tmp}/cis490-system.XXXXXX")
group=cis490-system-$$

# remove_groups removes our control groups, once the kernel has seen the end of
# what was in them.
remove_groups() {
  local root found
  for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
    for _ in {1..40}; do
      found=("$root/$group"*)
      [ -d "${found[0]}" ] || break
      find "${found[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
}

finish() {
  local code=$? pid
  trap - EXIT
  trap "" INT TERM # they may come twice, from make and from the terminal
  for pid in $(jobs -p); do kill -KILL "$pid" 2>/dev/null || true; done # and all that is in its namespaces
  wait
  remove_groups
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "$#" -gt 0 ]; then wanted=("$@"); else wanted=("${cells[@]}"); fi

upgrades=no
if [[ " ${wanted[*]} " == *-upgrade\ * ]]; then
  if has_old_release; then
    upgrades=yes
  else
    mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | grep -v -- '-upgrade$')
    if [ "${#wanted[@]}" -eq 0 ]; then exit 0; fi
  fi
fi

make_releases "$work/release"
if [ "$upgrades" = yes ]; then make_release "$work/release/old" 0.9.0 "$old_release"; fi
echo "releases made, $SECONDS s"

# Two cells at a time: much of each is waiting.
failed=0
for cell in "${wanted[@]}"; do
  if [ "$(jobs -pr | wc -l)" -ge 2 ]; then wait -n || failed=1; fi
  unshare --mount --net --ipc --pid --fork --kill-child --mount-proc --propagation private \
    scripts/system/cell.sh "$cell" "$cache" "$work" "$logs" "$group-$cell" </dev/null &
done
while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done

count() { find "$logs" -name "*.$1" -exec cat {} + | wc -l; }
passed=$(count passed) lost=$(count failed)
printf '\n%s passed, %s failed, %s s\n' "$passed" "$lost" "$SECONDS"
if [ "$failed" -ne 0 ] || [ "$lost" -ne 0 ] || [ "$passed" -eq 0 ]; then
  sort "$logs"/*.failed 2>/dev/null | sed 's/^/FAIL /'
  echo "logs: $logs"
  exit 1
fi
rm -rf "$logs"
