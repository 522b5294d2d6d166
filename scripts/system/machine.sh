# shellcheck shell=bash disable=SC2154 # run in cell.sh
# Two machines, "receiver" and "lab": a Debian tree each on an ext4 of their own,
# a network namespace each, an address each, systemd as process 1. All of it is
# below $work and in the cell's namespaces.

readonly -A address=([receiver]=192.0.2.1 [lab]=192.0.2.2)

# root is where a machine's files are, seen from here.
root() { echo "$work/$1/root"; }

# disk is a file system that the machine sees as /mnt/disk.
disk() { echo "$work/$1/disk"; }

# build_machines makes both, from a tree.
build_machines() {
  local name
  mkdir -p "$work"
  mount -t tmpfs tmpfs /run
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /run/netns /run/systemd
  ip link add lan type bridge
  ip link set lan up
  for name in receiver lab; do
    wire "$name"
    make_disk "$work/$name/root" 1200M
    make_disk "$work/$name/disk" 800M # the floor is 256 MiB
    tar -x -C "$(root "$name")" --numeric-owner --xattrs --xattrs-include='*' -f "$1"
    furnish "$name"
  done
}

# make_disk makes a sparse ext4 and mounts it. No other file system is at risk, and the daemons
# run on the same file system as on the Raspberry Pi.
make_disk() {
  local dir=$1 size=$2 device
  mkdir -p "$dir"
  truncate -s "$size" "$dir.img"
  mkfs.ext4 -q -F -m 0 "$dir.img"
  # Not mount -o loop: it queries all loop devices of the machine, and hangs if one of them
  # does. Detached while it is mounted, this one goes with the mount.
  device=$(losetup --find --show "$dir.img")
  mount -o errors=remount-ro "$device" "$dir"
  losetup --detach "$device"
}

wire() {
  local name=$1
  ip netns add "$name"
  ip link add "to-$name" type veth peer name eth0 netns "$name"
  ip link set "to-$name" master lan up
  ip -n "$name" addr add "${address[$name]}/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" link set lo up
}

# furnish makes a tree a machine of its own.
furnish() {
  local name=$1 dir
  dir=$(root "$name")
  rm -f "$dir/etc/hostname" # it would win over --hostname
  printf '127.0.0.1 localhost\n%s receiver.lab\n%s lab-01\n' "${address[receiver]}" "${address[lab]}" >"$dir/etc/hosts"
  mkdir -p "$dir/var/log/journal"
  # One that is empty means "first boot", with presets for all units.
  head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/etc/machine-id"
}

# boot starts a machine and waits until systemd has nothing left to start.
boot() {
  local name=$1 cg=/sys/fs/cgroup/$group-$1
  mkdir -p "$cg"
  # Two machines in one control group would be one to systemd. CAP_BPF: without
  # it DevicePolicy= and IPAddressDeny= are off, and nothing says so.
  (
    echo 0 >"$cg/cgroup.procs"
    exec setsid systemd-nspawn --quiet --register=no --keep-unit --machine="$group-$name" --hostname="$name" \
      --directory="$(root "$name")" --boot --network-namespace-path="/run/netns/$name" \
      --capability=CAP_BPF --system-call-filter=bpf --console=pipe \
      --bind="$(disk "$name"):/mnt/disk" --bind-ro="$project:/src" systemd.show_status=0
  ) </dev/null >>"$work/$name.console" 2>&1 &
  echo $! >"$work/$name.nspawn"
  booted "$name"
}

# booted waits for process 1 of a machine.
booted() {
  local name=$1 deadline=$((SECONDS + patience))
  until find_init "$name" && [ -S "/proc/$(cat "$work/$name.init")/root/run/systemd/private" ]; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "machine $name does not boot"
      tail "$work/$name.console"
      return 1
    fi
    sleep 0.05
  done
  on "$name" systemctl is-system-running --wait || on "$name" systemctl --failed --no-pager
}

find_init() {
  local pid
  pid=$(pgrep --parent "$(cat "$work/$1.nspawn")" --exact systemd) || return 1
  echo "$pid" >"$work/$1.init"
}

# on runs a command on a machine.
on() {
  local name=$1
  shift
  nsenter --target "$(cat "$work/$name.init")" --all -- \
    /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# as runs a command on a machine as one of its users.
as() {
  local user=$1 name=$2
  shift 2
  on "$name" runuser -u "$user" -- "$@"
}

# cut_power takes a machine's power: all its processes end at once.
cut_power() {
  local name=$1 nspawn
  nspawn=$(cat "$work/$name.nspawn")
  kill -KILL "$(cat "$work/$name.init")"
  gone "$nspawn"
  find "/sys/fs/cgroup/$group-$name" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# reboot ends a machine in order, and starts it again. With --keep-unit, nspawn leaves the
# second half to its caller.
reboot_machine() {
  on "$1" systemctl --no-block reboot
  gone "$(cat "$work/$1.nspawn")"
  boot "$1"
}

# gone waits for the end of a process.
gone() {
  local deadline=$((SECONDS + patience))
  while [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "process $1 does not end"; return 1; }
    sleep 0.05
  done
}

# slow makes the lab's line slow; fast makes it as it was. tbf is in each kernel,
# netem is not.
slow() { tc -n lab qdisc replace dev eth0 root tbf rate "$1" burst 32kb latency 50ms; }
fast() { tc -n lab qdisc del dev eth0 root; }

# keep_logs keeps what a developer needs if a check failed.
keep_logs() {
  local name
  [ -s "$logs/$cell.failed" ] || return 0
  for name in receiver lab; do
    cp "$work/$name.console" "$logs/$cell-$name.console" 2>/dev/null || true
    journalctl --no-pager -q -o short-precise -D "$(root "$name")/var/log/journal" >"$logs/$cell-$name.journal" 2>&1 || true
  done
}

# take_down ends both machines at once and frees the space of their disks.
take_down() {
  local name
  for name in receiver lab; do
    kill -KILL "$(cat "$work/$name.init")" 2>/dev/null || true
    gone "$(cat "$work/$name.nspawn")" || true
    umount "$(root "$name")" "$(disk "$name")" || umount -l "$(root "$name")" "$(disk "$name")" || true
  done
  rm -rf "$work"
}
