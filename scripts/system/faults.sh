# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# What goes wrong: a daemon dies or hangs, a machine goes down in mid-upload, a
# disk fails.

fault_scenarios() {
  impatient receiver cis490-receiver
  impatient lab cis490-shipper
  check "receiver: killed, comes back, eight times in a row" killed_comes_back receiver cis490-receiver
  check "lab host: killed, comes back, eight times in a row" killed_comes_back lab cis490-shipper
  check "receiver: hangs, is restarted by the watchdog" hanging_comes_back receiver cis490-receiver
  check "lab host: hangs, is restarted by the watchdog" hanging_comes_back lab cis490-shipper
  check "a wrong configuration is mended without a restart by hand" wrong_configuration
  check "connections wait while the receiver restarts" connections_wait
  check "receiver: killed in mid-upload" in_mid_upload ep-killed on receiver systemctl kill --signal=KILL cis490-receiver
  check "lab host: killed in mid-upload" in_mid_upload ep-killed-lab on lab systemctl kill --signal=KILL cis490-shipper
  check "receiver: reboot in mid-upload" in_mid_upload ep-reboot reboot_machine receiver
  check "lab host: reboot in mid-upload" in_mid_upload ep-reboot-lab reboot_machine lab
  check "receiver: power cut in mid-upload" in_mid_upload ep-cut lose_power receiver
  check "lab host: power cut in mid-upload" in_mid_upload ep-cut-lab lose_power lab
  check "receiver: a disk is mounted over its store, and taken away" store_is_covered
  check "lab host: a disk is mounted over its folders, and taken away" folders_are_covered
  check "nothing is lost by the faults" intact
  check "receiver: its store moves to a new disk" store_moves
  check "receiver: a failing disk ends it for good" receiver_stays_down
  check "lab host: a failing disk ends it for good" shipper_stays_down
  check "nothing is lost by the disks" intact
}

# impatient makes the timeouts of the units short enough for a test, by drop-ins that stay
# until the end.
impatient() {
  drop_in "$1" "$2" impatient <<<$'[Service]\nRestartSec=100ms'
}

killed_comes_back() {
  local machine=$1 unit=$2 before again
  for again in {1..8}; do
    before=$(property "$machine" "$unit" MainPID)
    on "$machine" systemctl kill --signal=KILL --kill-whom=main "$unit"
    # The new process first: the old one's unit is active until its end is noticed.
    back() { another_pid && active "$machine" "$unit"; }
    another_pid() { ! [[ $(property "$machine" "$unit" MainPID) =~ ^(0|$before)$ ]]; }
    eventually back
  done
  echo "came back $again times"
  ping_receiver
  ship "ep-after-kill-of-$machine"
}

# hanging_comes_back stops all its threads. WatchdogSec=2s is from
# gives_signs_of_life.
hanging_comes_back() {
  local machine=$1 unit=$2 restarts
  unit_is "$machine" "$unit" WatchdogUSec 2s
  restarts=$(property "$machine" "$unit" NRestarts)
  on "$machine" systemctl kill --signal=STOP --kill-whom=main "$unit"
  restarted() { [ "$(property "$machine" "$unit" NRestarts)" -gt "$restarts" ] && active "$machine" "$unit"; }
  eventually restarted
  on "$machine" journalctl --sync
  on "$machine" journalctl -q --no-pager -o cat -u "$unit" | grep -i 'watchdog timeout'
  ship "ep-after-hang-of-$machine"
}

# wrong_configuration: an operator fixes the file, and nothing else is needed.
wrong_configuration() {
  local file
  file=$(root lab)/etc/cis490/lab-host.toml
  echo 'unknwon_key = 1' | cat - "$file" >"$file.wrong"
  cp -p "$file" "$file.right"
  cat "$file.wrong" >"$file"
  on lab systemctl restart cis490-shipper || true
  sleep 1
  fails active lab cis490-shipper
  on lab journalctl -q --no-pager -o cat -u cis490-shipper | grep 'unknwon_key'
  cat "$file.right" >"$file"
  rm "$file.right" "$file.wrong"
  eventually active lab cis490-shipper
}

# connections_wait: a restart that takes two seconds, and no ping that fails.
connections_wait() {
  local pinger
  drop_in receiver cis490-receiver slow <<<$'[Service]\nExecStartPre=+/bin/sleep 2'
  on receiver systemctl --no-block restart cis490-receiver
  starting() { unit_is receiver cis490-receiver ActiveState activating; }
  eventually starting
  ping_receiver &
  pinger=$!
  starting
  ping_receiver
  wait "$pinger"
  drop_out receiver cis490-receiver slow
}

# in_mid_upload records an episode on a slow line, calls a function when a part of it is sent,
# and checks that it arrives.
in_mid_upload() {
  local name=$1
  shift
  slow 16mbit
  record "$name" 6144
  eventually uploading 256
  "$@"
  fast
  eventually arrived "$name"
}

# lose_power ends a machine between two instructions.
lose_power() {
  cut_power "$1"
  boot "$1"
}

# covered mounts something over a directory of a machine, as a disk that comes late. The
# unit sees the directory through a mount of its own: covered MACHINE UNIT DIRECTORY
covered() {
  local machine=$1 unit=$2 dir=$3
  another_start() { ! [[ $(property "$machine" "$unit" MainPID) =~ ^(0|$before)$ ]] && active "$machine" "$unit"; }
  before=$(property "$machine" "$unit" MainPID)
  on "$machine" mount -t tmpfs -o "mode=2770,uid=$(on "$machine" id -u cis490),gid=$(on "$machine" getent group cis490-lab | cut -d: -f3)" late "$dir"
}

# moved_away checks that the unit logged why it ended, and that it was started again.
moved_away() {
  local machine=$1 unit=$2 since=$3 said
  eventually another_start
  on "$machine" journalctl --sync
  # All of the journal: it may no longer know which unit the last line of a process belonged
  # to.
  said=$(on "$machine" journalctl -q --no-pager -o cat --after-cursor "$since")
  echo "$said"
  grep 'the next start takes what is there' <<<"$said"
  grep "$unit.service: Main process exited, code=exited, status=1/FAILURE" <<<"$said"
}

# store_is_covered: what is acknowledged is in the store that its path leads to.
store_is_covered() {
  local before at
  at=$(cursor receiver)
  covered receiver cis490-receiver "$store"
  record ep-covered 64
  moved_away receiver cis490-receiver "$at"
  eventually on receiver test -e "$store/index.jsonl" # of the disk that came late
  # Seen from here, the store is as it was before the mount.
  fails test -e "$(the_store)/episodes/lab-01/ep-covered.tar.zst"
  same "rows in the hidden index" "$(rows ep-covered)" 0
  before=$(property receiver cis490-receiver MainPID) at=$(cursor receiver)
  on receiver umount --lazy "$store" # both are busy
  moved_away receiver cis490-receiver "$at"
  # The late disk may have stored it, and is gone.
  # shellcheck disable=SC2016 # the shell on the machine expands it
  on lab sh -euc 'if [ -e "$1/shipped/ep-covered" ]; then mv "$1/shipped/ep-covered" "$1/episodes/"; fi' again "$data"
  eventually arrived ep-covered
}

# folders_are_covered: the experiments leave their episodes where the path leads.
folders_are_covered() {
  local before at
  at=$(cursor lab)
  covered lab cis490-shipper "$data"
  on lab systemd-tmpfiles --create
  moved_away lab cis490-shipper "$at"
  eventually on lab test -e "$data/outbox/.shipper.lock"
  before=$(property lab cis490-shipper MainPID) at=$(cursor lab)
  on lab umount --lazy "$data"
  moved_away lab cis490-shipper "$at"
  ship ep-uncovered
}

# store_moves follows the advice of docs/operations.md about a new disk.
store_moves() {
  on receiver systemctl stop cis490-receiver.socket cis490-receiver.service
  on receiver cp -a "$store" /mnt/disk/cis490
  configure "$(root receiver)/etc/cis490/receiver.toml" data_dir=/mnt/disk/cis490
  drop_in receiver cis490-receiver disk <<<$'[Service]\nReadWritePaths=/mnt/disk/cis490'
  on receiver systemctl start cis490-receiver.socket cis490-receiver.service
  record ep-new-disk 64
  on_new_disk() { [ -e "$(disk receiver)/cis490/episodes/lab-01/ep-new-disk.tar.zst" ]; }
  eventually on_new_disk
  on receiver runuser -u cis490 -- receiver index verify --deep
}

# break_disk makes the kernel find an error on the disk that is /mnt/disk.
break_disk() {
  local device
  device=$(findmnt -n -o SOURCE "$(disk "$1")")
  echo 1 >"/sys/fs/ext4/${device##*/}/trigger_fs_error"
}

# stays_down checks that the unit ended with 74, and is not restarted.
stays_down() {
  local machine=$1 unit=$2 restarts
  eventually unit_is "$machine" "$unit" ActiveState failed
  unit_is "$machine" "$unit" ExecMainStatus 74
  restarts=$(property "$machine" "$unit" NRestarts)
  sleep 1 # ten times RestartSec
  unit_is "$machine" "$unit" ActiveState failed
  unit_is "$machine" "$unit" NRestarts "$restarts"
}

receiver_stays_down() {
  break_disk receiver
  record ep-broken-disk 64
  stays_down receiver cis490-receiver
  # Nor does the next connection start it: the port is closed.
  unit_is receiver cis490-receiver.socket ActiveState inactive
  fails ping_receiver
  unit_is receiver cis490-receiver ActiveState failed
  active lab cis490-shipper
  # What can still be read is copied back to the first disk.
  on receiver sh -c "cp -a --remove-destination /mnt/disk/cis490/. $store/ && rm -rf $store/staging/*"
  configure "$(root receiver)/etc/cis490/receiver.toml" "data_dir=$store"
  drop_out receiver cis490-receiver disk
  on receiver systemctl start cis490-receiver
  active receiver cis490-receiver.socket
  eventually arrived ep-broken-disk
}

shipper_stays_down() {
  local toml
  toml=$(root lab)/etc/cis490/lab-host.toml
  on lab systemctl stop cis490-shipper
  on lab cp -a "$data" /mnt/disk/data
  drop_in lab cis490-shipper disk <<<$'[Service]\nReadWritePaths=/mnt/disk/data'
  configure "$toml" episodes_dir=/mnt/disk/data/episodes outbox_dir=/mnt/disk/data/outbox shipped_dir=/mnt/disk/data/shipped
  on lab systemctl start cis490-shipper
  # Large enough to be caught during the write: it is written, and cannot be synced. The slow line keeps
  # the receiver from having it all before.
  slow 8mbit
  as cis490-lab lab sh -euc 'cd /mnt/disk/data/episodes; mkdir ep-lost; head -c 200M /dev/urandom >ep-lost/x; : >ep-lost/done.marker'
  packing() { [ -n "$(find "$(disk lab)/data/outbox" -name '*.partial' -size +8M)" ]; }
  eventually packing
  break_disk lab
  stays_down lab cis490-shipper
  fast
  configure "$toml" "episodes_dir=$data/episodes" "outbox_dir=$data/outbox" "shipped_dir=$data/shipped"
  drop_out lab cis490-shipper disk
  on lab systemctl start cis490-shipper
  ship ep-after-disk
}
