#!/usr/bin/env bash
# Makes this machine a lab host: see --help.
set -euo pipefail
umask 022
source_dir=$(cd "$(dirname "$0")/.." && pwd)
readonly source_dir

usage() {
  cat <<'EOF'
Makes this machine a lab host, or brings one up to date. Run it as root, as often
as you like: what is as it should be is not touched, and neither is a
configuration that is there.

  install-lab-host.sh [--host-id NAME] [--receiver URL] [--papers DIR]

  --host-id NAME   host_id of a new configuration
  --receiver URL   receiver.url of a new configuration
  --papers DIR     what `receiver pki issue` wrote: ca.crt, NAME.crt, NAME.key
  --from DIR       where the program is (default: bin/ beside scripts/)
  --prefix DIR     put the files below DIR, start nothing, make no user
  --dry-run        say what would be changed, and change nothing
  --uninstall      take program and units away; configuration, keys, recordings stay

Example: install-lab-host.sh --host-id lab-01 --receiver https://10.0.0.1:8443 --papers ./lab-01

Exit codes: 0 done, 1 stopped, 2 wrong arguments, 4 installed, but the receiver
cannot be reached or refuses this host.
EOF
}

readonly role_program=shipper role_config=lab-host.toml role_example=lab-host.toml.example
readonly role_units=(cis490-shipper.service cis490-shipper-once.service cis490-shipper-once.timer
  cis490-episodes.path cis490-episodes.service cis490-orchestrator.service)
readonly role_parse=(status)
role_enable=(cis490-shipper.service)
host_id='' url='' papers=''

role_option() {
  case $1 in
    --host-id) host_id=$2 ;;
    --receiver) url=$2 ;;
    --papers) papers=$2 ;;
    *) return 1 ;;
  esac
}

# role_prepare makes the configuration that a host without one gets.
role_prepare() {
  local edit=()
  if [ -n "$host_id" ]; then
    if ! [[ $host_id =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$ ]]; then misused "--host-id $host_id: letters, digits, dot, dash and underscore"; fi
    edit+=(-e "s/^host_id = .*/host_id = \"$host_id\"/" -e "s,/lab-01\\.\\(crt\\|key\\)\",/$host_id.\\1\",")
  fi
  if [ -n "$url" ]; then
    if ! [[ $url =~ ^https://[]A-Za-z0-9.:[-]+/?$ ]]; then misused "--receiver $url: want https://NAME:PORT"; fi
    edit+=(-e "s,^url = .*,url = \"$url\",")
  fi
  sed -e '' "${edit[@]}" "$source_dir/etc/$role_example" >"$work/$role_config"
  if [ -e "$prefix$config" ] && [ "${#edit[@]}" -gt 0 ] && ! cmp -s "$work/$role_config" "$prefix$config"; then
    warn "$prefix$config is there and is kept: --host-id and --receiver are for a new one"
  fi
  # A host that is run from the timer is left to it.
  if live && systemctl is-enabled --quiet cis490-shipper-once.timer 2>/dev/null; then role_enable=(cis490-shipper-once.timer); fi
}

role_check() {
  local c key device='' dir
  c=$(the_config)
  host_id=$(setting "$c" host_id)
  if [ -n "$papers" ]; then
    for key in ca.crt "$host_id.crt" "$host_id.key"; do
      if [ ! -f "$papers/$key" ]; then die "$papers/$key is missing: --papers wants what 'receiver pki issue $host_id --out DIR' wrote"; fi
    done
  fi
  for key in episodes_dir outbox_dir shipped_dir; do
    dir=$(path_setting "$c" "$key")
    if [ -z "$dir" ] || ! live; then continue; fi
    if [ -z "$device" ]; then check_disk "$dir"; fi
    dir=$(existing "$dir")
    if [ -n "$device" ] && [ "$device" != "$(stat -c %d "$dir")" ]; then
      die "episodes_dir, outbox_dir and shipped_dir are on two file systems: an episode is moved between them, so $config must name folders of one"
    fi
    device=$(stat -c %d "$dir")
  done
}

role_papers() {
  step='installing the certificate'
  local name
  if [ ! -e "$prefix$config_dir/orchestrator.env" ]; then put "$source_dir/etc/orchestrator.env.example" "$config_dir/orchestrator.env" 0640; fi
  if [ -n "$papers" ]; then
    for name in ca.crt "$host_id.crt" "$host_id.key"; do
      if ! cmp -s "$papers/$name" "$prefix$config_dir/pki/$name"; then put_paper "$papers/$name" "$name"; fi
    done
  fi
  if live && [ -f "$config" ]; then own_key "$(path_setting "$config" key_file)"; fi
}

# put_paper: the key is never readable for others, not for a moment.
put_paper() {
  case $2 in
    *.key) put "$1" "$config_dir/pki/$2" 0600 ;;
    *) put "$1" "$config_dir/pki/$2" 0644 ;;
  esac
  restart=yes
}

role_finish() {
  local key code=0
  if ! live || [ -n "$dry_run" ]; then
    told
    return
  fi
  key=$(path_setting "$config" key_file)
  if [ ! -f "$key" ]; then
    told
    cat <<EOF
installed; not started, because $key is missing
Next, where the CA is:   receiver pki issue $host_id --dir /etc/cis490/pki --out $host_id
bring that folder here:  $0 --papers $host_id
(see that host_id, url and the files in $config are right before)
EOF
    return
  fi
  if [ "${role_enable[0]}" = cis490-shipper.service ]; then
    start_units
  elif ! systemctl is-active --quiet "${role_enable[0]}"; then
    change "start ${role_enable[0]}" systemctl start "${role_enable[0]}"
  fi
  told
  step='asking the receiver (shipper --ping)'
  "$bin/$unit" --ping || code=$?
  if [ "$code" -ne 0 ]; then
    say "installed and running; but the receiver does not take this host yet: see above, then: shipper --ping"
    if [ "$code" -eq 2 ]; then code=1; fi
    exit "$code"
  fi
  say "Next: leave an episode in $(path_setting "$config" episodes_dir), make done.marker in it at last, and look: shipper status"
}

# shellcheck source=scripts/install-common.sh
. "$source_dir/scripts/install-common.sh"
install_role "$@"
