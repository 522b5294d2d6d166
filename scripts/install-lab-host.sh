#!/usr/bin/env bash
# Sets up this machine as a lab host: see --help.
set -euo pipefail
umask 022
source_dir=$(cd "$(dirname "$0")/.." && pwd)
readonly source_dir

usage() {
  cat <<'EOF'
Sets up this machine as a lab host, or upgrades it. Run it as root. It can be run
again at any time: it changes only what differs, and never an existing
configuration. Afterwards run the line that `receiver invite HOST` printed on the
receiver: sudo shipper join TOKEN. With --credentials, joining is not needed.

  install-lab-host.sh [--host-id NAME --receiver URL --credentials DIR]

  --host-id NAME     host_id of a new configuration
  --receiver URL     receiver.url of a new configuration
  --credentials DIR  output of `receiver pki issue`: ca.crt, NAME.crt, NAME.key
  --from DIR         directory of the program (default: bin/ next to scripts/)
  --prefix DIR       put the files below DIR; start no service, create no user
  --dry-run          print the changes without making them
  --uninstall        remove program and units; keep configuration, keys, recordings

Example: install-lab-host.sh
Example: install-lab-host.sh --host-id lab-01 --receiver https://10.0.0.1:8443 --credentials ./lab-01

Exit codes: 0 done, 1 failed, 2 wrong arguments, 4 installed, but the receiver
cannot be reached or refuses this host.
EOF
}

readonly role_program=shipper role_config=lab-host.toml role_example=lab-host.toml.example
readonly role_units=(cis490-shipper.service cis490-shipper-once.service cis490-shipper-once.timer
  cis490-episodes.path cis490-episodes.service cis490-orchestrator.service)
readonly role_parse=(status)
role_enable=(cis490-shipper.service)
host_id='' url='' credentials=''

role_option() {
  case $1 in
    --host-id) host_id=$2 ;;
    --receiver) url=$2 ;;
    --credentials | --papers) credentials=$2 ;; # --papers is the former name
    *) return 1 ;;
  esac
}

# role_prepare creates the configuration of a host that has none.
role_prepare() {
  local edit=()
  if [ -n "$host_id" ]; then
    if ! [[ $host_id =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$ ]]; then misused "--host-id $host_id: letters, digits, dot, dash and underscore"; fi
    edit+=(-e "s/^host_id = .*/host_id = \"$host_id\"/" -e "s,/lab-01\\.\\(crt\\|key\\)\",/$host_id.\\1\",")
  fi
  if [ -n "$url" ]; then
    if ! [[ $url =~ ^https://[]A-Za-z0-9.:[-]+/?$ ]]; then misused "--receiver $url: must be https://NAME:PORT"; fi
    edit+=(-e "s,^url = .*,url = \"$url\",")
  fi
  sed -e '' "${edit[@]}" "$source_dir/etc/$role_example" >"$work/$role_config"
  if [ -e "$prefix$config" ] && [ "${#edit[@]}" -gt 0 ] && ! cmp -s "$work/$role_config" "$prefix$config"; then
    warn "$prefix$config already exists and was not changed; edit it, or remove it and rerun with --host-id and --receiver"
  fi
  # A host that runs from the timer keeps it.
  if live && systemctl is-enabled --quiet cis490-shipper-once.timer 2>/dev/null; then role_enable=(cis490-shipper-once.timer); fi
}

role_check() {
  local c key device='' dir
  c=$(the_config)
  host_id=$(setting "$c" host_id)
  if [ -n "$credentials" ]; then
    for key in ca.crt "$host_id.crt" "$host_id.key"; do
      if [ ! -f "$credentials/$key" ]; then die "$credentials/$key is missing: --credentials requires the directory that 'receiver pki issue $host_id --out DIR' wrote"; fi
    done
  fi
  for key in episodes_dir outbox_dir shipped_dir; do
    dir=$(path_setting "$c" "$key")
    if [ -z "$dir" ] || ! live; then continue; fi
    if [ -z "$device" ]; then check_disk "$dir"; fi
    dir=$(existing "$dir")
    if [ -n "$device" ] && [ "$device" != "$(stat -c %d "$dir")" ]; then
      die "episodes_dir, outbox_dir and shipped_dir are on two file systems: an episode is moved between them, so $config must name directories of one file system"
    fi
    device=$(stat -c %d "$dir")
  done
}

role_credentials() {
  step='installing the certificate'
  local name
  if [ ! -e "$prefix$config_dir/orchestrator.env" ]; then put "$source_dir/etc/orchestrator.env.example" "$config_dir/orchestrator.env" 0640; fi
  if [ -n "$credentials" ]; then
    for name in ca.crt "$host_id.crt" "$host_id.key"; do
      if ! cmp -s "$credentials/$name" "$prefix$config_dir/pki/$name"; then put_credential "$credentials/$name" "$name"; fi
    done
  fi
  if live && [ -f "$config" ]; then own_key "$(path_setting "$config" key_file)"; fi
}

# put_credential installs a file. No other user can read the key at any moment.
put_credential() {
  case $2 in
    *.key) put "$1" "$config_dir/pki/$2" 0600 ;;
    *) put "$1" "$config_dir/pki/$2" 0644 ;;
  esac
  restart=yes
}

role_finish() {
  local key code=0
  if ! live || [ -n "$dry_run" ]; then
    print_changes
    return
  fi
  key=$(path_setting "$config" key_file)
  if [ ! -f "$key" ] && [ ! -f "$identity/host.pem" ]; then
    print_changes
    cat <<EOF
installed; not started, because this host has no certificate
Next, on the receiver:  receiver invite HOST
and here:               the line that it prints: sudo shipper join TOKEN
Or, with the files of 'receiver pki issue' in DIR, and host_id and url set in $config:
                        $0 --credentials DIR
EOF
    return
  fi
  if [ "${role_enable[0]}" = cis490-shipper.service ]; then
    start_units
  elif ! systemctl is-active --quiet "${role_enable[0]}"; then
    change "start ${role_enable[0]}" systemctl start "${role_enable[0]}"
  fi
  print_changes
  step='asking the receiver (shipper --ping)'
  "$bin/$unit" --ping || code=$?
  if [ "$code" -ne 0 ]; then
    say "installed and running, but the receiver does not accept this host yet: fix the above, then run: shipper --ping"
    if [ "$code" -eq 2 ]; then code=1; fi
    exit "$code"
  fi
  say "Next: write an episode to $(path_setting "$config" episodes_dir), create done.marker in it last, then run: shipper status"
}

# shellcheck source=scripts/install-common.sh
. "$source_dir/scripts/install-common.sh"
install_role "$@"
