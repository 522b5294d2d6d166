#!/usr/bin/env bash
# One cell of the table Debian version x way of installing (script, package, package and
# join, apt repository, upgrade of an old package): run.sh starts it in namespaces of its own. It builds two
# machines, wires them, and runs its scenarios in order; each finds the lab as the one
# before left it.
#
# usage: cell.sh SUITE-WAY CACHE WORK LOGS GROUP
set -euo pipefail

readonly cell=$1 cache=$2 work=$3/$1 logs=$4 group=$5
readonly suite=${cell%-*} way=${cell##*-}
# shellcheck disable=SC2034 # the files below use it
readonly project=$3/release

here=scripts/system
# shellcheck source=scripts/system/check.sh
source "$here/check.sh"
# shellcheck source=scripts/system/machine.sh
source "$here/machine.sh"
# shellcheck source=scripts/system/lab.sh
source "$here/lab.sh"
# shellcheck source=scripts/system/install.sh
source "$here/install.sh"
# shellcheck source=scripts/system/join.sh
source "$here/join.sh"
# shellcheck source=scripts/system/repo.sh
source "$here/repo.sh"
# shellcheck source=scripts/system/daily.sh
source "$here/daily.sh"
# shellcheck source=scripts/system/people.sh
source "$here/people.sh"
# shellcheck source=scripts/system/hooks.sh
source "$here/hooks.sh"
# shellcheck source=scripts/system/faults.sh
source "$here/faults.sh"
# shellcheck source=scripts/system/box.sh
source "$here/box.sh"
# shellcheck source=scripts/system/farewell.sh
source "$here/farewell.sh"
# shellcheck source=scripts/system/upgrade.sh
source "$here/upgrade.sh"

finish() {
  local code=$?
  trap - EXIT
  trap "" INT TERM # they may come twice, from make and from the terminal
  keep_logs
  take_down
  exit "$code"
}

printf '\n== %s\n' "$cell"
build_machines "$cache/$suite.tar"
trap finish EXIT
trap 'exit 143' TERM INT

if [ "$way" = upgrade ]; then
  upgrade_scenarios
  exit
fi
if [ "$way" = join ]; then
  join_scenarios
  exit
fi
if [ "$way" = repo ]; then
  repo_scenarios
  exit
fi
install_scenarios
daily_scenarios
people_scenarios
hook_scenarios
box_scenarios
fault_scenarios
farewell_scenarios
