# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# Upgrade and removal. Recordings and an operator's edits survive both.

farewell_scenarios() {
  check "lab host: upgrade in mid-upload" in_mid_upload ep-upgrade-lab upgrade lab shipper
  check "receiver: upgrade in mid-upload" in_mid_upload ep-upgrade upgrade receiver receiver
  check "an episode arrives after the upgrade" ship ep-upgraded
  check "nothing is lost by the upgrade" intact
  if [ "$way" = package ]; then
    check "the receiver's machine is replaced as documented" replaced_machine
    check "nothing is lost by the replacement" intact
  fi
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

# replaced_machine follows "Replace the receiver's machine" in docs/operations.md. The new machine is this
# one without a trace of the receiver: its users get other numbers.
replaced_machine() {
  local dir old=$work/replaced before
  dir=$(root receiver)
  before=$(on receiver id cis490)
  on receiver systemctl stop cis490-receiver.socket cis490-receiver
  mkdir "$old"
  mv "$dir/etc/cis490" "$old/etc"
  mv "$dir$store" "$old/data"
  [ ! -e "$dir/var/lib/cis490-identity" ] || mv "$dir/var/lib/cis490-identity" "$old"
  on receiver dpkg -P cis490-receiver
  # With cis490-hook left, new users would get numbers below its own, and cis490 its old one.
  on receiver sh -euc 'userdel cis490; userdel cis490-hook; groupdel cis490-lab; useradd --system another1; useradd --system another2'
  on receiver rm -rf "$store" /var/lib/cis490-identity /var/lib/cis490-hook

  on receiver dpkg -i "$(deb 2 receiver)"
  fails same "numbers of cis490" "$(on receiver id cis490)" "$before"
  cp -a "$old/etc/." "$dir/etc/cis490/"
  [ ! -e "$old/cis490-identity" ] || cp -a "$old/cis490-identity" "$dir/var/lib/"
  on receiver rm -rf "$store" # the mount point of the data disk
  cp -a "$old/data" "$dir$store"
  on receiver sh -euc 'chown -R cis490:cis490-lab /var/lib/cis490
    if [ -e /var/lib/cis490-identity ]; then chown -R cis490:cis490 /var/lib/cis490-identity; fi
    systemd-tmpfiles --create'
  on receiver stat -c '%n %u:%g %a' /etc/cis490/pki/server.key
  on receiver id cis490
  on receiver receiver check
  on receiver systemctl start cis490-receiver.socket cis490-receiver
  ship ep-replaced
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
