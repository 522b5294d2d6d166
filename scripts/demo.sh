#!/usr/bin/env bash
# Ships one episode end to end on this machine over mutual TLS: a receiver is set up, a
# host joins it, both daemons run on loopback, with some hundred megabytes of real files
# and telemetry, and a comparison of the stored archive with the original. Run it with
# `make demo`. KEEP=1 keeps the directory.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly host=lab-01
readonly episode=demo-episode
readonly timeout=60 # seconds

bin=$PWD/bin
lab=$(mktemp -d "${TMPDIR:-/tmp}/cis490-demo.XXXXXX")
data=$lab/host/data
store=$lab/receiver/data
index=$store/index.jsonl
receiver_pid='' shipper_pid=''

say() { printf '\n== %s\n' "$*"; }

die() {
  echo "demo: $*" >&2
  exit 1
}

# until_true waits until a command succeeds, and fails if a daemon exits.
until_true() {
  local what=$1 deadline=$((SECONDS + timeout)) pid
  shift
  until "$@" >/dev/null 2>&1; do
    for pid in $receiver_pid $shipper_pid; do
      kill -0 "$pid" 2>/dev/null || die "a daemon exited while waiting for $what"
    done
    [ "$SECONDS" -lt "$deadline" ] || die "timed out after $timeout s waiting for $what"
    sleep 0.1
  done
}

# wait_exit waits until a process has exited, at most ten seconds.
wait_exit() {
  local deadline=$((SECONDS + 10))
  while kill -0 "$1" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# stop stops both daemons as a service manager would, and fails unless both exit with 0.
stop() {
  local code=0
  kill -TERM "$shipper_pid" "$receiver_pid"
  wait_exit "$shipper_pid" || die "the shipper did not exit after SIGTERM"
  wait_exit "$receiver_pid" || die "the receiver did not exit after SIGTERM"
  wait "$shipper_pid" || code=$?
  wait "$receiver_pid" || code=$?
  shipper_pid='' receiver_pid=''
  [ "$code" -eq 0 ] || die "a daemon exited with $code after SIGTERM"
}

finish() {
  local code=$? pid log
  trap - EXIT
  for pid in $shipper_pid $receiver_pid; do
    kill -KILL "$pid" 2>/dev/null || true
  done
  if [ "$code" -ne 0 ]; then
    for log in "$lab"/*.log; do
      [ -f "$log" ] || continue
      printf '\n-- the end of %s\n' "${log##*/}" >&2
      tail -n 20 "$log" >&2
    done
    echo "demo: failed" >&2
  fi
  if [ -n "${KEEP:-}" ]; then
    echo "demo: kept $lab"
  else
    rm -rf "$lab"
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

require_space() {
  local free
  free=$(df -Pk "$lab" | awk 'NR == 2 { print $4 }')
  [ "$free" -gt $((1500 * 1024)) ] ||
    die "$lab has $((free / 1024)) MiB free, but 1500 are needed: use a larger disk with TMPDIR=DIR make demo"
}

set_up_receiver() {
  mkdir "$lab/receiver"
  "$bin/receiver" --config "$lab/receiver/receiver.toml" setup --name localhost,127.0.0.1 --listen 127.0.0.1:0
}

start_receiver() {
  "$bin/receiver" --config "$lab/receiver/receiver.toml" 2>"$lab/receiver.log" &
  receiver_pid=$!
  until_true "the receiver to listen" grep -q 'listen=127.0.0.1:' "$lab/receiver.log"
  port=$(sed -n 's/.*listen=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$lab/receiver.log")
  echo "receiver, pid $receiver_pid, listens on 127.0.0.1:$port"
}

# invite leaves the line for the host in a file: only the host should see the token.
invite() {
  (umask 077 && "$bin/receiver" --config "$lab/receiver/receiver.toml" invite "$host" --url "https://localhost:$port" >"$lab/line")
  sed 's/\(cis490_join_.\{8\}\).*/\1.../' "$lab/line"
}

join() {
  mkdir "$lab/host"
  "$bin/shipper" --config "$lab/host/lab-host.toml" join - <"$lab/line"
}

start_shipper() {
  mkdir -p "$data/episodes" "$data/outbox" "$data/shipped"
  "$bin/shipper" --config "$lab/host/lab-host.toml" 2>"$lab/shipper.log" &
  shipper_pid=$!
  until_true "the shipper to start" grep -q 'shipper started' "$lab/shipper.log"
  echo "shipper, pid $shipper_pid, watches $data/episodes"
}

# record writes an episode as a lab does: its files first, done.marker last.
record() {
  local dir=$data/episodes/$episode goroot
  goroot=$(go env GOROOT)
  mkdir -p "$dir/telemetry" "$dir/files"
  printf '{"schema_version": 1, "episode_id": "%s", "code_version": {"commit": "%s"}}\n' "$episode" "$commit" >"$dir/meta.json"
  LC_ALL=C awk -v lines=200000 'BEGIN {
    srand(490)
    for (i = 0; i < lines; i++)
      printf "{\"ts\": %.6f, \"vm\": \"win10-%02d\", \"pid\": %d, \"call\": \"NtReadFile\", \"ret\": \"0x%08x\", \"dur_us\": %d}\n",
        1777000000 + i * 0.0004, i % 4, 400 + 4 * int(rand() * 300), int(rand() * 65536), int(rand() * 900)
  }' >"$dir/telemetry/calls.jsonl"
  ln -s telemetry/calls.jsonl "$dir/latest"
  # Go's own tree, as files and not as links: a distribution may link its parts.
  cp -RL "$goroot/src" "$dir/files/src"
  if [ -d "$goroot/pkg/tool" ]; then cp -RL "$goroot/pkg/tool" "$dir/files/tool"; fi
  cp -L "$bin/shipper" "$bin/receiver" "$dir/files/"
  chmod -R u+w "$dir"
  echo "$(find "$dir" -type f | wc -l) files, $(du -sk "$dir" | awk '{ print int($1 / 1024) }') MiB of disk: Go's source tree, programs, telemetry"
  : >"$dir/done.marker"
}

show_row() {
  if command -v jq >/dev/null; then
    jq . "$index"
  else
    cat "$index"
  fi
  [ "$(wc -l <"$index")" -eq 1 ] || die "the index does not have exactly one row"
  grep -q "\"commit\": \"$commit\"" "$index" || die "the row does not have the commit of meta.json"
}

compare_trees() {
  local archive=$store/episodes/$host/$episode.tar.zst
  [ -f "$archive" ] || die "$archive is missing"
  grep -q "\"sha256\": \"$(sha256sum "$archive" | cut -d ' ' -f 1)\"" "$index" || die "the sha256 of the row differs from that of the file"
  if ! command -v zstd >/dev/null || ! command -v tar >/dev/null; then
    echo "zstd or tar is missing: the trees were not compared (apt-get install zstd tar)"
    return
  fi
  mkdir "$lab/unpacked"
  zstd -q -d -c "$archive" | tar -x -C "$lab/unpacked" -f -
  diff -r --no-dereference "$data/shipped/$episode" "$lab/unpacked/$episode" || die "the stored archive differs from the episode"
  echo "zstd | tar | diff -r: $(du -k "$archive" | awk '{ print int($1 / 1024) }') MiB stored, no difference"
}

for program in shipper receiver; do
  [ -x "$bin/$program" ] || die "bin/$program is missing: run make build"
done
command -v go >/dev/null || die "go is missing"
require_space
commit=$(git rev-parse --verify -q HEAD 2>/dev/null || printf '%040d' 490)

say "receiver setup"
set_up_receiver
start_receiver

say "receiver invite $host"
invite

say "shipper join, on the host"
join
start_shipper

say "an episode is recorded in episodes/$episode"
record
marked=$(date +%s%N)

say "the shipper finds done.marker, packs and uploads the episode, and retires it after the receipt"
until_true "the index row" grep -q "\"episode_id\": \"$episode\"" "$index"
until_true "the episode to move to shipped/" test -f "$data/shipped/$episode/done.marker"
echo "stored, indexed and moved to shipped/ $((($(date +%s%N) - marked) / 1000000)) ms after done.marker"
[ ! -e "$data/episodes/$episode" ] || die "the episode is still in episodes/"
until_true "the outbox to be empty" sh -c "! ls '$data/outbox' | grep -q 'tar.zst'"

say "the row in index.jsonl"
show_row

say "compare the stored archive with the episode"
compare_trees

say "receiver index verify --deep"
"$bin/receiver" --config "$lab/receiver/receiver.toml" index verify --deep

say "stop both with SIGTERM"
stop
echo "both exited with 0"

say "done: one episode, one archive, one row"
