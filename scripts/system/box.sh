# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# What an attacker who has taken over a daemon finds. A probe replaces the program in the unit
# as it is installed: the same sandbox, with other content.

box_scenarios() {
  check "receiver: the box holds" box_holds receiver cis490-receiver "$store"
  check "lab host: the box holds" box_holds lab cis490-shipper "$data/outbox"
  check "both daemons work on in their boxes" ship ep-boxed
  check "lab host: exchanged names open no folder of root" exchanged_names
  check "lab host: a link in the place of episodes/ leads nowhere" linked_episodes
  check "IPAddressDeny as the unit file advises" addresses_denied
}

# The error's name tells what stopped the probe: EROFS is ProtectSystem=,
# EAFNOSUPPORT RestrictAddressFamilies=, and so on. A file mode would say EACCES
# where the test has made the folder writable for all.
readonly expected='read-root EACCES
read-home EACCES
read-ca-key EACCES
read-process-1 ENOENT
read-meminfo ENOENT
read-kmsg ENOENT
write-opt EROFS
write-etc EROFS
write-var EROFS
write-data done
write-identity done
write-tmp done
socket-inet done
socket-inet6 done
socket-unix done
socket-packet EAFNOSUPPORT
socket-netlink EAFNOSUPPORT
socket-vsock EAFNOSUPPORT
socket-alg EAFNOSUPPORT
execute-shell EACCES
execute-from-data EACCES
execute-from-identity EACCES
execute-from-tmp EACCES
execute-from-shm EACCES
map-write-and-execute EPERM
make-setuid EPERM
make-namespace EPERM
set-personality EPERM
set-priority EPERM
set-clock EPERM
raise-core-limit EPERM'

box_holds() {
  local machine=$1 unit=$2 dir said program since wanted
  on lab systemctl stop cis490-shipper # or it asks the probe for a receipt
  dir=$(root "$machine")
  tempt "$machine"
  cp "$project/probe" "$dir/opt/probe"
  program=$(property "$machine" "$unit" ExecStart | sed -n 's/.*path=\([^ ;]*\).*/\1/p')
  drop_in "$machine" "$unit" probe <<CONF
[Service]
Type=exec
Restart=no
Environment=PROBE_DATA=$3
BindReadOnlyPaths=/opt/probe:$program
CONF
  on "$machine" systemctl stop "$unit" 2>/dev/null
  on "$machine" journalctl --sync
  since=$(on "$machine" journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
  on "$machine" systemctl start "$unit"
  eventually fails on "$machine" systemctl is-active "$unit"
  # What a program wrote before it ended may reach the journal after --sync.
  all_said() {
    on "$machine" journalctl --sync
    said=$(on "$machine" journalctl -q --no-pager -o cat -u "$unit" --after-cursor "$since")
    grep '^raise-core-limit ' <<<"$said" && grep '^Umask:' <<<"$said"
  }
  eventually all_said
  drop_out "$machine" "$unit" probe
  rm -f "$dir$3/probe.txt" "$dir/var/lib/cis490-identity/probe.txt"
  on "$machine" systemctl reset-failed "$unit" || true
  on receiver systemctl start cis490-receiver
  on lab systemctl start cis490-shipper
  wanted=$expected
  # openat2, by which the shipper opens hostile trees, does not work with RestrictSUIDSGID=:
  # the shipper's unit says so.
  if [ "$machine" = lab ]; then wanted=${expected/make-setuid EPERM/make-setuid done}; fi
  # systemd 254 and later make the kernel refuse it, with another errno.
  if [ "$suite" != bookworm ]; then wanted=${wanted/map-write-and-execute EPERM/map-write-and-execute EACCES}; fi
  diff <(echo "$wanted") <(grep -E '^[a-z0-9-]+ [A-Za-z]+$' <<<"$said" | head -n "$(wc -l <<<"$wanted")")
  grep -P '^CapBnd:\t0000000000000000$' <<<"$said"
  grep -P '^CapEff:\t0000000000000000$' <<<"$said"
  grep -P '^NoNewPrivs:\t1$' <<<"$said"
  grep -P '^Seccomp:\t2$' <<<"$said"
  grep -P '^Umask:\t0027$' <<<"$said"
  same "what the probe left in /tmp" "$(find "$dir/tmp" -maxdepth 1 -name 'probe*')" ''
}

# tempt opens what file modes keep shut, so that only the sandbox is left.
tempt() {
  local dir
  dir=$(root "$1")
  chmod 755 "$dir/root"
  install -d -m 755 "$dir/home/someone"
  echo secret | tee "$dir/root/secret" >"$dir/home/someone/secret"
  install -d -m 777 "$dir/opt/anyone" "$dir/etc/anyone" "$dir/var/lib/anyone"
  # The keys of the CAs are root's: they are protected by their modes alone.
  if [ ! -e "$dir/etc/cis490/pki/ca.key" ]; then install -m 600 /dev/null "$dir/etc/cis490/pki/ca.key"; fi
}

# exchanged_names: a user of the lab exchanges a folder for a link to one of root's while
# cis490-episodes.service runs. That one is in episodes/, or ReadWritePaths= alone would
# keep it shut.
exchanged_names() {
  local dir attack
  dir=$(root lab)$data/episodes
  on lab mkdir -p "$data/episodes/ep-other/private"
  on lab chown root:root "$data/episodes/ep-other/private"
  on lab chmod u=rwx,g=-s,o= "$data/episodes/ep-other/private"
  untouched() { same "the folder of root" "$(on lab stat -c '%a %U:%G' "$data/episodes/ep-other/private")" '700 root:root'; }
  untouched
  as cis490-lab lab /src/exchange "$data/episodes" "$data/episodes/ep-other/private" &
  attack=$!
  eventually test -L "$dir/ep-mine" -o -L "$dir/ep-link"
  for _ in {1..10}; do
    on lab systemctl start cis490-episodes
    untouched
  done
  as cis490-lab lab mkdir -m 0700 "$data/episodes/ep-closed-too"
  is_shared() { same "the folder of a user" "$(on lab stat -c '%a %U:%G' "$data/episodes/ep-closed-too")" '2770 cis490-lab:cis490-lab'; }
  eventually is_shared
  as cis490-lab lab touch "$data/episodes/enough"
  wait "$attack"
  untouched
  on lab rm -r "$data/episodes/ep-other" "$data/episodes/ep-closed-too"
  no_failed_units
}

# linked_episodes: a shipper that was taken over owns the folder that episodes/ is in. It
# leads the unit, and systemd-tmpfiles, to a folder of root's.
linked_episodes() {
  local victim=/var/lib/cis490-victim at code=0 said after
  at=$(cursor lab)
  on lab systemctl stop cis490-episodes.path cis490-shipper
  on lab mkdir -m 0755 "$victim" "$victim/closed"
  on lab chmod 0700 "$victim/closed"
  # shellcheck disable=SC2016 # the machine's shell expands it
  as cis490 lab sh -euc 'cd "$1"; mv episodes episodes.away; ln -s "$2" episodes' linked "$data" "$victim"
  on lab systemctl start cis490-episodes || code=$?
  on lab systemd-tmpfiles --create || true # it may name the link, and go on
  said=$(said_by lab cis490-episodes "$at")
  after=$(on lab stat -c '%a %U:%G' "$victim" "$victim/closed")
  # shellcheck disable=SC2016
  as cis490 lab sh -euc 'cd "$1"; rm episodes; mv episodes.away episodes' linked "$data"
  on lab rm -r "$victim"
  on lab systemctl reset-failed cis490-episodes || true
  on lab systemctl start cis490-shipper
  same "the folders" "$after" $'755 root:root\n700 root:root'
  fails same "exit code of systemctl" "$code" 0
  echo "$said"
  grep 'belongs to uid 0, but this process runs as uid' <<<"$said"
  ship ep-linked
}

# addresses_denied: the advice in the unit file does what it says.
addresses_denied() {
  drop_in lab cis490-shipper addresses <<<$'[Service]\nIPAddressDeny=any\nIPAddressAllow=192.0.2.99\nIPAddressAllow=localhost'
  on lab systemctl restart cis490-shipper
  record ep-denied 64
  sleep 2
  fails arrived ep-denied
  drop_in lab cis490-shipper addresses <<<$'[Service]\nIPAddressDeny=any\nIPAddressAllow=192.0.2.1\nIPAddressAllow=localhost'
  on lab systemctl restart cis490-shipper
  eventually arrived ep-denied
  # The metrics are for this machine.
  on lab bash -euc 'exec 3<>/dev/tcp/127.0.0.1/9491; printf "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3; cat <&3' | grep '200 OK'
  drop_out lab cis490-shipper addresses
  on lab systemctl restart cis490-shipper
}
