#!/usr/bin/env bash
# Builds a tarball for each architecture in dist/, for systems without dpkg, and
# SHA256SUMS of all files there. A tarball has the layout of this tree, so that
# scripts/install-*.sh work from it. Run it with `make dist`.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
version=$(scripts/version.sh)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

mkdir -p dist
rm -f dist/*.tar.gz dist/SHA256SUMS
for arch in amd64 arm64; do
  name=cis490-$version-linux-$arch
  mkdir -p "$stage/$name/bin" "$stage/$name/scripts" "$stage/$name/docs"
  cp "bin/release/$arch/shipper" "bin/release/$arch/receiver" "$stage/$name/bin/"
  cp -R etc "$stage/$name/"
  cp scripts/install-*.sh "$stage/$name/scripts/"
  cp docs/install.md docs/operations.md docs/metrics.md docs/json.md docs/hooks.md docs/index.md "$stage/$name/docs/"
  { scripts/licenses.sh ./cmd/shipper && scripts/licenses.sh ./cmd/receiver; } >"$stage/$name/COPYRIGHT"
  chmod -R u=rwX,go=rX "$stage/$name"
  tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=posix \
    --pax-option=delete=atime,delete=ctime -C "$stage" "$name" | gzip -9n >"dist/$name.tar.gz"
done
(cd dist && sha256sum -- *.deb *.tar.gz >SHA256SUMS)
cat dist/SHA256SUMS
