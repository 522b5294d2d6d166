# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# Upgrade and removal. Recordings and an operator's edits survive both.

farewell_scenarios() {
  check "lab host: upgrade in mid-upload" in_mid_upload ep-upgrade-lab upgrade lab shipper
  check "receiver: upgrade in mid-upload" in_mid_upload ep-upgrade upgrade receiver receiver
  check "an episode arrives after the upgrade" ship ep-upgraded
  check "nothing is lost by the upgrade" intact
  check "receiver: removal" removal receiver receiver
  check "lab host: removal" removal lab shipper
  if [ "$way" = package ]; then
    check "receiver: purge" purge receiver receiver receiver.toml
    check "lab host: purge" purge lab shipper lab-host.toml
  fi
}

# upgrade replaces release 1 by 2: another process runs it, with the edits kept.
upgrade() {
  local machine=$1 role=$2 unit=cis490-$2 pid config
  config=$(root "$machine")/etc/cis490
  echo '# edited by hand' | tee -a "$config"/*.toml
  on "$machine" "$role" version | grep -w 1.0.0
  pid=$(property "$machine" "$unit" MainPID)
  if [ "$way" = package ]; then
    on "$machine" dpkg -i "$(deb 2 "$role")"
  elif [ "$role" = receiver ]; then
    on receiver "$releases/2/scripts/install-receiver.sh"
  else
    # Its last step asks a receiver whose slow line is full; that may fail.
    on lab "$releases/2/scripts/install-lab-host.sh" || [ $? -eq 4 ]
  fi
  eventually active "$machine" "$unit"
  fails unit_is "$machine" "$unit" MainPID "$pid"
  on "$machine" "$role" version | grep -w 2.0.0
  grep -x '# edited by hand' "$config"/*.toml
}

# removal takes program and units; configuration, keys and recordings stay.
removal() {
  local machine=$1 role=$2 dir kept
  dir=$(root "$machine")
  on "$machine" systemctl stop "cis490-$role" || true
  kept=$(recordings "$machine") # not before: at its end the shipper notes what it knows of its receiver
  if [ "$way" = package ]; then
    on "$machine" dpkg -r "cis490-$role"
  elif [ "$role" = receiver ]; then
    on receiver "$releases/2/scripts/install-receiver.sh" --uninstall
  else
    on lab "$releases/2/scripts/install-lab-host.sh" --uninstall
  fi
  fails on "$machine" sh -c "grep -lx 'cis490-$role' /proc/[0-9]*/comm"
  fails unit_is "$machine" "cis490-$role.service" LoadState loaded
  fails on "$machine" sh -c "command -v $role || command -v cis490-$role"
  same "programs left" "$(find "$dir/usr" "$dir/etc/systemd" -name '*cis490*' -type f)" ''
  [ -e "$dir/etc/cis490/pki" ]
  ls "$dir"/etc/cis490/*.toml
  same "recordings" "$(recordings "$machine")" "$kept"
  no_failed_units
}

# purge takes the configuration too. Recordings stay.
purge() {
  local machine=$1 dir kept
  dir=$(root "$machine")
  kept=$(recordings "$machine")
  on "$machine" dpkg -P "cis490-$2"
  [ ! -e "$dir/etc/cis490/$3" ]
  # Debian keeps these over a removal, to know what was enabled.
  same "links left" "$(find "$dir/etc/systemd" -name 'cis490-*' -type l)" ''
  same "recordings" "$(recordings "$machine")" "$kept"
}

# recordings prints one line for everything in /var/lib/cis490.
recordings() {
  (cd "$(root "$1")$store" && find . -type f \( -path './episodes/*' -o -path './data/*' -o -name index.jsonl \) -exec sha256sum {} + | sort | sha256sum)
}
