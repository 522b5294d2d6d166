# shellcheck shell=bash disable=SC2154 # run in cell.sh
# From a fresh Debian to two machines that have been through a reboot.

readonly releases=/src # on both machines: 1/ and 2/, each a project as it is handed out

install_scenarios() {
  check "both machines boot" boot_both
  check "receiver: install by $way" "install_receiver_by_$way" 1
  check "receiver: certificates by receiver pki" make_credentials
  check "receiver: check names the address of the socket unit" socket_address
  check "lab host: install by $way" "install_lab_by_$way" 1
  if [ "$way" = script ]; then
    check "receiver: a second run changes nothing" second_run receiver install-receiver.sh
    check "lab host: a second run changes nothing" second_run lab install-lab-host.sh
  else
    check "receiver: package is whole" dpkg_is_content receiver
    check "lab host: package is whole" dpkg_is_content lab
  fi
  check "receiver: reboot" reboot_machine receiver
  check "lab host: reboot" reboot_machine lab
  check "both machines have no failed unit" no_failed_units
  require_installed
}

# require_installed ends a cell whose lab could not be installed.
require_installed() {
  if [ -s "$logs/$cell.failed" ]; then
    echo "the rest of $cell needs an installed lab: left out"
    exit 1
  fi
}

boot_both() {
  boot receiver
  boot lab
  on lab sh -c '! id cis490 2>/dev/null'
}

install_receiver_by_script() {
  on receiver "$releases/$1/scripts/install-receiver.sh" --name receiver.lab,192.0.2.1
}

install_receiver_by_package() {
  on receiver dpkg -i "$(deb "$1" receiver)"
}

install_lab_by_script() {
  on lab "$releases/$1/scripts/install-lab-host.sh" --host-id lab-01 --receiver https://receiver.lab:8443 --papers /root/lab-01
}

# A package asks nothing, so certificate and configuration come after it.
install_lab_by_package() {
  on lab dpkg -i "$(deb "$1" shipper)"
  on lab sh -c 'install -o root -g cis490 -m 0640 /root/lab-01/* /etc/cis490/pki/'
  configure "$(root lab)/etc/cis490/lab-host.toml" host_id=lab-01 url=https://receiver.lab:8443
  on lab systemctl enable --now cis490-shipper
}

# deb names a package on the machines: deb RELEASE ROLE
deb() {
  local found
  found=$(cd "$project" && ls "$1/dist/cis490-$2"_*_"$(dpkg --print-architecture).deb")
  echo "$releases/$found"
}

# make_credentials makes the receiver's where the installer did not, and brings the
# lab host's over.
make_credentials() {
  if [ "$way" != script ]; then
    on receiver receiver pki init --dir /etc/cis490/pki --name receiver.lab,192.0.2.1
    on receiver systemd-tmpfiles --create
    on receiver systemctl enable --now cis490-receiver.socket cis490-receiver.service
  fi
  eventually active receiver cis490-receiver
  issue_credentials
  as cis490 receiver receiver check
}

# socket_address: the key listen is not used where a socket unit is.
socket_address() {
  on receiver receiver check | grep 'listen .*:8443, from cis490-receiver.socket'
  on receiver receiver check --json | grep '"address_from":"cis490-receiver.socket","port":"held by systemd for the receiver"'
}

issue_credentials() {
  rm -rf "$(root lab)/root/lab-01"
  on receiver receiver pki issue lab-01 --dir /etc/cis490/pki --out /root/lab-01
  mv "$(root receiver)/root/lab-01" "$(root lab)/root/lab-01"
}

second_run() {
  local said
  said=$(on "$1" "$releases/1/scripts/$2")
  echo "$said"
  grep -qx 'no change' <<<"$said"
}

dpkg_is_content() {
  same "dpkg --audit" "$(on "$1" dpkg --audit)" ''
  same "changed files" "$(on "$1" dpkg --verify | grep -v ' /usr/share/\(doc\|man\|locale\)/' | grep -v ' c /etc/' || true)" ''
}

no_failed_units() {
  local name
  for name in receiver lab; do
    same "$name, failed units" "$(on "$name" systemctl --failed --plain --no-legend)" ''
  done
}
