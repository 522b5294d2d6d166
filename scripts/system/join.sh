# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# A host joins with one line: from two fresh machines to the first row, with the packages,
# and what goes wrong on the way.

readonly identity=/var/lib/cis490-identity
# When joins are killed, in seconds: it writes its files in the first tenths, the rest is
# systemd's.
readonly kill_after=(0 0.01 0.02 0.03 0.04 0.06 0.08 0.11 0.15 0.2 0.4 0.8 1.6)

join_scenarios() {
  # shellcheck disable=SC2034 # lab.sh uses it
  host=lab-07
  check "both machines boot" boot_both
  check "receiver: install, one line says how to go on" install_says receiver receiver "receiver setup --name"
  check "receiver: setup" timed "receiver setup" on receiver receiver setup --name receiver.lab,192.0.2.1
  check "receiver: invite" invite_host
  check "lab host: install, one line says how to go on" install_says lab shipper "shipper join TOKEN"
  check "lab host: join, the token from standard input" timed "shipper join" join_host
  check "the first row" timed "done.marker to row" ship ep-first
  require_installed
  print_figures
  check "receiver: owner and mode of each file" modes_of_receiver
  check "lab host: owner and mode of each file" modes_of_host
  check "nobody else reads the keys" closed_to_others
  check "receiver: setup again changes nothing" setup_again
  check "lab host: join again changes nothing" join_again
  check "receiver: hosts and invitations name the host" hosts_name_it
  check "lab host: its certificate renews itself" host_renews
  check "receiver: its certificate renews itself" receiver_renews
  check "an episode arrives with both" ship ep-renewed
  check "lab host: a used token is refused to another machine" token_of_another
  check "lab host: a clock of long ago sends and writes nothing" clock_of_long_ago
  check "lab host: another CA, and an altered secret, get nothing" altered_tokens
  check "receiver: a known host needs --again" known_host
  check "receiver: a disabled host is not invited, and cannot join" disabled_host
  check "the old certificate ends when the new one is used" old_certificate_ends
  check "lab host: join again after SIGKILL at any moment" killed_joins
  print_figures
  check "receiver: setup again after SIGKILL of the receiver" setup_after_kill
  check "receiver: the CAs are rotated" cas_rotate
  check "an episode arrives with the new CAs" ship ep-rotated
  check "both machines: reboot" reboot_both
  check "an episode arrives after the reboot" ship ep-rebooted
  check "lab host: upgrade and downgrade" upgrade_joined
  check "lab host: removed and installed again, it starts by itself" installed_again
  check "nothing is lost by joining" intact
  check "purge keeps keys and certificates" purge_keeps_identity
}

# timed notes how long a command took: timed NAME COMMAND...
timed() {
  local name=$1 took=$EPOCHREALTIME
  shift
  "$@"
  took=$(((${EPOCHREALTIME/./} - ${took/./}) / 1000))
  printf '%-24s %6d ms\n' "$name" "$took" >>"$work/figures"
}

# print_figures shows what was noted since it was last called.
print_figures() {
  sed "s/^/     $cell: /" "$work/figures"
  rm "$work/figures"
}

# install_says installs a package, which ends with the line that names the next command.
install_says() {
  local said
  timed "install cis490-$2" install_package "$1" "$2" >"$work/said"
  said=$(cat "$work/said")
  echo "$said"
  same "lines that say how to go on" "$(grep -c "^cis490-$2 is not started yet. Next: .*$3" <<<"$said")" 1
  fails active "$1" "cis490-$2"
  if [ "$1" = lab ]; then cp "$(root lab)/etc/cis490/lab-host.toml" "$work/example.toml"; fi
}

install_package() { on "$1" dpkg -i "$(deb 1 "$2")"; }

# invite_host leaves the line for the host in a file: invite_host [OPTION...]
invite_host() {
  timed "receiver invite" on receiver receiver invite "$host" "$@" >"$work/line"
  grep -qx 'sudo shipper join cis490_join_[A-Za-z0-9_-]*' "$work/line"
}

# join_host joins as root, with the line as an operator would paste it.
join_host() {
  on lab shipper join - <"$work/line"
  active lab cis490-shipper
  same "enabled" "$(on lab systemctl is-enabled cis490-shipper)" enabled
}

# files prints all below the folders of a machine, with their digests, not their times.
files() {
  local machine=$1
  shift
  on "$machine" find "$@" \( -type f -printf '%p %m %u:%g ' -exec sha256sum {} \; \) -o -printf '%p %m %u:%g\n' | sort
}

# others lists what does not belong to the daemon alone. Certificates in issued/ are no secrets.
others() {
  on "$1" find "$identity" \( ! -user cis490 -o ! -type d ! -type f -o ! -path '*/issued*' \( -type d ! -perm 0700 -o -type f ! -perm 0600 \) \) -printf '%p %m %u:%g %y\n'
}

modes_of_receiver() {
  same "of others" "$(others receiver)" ''
  on receiver test -s "$identity/hosts-issuing.pem" -a -s "$identity/server-ca.crt" -a -s "$identity/hosts/$host.json"
  # The service reads one key; those of the CAs are root's alone.
  same "/etc/cis490" "$(on receiver stat -c '%a %U:%G' /etc/cis490 /etc/cis490/pki /etc/cis490/pki/server.key /etc/cis490/receiver.toml)" \
    $'755 root:root\n750 root:cis490\n640 root:cis490\n644 root:root'
  same "other keys" "$(on receiver find /etc/cis490 -name '*.key' ! -name server.key \( ! -user root -o ! -group root -o ! -perm 0600 \))" ''
  same "keys" "$(on receiver find /etc/cis490 -name '*.key' | wc -l)" 5
  same "other files" "$(on receiver find /etc/cis490 -type f ! -name '*.key' ! -name '.*' \( ! -user root -o ! -group root -o ! -perm 0644 \))" ''
}

modes_of_host() {
  same "of others" "$(others lab)" ''
  diff <(on lab find /etc/cis490 "$identity" -printf '%p %m %u\n' | sort) - <<END
/etc/cis490 755 root
/etc/cis490/lab-host.toml 644 root
/etc/cis490/orchestrator.env 644 root
/etc/cis490/pki 750 root
$identity 700 cis490
$identity/host-ca.crt 600 cis490
$identity/host-request.pem 600 cis490
$identity/host.pem 600 cis490
END
  # The example's explanations are still there. Its URL is the right one.
  same "lines changed" "$(diff "$work/example.toml" "$(root lab)/etc/cis490/lab-host.toml" | grep -c '^>')" 3
}

closed_to_others() {
  fails as cis490-lab lab cat "$identity/host.pem"
  fails as nobody receiver ls "$identity"
}

setup_again() {
  local before said
  before=$(files receiver /etc/cis490 "$identity")
  said=$(on receiver receiver setup --name receiver.lab,192.0.2.1)
  echo "$said"
  same "kept" "$(grep -c '^kept ' <<<"$said")" 3
  fails grep '^created ' <<<"$said"
  eventually ping_receiver
  # The receiver notes when it last saw a host.
  diff <(grep -v "/hosts" <<<"$before") <(files receiver /etc/cis490 "$identity" | grep -v "/hosts")
}

join_again() {
  local before
  before=$(files lab /etc/cis490 "$identity")
  join_host
  diff <(echo "$before") <(files lab /etc/cis490 "$identity")
}

hosts_name_it() {
  on receiver receiver hosts | grep "^active .* $host\$"
  on receiver receiver invite --list | grep "^used .* $host\$"
}

# refused requires a join to fail with a message and an exit code, and to write nothing:
# refused CODE MESSAGE LINE
refused() {
  local code=0 said before
  before=$(files lab /etc/cis490 "$identity")
  said=$(on lab shipper join - <"$3" 2>&1) || code=$?
  echo "$said"
  same "exit code" "$code" "$1"
  grep -q -e "$2" <<<"$said"
  fails grep -F "$(sed 's/.*cis490_join_//' "$work/line")" <<<"$said"
  diff <(echo "$before") <(files lab /etc/cis490 "$identity")
  ping_receiver
}

# token_of_another: another user of the machine is as good as another machine.
token_of_another() {
  local code=0 said
  on lab install -d -o cis490-lab /srv/other
  said=$(as cis490-lab lab shipper --config /srv/other/lab-host.toml join - <"$work/line" 2>&1) || code=$?
  echo "$said"
  fails same "exit code" "$code" 0
  grep -q 'the token was already used by another machine or key' <<<"$said"
  same "written" "$(on lab find /srv/other -type f)" ''
  on lab rm -r /srv/other
}

# altered prints the line with another content of its token: altered FILTER [OPTION...],
# by jq. The checksum is right again.
altered() {
  local raw=$work/token content=$work/token.json text
  text=$(sed 's/.*cis490_join_//' "$work/line" | tr -- '-_' '+/')
  while [ $((${#text} % 4)) -ne 0 ]; do text+='='; done
  base64 -d <<<"$text" >"$raw"
  head -c -4 "$raw" | jq -cj "$@" >"$content"
  # shellcheck disable=SC2059 # its escapes are the bytes
  printf "$(sha256sum <"$content" | cut -c -8 | sed 's/../\\x&/g')" >"$raw"
  printf 'sudo shipper join cis490_join_%s\n' "$(cat "$content" "$raw" | base64 -w 0 | tr -- '+/' '-_' | tr -d '=')"
}

# clock_of_long_ago: the machines have the clock of this one, so the token is of another
# time. To the host a token of 2080 is what one of today is to a host in 1970.
clock_of_long_ago() {
  altered '.t += 1700000000 | .e += 1700000000' >"$work/later"
  refused 1 "this machine's clock says .* but the token was made at .*: set the clock, then join again; nothing was sent" "$work/later"
}

altered_tokens() {
  altered '.c = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="' >"$work/other-ca"
  invite_host --again # nobody is asked for a host without an open invitation
  altered '.c = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="' >"$work/other-ca"
  refused 4 'its CA is not the one that the token names; the token was not sent' "$work/other-ca"
  # shellcheck disable=SC2016 # jq expands it
  altered --arg other "$(sed 's/.*cis490_join_//' "$work/line" | sha256sum | tr '0189' 'abcd' | cut -c -32)" '.s = $other' >"$work/other-secret"
  refused 1 'the receiver does not know this token' "$work/other-secret"
  on receiver receiver invite --revoke "$host"
  refused 4 'has no open invitation' "$work/line"
}

known_host() {
  local said
  said=$(fails on receiver receiver invite "$host" 2>&1)
  echo "$said"
  grep "receiver invite $host --again" <<<"$said"
}

disabled_host() {
  invite_host --again
  on receiver receiver hosts disable "$host"
  fails on receiver receiver invite "$host" --again
  fails on lab shipper join - <"$work/line"
  on receiver receiver hosts enable "$host"
  eventually ping_receiver
}

# old_certificate_ends: a copy of the host's key is good until the host has joined again.
old_certificate_ends() {
  local code=0 said
  on lab install -d -o cis490 /srv/old
  on lab cp -a "$identity" /srv/old/identity
  cat >"$(root lab)/srv/old/lab-host.toml" <<END
host_id = "$host"
episodes_dir = "data/episodes"
outbox_dir = "data/outbox"
shipped_dir = "data/shipped"
[receiver]
url = "https://receiver.lab:8443"
END
  as cis490 lab shipper --config /srv/old/lab-host.toml --ping
  invite_host --again
  as cis490 lab shipper --config /srv/old/lab-host.toml --ping
  join_host
  said=$(as cis490 lab shipper --config /srv/old/lab-host.toml --ping 2>&1) || code=$?
  echo "$said"
  same "exit code" "$code" 4
  grep 'it is revoked, was replaced when the host joined again' <<<"$said"
  on receiver journalctl --sync
  on receiver journalctl -q --no-pager -o cat -u cis490-receiver | grep "ended when host $host joined again"
  on lab rm -r /srv/old
  ping_receiver
}

# fresh makes the lab host one that has not joined.
fresh() {
  on lab systemctl disable --now cis490-shipper
  on lab find "$identity" -mindepth 1 -delete
  cp "$work/example.toml" "$(root lab)/etc/cis490/lab-host.toml"
}

# reached says how far an interrupted join came.
reached() {
  local dir
  dir=$(root lab)$identity
  if [ "$(on lab systemctl is-active cis490-shipper)" = active ]; then echo "service started"
  elif ! cmp -s "$work/example.toml" "$(root lab)/etc/cis490/lab-host.toml"; then echo "configuration written"
  elif [ -e "$dir/host.pem" ]; then echo "certificate written"
  elif [ -e "$dir/host-ca.crt" ]; then echo "CA written"
  elif [ -e "$dir/host-request.pem" ]; then echo "key written"
  else echo "nothing written"; fi
}

killed_joins() {
  local seconds
  for seconds in "${kill_after[@]}"; do
    fresh
    invite_host --again
    cp "$work/line" "$(root lab)/root/line"
    # shellcheck disable=SC2016 # the machine's shell expands it
    on lab sh -c 'shipper join --token-file /root/line >/dev/null 2>&1 & pid=$!; sleep "$1"; kill -KILL $pid; wait $pid' sh "$seconds" || true
    echo "SIGKILL after $seconds s: $(reached)" | tee -a "$work/figures"
    join_host
    ping_receiver
    modes_of_host
  done
  sed -i '/^receiver invite/d' "$work/figures"
  ship ep-killed
}

setup_after_kill() {
  on receiver systemctl kill -s KILL cis490-receiver
  on receiver receiver setup --name receiver.lab,192.0.2.1
  eventually ping_receiver
}

reboot_both() {
  reboot_machine receiver
  reboot_machine lab
  no_failed_units
}

# aged_certificate writes a certificate of 300 days ago, for a year: aged_certificate CA_CERT CA_KEY
# KEY USE NAME OUT
aged_certificate() {
  local ca=$work/aged
  rm -rf "$ca"
  mkdir "$ca"
  : >"$ca/index.txt"
  openssl rand -hex 16 >"$ca/serial"
  cat >"$ca/config" <<END
[ca]
default_ca = aged
[aged]
database = $ca/index.txt
serial = $ca/serial
new_certs_dir = $ca
default_md = sha256
policy = any
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $4
subjectAltName = $5
END
  openssl req -new -key "$3" -subj "/CN=aged" -out "$ca/csr"
  openssl ca -batch -notext -config "$ca/config" -cert "$1" -keyfile "$2" -in "$ca/csr" -out "$6" \
    -startdate "$(date -u -d '-300 days' +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d '+65 days' +%Y%m%d%H%M%SZ)"
}

# lasts requires a certificate to be valid for longer than 360 days.
lasts() { openssl x509 -noout -checkend $((360 * 24 * 3600)) -in "$1"; }

# host_renews: an hour may pass between two attempts, so the daemon is started.
host_renews() {
  local issuing dir
  issuing=$(root receiver)$identity/hosts-issuing.pem
  dir=$(root lab)$identity
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/aged.key"
  aged_certificate "$issuing" "$issuing" "$work/aged.key" clientAuth "URI:spiffe://cis490.lab/host/$host" "$work/aged.crt"
  cat "$work/aged.key" "$work/aged.crt" >"$dir/host.pem"
  openssl x509 -in "$issuing" >>"$dir/host.pem" # in place, so that owner and mode stay
  fails lasts "$dir/host.pem"
  on lab systemctl restart cis490-shipper
  eventually lasts "$dir/host.pem"
  modes_of_host
  ping_receiver
  on lab shipper check | grep 'renews itself from'
}

receiver_renews() {
  local pki
  pki=$(root receiver)/etc/cis490/pki
  aged_certificate "$pki/ca-issuing.crt" "$pki/ca-issuing.key" "$pki/server.key" serverAuth "DNS:receiver.lab,IP:192.0.2.1" "$work/aged.crt"
  cat "$work/aged.crt" "$pki/ca-issuing.crt" >"$pki/server.crt"
  on receiver systemctl restart cis490-receiver
  eventually lasts "$(root receiver)$identity/server.pem"
  fails lasts "$pki/server.crt" # daemons write nothing there
  modes_of_receiver
  eventually ping_receiver
  on receiver systemctl restart cis490-receiver
  eventually ping_receiver
  on receiver receiver check | grep "valid until $(date -u -d '+365 days' +%Y)"
}

# cas_rotate: a reload of the shipper sends a ping, for which a daemon waits three minutes otherwise.
cas_rotate() {
  local dir before
  dir=$(root lab)$identity
  before=$(sha256sum <"$dir/host.pem")
  on receiver receiver pki rotate | grep '^reloaded the service$'
  fails on receiver receiver pki rotate --finish
  on lab systemctl reload cis490-shipper
  eventually on receiver sh -c "receiver hosts | grep '1 of 1 active hosts are ready'"
  fails same "certificate" "$(sha256sum <"$dir/host.pem")" "$before"
  on receiver receiver pki rotate --finish | grep '^reloaded the service$'
  eventually ping_receiver
  on lab systemctl reload cis490-shipper
  eventually trusts_one_ca "$dir/host-ca.crt"
  modes_of_host
  on receiver sh -c 'rm -r /etc/cis490/pki-former-*'
  modes_of_receiver
  on receiver receiver setup --name receiver.lab,192.0.2.1 | grep -c '^kept ' | grep -x 3
}

trusts_one_ca() { same "trusted CAs" "$(grep -c BEGIN "$1")" 1; }

upgrade_joined() {
  local n
  for n in 2 1; do
    on lab dpkg -i "$(deb "$n" shipper)"
    on receiver dpkg -i "$(deb "$n" receiver)"
    eventually ping_receiver
    on lab shipper version | grep -w "$n.0.0"
  done
  modes_of_host
  modes_of_receiver
  ship ep-downgraded
}

installed_again() {
  on lab dpkg -r cis490-shipper
  on lab dpkg -i "$(deb 1 shipper)"
  nothing_is_masked lab
  eventually active lab cis490-shipper
  ship ep-again
  on receiver dpkg -r cis490-receiver
  on receiver dpkg -i "$(deb 1 receiver)"
  nothing_is_masked receiver
  eventually ping_receiver
}

# nothing_is_masked: dpkg -r masks all units of a package, also those that are not enabled.
nothing_is_masked() {
  same "masked units" "$(on "$1" systemctl list-unit-files --no-legend --state=masked 'cis490*')" ''
}

# purge_keeps_identity, and what is installed after it asks for a new invitation: the
# configuration, and with it the name of the host, is gone.
purge_keeps_identity() {
  local said before
  before=$(files lab "$identity")
  said=$(on lab dpkg -P cis490-shipper)
  echo "$said"
  grep "^kept: .* $identity " <<<"$said"
  diff <(echo "$before") <(files lab "$identity")
  said=$(on lab dpkg -i "$(deb 1 shipper)")
  grep '^cis490-shipper is not started yet. Next: ' <<<"$said"
  no_failed_units
  invite_host --again
  join_host
  ship ep-purged
  said=$(on receiver dpkg -P cis490-receiver)
  grep "^kept: .* $identity " <<<"$said"
  on receiver test -s "$identity/hosts-issuing.pem"
}
