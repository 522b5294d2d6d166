#!/usr/bin/env bash
# Makes this machine the receiver: see --help.
set -euo pipefail
umask 022
source_dir=$(cd "$(dirname "$0")/.." && pwd)
readonly source_dir

usage() {
  cat <<'EOF'
Makes this machine the receiver, or brings it up to date. Run it as root, as often
as you like: what is as it should be is not touched, and neither is a
configuration or a certificate that is there.

  install-receiver.sh [--name NAME[,IP...]]

  --name NAMES     make both CAs and the receiver's certificate in /etc/cis490/pki, if
                   there is none: the names that hosts reach this machine by
  --from DIR       where the program is (default: bin/, or bin/arm64/, beside scripts/)
  --prefix DIR     put the files below DIR, start nothing, make no user
  --dry-run        say what would be changed, and change nothing
  --uninstall      take program and units away; configuration, keys, recordings stay

Example: install-receiver.sh --name receiver.lab,10.0.0.1

Exit codes: 0 done, 1 stopped, 2 wrong arguments.
EOF
}

readonly role_program=receiver role_config=receiver.toml role_example=receiver.toml.example
readonly role_units=(cis490-receiver.socket cis490-receiver.service cis490-receiver-fault.target)
readonly role_parse=(check)
readonly role_enable=(cis490-receiver.socket cis490-receiver.service)
names=''

role_option() {
  case $1 in
    --name) names=$2 ;;
    *) return 1 ;;
  esac
}

role_prepare() { cp "$source_dir/etc/$role_example" "$work/$role_config"; }

role_check() {
  local c dir
  c=$(the_config)
  dir=$(path_setting "$c" data_dir)
  check_disk "${dir:-/var/lib/cis490}"
  check_port "$c"
}

# check_port wants the port to be ours or nobody's. The kernel's own tables: ss is
# not on every machine.
check_port() {
  local port listen
  if ! live; then return; fi
  port=$(sed -n 's/^ListenStream=\(.*:\)\{0,1\}\([0-9]\{1,5\}\)$/\2/p' "$source_dir/etc/cis490-receiver.socket")
  listen=$(setting "$1" listen)
  if [ ! -d "$units/cis490-receiver.socket.d" ] && [ "${listen:-:$port}" != ":$port" ]; then
    warn "listen in $config is $listen; under systemd it is the socket unit that decides: systemctl edit cis490-receiver.socket"
  fi
  if [ -d "$units/cis490-receiver.socket.d" ] || systemctl is-active --quiet cis490-receiver.socket cis490-receiver.service; then return; fi
  if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port="$(printf ':%04X' "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'; then
    die "port $port is in use: find the program with 'ss -ltnp sport = :$port' and stop it, or choose another with 'systemctl edit cis490-receiver.socket'"
  fi
}

role_papers() {
  step='making the certificates'
  if live && [ -n "$names" ] && [ ! -e "$config_dir/pki/server.crt" ]; then
    change "make the CAs and the receiver's certificate for $names" make_papers
  fi
  if live && [ -f "$config" ]; then own_key "$(path_setting "$config" key_file)"; fi
}

make_papers() { "$bin/$unit" pki init --dir "$config_dir/pki" --name "$names" >/dev/null; }

role_finish() {
  local key
  if ! live || [ -n "$dry_run" ]; then
    told
    return
  fi
  key=$(path_setting "$config" key_file)
  key=${key:-$config_dir/pki/server.key}
  if [ ! -f "$key" ]; then
    told
    cat <<EOF
installed; not started, because $key is missing
Next: $0 --name NAME,IP   with the names that hosts reach this machine by
EOF
    return
  fi
  step='checking configuration and certificates (receiver check)'
  "$bin/$unit" check --lenient || exit 1
  start_units
  told
  step='checking that it runs'
  systemctl is-active --quiet cis490-receiver.socket cis490-receiver.service || die 'it does not run: journalctl -u cis490-receiver'
  cat <<EOF
the receiver runs
Next, for each host:  receiver pki issue HOST --dir $config_dir/pki --out HOST
and on the host:      scripts/install-lab-host.sh --host-id HOST --receiver https://NAME:8443 --papers HOST
EOF
}

# shellcheck source=scripts/install-common.sh
. "$source_dir/scripts/install-common.sh"
install_role "$@"
