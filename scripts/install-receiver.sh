#!/usr/bin/env bash
# Sets up this machine as the receiver: see --help.
set -euo pipefail
umask 022
source_dir=$(cd "$(dirname "$0")/.." && pwd)
readonly source_dir

usage() {
  cat <<'EOF'
Sets up this machine as the receiver, or upgrades it. Run it as root. It can be run
again at any time: it changes only what differs, and never an existing
configuration or certificate.

  install-receiver.sh [--name NAME[,IP...]]

  --name NAMES     run 'receiver setup' unless this machine has a certificate: create the
                   CAs and the receiver's certificate in /etc/cis490/pki, for the names
                   by which hosts reach this machine, and let hosts join
  --from DIR       directory of the program (default: bin/ or bin/arm64/ next to scripts/)
  --prefix DIR     put the files below DIR; start no service, create no user
  --dry-run        print the changes without making them
  --uninstall      remove program and units; keep configuration, keys, recordings

Example: install-receiver.sh --name receiver.lab,10.0.0.1

Exit codes: 0 done, 1 failed, 2 wrong arguments.
EOF
}

readonly role_program=receiver role_config=receiver.toml role_example=receiver.toml.example
readonly role_units=(cis490-receiver.socket cis490-receiver.service cis490-receiver-fault.target cis490-hook.path cis490-hook.service)
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

# check_port fails if another program uses the port. It reads the kernel's tables, since ss
# is not installed on every machine.
check_port() {
  local port listen
  if ! live; then return; fi
  port=$(sed -n 's/^ListenStream=\(.*:\)\{0,1\}\([0-9]\{1,5\}\)$/\2/p' "$source_dir/etc/cis490-receiver.socket")
  listen=$(setting "$1" listen)
  if [ ! -d "$units/cis490-receiver.socket.d" ] && [ "${listen:-:$port}" != ":$port" ]; then
    warn "listen in $config is $listen, but under systemd the socket unit decides: systemctl edit cis490-receiver.socket"
  fi
  if [ -d "$units/cis490-receiver.socket.d" ] || systemctl is-active --quiet cis490-receiver.socket cis490-receiver.service; then return; fi
  if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port="$(printf ':%04X' "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'; then
    die "port $port is in use: find the program with 'ss -ltnp sport = :$port' and stop it, or choose another with 'systemctl edit cis490-receiver.socket'"
  fi
}

role_credentials() {
  step='creating the certificates'
  if live && [ -n "$names" ] && [ ! -e "$config_dir/pki/server.crt" ]; then
    change "create the CAs and the receiver's certificate for $names, and let hosts join" set_up
  fi
  if live && [ -f "$config" ]; then own_key "$(path_setting "$config" key_file)"; fi
}

# set_up also enables and starts the units, so that nothing needs a restart.
set_up() {
  systemctl daemon-reload && "$bin/$unit" setup --name "$names" >/dev/null && restart=''
}

# next_command prints how a host gets its certificate.
next_command() {
  if [ -f "$identity/hosts-issuing.pem" ]; then
    cat <<EOF
receiver invite HOST
and on the host:      scripts/install-lab-host.sh, then the line that 'receiver invite' printed
EOF
    return
  fi
  cat <<EOF
receiver pki issue HOST --dir $config_dir/pki --out HOST
and on the host:      scripts/install-lab-host.sh --host-id HOST --receiver https://NAME:8443 --credentials HOST
EOF
}

role_finish() {
  local key
  if ! live || [ -n "$dry_run" ]; then
    print_changes
    return
  fi
  key=$(path_setting "$config" key_file)
  key=${key:-$config_dir/pki/server.key}
  if [ ! -f "$key" ]; then
    print_changes
    cat <<EOF
installed; not started, because $key is missing
Next: $0 --name NAME,IP   with the names by which hosts reach this machine
EOF
    return
  fi
  step='checking configuration and certificates (receiver check)'
  "$bin/$unit" check --lenient || exit 1
  start_units
  print_changes
  step='checking that it runs'
  systemctl is-active --quiet cis490-receiver.socket cis490-receiver.service || die 'it is not running: journalctl -u cis490-receiver'
  cat <<EOF
the receiver runs
Next, for each host:  $(next_command)
EOF
}

# shellcheck source=scripts/install-common.sh
. "$source_dir/scripts/install-common.sh"
install_role "$@"
