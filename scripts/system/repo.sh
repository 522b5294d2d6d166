# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# Both machines install, upgrade and downgrade by apt, from a repository that scripts/repo.sh signs
# and a web server beside them serves.

readonly web=192.0.2.9 # the address of this end of the machines' network
readonly keyring=/etc/apt/keyrings/cis490.asc sources=/etc/apt/sources.list.d/cis490.sources
repo="$work/web/apt repo"

repo_scenarios() {
  # shellcheck disable=SC2034 # lab.sh uses it
  host=lab-07
  GNUPGHOME=$work/gnupg
  export GNUPGHOME
  serve_web
  check "both machines boot" boot_both
  check "a repository with release 1" make_repo
  check "both machines: add it, as documented" both add_repo
  check "receiver: apt install" on receiver apt-get install -qq -y cis490-receiver
  check "lab host: apt install" on lab apt-get install -qq -y cis490-shipper
  check "receiver: setup and invite" invite_first
  check "lab host: join" join_host
  check "the first row" ship ep-first
  require_installed
  check "release 2 is added" add_release 2
  check "both machines: apt upgrade" both upgrade_by_apt 2.0.0
  check "an episode arrives after the upgrade" ship ep-upgraded
  check "lab host: downgrade" downgrade_by_apt lab shipper
  check "receiver: downgrade" downgrade_by_apt receiver receiver
  check "an episode arrives after the downgrade" ship ep-downgraded
  check "another build of a release is refused" another_build
  check "an altered package is refused" altered_package
  check "an altered list is refused" altered_list
  check "a list of another key is refused" other_key
  check "SHA256SUMS is signed, and right" sums_are_right
  check "both machines have no failed unit" no_failed_units
  check "nothing is lost" intact
}

# serve_web serves $work/web to the machines until the cell ends.
serve_web() {
  ip addr add "$web/24" dev lan
  mkdir -p "$work/web"
  python3 -m http.server --bind "$web" --directory "$work/web" 80 >"$work/web.log" 2>&1 &
}

both() {
  "$1" receiver "${@:2}"
  "$1" lab "${@:2}"
}

make_repo() {
  install -d -m 0700 "$GNUPGHOME"
  gpg --batch --quiet --passphrase '' --quick-generate-key 'lab packages <operators@lab.example>' default sign never
  gpg --batch --quiet --passphrase '' --quick-generate-key 'stranger <stranger@lab.example>' default sign never
  scripts/repo.sh check operators@lab.example "$repo"
  fails scripts/repo.sh check nobody@lab.example "$repo"
  fails scripts/repo.sh check lab.example "$repo" # both keys
  add_release 1
}

add_release() { scripts/repo.sh add operators@lab.example "$repo" "$project/$1/dist"; }

# add_repo does what docs/install.md says. Debian's own servers are not reachable here.
add_repo() {
  on "$1" rm -rf /etc/apt/sources.list /etc/apt/sources.list.d
  on "$1" mkdir /etc/apt/sources.list.d
  cp "$repo/cis490.asc" "$(root "$1")/root/"
  on "$1" install -D -m 0644 /root/cis490.asc "$keyring"
  sed -n '/^Types: deb$/,/^```$/p' docs/install.md | sed -e '/^```$/d' -e "s|^URIs: .*|URIs: http://$web/apt%20repo|" >"$(root "$1")$sources"
  grep -q "^Signed-By: $keyring\$" "$(root "$1")$sources"
  on "$1" apt-get update -o APT::Update::Error-Mode=any
}

invite_first() {
  on receiver receiver setup --name receiver.lab,192.0.2.1
  invite_host
}

upgrade_by_apt() {
  on "$1" apt-get update -o APT::Update::Error-Mode=any
  on "$1" apt-get upgrade -qq -y
  case $1 in
    lab) on lab shipper version | grep -w "$2" && eventually active lab cis490-shipper ;;
    receiver) on receiver receiver version | grep -w "$2" && eventually active receiver cis490-receiver ;;
  esac
}

downgrade_by_apt() {
  on "$1" apt-get install -qq -y --allow-downgrades "cis490-$2=1.0.0"
  on "$1" "$2" version | grep -w 1.0.0
  eventually ping_receiver
}

# another_build: a version stays what it is.
another_build() {
  local before dist=$work/another
  before=$(sha256sum "$repo"/SHA256SUMS "$repo"/dists/stable/InRelease)
  mkdir "$dist"
  cp "$project/1/dist"/*.deb "$dist/"
  for file in "$dist"/*.deb; do echo >>"$file"; done
  fails scripts/repo.sh add operators@lab.example "$repo" "$dist" 2>"$work/said"
  grep 'already there, with other content' "$work/said"
  same "the repository" "$(sha256sum "$repo"/SHA256SUMS "$repo"/dists/stable/InRelease)" "$before"
}

# not_installed requires apt to refuse release 2: not_installed MESSAGE
not_installed() {
  local said
  on lab apt-get clean
  said=$(fails on lab apt-get install -y cis490-shipper=2.0.0 2>&1)
  echo "$said"
  grep -q -e "$1" <<<"$said"
  on lab shipper version | grep -w 1.0.0
}

altered_package() {
  local file
  file=$(ls "$repo"/pool/main/cis490-shipper_2.0.0_*.deb)
  cp "$file" "$work/good.deb"
  printf x | dd of="$file" bs=1 seek=5000 conv=notrunc
  not_installed 'Hash Sum mismatch'
  cp "$work/good.deb" "$file"
}

# not_updated requires apt to refuse the lists.
not_updated() { fails on lab apt-get update -o APT::Update::Error-Mode=any; }

altered_list() {
  local list=$repo/dists/stable/InRelease
  cp "$list" "$work/InRelease"
  sed -i 's/^Label: .*/Label: altered/' "$list"
  not_updated
  cp "$work/InRelease" "$list"
  on lab apt-get update -o APT::Update::Error-Mode=any
}

other_key() {
  local dir=$repo/dists/stable
  cp -a "$dir" "$work/stable"
  fails scripts/repo.sh add stranger@lab.example "$repo" "$project/1/dist" 2>"$work/said"
  grep 'to change the key' "$work/said"
  gpg --batch --yes --quiet --local-user stranger@lab.example --clearsign --output "$dir/InRelease" "$dir/Release"
  not_updated
  rm -r "$dir"
  mv "$work/stable" "$dir"
  on lab apt-get update -o APT::Update::Error-Mode=any
}

sums_are_right() {
  gpg --batch --verify "$repo/SHA256SUMS.asc" "$repo/SHA256SUMS"
  (cd "$repo" && sha256sum -c SHA256SUMS)
  same "packages" "$(wc -l <"$repo/SHA256SUMS")" "$(find "$repo/pool" -name '*.deb' | wc -l)"
}
