# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# What operators do while the daemons run, as root and under a umask of their own.

people_scenarios() {
  check "receiver: commands of root leave what the daemon would" root_commands_of_receiver
  check "lab host: commands of root leave what the daemon would" root_commands_of_shipper
  check "receiver: what an old program left as root is named, and handed over" left_by_root receiver cis490-receiver "$store"
  check "lab host: what an old program left as root is named, and handed over" left_by_root lab cis490-shipper "$data/outbox"
  check "receiver: an index that root made again is the daemon's" index_made_by_root
  check "check and --ping do not vouch for a daemon that cannot read its key" unreadable_key
  check "receiver: a reload that would fail fails, and says why" bad_reload
  check "lab host: a reload that would fail fails, and says why" bad_reload_of_shipper
  check "reload with a credential, and with another configuration file" reload_elsewhere
  check "both daemons ship on" ship ep-people
  check "nothing is lost by people" intact
}

# by_hand runs a command on a machine as root under umask 077.
by_hand() {
  local machine=$1
  shift
  # shellcheck disable=SC2016 # the machine's shell expands it
  on "$machine" sh -c 'umask 077; exec "$@"' sh "$@"
}

# nothing_of_others checks that everything below a machine's folder belongs to the daemon. The
# content of the folders of episodes belongs to the experiments.
nothing_of_others() {
  local dir
  dir=$(root "$1")$2
  same "of others in $2" "$(find "$dir" -name 'ep-*' -type d -prune -o \( ! -uid "$(on "$1" id -u cis490)" -o ! -gid "$(on "$1" getent group cis490-lab | cut -d : -f 3)" \) -print)" ''
  same "modes in $2" "$(find "$dir" -name 'ep-*' -type d -prune -o -type f ! -perm 0640 ! -perm 0600 -print)" ''
}

root_commands_of_receiver() {
  local command
  rm -rf "$(root receiver)/root/people"
  for command in check 'check --reload' status 'scrub --rate 0' 'index backfill' 'index verify' \
    'pki list --dir /etc/cis490/pki' 'pki issue people --dir /etc/cis490/pki --out /root/people' \
    'pki revoke people --dir /etc/cis490/pki' 'pki renew --dir /etc/cis490/pki'; do
    # shellcheck disable=SC2086 # split on purpose
    by_hand receiver receiver $command
  done
  on receiver systemctl reload cis490-receiver
  as cis490 receiver cat /etc/cis490/pki/hosts.crl /etc/cis490/pki/server.crt >/dev/null
  nothing_of_others receiver "$store"
  on receiver systemctl restart cis490-receiver
  eventually ping_receiver
}

root_commands_of_shipper() {
  local command
  for command in --ping check 'check --reload' status held 'verify --heal' 'prune --dry-run --max-age 1h' 'prune --max-age 10000h'; do
    # shellcheck disable=SC2086 # split on purpose
    by_hand lab shipper $command
  done
  on lab systemctl stop cis490-shipper
  find "$(root lab)$data/outbox" -maxdepth 1 -name '.*' ! -name outbox -exec rm -rf {} +
  by_hand lab shipper --once
  nothing_of_others lab "$data/outbox"
  on lab systemctl start cis490-shipper
  eventually active lab cis490-shipper
}

# left_by_root gives a daemon's files to root, as an earlier version did: the daemon reports
# whose they are and what to do, and the advice works.
left_by_root() {
  local machine=$1 unit=$2 program=${2#cis490-} dir
  dir=$(root "$machine")$3
  on "$machine" systemctl stop "$unit"
  find "$dir" -name 'ep-*' -type d -prune -o -mindepth 1 -exec chown 0:0 {} +
  on "$machine" systemctl start "$unit" || true
  named() { on "$machine" journalctl --sync && on "$machine" journalctl -q --no-pager -o cat -u "$unit" | grep "belongs to root .*, and this process runs as cis490: .*'$program check' once as root"; }
  eventually named
  by_hand "$machine" "$program" check
  nothing_of_others "$machine" "$3"
  on "$machine" systemctl restart "$unit"
  eventually active "$machine" "$unit"
}

index_made_by_root() {
  local dir before
  dir=$(the_store)
  on lab systemctl stop cis490-shipper
  on receiver systemctl stop cis490-receiver.socket cis490-receiver
  before=$(wc -l <"$dir/index.jsonl")
  mv "$dir/index.jsonl" "$(root receiver)/root/index.jsonl"
  by_hand receiver receiver index backfill
  same "rows" "$(wc -l <"$dir/index.jsonl")" "$before"
  nothing_of_others receiver "$store"
  cat "$(root receiver)/root/index.jsonl" >"$dir/index.jsonl" # its own rows, whose times are those of arrival
  on receiver systemctl start cis490-receiver.socket cis490-receiver
  on lab systemctl start cis490-shipper
  eventually ping_receiver
}

unreadable_key() {
  local said
  chmod 0600 "$(root receiver)/etc/cis490/pki/server.key" "$(root lab)/etc/cis490/pki/lab-01.key"
  said=$(fails on receiver receiver check 2>&1)
  grep 'the daemon cannot read it: .*belongs to root (mode 0600), and this process runs as cis490: run chgrp cis490' <<<"$said"
  said=$(fails on lab shipper --ping 2>&1)
  grep 'the daemon cannot read it' <<<"$said"
  chmod 0640 "$(root receiver)/etc/cis490/pki/server.key" "$(root lab)/etc/cis490/pki/lab-01.key"
  on receiver receiver check
  on lab shipper --ping
}

# said_by prints what a unit has said since a cursor.
said_by() {
  on "$1" journalctl --sync
  on "$1" journalctl -q --no-pager -o cat -u "$2" --after-cursor "$3"
}

cursor() {
  on "$1" journalctl --sync
  on "$1" journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p'
}

bad_reload() {
  local pki at pid
  pki=$(root receiver)/etc/cis490/pki
  pid=$(property receiver cis490-receiver MainPID)
  at=$(cursor receiver)
  cp -a "$pki/hosts.crl" "$pki/hosts.crl.good"
  echo nonsense >"$pki/hosts.crl"
  fails on receiver systemctl reload cis490-receiver
  said_by receiver cis490-receiver "$at" | grep 'receiver: /etc/cis490/pki/hosts.crl: '
  mv "$pki/hosts.crl.good" "$pki/hosts.crl"
  chmod 0600 "$pki/hosts.crl"
  fails on receiver systemctl reload cis490-receiver
  said_by receiver cis490-receiver "$at" | grep 'hosts.crl belongs to root (mode 0600)'
  # If the daemon's own reload fails nevertheless, it is an error, and in the status.
  on receiver systemctl kill -s HUP cis490-receiver
  complains() { property receiver cis490-receiver StatusText | grep 'last reload failed: .*hosts.crl'; }
  eventually complains
  chmod 0644 "$pki/hosts.crl"
  on receiver systemctl reload cis490-receiver
  reloaded() { said_by receiver cis490-receiver "$at" | grep 'reloaded certificates and lists files=.*hosts.crl.*receiver.toml (read at start only)'; }
  eventually reloaded
  fails complains
  unit_is receiver cis490-receiver MainPID "$pid"
  active receiver cis490-receiver
}

bad_reload_of_shipper() {
  local key at
  key=$(root lab)/etc/cis490/pki/lab-01.key
  at=$(cursor lab)
  mv "$key" "$key.away"
  fails on lab systemctl reload cis490-shipper
  said_by lab cis490-shipper "$at" | grep 'lab-01.key: no such file'
  mv "$key.away" "$key"
  on lab systemctl reload cis490-shipper
  active lab cis490-shipper
}

# reload_elsewhere: a reload sees what LoadCredential= hands over, and reads the
# configuration that the daemon was started with.
reload_elsewhere() {
  local toml
  mkdir -p "$(root receiver)/etc/credstore"
  (umask 077 && printf 'lab-01 %s\n' "$(printf x | sha256sum | cut -d ' ' -f 1)" >"$(root receiver)/etc/credstore/cis490-receiver.tokens")
  toml=$(root receiver)/etc/cis490/receiver.toml
  configure "$toml" tokens_file=/run/credentials/cis490-receiver.service/tokens
  mv "$toml" "$(root receiver)/etc/cis490/elsewhere.toml"
  drop_in receiver cis490-receiver elsewhere <<CONF
[Service]
ExecStart=
ExecStart=$(property receiver cis490-receiver ExecStart | sed -n 's/.*path=\([^ ;]*\).*/\1/p') --config /etc/cis490/elsewhere.toml
CONF
  on receiver systemctl restart cis490-receiver
  on receiver systemctl reload cis490-receiver
  on receiver journalctl --sync
  on receiver journalctl -q --no-pager -o cat -u cis490-receiver -n 5 | grep 'not read by a reload: /etc/cis490/elsewhere.toml'
  on receiver receiver check --config /etc/cis490/elsewhere.toml
  drop_out receiver cis490-receiver elsewhere
  mv "$(root receiver)/etc/cis490/elsewhere.toml" "$toml"
  configure "$toml" tokens_file=
  on receiver systemctl restart cis490-receiver
  eventually ping_receiver
}
