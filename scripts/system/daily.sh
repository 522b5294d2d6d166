# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# What a healthy lab does all day.

daily_scenarios() {
  check "receiver: active, notified, limited" daemon_is_up receiver cis490-receiver 'listening on'
  check "lab host: active, notified, limited" daemon_is_up lab cis490-shipper '.'
  check "receiver: gives signs of life" gives_signs_of_life receiver cis490-receiver
  check "lab host: gives signs of life" gives_signs_of_life lab cis490-shipper
  check "shipper --ping crosses the network" ping_crosses_the_network
  check "an episode of the experiments' user arrives" ship ep-first 2048
  check "an episode of the orchestrator arrives" orchestrator_ships
  check "an episode in a folder closed to the group arrives" closed_folder_arrives
  check "a copy that begins with its marker arrives whole" copy_arrives_whole
  check "a hostile tree arrives, the daemon unharmed" hostile_tree_arrives
  check "the experiments' user cannot read the key" key_is_secret
  check "a member of cis490-lab reads the index, others do not" index_is_for_members
  check "journal: levels" journal_has_levels
  check "journal: fields" journal_has_fields
  check "revoked and reloaded: refused; issued anew and reloaded: taken" revocation
  check "tokens by LoadCredential" tokens
  check "the timer's pass ships" timer_ships
  check "nothing is lost so far" intact
}

# daemon_is_up: systemd got READY=1 and STATUS= from a Type=notify service.
daemon_is_up() {
  local machine=$1 unit=$2 limit
  eventually active "$machine" "$unit"
  unit_is "$machine" "$unit" Type notify
  unit_is "$machine" "$unit" UnitFileState enabled
  property "$machine" "$unit" StatusText | grep "$3"
  fails unit_is "$machine" "$unit" User ''
  # Containers on this kernel do not enforce these, so that they are set is all we see.
  for limit in MemoryMax MemoryHigh TasksMax; do
    fails unit_is "$machine" "$unit" "$limit" infinity
  done
}

# gives_signs_of_life expects several WATCHDOG=1, at a rate that the test sets.
gives_signs_of_life() {
  local machine=$1 unit=$2 first
  fails unit_is "$machine" "$unit" WatchdogUSec 0
  drop_in "$machine" "$unit" watchdog <<<$'[Service]\nWatchdogSec=2s'
  on "$machine" systemctl restart "$unit"
  first=$(property "$machine" "$unit" WatchdogTimestampMonotonic)
  another() { [ "$(property "$machine" "$unit" WatchdogTimestampMonotonic)" -gt "$first" ]; }
  eventually another
  active "$machine" "$unit"
}

ping_crosses_the_network() {
  local before
  before=$(ip netns exec lab cat /sys/class/net/eth0/statistics/tx_packets)
  ping_receiver
  fails same "packets sent by the lab host" "$(ip netns exec lab cat /sys/class/net/eth0/statistics/tx_packets)" "$before"
}

# orchestrator_ships installs the queue as the operator would.
orchestrator_ships() {
  local dir
  dir=$(root lab)
  unit_is lab cis490-orchestrator UnitFileState disabled
  cat >"$dir/usr/local/bin/experiment" <<'SCRIPT'
#!/bin/sh
set -eu
mkdir -p "$1/ep-orchestrator/telemetry"
echo '{"episode_id": "ep-orchestrator"}' >"$1/ep-orchestrator/meta.json"
id -un >"$1/ep-orchestrator/telemetry/user"
: >"$1/ep-orchestrator/done.marker"
exec sleep 1000
SCRIPT
  chmod 755 "$dir/usr/local/bin/experiment"
  printf 'ORCHESTRATOR=/usr/local/bin/experiment\nORCHESTRATOR_ARGS=%s/episodes\n' "$data" >"$dir/etc/cis490/orchestrator.env"
  on lab systemctl enable --now cis490-orchestrator
  echo ep-orchestrator >>"$work/recorded"
  eventually arrived ep-orchestrator
  same "user of the experiments" "$(cat "$dir$data/shipped/ep-orchestrator/telemetry/user")" cis490-lab
  on lab systemctl disable --now cis490-orchestrator
}

# closed_folder_arrives: programs that ask for a mode, as mkdtemp does, get a folder
# that the shipper may not move.
closed_folder_arrives() {
  # shellcheck disable=SC2016 # the machine's shell expands it
  as cis490-lab lab sh -euc '
    cd "$1/episodes"
    mkdir -m 0700 ep-closed
    echo "{}" >ep-closed/meta.json
    : >ep-closed/done.marker' closed "$data"
  echo ep-closed >>"$work/recorded"
  # What could not be watched is found by the next scan.
  configure "$(root lab)/etc/cis490/lab-host.toml" scan_interval=3s
  on lab systemctl restart cis490-shipper
  eventually arrived ep-closed
}

# copy_arrives_whole: done.marker is there before the rest, and stays alone for a while.
copy_arrives_whole() {
  # shellcheck disable=SC2016 # the machine's shell expands it
  as cis490-lab lab sh -euc '
    cd "$1/episodes"
    mkdir ep-copied
    : >ep-copied/done.marker
    sleep 2
    echo "{}" >ep-copied/meta.json
    sleep 2
    head -c 1M /dev/urandom >ep-copied/x' copied "$data"
  echo ep-copied >>"$work/recorded"
  eventually arrived ep-copied
  same "files in the archive" "$(zstd -dc "$(the_store)/episodes/lab-01/ep-copied.tar.zst" | tar -t | sort | tr '\n' ' ')" \
    'ep-copied/ ep-copied/done.marker ep-copied/meta.json ep-copied/x '
}

# hostile_tree_arrives: what malware could leave. Root adds what the lab's user may not make: a
# device, and a hard link to another user's file.
hostile_tree_arrives() {
  local list
  # shellcheck disable=SC2016 # the machine's shell expands it
  as cis490-lab lab sh -euc '
    mkdir "$1/episodes/ep-hostile"
    cd "$1/episodes/ep-hostile"
    mkfifo fifo
    perl -MSocket -e "socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un(q(socket))) or die"
    ln -s /etc/shadow link
    ln -s . loop
    mkdir -p "$(printf "d/%.0s" $(seq 60))"
    printf x >"$(printf "a\nb\033[2J")"
    truncate -s 1M sparse
    echo "{}" >meta.json' hostile "$data"
  # shellcheck disable=SC2016
  on lab sh -euc '
    echo "secret of root" >/var/lib/secret
    chmod 644 /var/lib/secret
    ln /var/lib/secret "$1/episodes/ep-hostile/hard"
    mknod -m 666 "$1/episodes/ep-hostile/device" c 1 3' hostile "$data"
  as cis490-lab lab touch "$data/episodes/ep-hostile/done.marker"
  echo ep-hostile >>"$work/recorded"
  eventually arrived ep-hostile
  jq -e 'select(.episode_id == "ep-hostile") | .skipped == 4' "$(the_store)/index.jsonl"
  list=$(zstd -dc "$(the_store)/episodes/lab-01/ep-hostile.tar.zst" | tar -tv)
  echo "$list"
  grep -q 'link -> /etc/shadow$' <<<"$list"
  grep -q 'd/d/d/d/d/d/d/d/d/d/d' <<<"$list"
  grep -q 'sparse' <<<"$list"
  fails grep -E 'hostile/(hard|fifo|socket|device)' <<<"$list"
  unit_is lab cis490-shipper NRestarts 0
}

key_is_secret() {
  fails as cis490-lab lab cat /etc/cis490/pki/lab-01.key
  as cis490 lab cat /etc/cis490/pki/lab-01.key >/dev/null
  fails as cis490 receiver cat /etc/cis490/pki/ca.key
  fails as cis490 receiver cat /etc/cis490/pki/hosts-ca.key
}

index_is_for_members() {
  on receiver sh -euc 'id reader >/dev/null 2>&1 || useradd --groups cis490-lab reader
    id stranger >/dev/null 2>&1 || useradd stranger'
  as reader receiver cat "$store/index.jsonl" | jq -es 'length > 0' >/dev/null
  as reader receiver cat "$store/episodes/lab-01/ep-first.tar.zst" | zstd -dc | tar -t
  fails as reader receiver sh -c "echo x >>$store/index.jsonl"
  fails as reader receiver cat /etc/cis490/pki/server.key
  fails as stranger receiver cat "$store/index.jsonl"
}

# journal_has_levels expects info from an ordinary start, and more than that where something
# was skipped.
journal_has_levels() {
  on lab journalctl --sync
  on receiver journalctl --sync
  journal receiver cis490-receiver MESSAGE,PRIORITY | jq -es 'any(.MESSAGE | strings | startswith("upload stored ")) and all(.MESSAGE | strings | test("^<[0-9]>") | not)'
  journal receiver cis490-receiver MESSAGE,PRIORITY | jq -es 'map(select(.MESSAGE | strings | startswith("upload stored "))) | all(.PRIORITY == "6")'
  journal lab cis490-shipper MESSAGE,PRIORITY | jq -es 'map(select(.MESSAGE | strings | startswith("skipped file "))) | length == 4 and all(.PRIORITY == "4")'
  journal lab cis490-shipper MESSAGE,PRIORITY | jq -es 'map(select(.MESSAGE | type != "string")) | length == 0' # no bytes but ASCII
}

journal_has_fields() {
  journal receiver cis490-receiver MESSAGE | jq -r '.MESSAGE | strings | select(startswith("upload stored ") and contains("episode=ep-first "))' |
    grep -E 'host=lab-01 episode=ep-first sha256=[0-9a-f]{64} bytes=[0-9]+'
  journal lab cis490-shipper MESSAGE | jq -r '.MESSAGE | strings | select(startswith("shipped ") and contains("episode=ep-first "))' |
    grep -E 'episode=ep-first sha256=[0-9a-f]{64} bytes=[0-9]+'
  journal lab cis490-shipper SYSLOG_IDENTIFIER | jq -es 'any(.SYSLOG_IDENTIFIER == "cis490-shipper")'
}

revocation() {
  local pid
  pid=$(property receiver cis490-receiver MainPID)
  on receiver receiver pki revoke lab-01 --dir /etc/cis490/pki
  ping_receiver
  on receiver systemctl reload cis490-receiver
  eventually fails ping_receiver
  record ep-revoked 64
  reissue_credentials
  eventually ping_receiver
  # A refusal is waited out, and the wait is long: only an operator reloads.
  on lab systemctl reload cis490-shipper
  eventually arrived ep-revoked
  unit_is receiver cis490-receiver MainPID "$pid"
}

reissue_credentials() {
  issue_credentials
  on lab sh -c 'install -o root -g cis490 -m 0640 /root/lab-01/* /etc/cis490/pki/'
}

# tokens: the second factor reaches both daemons as a credential of systemd, and no other
# process.
tokens() {
  local token=correct-horse-battery-staple
  mkdir -p "$(root receiver)/etc/credstore" "$(root lab)/etc/credstore"
  (
    umask 077
    printf 'lab-01 %s\n' "$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)" >"$(root receiver)/etc/credstore/cis490-receiver.tokens"
    printf '%s\n' "$token" >"$(root lab)/etc/credstore/cis490-shipper.token"
  )
  configure "$(root receiver)/etc/cis490/receiver.toml" tokens_file=/run/credentials/cis490-receiver.service/tokens
  on receiver systemctl restart cis490-receiver
  fails ping_receiver
  configure "$(root lab)/etc/cis490/lab-host.toml" token_file=/run/credentials/cis490-shipper.service/token
  on lab systemctl restart cis490-shipper
  ship ep-token
  fails as cis490-lab lab cat /run/credentials/cis490-shipper.service/token
  configure "$(root receiver)/etc/cis490/receiver.toml" tokens_file=
  configure "$(root lab)/etc/cis490/lab-host.toml" token_file=
  on receiver systemctl restart cis490-receiver
  on lab systemctl restart cis490-shipper
}

# timer_ships lets the timer itself start the pass: its next time is made now.
timer_ships() {
  on lab systemctl disable --now cis490-shipper
  drop_in lab cis490-shipper-once.timer soon <<<$'[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=100ms'
  record ep-timer 64
  on lab systemctl enable --now cis490-shipper-once.timer
  eventually arrived ep-timer
  on lab systemctl disable --now cis490-shipper-once.timer
  drop_out lab cis490-shipper-once.timer soon
  eventually unit_is lab cis490-shipper-once ActiveState inactive
  unit_is lab cis490-shipper-once Result success
  on lab systemctl enable --now cis490-shipper
}
