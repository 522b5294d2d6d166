#!/usr/bin/env bash
# The Raspberry Pi's programs, static, under user-mode emulation: certificates, both
# daemons on loopback, a ping, an episode, the comparison. Run it with
# `make system-arm64`. On an arm64 machine they run as they are.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly patience=60 # seconds
readonly cache=${XDG_CACHE_HOME:-/var/cache}/cis490-system

die() {
  echo "system-arm64: $*" >&2
  exit 1
}

skip() {
  [ -z "${CI:-}" ] || die "$*"
  echo "SKIPPED: $*: nothing was run on arm64" >&2
  exit 0
}

# find_emulator takes Debian 13's qemu, which is one static file: that of Debian 12
# does not know openat2, by which episodes are opened.
find_emulator() {
  if [ -x "$cache/qemu-aarch64" ]; then return; fi
  [ "$(id -u)" -eq 0 ] || skip "root is needed, for mmdebstrap"
  if ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null || skip "mmdebstrap is missing"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends mmdebstrap >/dev/null
  fi
  echo "fetching $cache/qemu-aarch64 (once)"
  mkdir -p "$cache"
  mmdebstrap --quiet --variant=extract --include=qemu-user trixie "$cache/qemu.tar"
  tar -x -O -f "$cache/qemu.tar" ./usr/bin/qemu-aarch64 >"$cache/qemu-aarch64.new"
  chmod 755 "$cache/qemu-aarch64.new"
  mv "$cache/qemu-aarch64.new" "$cache/qemu-aarch64"
  rm "$cache/qemu.tar"
}

run=()
if [ "$(uname -m)" != aarch64 ]; then
  find_emulator
  run=("$cache/qemu-aarch64")
fi

bin=$PWD/bin/arm64
lab=$(mktemp -d "${TMPDIR:-/tmp}/cis490-arm64.XXXXXX")
receiver_pid='' shipper_pid=''

finish() {
  local code=$? pid
  trap - EXIT
  for pid in $shipper_pid $receiver_pid; do kill -KILL "$pid" 2>/dev/null || true; done
  if [ "$code" -ne 0 ]; then tail -n 20 "$lab"/*.log >&2 || true; fi
  rm -rf "$lab"
  exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM INT

receiver() { "${run[@]}" "$bin/receiver" "$@"; }
shipper() { "${run[@]}" "$bin/shipper" "$@"; }

eventually() {
  local deadline=$((SECONDS + patience))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die "waited $patience s for: $*"
    sleep 0.1
  done
}

for program in receiver shipper; do
  # Bytes 18 and 19 of an ELF file say which machine it is for, b7 00 is arm64.
  [ "$(od -An -tx1 -j18 -N2 "$bin/$program" | tr -d ' \n')" = b700 ] || die "bin/arm64/$program is not for arm64: run make pi"
  # A program that asks for an interpreter is not static.
  ! grep -aq /lib/ld- <(head -c 4096 "$bin/$program") || die "bin/arm64/$program is not static"
done
echo "ok   programs are arm64 and static"

receiver pki init --dir "$lab/pki" --name localhost,127.0.0.1 >/dev/null
receiver pki issue lab-01 --dir "$lab/pki" --out "$lab/host" >/dev/null
cat >"$lab/receiver.toml" <<CONF
listen = "127.0.0.1:0"
data_dir = "data"
min_free = "16MiB"
[tls]
cert_file = "pki/server.crt"
key_file = "pki/server.key"
client_ca_file = "pki/hosts-ca.crt"
crl_file = "pki/hosts.crl"
[admin]
listen = "127.0.0.1:0"
CONF
"${run[@]}" "$bin/receiver" --config "$lab/receiver.toml" 2>"$lab/receiver.log" &
receiver_pid=$!
eventually grep -q 'listen=127.0.0.1:' "$lab/receiver.log"
port=$(sed -n 's/.*listen=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$lab/receiver.log")

mkdir -p "$lab/host/episodes" "$lab/host/outbox" "$lab/host/shipped"
cat >"$lab/lab-host.toml" <<CONF
host_id = "lab-01"
episodes_dir = "host/episodes"
outbox_dir = "host/outbox"
shipped_dir = "host/shipped"
min_free = "16MiB"
[receiver]
url = "https://127.0.0.1:$port"
ca_file = "host/ca.crt"
cert_file = "host/lab-01.crt"
key_file = "host/lab-01.key"
[admin]
listen = "127.0.0.1:0"
CONF
"${run[@]}" "$bin/shipper" --config "$lab/lab-host.toml" 2>"$lab/shipper.log" &
shipper_pid=$!
shipper --config "$lab/lab-host.toml" --ping
echo "ok   shipper --ping"

episode=$lab/host/episodes/ep-arm64
mkdir -p "$episode/telemetry"
echo '{"episode_id": "ep-arm64"}' >"$episode/meta.json"
seq 100000 >"$episode/telemetry/numbers.csv"
head -c 2M /dev/urandom >"$episode/telemetry/capture.bin"
ln -s telemetry/numbers.csv "$episode/latest"
mkfifo "$episode/fifo"
: >"$episode/done.marker"
eventually test -e "$lab/host/shipped/ep-arm64/done.marker"
echo "ok   an episode is shipped"

receiver --config "$lab/receiver.toml" index verify --deep
echo "ok   receiver index verify --deep"

mkdir "$lab/unpacked"
zstd -q -d -c "$lab/data/episodes/lab-01/ep-arm64.tar.zst" | tar -x -C "$lab/unpacked" -f -
rm "$lab/host/shipped/ep-arm64/fifo" # is left out
diff -r --no-dereference "$lab/host/shipped/ep-arm64" "$lab/unpacked/ep-arm64"
echo "ok   what arrived is what was recorded"

kill -TERM "$shipper_pid" "$receiver_pid"
wait "$shipper_pid"
wait "$receiver_pid"
shipper_pid='' receiver_pid=''
echo "ok   both end with 0 on SIGTERM"
