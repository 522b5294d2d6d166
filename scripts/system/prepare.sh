# shellcheck shell=bash disable=SC2154 # run in run.sh
# What must be there before a cell runs: tools, programs, Debian trees. Sourced by
# run.sh, in the project's folder.

# Tools, and the Debian package of each.
readonly tools=(
  systemd-nspawn:systemd-container mmdebstrap:mmdebstrap ip:iproute2 tc:iproute2 unshare:util-linux
  nsenter:util-linux losetup:mount mkfs.ext4:e2fsprogs zstd:zstd tar:tar jq:jq dpkg-deb:dpkg pgrep:procps
  apt-ftparchive:apt-utils gpg:gnupg python3:python3
)

# What a tree has beside Debian's smallest system. A change makes new trees.
readonly packages=systemd,systemd-sysv,dbus,iproute2

# The release that the -upgrade cell starts from: the last one before the notes at retired
# episodes, at archives and in the trash changed, and the names of the locks. It stays when
# later releases come: operators who skip those upgrade from it.
readonly old_release=2d615bfe1eef13151b5997fe2e88a4c458fe5b65

skip() {
  echo "system: $*" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "SKIPPED: nothing was tested on a real systemd" >&2
  exit 0
}

require_host() {
  local tool missing=()
  [ "$(uname -s)" = Linux ] || skip "Linux is needed"
  [ "$(id -u)" -eq 0 ] || skip "root is needed, for containers: sudo make system"
  PATH=$PATH:/usr/sbin:/sbin
  for tool in "${tools[@]}"; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || skip "missing: ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  fi
  grep -qw cgroup2 /proc/filesystems || skip "the kernel has no cgroup2"
  unshare --mount --net --pid --fork true 2>/dev/null || skip "this machine gives no namespaces (is this a container without rights?)"
  [ -e /dev/loop-control ] || skip "this machine has no loop devices"
}

# make_tree keeps a Debian tree as a tar file. It is renamed when it is whole.
make_tree() {
  local suite=$1 tree
  tree=$cache/$suite-$(sha256sum <<<"$packages" | cut -c -8).tar
  mkdir -p "$cache"
  if [ ! -f "$tree" ]; then
    echo "making $tree (once)"
    mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$tree.$$.tar"
    mv "$tree.$$.tar" "$tree"
  fi
  ln -sf "${tree##*/}" "$cache/$suite.tar"
}

# has_old_release reports whether git can give the old release.
has_old_release() {
  if git cat-file -e "$old_release^{commit}" 2>/dev/null; then return; fi
  echo "system: commit $old_release is not in this clone: git fetch --unshallow" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "SKIPPED: the upgrade from an old release was not tested" >&2
  return 1
}

# make_releases makes two releases of the project as it is, with nothing but the
# version between them: programs, scripts and packages, as they are handed out.
make_releases() {
  local n
  for n in 1 2; do
    make_release "$1/$n" "$n.0.0"
  done
  CGO_ENABLED=0 go build -trimpath -o "$1/" ./scripts/system/testdata/probe ./scripts/system/testdata/exchange
}

# make_release builds the project as it is, or a commit of it, by its own scripts:
# make_release DIR VERSION [COMMIT]. It leaves the other architecture out: packing it
# takes longer than a cell. `make packages` makes both.
make_release() {
  local dir=$1 version=$2 commit=${3:-} arch other
  arch=$(go env GOARCH)
  case $arch in arm64) other=amd64 ;; *) other=arm64 ;; esac
  mkdir -p "$dir/bin/release/$arch"
  if [ -n "$commit" ]; then
    git archive "$commit" cmd internal etc scripts docs go.mod go.sum | tar -x -C "$dir"
  else
    cp -a cmd internal etc scripts docs go.mod go.sum "$dir/"
  fi
  (cd "$dir" && CGO_ENABLED=0 go build -trimpath -ldflags "-X cis490/internal/cli.version=$version" -o "bin/release/$arch/" ./cmd/...)
  cp "$dir/bin/release/$arch"/* "$dir/bin/"
  printf '#!/bin/sh\necho %s\n' "$version" >"$dir/scripts/version.sh"
  sed -i "/^  package .* $other\$/d" "$dir/scripts/packages.sh"
  GIT_DIR=$PWD/.git "$dir/scripts/packages.sh" >"$dir/packages.log" 2>&1 || {
    cat "$dir/packages.log" >&2
    return 1
  }
}
