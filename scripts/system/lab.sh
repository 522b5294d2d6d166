# shellcheck shell=bash disable=SC2154 # run in cell.sh
# The lab's own checks: an episode is recorded, has arrived; nothing is lost.

readonly data=/var/lib/cis490/data store=/var/lib/cis490
host=lab-01 # the name of the lab host at the receiver

# the_store is where the receiver keeps its data now, seen from here.
the_store() { echo "$(root receiver)$store"; }

# record leaves an episode as an experiment leaves it: as its own user, its files
# first, done.marker at last. record NAME KIB
record() {
  # shellcheck disable=SC2016 # the machine's shell expands it
  as cis490-lab lab sh -euc '
    cd "$1/episodes"
    mkdir -p "$2/telemetry"
    printf "{\"episode_id\": \"%s\", \"code_version\": {\"commit\": \"%040d\"}}\n" "$2" 490 >"$2/meta.json"
    head -c "$3"K /dev/urandom >"$2/telemetry/capture.bin"
    : >"$2/done.marker"' record "$data" "$1" "$2"
  echo "$1" >>"$work/recorded"
}

# arrived reports whether an episode is stored, has its row, and has moved.
arrived() {
  local dir
  dir=$(the_store)
  [ -f "$dir/episodes/$host/$1.tar.zst" ] || { echo "$1 is not in the store"; return 1; }
  same "rows of $1" "$(rows "$1")" 1 || return 1 # eventually goes on after an error
  [ -e "$(root lab)$data/shipped/$1/done.marker" ] || { echo "$1 is not in shipped/"; return 1; }
  [ ! -e "$(root lab)$data/episodes/$1" ] || { echo "$1 is still in episodes/"; return 1; }
}

rows() { jq -r --arg e "$1" 'select(.episode_id == $e) | .sha256' "$(the_store)/index.jsonl" | wc -l; }

# ship records an episode and waits until it has arrived.
ship() {
  record "$1" "${2:-64}"
  eventually arrived "$1"
}

# intact checks the invariant: each episode that was ever recorded exists once, each row
# describes its file, and nothing is in flight.
intact() {
  local name
  while read -r name; do
    eventually arrived "$name"
  done <"$work/recorded"
  same "rows" "$(wc -l <"$(the_store)/index.jsonl")" "$(wc -l <"$work/recorded")"
  same "files" "$(find "$(the_store)/episodes" -name '*.tar.zst' | wc -l)" "$(wc -l <"$work/recorded")"
  eventually nothing_on_the_way
  as cis490 receiver receiver index verify --deep
}

# ep-lost is packed on a disk that fails: its streaming upload waits for a host that will not
# continue.
nothing_on_the_way() {
  local left
  left=$(find "$(root lab)$data/outbox" -name '*.tar.zst*' && find "$(the_store)/staging" -type f ! -name 'ep-lost~*')
  same "on the way" "$left" ''
}

# uploading reports whether some of an episode, but not all, is with the receiver.
uploading() {
  [ -n "$(find "$(the_store)/staging/$host" -type f -size "+${1:-64}k" -print -quit 2>/dev/null)" ]
}

# property prints one of a unit's properties: property MACHINE UNIT NAME
property() { on "$1" systemctl show --value --property "$3" "$2"; }

# unit_is compares one: unit_is MACHINE UNIT NAME VALUE
unit_is() { same "$2 $3" "$(property "$1" "$2" "$3")" "$4"; }

active() { unit_is "$1" "$2" ActiveState active; }

# drop_ins is the folder of a unit's changes.
drop_ins() {
  case $2 in
    *.*) echo "$(root "$1")/etc/systemd/system/$2.d" ;;
    *) echo "$(root "$1")/etc/systemd/system/$2.service.d" ;;
  esac
}

# drop_in changes a unit as `systemctl edit` does: drop_in MACHINE UNIT NAME <TEXT
drop_in() {
  local dir
  dir=$(drop_ins "$1" "$2")
  mkdir -p "$dir"
  cat >"$dir/$3.conf"
  on "$1" systemctl daemon-reload
}

# drop_out takes it back.
drop_out() {
  local dir
  dir=$(drop_ins "$1" "$2")
  rm "$dir/$3.conf"
  rmdir --ignore-fail-on-non-empty "$dir"
  on "$1" systemctl daemon-reload
}

# configure sets keys of a TOML file: configure FILE KEY=VALUE... A key occurs once in our
# files.
configure() {
  local file=$1 pair
  shift
  for pair in "$@"; do
    grep -q "^${pair%%=*} *=" "$file"
    sed -i "s|^${pair%%=*} *=.*|${pair%%=*} = \"${pair#*=}\"|" "$file"
  done
}

# journal prints messages of a unit since it was last started: journal MACHINE UNIT FIELDS
journal() { on "$1" journalctl --no-pager -q -u "$2" -o json --output-fields="$3"; }

# listens_to reports whether the lab host's ping is answered.
ping_receiver() { as cis490 lab shipper --ping; }
