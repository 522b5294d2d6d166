#!/usr/bin/env bash
# Adds the packages in dist/ to an apt repository, and signs it. Run it with
# `make repo KEY=ID REPO=DIR`, which builds the packages first. The directory can be served by any web
# server, or be copied to a stick.
#
# usage: repo.sh check KEY REPO
#        repo.sh add KEY REPO DIST
#
# A machine that reads the repository meanwhile sees the old or the new state: each index is also
# under the name of its hash, and the signed list of them is replaced last.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

readonly action=$1 repo=$3
key=$2 dist=${4:-}
readonly suite=stable component=main pool=pool/main
readonly architectures=(amd64 arm64)

fail() {
  printf 'repo: %s\n' "$@" >&2
  exit 1
}

require() {
  local missing=() keys
  command -v apt-ftparchive >/dev/null || missing+=(apt-utils)
  command -v gpg >/dev/null || missing+=(gnupg)
  if [ "${#missing[@]}" -gt 0 ]; then fail "missing: apt-get install ${missing[*]}"; fi
  if [ -z "$key" ]; then
    fail "KEY= is missing: the key that signs, as gpg --list-secret-keys shows it. To create one:" \
      "gpg --quick-generate-key 'lab packages <operators@lab.example>' default sign never"
  fi
  if [ -z "$repo" ]; then fail "REPO= is missing: the directory of the repository, which is made if it is not there"; fi
  # One key alone, by its fingerprint: machines trust whatever is in cis490.asc.
  keys=$(gpg --batch --with-colons --list-secret-keys -- "$key" 2>/dev/null | awk -F: '$1 == "sec" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')
  case $(grep -c . <<<"$keys") in
    0) fail "gpg has no secret key $key" ;;
    1) key=$keys ;;
    *) fail "gpg has several secret keys $key: name one of these" "$keys" ;;
  esac
  refuse_other_key
}

# refuse_other_key: a machine that has the present key refuses all that another one signs.
refuse_other_key() {
  local present
  if [ ! -e "$repo/cis490.asc" ]; then return; fi
  present=$(gpg --batch --with-colons --show-keys "$repo/cis490.asc" | awk -F: '$1 == "fpr" { print $10; exit }')
  if [ "$present" != "$key" ]; then
    fail "$repo is signed by $present, not by $key" \
      "to change the key: first append the new one, by gpg --armor --export, to cis490.asc on all machines; then remove $repo/cis490.asc"
  fi
}

# add_packages copies what is new. A version stays what it is: machines have it, and its hash.
add_packages() {
  local file
  for file in "$dist"/*.deb; do
    [ -e "$file" ] || fail "$dist has no packages"
    if [[ $file == *dirty* ]]; then fail "${file##*/} is of a tree with changes: commit them, so that the version says what it is"; fi
    if [ ! -e "$pool/${file##*/}" ]; then
      cp -- "$file" "$pool/.${file##*/}.new"
      mv -- "$pool/.${file##*/}.new" "$pool/${file##*/}"
    elif ! cmp -s -- "$file" "$pool/${file##*/}"; then
      fail "${file##*/} is already there, with other content: commit, so that the version changes"
    fi
  done
}

# index writes the lists of packages below dists/SUITE.new.
index() {
  local arch dir file
  for arch in "${architectures[@]}"; do
    dir=$1/$component/binary-$arch
    mkdir -p "$dir/by-hash/SHA256"
    apt-ftparchive --arch "$arch" packages "$pool" >"$dir/Packages"
    gzip -9nk "$dir/Packages"
    for file in "$dir/Packages" "$dir/Packages.gz"; do
      cp -- "$file" "$dir/by-hash/SHA256/$(sha256sum <"$file" | cut -d ' ' -f 1)"
    done
  done
}

sign() { gpg --batch --yes --quiet --local-user "$key" --digest-algo SHA256 "$@"; }

# release writes and signs the list of the indexes.
release() {
  apt-ftparchive \
    -o "APT::FTPArchive::Release::Origin=CIS490" -o "APT::FTPArchive::Release::Label=CIS490" \
    -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
    -o "APT::FTPArchive::Release::Components=$component" -o "APT::FTPArchive::Release::Architectures=${architectures[*]}" \
    -o "APT::FTPArchive::Release::Acquire-By-Hash=yes" \
    -o "APT::FTPArchive::Release::Patterns::=Packages" -o "APT::FTPArchive::Release::Patterns::=Packages.gz" \
    release "$1" >"$work/Release"
  mv -- "$work/Release" "$1/Release"
  sign --armor --detach-sign --output "$1/Release.gpg" "$1/Release"
  sign --clearsign --output "$1/InRelease" "$1/Release"
}

# publish moves the new state over the old one, the signed list last.
publish() {
  local file
  while IFS= read -r file; do
    mkdir -p "$2/$(dirname "$file")"
    mv -f -- "$1/$file" "$2/$file"
  done < <(cd "$1" && find "$component" -path '*/by-hash/*' -type f && find "$component" ! -path '*/by-hash/*' -type f)
  for file in Release.gpg Release InRelease; do mv -f -- "$1/$file" "$2/$file"; done
}

require
if [ "$action" = check ]; then exit; fi
mkdir -p "$repo/$pool" "$repo/dists/$suite"
dist=$(cd "$dist" && pwd)
cd "$repo"
exec 9>.lock
flock --nonblock 9 || fail "another run adds packages to $repo"
work=$(mktemp -d "$PWD/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

add_packages
index "$work/dists"
release "$work/dists"
publish "$work/dists" "dists/$suite"
gpg --batch --armor --export -- "$key" >"$work/cis490.asc"
find "$pool" -name '*.deb' -type f -printf '%P\n' | sort | sed "s|^|$pool/|" | xargs -d '\n' sha256sum -- >"$work/SHA256SUMS"
sign --armor --detach-sign --output "$work/SHA256SUMS.asc" "$work/SHA256SUMS"
mv -f -- "$work"/cis490.asc "$work"/SHA256SUMS "$work"/SHA256SUMS.asc .
printf '%s: %s packages, signed by %s\n' "$PWD" "$(wc -l <SHA256SUMS)" "$key"
