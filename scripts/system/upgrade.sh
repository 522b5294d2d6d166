# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# The old release's packages ($old_release in prepare.sh) fill both machines. The
# present release takes over, the old one comes back, the present one returns. After
# each step every file is where it was or in a stored archive, and a command names it.

upgrade_scenarios() {
  check "both machines boot" boot_both
  check "receiver: install the old release" install_receiver_by_package old
  check "receiver: certificates by receiver pki" make_credentials
  check "lab host: install the old release" install_lab_by_package old
  check "both machines run the old release" set_up_old_release
  require_installed
  check "old release: episodes are stored, read back and pruned" fill_shipped
  check "old release: a prune is interrupted" fill_trash
  check "old release: a copy is repaired" fill_repaired
  check "old release: a row is backfilled, episodes are held" fill_held
  check "old release: episodes wait, one was sent in part" fill_outbox
  take_stock "filled"
  upgrade_stopped_receiver
  downgrade
  upgrade_in_mid_upload
}

# upgrade_stopped_receiver upgrades while the hosts' outboxes are full.
upgrade_stopped_receiver() {
  check "receiver: upgrade while it is stopped" put_release 1 receiver
  check "lab host: upgrade with a full outbox" put_release 1 lab
  check "upgraded: the daemon has emptied the trash" eventually trash_is_empty
  take_stock "upgraded"
  check "upgraded: what waited arrives" outbox_arrives
  check "upgraded: an episode arrives" ship ep-upgraded
  check "upgraded: the host has adopted the store" store_is_adopted
  check "upgraded: the old programs find the folders locked" folders_are_locked_for old
  check "upgraded: old readings count for nothing" old_readings_are_void
  check "upgraded: commands" commands_answer
  check "upgraded: prune deletes the two oldest, of the old release" prune_oldest
  check "upgraded: what was changed is kept and named" changed_are_named
  take_stock "upgraded and pruned"
}

# downgrade goes back in the order of docs/install.md, with traffic in between.
downgrade() {
  check "notes of analysts leave shipped/" move_notes_away
  check "lab host: downgrade" put_release old lab
  check "downgraded host: an episode arrives" ship ep-downgraded-host
  check "receiver: downgrade" put_release old receiver
  check "downgraded: an episode arrives" ship ep-downgraded
  check "downgraded: the new programs find the folders locked" folders_are_locked_for 1
  check "downgraded: commands" commands_answer
  check "downgraded: prune deletes two" prune_retired 2
  take_stock "downgraded"
}

upgrade_in_mid_upload() {
  check "receiver: second upgrade, in mid-upload" in_mid_upload ep-upgrade-receiver put_release 1 receiver
  check "lab host: second upgrade, in mid-upload" in_mid_upload ep-upgrade-lab put_release 1 lab
  check "second upgrade: the store is the same" store_is_adopted
  check "second upgrade: commands" commands_answer
  check "second upgrade: prune deletes two" prune_retired 2
  check "second upgrade: the trash is empty" trash_is_empty
  take_stock "upgraded twice"
  check "second upgrade: retry sends what the old release held" retry_held
  check "second upgrade: a host's copy repairs the store" ship_again
  take_stock "nothing is held"
}

# take_stock is the test of this cell: take_stock WHEN
take_stock() {
  check "$1: nothing is lost" nothing_is_lost
  check "$1: nothing is unnamed" nothing_is_unnamed
  check "$1: no failed unit, no other error" no_other_errors
}

# set_up_old_release turns the receiver's scrub off, so that an archive is read back
# when the test says so, and makes the shipper look often.
set_up_old_release() {
  on receiver receiver version | grep -w 0.9.0
  on lab shipper version | grep -w 0.9.0
  configure "$(root receiver)/etc/cis490/receiver.toml" rate=0B
  configure "$(root lab)/etc/cis490/lab-host.toml" scan_interval=1s
  on receiver systemctl restart cis490-receiver
  on lab systemctl restart cis490-shipper
  : | tee "$work/held" "$work/pruned" "$work/trash" "$work/recordings" "$work/archives" "$work/index"
  ping_receiver
}

fill_shipped() {
  local name
  # The oldest, which prune deletes first: what is sent together has no order.
  for name in ep-{first,retired-1,retired-2}; do ship "$name"; done
  for name in ep-{retired-{3..6},repaired,backfilled,conflict,analysed,trash-{1..3}}; do record "$name" 64; done
  while read -r name; do eventually arrived "$name"; done <"$work/recorded"
  as cis490 lab shipper verify
  prune_retired 1
  as cis490-lab lab sh -c "echo 'seen: x' >$data/shipped/ep-analysed/analysis.txt"
}

# fill_trash leaves what a kill of the old release's prune leaves: before the marker
# goes, after it, and when the first files are gone.
fill_trash() {
  local n
  for n in 1 2 3; do
    as cis490 lab mv "$data/shipped/ep-trash-$n" "$data/outbox/.trash/ep-trash-$n~VXQ2M7KJ4T6RZB3WDS5NHYCPA$n"
  done
  as cis490 lab sh -euc "cd $data/outbox/.trash; rm ep-trash-[23]~*/done.marker ep-trash-3~*/telemetry/capture.bin"
  as cis490-lab lab sh -c "cd $data/outbox/.trash/ep-trash-1~*; echo 'seen: y' >analysis.txt" ||
    on lab sh -c "cd $data/outbox/.trash/ep-trash-1~*; echo 'seen: y' >analysis.txt"
  find "$(root lab)$data/outbox/.trash" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort >"$work/trash"
  same "entries in the trash" "$(wc -l <"$work/trash")" 3
}

# fill_repaired leaves a copy in quarantine and a second row.
fill_repaired() {
  damage ep-repaired
  fails as cis490 lab shipper verify --heal
  eventually repaired ep-repaired
  ship ep-unread # not read back before the upgrade
}

# damage changes bytes of a stored archive. The episodes are random, so that no
# archive has sixteen zeros.
damage() { dd if=/dev/zero "of=$(the_store)/episodes/lab-01/$1.tar.zst" bs=16 seek=100 count=1 conv=notrunc; }

# repaired reports whether an archive was stored a second time.
repaired() { same "rows of $1" "$(rows "$1")" 2 && [ -e "$(root lab)$data/shipped/$1/done.marker" ]; }

# fill_held leaves an episode of each kind that waits for an operator, and a row that backfill
# wrote while the receiver was stopped.
fill_held() {
  local index
  record ep-conflict 64
  as cis490-lab lab sh -euc "cd $data/episodes; mkdir ep-unfit; : >ep-unfit/meta.json; : >ep-unfit/done.marker"
  echo ep-unfit >>"$work/recorded"
  eventually is_held ep-conflict conflict
  eventually is_held ep-unfit unfit
  stop_receiver
  index=$(the_store)/index.jsonl
  grep -v '"ep-backfilled"' "$index" >"$work/index.less"
  cat "$work/index.less" >"$index"
  as cis490 receiver receiver index backfill
  jq -e 'select(.episode_id == "ep-backfilled") | .backfilled' "$index"
  record ep-changed 64
  eventually sealed ep-changed
  as cis490-lab lab sh -c "echo more >>$data/episodes/ep-changed/telemetry/capture.bin"
  start_receiver
  eventually is_held ep-changed changed
  printf '%s\n' 'ep-changed changed' 'ep-conflict conflict' 'ep-unfit unfit' >"$work/held"
}

# is_held reports whether an episode is held for a reason.
is_held() { shipper_status | jq -e --arg e "$1" --arg r "$2" '.held[] | select(.episode_id == $e and .reason == $r)'; }

fill_outbox() {
  local name
  slow 16mbit
  record ep-large 8192
  eventually uploading 256
  stop_receiver
  fast
  record ep-sealed-1 64
  record ep-sealed-2 2048
  for name in ep-large ep-sealed-1 ep-sealed-2; do eventually sealed "$name"; done
  uploading 256
}

sealed() { [ -f "$(root lab)$data/outbox/$1.tar.zst" ]; }

stop_receiver() { on receiver systemctl stop cis490-receiver.socket cis490-receiver.service; }

# start_receiver also tells the hosts, which would wait longer otherwise.
start_receiver() {
  on receiver systemctl start cis490-receiver.socket cis490-receiver.service
  on lab systemctl reload cis490-shipper
}

outbox_arrives() {
  local name
  uploading 256 # nobody has touched what was sent in part
  start_receiver
  for name in ep-large ep-sealed-1 ep-sealed-2; do eventually arrived "$name"; done
}

# put_release installs the packages of a release over those of another, as
# docs/install.md says: put_release RELEASE MACHINE
put_release() {
  local release=$1 machine=$2 role=receiver version=1.0.0 pid
  if [ "$machine" = lab ]; then role=shipper; fi
  if [ "$release" = old ]; then version=0.9.0; fi
  pid=$(property "$machine" "cis490-$role" MainPID)
  on "$machine" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --allow-downgrades \
    -o Dpkg::Options::=--force-confold "$(deb "$release" "$role")"
  on "$machine" "$role" version | grep -w "$version"
  dpkg_is_content "$machine"
  if [ "$pid" -eq 0 ]; then return; fi
  eventually active "$machine" "cis490-$role"
  fails unit_is "$machine" "cis490-$role" MainPID "$pid"
}

# folders_are_locked_for runs programs of the release that is not installed, beside
# the daemons of the one that is.
folders_are_locked_for() {
  local code=0
  as cis490 lab "$releases/$1/bin/shipper" --once || code=$?
  same "exit code of the shipper" "$code" 5
  code=0
  as cis490 receiver "$releases/$1/bin/receiver" scrub --set-aside || code=$?
  same "exit code of the receiver" "$code" 5
}

# shipper_status prints it; what is held makes it exit with 3.
shipper_status() { as cis490 lab shipper status --json || [ $? -eq 3 ]; }

# commands_answer runs what operators ask after an upgrade.
commands_answer() {
  ping_receiver
  as cis490 lab shipper status || [ $? -eq 3 ]
  as cis490 lab shipper held || [ $? -eq 3 ]
  as cis490 receiver receiver check
  as cis490 receiver receiver status
  as cis490 receiver receiver index backfill | grep ' to-backfill: 0$'
  verify_retired
  scrub_store
  same "archives read" "$(jq '.objects' "$work/scrub.json")" "$(archives | grep -c '  episodes/')"
}

# verify_retired checks that each receipt is known and each archive verified. What was changed
# on the host is the only permitted finding.
verify_retired() {
  local code=0
  as cis490 lab shipper verify --json >"$work/verify.json" || code=$?
  cat "$work/verify.json"
  jq -es '.[-1] | .verified > 0 and .stored + .missing + .damaged + .undecodable + .divergent + .unknown == 0' "$work/verify.json"
  jq -es 'all(.[] | select(.finding); .finding == "changed")' "$work/verify.json"
  same "exit code" "$code" "$(jq -s 'if any(.[]; .finding) then 1 else 0 end' "$work/verify.json")"
}

# scrub_store verifies the store as the options say. A finding makes it exit with 1.
scrub_store() {
  as cis490 receiver receiver scrub --rate 0 --json "$@" >"$work/scrub.json"
  cat "$work/scrub.json"
}

# old_readings_are_void: nothing is pruned because of the old release's results, and its
# successor verifies everything again.
old_readings_are_void() {
  as cis490 lab shipper prune --json --max-age 1s | tee "$work/prune.json"
  jq -es '.[-1].deleted == 0' "$work/prune.json"
  scrub_store --older-than 720h
  same "archives skipped" "$(jq '.skipped' "$work/scrub.json")" 0
}

# changed_are_named: no age makes prune delete what differs from what was sent.
changed_are_named() {
  jq -es 'any(.[]; .directory == "ep-analysed" and .finding == "changed")' "$work/verify.json"
  as cis490 lab shipper prune --json --dry-run --max-age 1s
  shipper_status | jq -e '.changed.count > 0'
}

# move_notes_away is for an operator to do before a downgrade: the old release's prune compares
# nothing.
move_notes_away() {
  find "$(root lab)$data" -name analysis.txt -delete
  sed -i '/\/analysis.txt$/d' "$work/recordings"
}

# prune_retired deletes a number of retired episodes. They may be too young for it at
# first.
prune_retired() {
  local wanted=$1 deleted=0
  deleted_some() {
    as cis490 lab shipper prune --json --max-age 1s --most "$((wanted - deleted))" >"$work/prune.json"
    jq -r 'select(.deleted == true).episode_id' "$work/prune.json" >"$work/prune.now"
    [ -s "$work/prune.now" ]
  }
  until [ "$deleted" -eq "$wanted" ]; do
    eventually deleted_some
    deleted=$((deleted + $(wc -l <"$work/prune.now")))
    cat "$work/prune.now" >>"$work/pruned"
  done
}

# prune_oldest: their receipts came without a fingerprint, so that their contents are
# compared with what the receiver has read back.
prune_oldest() {
  prune_retired 2
  same "deleted" "$(tail -n 2 "$work/pruned" | sort)" $'ep-retired-1\nep-retired-2'
}

# trash_is_empty: what an interrupted prune left is deleted or in shipped/ again.
trash_is_empty() {
  same "entries in the trash" "$(find "$(root lab)$data/outbox/.trash" -mindepth 1 -maxdepth 1)" '' || return 1
  grep -o 'ep-trash-[0-9]' "$work/trash" >>"$work/pruned" || true
  : >"$work/trash"
}

# nothing_is_lost compares what the machines hold with all that they ever held.
nothing_is_lost() {
  recordings_are_kept
  archives >"$work/archives.now"
  same "archives lost" "$(comm -23 "$work/archives" "$work/archives.now")" ''
  mv "$work/archives.now" "$work/archives"
  cmp -n "$(stat -c %s "$work/index")" "$work/index" "$(the_store)/index.jsonl"
  cp "$(the_store)/index.jsonl" "$work/index"
}

# recordings_are_kept: a file that left the lab host was pruned, and the archive of
# its episode has it.
recordings_are_kept() {
  local name
  recorded_files >"$work/recordings.now"
  comm -23 "$work/recordings" "$work/recordings.now" >"$work/recordings.gone"
  cut -c 67- "$work/recordings.gone" | cut -d / -f 1 | sort -u >"$work/episodes.gone"
  while read -r name; do
    grep -qx "$name" "$work/pruned" || { echo "$name is gone, and nothing pruned it"; return 1; }
    same "files of $name that no archive has" "$(grep "  $name/" "$work/recordings.gone" | comm -23 - <(archived_files "$name"))" ''
  done <"$work/episodes.gone"
  sort -u "$work/recordings.now" "$work/recordings.gone" >"$work/recordings"
}

# recorded_files prints a sha256 and a path from its episode's folder on for each
# recorded file on the lab host. Episodes move between folders and get suffixes.
recorded_files() {
  (cd "$(root lab)$data" && find episodes shipped outbox/.trash -mindepth 2 -type f ! -name done.marker -exec sha256sum {} +) |
    sed -E 's#  (episodes|shipped|outbox/.trash)/([^/~]*)[^/]*/#  \2/#; s#\.conflict-[0-9a-f]+/#/#' | sort -u
}

# archived_files prints the same of a stored archive.
archived_files() {
  local dir
  dir=$(mktemp -d "$work/archived.XXXXXX")
  zstd -dc "$(the_store)/episodes/lab-01/$1.tar.zst" | tar -x -C "$dir"
  (cd "$dir" && find . -type f -exec sha256sum {} +) | sed 's#  \./#  #' | sort
  rm -rf "$dir"
}

# archives prints a sha256 and a path for each file that the receiver keeps.
archives() { (cd "$(the_store)" && find episodes quarantine -type f -exec sha256sum {} + | sort); }

# nothing_is_unnamed: each episode that was ever recorded is stored and has its row, or
# shipper status tells that it is held, and why, or counts it as waiting.
nothing_is_unnamed() {
  local status waiting
  status=$(shipper_status)
  echo "$status"
  same "held" "$(jq -r '.held[] | "\(.episode_id) \(.reason)"' <<<"$status" | sort)" "$(cat "$work/held")"
  jq -e '.unshippable == [] and all(.held[]; .cause != "")' <<<"$status"
  jq -r .episode_id "$(the_store)/index.jsonl" | sort -u >"$work/indexed"
  find "$(the_store)/episodes/lab-01" -name '*.tar.zst' -printf '%f\n' | sed 's/\.tar\.zst$//' | sort >"$work/stored"
  same "archives without a row, rows without an archive" "$(diff "$work/stored" "$work/indexed")" ''
  cut -d ' ' -f 1 "$work/held" | sort -u - "$work/stored" >"$work/named"
  waiting=$(sort -u "$work/recorded" | comm -23 - "$work/named" | wc -l)
  same "waiting" "$(jq '.waiting + .sealed' <<<"$status")" "$waiting"
  same "shipped" "$(jq .shipped <<<"$status")" "$(find "$(root lab)$data/shipped" -mindepth 1 -maxdepth 1 -type d | wc -l)"
  same "trash" "$(find "$(root lab)$data/outbox/.trash" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)" "$(cat "$work/trash")"
  index_is_whole
}

index_is_whole() {
  local report
  jq -es '[.[] | select(.repaired != true) | [.host_id, .episode_id]] | length == (unique | length)' "$(the_store)/index.jsonl"
  report=$(as cis490 receiver receiver index verify --deep --json)
  echo "$report"
  jq -e '.findings == 0 and .underway == 0 and .files == .read' <<<"$report"
  same "quarantined" "$(as cis490 receiver receiver status --json | jq .quarantined)" \
    "$(find "$(the_store)/quarantine" -type f | wc -l)"
}

# no_other_errors: a daemon's error is about an episode that an operator must look at.
no_other_errors() {
  no_failed_units
  on lab journalctl --sync
  on receiver journalctl --sync
  same "errors" "$(errors receiver cis490-receiver; errors lab cis490-shipper)" ''
}

errors() {
  journal "$1" "$2" MESSAGE,PRIORITY | jq -r 'select((.PRIORITY | tonumber) <= 3) | .MESSAGE' |
    grep -vE '^(held an episode[: ]|set aside a stored archive |quarantined corrupt archive|retired episode not deleted .*dir=ep-(trash-[23]|analysed))' || true
}

# store_is_adopted: the host knows the receiver's store, and both have kept it when the
# old release, which knows of none, was back.
store_is_adopted() {
  local id
  id=$(as cis490 receiver receiver store --json | jq -r .id)
  [ -e "$work/store" ] || echo "$id" >"$work/store"
  same "the store" "$id" "$(cat "$work/store")"
  same "the host's store" "$(shipper_status | jq -r .store.id)" "$id"
}

# retry_held does what each hold of the old release asks for.
retry_held() {
  local as
  as=$(as cis490 lab shipper retry --beside ep-conflict | sed -n 's/.* as //p')
  echo "$as" >>"$work/recorded"
  as cis490 lab shipper retry --accept ep-changed
  echo '{"episode_id": "ep-unfit"}' >"$(root lab)$data/episodes/ep-unfit/meta.json"
  sed -i '/ ep-unfit\/meta.json$/d' "$work/recordings"
  as cis490 lab shipper retry ep-unfit
  : >"$work/held"
  eventually arrived "$as"
  eventually arrived ep-changed
  eventually arrived ep-unfit
}

# ship_again: the receipt of an episode that the old release shipped serves to repair
# the store with it.
ship_again() {
  damage ep-unread
  sed -i '/ep-unread.tar.zst$/d' "$work/archives"
  fails as cis490 lab shipper verify --heal
  eventually repaired ep-unread
}
