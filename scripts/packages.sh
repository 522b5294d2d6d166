#!/usr/bin/env bash
# Builds the Debian packages of both roles for amd64 and arm64 in dist/. Two runs on
# one commit give the same bytes: every timestamp in a package is the commit's.
# Run it with `make packages`, which builds the programs in bin/release first.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
maintainer=${MAINTAINER:-CIS490 <operators@cis490.lab>}
version=$(scripts/version.sh)
mtime=$(date -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
readonly version mtime maintainer
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# What differs between the roles.
role() {
  program=$1 unit=cis490-$1
  case $1 in
    shipper)
      summary='uploads finished lab episodes to the receiver'
      config=/etc/cis490/lab-host.toml key=/etc/cis490/pki/lab-01.key script=install-lab-host.sh
      joined=/var/lib/cis490-identity/host.pem
      next="run 'receiver invite HOST' on the receiver, and the line that it prints here (shipper join TOKEN)"
      enabled='cis490-shipper.service'
      units=(cis490-shipper.service cis490-shipper-once.service cis490-shipper-once.timer
        cis490-episodes.path cis490-episodes.service cis490-orchestrator.service)
      conf=(lab-host.toml orchestrator.env)
      examples=()
      ;;
    receiver)
      summary='receives and stores lab episodes'
      config=/etc/cis490/receiver.toml key=/etc/cis490/pki/server.key script=install-receiver.sh
      joined=$key # a receiver has no other certificate
      next="receiver setup --name NAME,IP, with the names by which hosts reach this machine"
      enabled='cis490-receiver.socket cis490-receiver.service'
      units=(cis490-receiver.socket cis490-receiver.service cis490-receiver-fault.target cis490-hook.path cis490-hook.service)
      conf=(receiver.toml)
      examples=(etc/prometheus etc/grafana) # the receiver's metrics cover all hosts
      ;;
  esac
}

# fill replaces the @...@ of a file: fill SOURCE DESTINATION.
fill() {
  sed -e "s|@UNIT@|$unit|g" -e "s|@UNITS@|$enabled|g" -e "s|@UNITS_ALL@|${units[*]}|g" -e "s|@PROGRAM@|$program|g" \
    -e "s|@CONFIG@|$config|g" -e "s|@KEY@|$key|g" -e "s|@JOINED@|$joined|g" -e "s|@NEXT@|$next|g" -e "s|@SCRIPT@|$script|g" -e "s|@SUMMARY@|$summary|g" \
    -e "s|@VERSION@|$version|g" -e "s|@MTIME@|$mtime|g" -e "s|@STAGE@|$at|g" -e "s|@BIN@|$bin|g" -e "s|@ARCH@|$arch|g" -e "s|@MAINTAINER@|$maintainer|g" "$1" >"$2"
}

man_pages() {
  local page
  mkdir -p "$at/man/man1" "$at/man/man5"
  "$here/$program" generate man "$at/pages" --example "etc/${conf[0]}.example"
  for page in "$at"/pages/*; do gzip -9n <"$page" >"$at/man/man${page##*.}/${page##*/}.gz"; done
  ln -s "$program.1.gz" "$at/man/man1/$unit.1.gz"
}

docs() {
  mkdir "$at/doc"
  scripts/licenses.sh "./cmd/$program" >"$at/doc/copyright"
  install -m 0644 docs/install.md docs/operations.md docs/metrics.md docs/json.md docs/hooks.md docs/scale-out.md "$at/doc/"
  if [ "${#examples[@]}" -gt 0 ]; then
    mkdir "$at/doc/examples"
    cp -R "${examples[@]}" "$at/doc/examples/"
  fi
  # The history is in git; Debian requires this file.
  cat <<EOF | gzip -9n >"$at/doc/changelog.gz"
$unit ($version) unstable; urgency=medium

  * Built of commit $(git rev-parse HEAD).

 -- $maintainer  $(date -R -d "@$SOURCE_DATE_EPOCH")
EOF
  cat >"$at/overrides" <<EOF
# Go links statically, so that a program runs on every machine.
$unit: statically-linked-binary [usr/bin/$unit]
# The packages are for one lab. MAINTAINER= sets a real mail address.
$unit: bogus-mail-host *
$unit: bogus-mail-host-in-debian-changelog *
EOF
}

package() {
  local file
  role "$1"
  arch=$2 bin=bin/release/$2 at=$stage/$1-$2
  mkdir -p "$at/units" "$at/conf"
  for file in "${units[@]}"; do install -m 0644 "etc/$file" "$at/units/"; done
  for file in "${conf[@]}"; do install -m 0644 "etc/$file.example" "$at/conf/$file"; done
  for file in preinst postinst prerm postrm; do fill "scripts/packages/$file" "$at/$file"; done
  man_pages
  "$here/$program" generate completion "$at/completion"
  docs
  fill scripts/packages/nfpm.yaml "$at/nfpm.yaml"
  find "$at" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  "$stage/nfpm" package --config "$at/nfpm.yaml" --packager deb --target "dist/${unit}_${version}_$arch.deb"
}

mkdir -p dist
rm -f dist/*.deb
go build -modfile=scripts/nfpm.mod -o "$stage/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
here=bin/release/$(go env GOHOSTARCH) # man pages come from a program that runs here
for program in shipper receiver; do
  package "$program" amd64
  package "$program" arm64
done
