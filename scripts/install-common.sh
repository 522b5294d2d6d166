# shellcheck shell=bash disable=SC2154 # what the installers set
# Common part of both installers. They source it after they have set the role_*
# variables below and defined role_option, role_prepare, role_check,
# role_credentials and role_finish.
#
# Invariant: everything is checked before anything is changed, each change is
# printed, and only what differs is changed. So an installer may stop anywhere and
# be run again, and a second run prints "no change".

readonly bin=/usr/local/bin share=/usr/local/share units=/etc/systemd/system config_dir=/etc/cis490
readonly identity=/var/lib/cis490-identity # what receiver setup and shipper join wrote
readonly unit=cis490-$role_program config=$config_dir/$role_config
readonly oldest_systemd=252
readonly released=1767225600 # 2026-01-01: a clock before it is wrong

prefix='' from='' dry_run='' uninstall='' changes=0 restart='' step='checking this machine'

say() { printf '%s\n' "$*"; }
warn() { printf '%s: note: %s\n' "${0##*/}" "$*" >&2; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

misused() {
  printf "%s: %s; see '%s --help'\n" "${0##*/}" "$*" "$0" >&2
  exit 2
}

finished() {
  local code=$?
  rm -rf "$work"
  case $code in 0 | 2 | 4) return ;; esac # done, not started, already explained
  if [ "$changes" -eq 0 ]; then
    printf '%s: stopped while %s; nothing was changed\n' "${0##*/}" "$step" >&2
  else
    printf '%s: stopped while %s, after %d changes; fix that, then run it again\n' "${0##*/}" "$step" "$changes" >&2
  fi
}

# change prints a change and makes it: change "what" COMMAND...
change() {
  local what=$1
  shift
  if [ -n "$dry_run" ]; then
    changes=$((changes + 1))
    say "would: $what"
    return
  fi
  say "$what"
  "$@" || die "could not $what"
  changes=$((changes + 1))
}

options() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run) dry_run=yes ;;
      --uninstall) uninstall=yes ;;
      --prefix | --from | --name | --host-id | --receiver | --credentials | --papers)
        if [ -z "${2-}" ]; then misused "$1 requires a value"; fi
        case $1 in
          --prefix) prefix=${2%/} ;;
          --from) from=$2 ;;
          *) role_option "$1" "$2" || misused "unknown option $1" ;;
        esac
        shift
        ;;
      *) misused "unknown option $1" ;;
    esac
    shift
  done
  if [ -n "$prefix" ] && [ "${prefix#/}" = "$prefix" ]; then prefix=$PWD/$prefix; fi
}

# live reports whether the target is this machine itself, not a directory (--prefix).
live() { [ -z "$prefix" ]; }

# --- checks, before anything is changed ---

check_machine() {
  local missing=() tool version
  if ! live; then return; fi
  if [ "$(id -u)" -ne 0 ] && [ -z "$dry_run" ]; then die "run it as root: sudo $0"; fi
  for tool in systemctl systemd-sysusers systemd-tmpfiles runuser; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    die "missing: ${missing[*]}: this needs a Linux with systemd (on Debian: apt-get install systemd util-linux)"
  fi
  version=$(systemctl --version | awk 'NR == 1 { print int($2) }')
  if [ "$version" -lt "$oldest_systemd" ]; then
    die "systemd is $version, but the units need $oldest_systemd or later (Debian 12)"
  fi
  if [ ! -d /run/systemd/system ]; then
    die "systemd is not running here: boot with it, or stage the files with --prefix DIR"
  fi
  if [ -z "$uninstall" ] && [ "$(date +%s)" -lt "$released" ]; then
    die "the clock says $(date +%F): set it first (timedatectl set-ntp true), because certificates depend on it"
  fi
}

check_package() {
  if ! live || [ -n "$uninstall" ] || ! command -v dpkg-query >/dev/null; then return; fi
  # shellcheck disable=SC2016 # dpkg-query's own variable
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "$unit" 2>/dev/null)" = installed ]; then
    die "the Debian package $unit is installed: upgrade it, or remove it first (apt-get remove $unit)"
  fi
}

# binary_for prints the machine that an ELF file is for, as uname -m does.
binary_for() {
  case $(od -An -tx1 -j18 -N2 "$1" | tr -d ' \n') in
    3e00) echo x86_64 ;;
    b700) echo aarch64 ;;
    *) echo 'another kind of machine' ;;
  esac
}

check_binary() {
  local machine
  machine=$(uname -m)
  if [ -z "$from" ]; then
    from=$source_dir/bin
    if [ "$machine" = aarch64 ] && [ -f "$from/arm64/$role_program" ]; then from=$from/arm64; fi
  fi
  if [ ! -f "$from/$role_program" ]; then
    die "$from/$role_program is missing: build it with 'make build' ('make pi' for a Raspberry Pi), or name its directory with --from DIR"
  fi
  if live && [ "$(binary_for "$from/$role_program")" != "$machine" ]; then
    die "$from/$role_program is for $(binary_for "$from/$role_program"), but this machine is $machine: 'make build' builds it for the machine that it runs on, 'make pi' for aarch64"
  fi
}

# setting prints the value of a key of a TOML file, if it is a plain string.
setting() {
  local value
  value=$(sed -n "s/^[[:space:]]*$2[[:space:]]*=[[:space:]]*\"\([^\"]*\)\".*/\1/p" "$1" | head -n 1)
  printf '%s' "$value"
}

# path_setting prints a path, relative to the directory of the file, as the program does.
path_setting() {
  local value
  value=$(setting "$1" "$2")
  case $value in '' | /*) printf '%s' "$value" ;; *) printf '%s' "$(dirname "$1")/$value" ;; esac
}

# the_config prints the path of the configuration that will be used: the existing one, or
# the example.
the_config() {
  if [ -f "$prefix$config" ]; then printf '%s' "$prefix$config"; else printf '%s' "$work/$role_config"; fi
}

check_config() {
  local said code=0
  # Programs for another machine can be staged but not run.
  if [ "$(binary_for "$from/$role_program")" != "$(uname -m)" ]; then return; fi
  said=$("$from/$role_program" "${role_parse[@]}" --config "$(the_config)" 2>&1 >/dev/null) || code=$?
  if [ "$code" -eq 2 ]; then
    die "$said
fix $(the_config) first"
  fi
}

existing() {
  local path=$1
  until [ -d "$path" ]; do path=$(dirname "$path"); done
  printf '%s' "$path"
}

# check_disk fails if a directory is on an unsuitable file system. It only reads, since users
# other than root can change the directory and its parents.
check_disk() {
  local dir kind
  if ! live; then return; fi
  dir=$(existing "$1") && kind=$(stat -f -c %T "$dir")
  case $kind in
    ext2/ext3 | xfs | btrfs | zfs | f2fs) ;;
    msdos | vfat | exfat | ntfs* | fuseblk | nfs* | smb* | cifs)
      die "$1 is on $kind, which can lose acknowledged data: use a disk with ext4 or xfs, and name its directory in $config"
      ;;
    *) warn "$1 is on $kind; ext4 and xfs are supported" ;;
  esac
}

# probe_disk has the program test the file systems of its directories, as the user of the
# daemon: root must not create files where other users can write.
probe_disk() {
  local said
  if ! live || [ -n "$dry_run" ]; then return; fi
  said=$("$from/$role_program" check --disk --config "$(the_config)" 2>&1) || die "$said"
}

# --- the changes ---

# put installs a file atomically: put SOURCE PLACE MODE. It returns 1 if nothing changed.
put() {
  local place=$prefix$2
  if cmp -s "$1" "$place" && [ "$(stat -c %a "$place")" = "${3#0}" ]; then return 1; fi
  change "install $place" put_now "$1" "$place" "$3"
}

put_now() {
  mkdir -p "$(dirname "$2")" && install -m "$3" "$1" "$2.new" && mv -f "$2.new" "$2"
}

put_link() {
  local place=$prefix$2
  if [ "$(readlink "$place" 2>/dev/null)" = "$1" ]; then return; fi
  if [ -e "$place" ] && [ ! -L "$place" ]; then
    case $(file_says "$place") in
      "$role_program "*) ;; # the one of "Install by hand"
      *) die "$place is another program: move it away first" ;;
    esac
  fi
  change "link $place to $1" ln -sfn "$1" "$place"
}

file_says() { "$1" version 2>/dev/null || true; }

place_files() {
  local file
  step='installing the programs'
  if put "$from/$role_program" "$bin/$unit" 0755; then restart=yes; fi
  put_link "$unit" "$bin/$role_program"
  step='installing the units'
  for file in "${role_units[@]}"; do
    sed "s,/usr/bin/cis490-,$bin/cis490-,g" "$source_dir/etc/$file" >"$work/unit"
    if put "$work/unit" "$units/$file" 0644; then restart=yes; fi
  done
  put "$source_dir/etc/$unit.sysusers" "/etc/sysusers.d/$unit.conf" 0644 || true
  put "$source_dir/etc/$unit.tmpfiles" "/etc/tmpfiles.d/$unit.conf" 0644 || true
}

# make_docs has a program write its manual pages and completions, dated by the program, so
# that the same program writes the same files.
make_docs() {
  if [ "$(binary_for "$1")" != "$(uname -m)" ]; then return 1; fi # it cannot run here
  local date
  date=$(stat -c %Y "$1")
  # An older program that is being uninstalled cannot generate the page about the configuration.
  SOURCE_DATE_EPOCH=$date "$1" generate man "$work/man" --example "$source_dir/etc/$role_example" 2>/dev/null ||
    SOURCE_DATE_EPOCH=$date "$1" generate man "$work/man" || return
  "$1" generate completion "$work/completion"
}

# docs prints each page and completion that make_docs made, and its place below $share.
docs() {
  local page
  for page in "$work"/man/*.[15]; do
    case $page in *-completion*) ;; *) echo "$page man/man${page##*.}/${page##*/}" ;; esac
  done
  echo "$work/completion/$role_program.bash bash-completion/completions/$role_program"
  echo "$work/completion/_$role_program zsh/site-functions/_$role_program"
  echo "$work/completion/$role_program.fish fish/vendor_completions.d/$role_program.fish"
}

place_docs() {
  local page name
  step='installing manual pages and completions'
  if ! make_docs "$from/$role_program"; then return; fi
  while read -r page name; do
    if cmp -s "$page" "$prefix$share/$name"; then continue; fi
    change "install manual pages and completions below $share" place_docs_now
    return
  done < <(docs)
}

place_docs_now() {
  local page name
  while read -r page name; do put_now "$page" "$prefix$share/$name" 0644 || return; done < <(docs)
}

# place_config never changes an existing file.
place_config() {
  step='installing the configuration'
  if [ ! -e "$prefix$config" ]; then put "$work/$role_config" "$config" 0644; fi
}

make_users() {
  step='creating the users'
  if ! live; then return; fi
  if users_are_there; then return; fi
  change 'create the users and groups of the daemons and the lab' systemd-sysusers "$source_dir/etc/$unit.sysusers"
}

users_are_there() {
  local kind name _
  while read -r kind name _; do
    case $kind in
      u) getent passwd "$name" >/dev/null || return 1 ;;
      g) getent group "$name" >/dev/null || return 1 ;;
    esac
  done <"$source_dir/etc/$unit.sysusers"
  getent group cis490-lab | grep -Eq '[:,]cis490(,|$)'
}

# make_folders lets systemd create them, and checks the result.
make_folders() {
  local before
  step='creating the directories'
  if ! live; then return; fi
  if [ -n "$dry_run" ]; then
    if [ -z "$(folders)" ]; then change "create the directories of $unit.tmpfiles" true; fi
    return
  fi
  before=$(folders)
  systemd-tmpfiles --create "$source_dir/etc/$unit.tmpfiles" || die 'systemd-tmpfiles could not create the directories'
  # The program changes the owner of files that it left there as root ("install by hand").
  "$bin/$unit" check >/dev/null 2>&1 || true
  probe_disk # again, now that the directories and the user exist
  if [ "$(folders)" != "$before" ]; then change 'create the directories, with their owners and modes' true; fi
}

folders() {
  awk '!/^#/ { print $2 }' "$source_dir/etc/$unit.tmpfiles" | sort -u |
    xargs -r stat -c '%n %a %U:%G' 2>/dev/null || true
}

# own_key lets only the daemon read the key of a configuration. Only root may be able to
# change the key's directory: otherwise another user could exchange the key.
own_key() {
  local key=$1
  if ! live || [ ! -f "$key" ] || [ "$(stat -c '%a %U:%G' "$key")" = '640 root:cis490' ]; then return; fi
  if [[ $key == "$config_dir"/* && $key != *..* && ! -L $key ]] && only_root_writes "$(dirname "$key")"; then
    change "let the group cis490 read $key" let_read "$key"
  else
    warn "$key is not a file in a directory of root's below $config_dir: make sure that the user cis490 can read it"
  fi
}

# only_root_writes reports whether only root can change a directory.
only_root_writes() { [[ $(stat -c '%U %A' "$1") == 'root d'????-??-?* ]]; }

let_read() { chown -h root:cis490 "$1" && chmod 0640 "$1"; }

enable_units() {
  local name
  step='enabling the units'
  if live && [ "$restart" = yes ] && [ -z "$dry_run" ]; then
    systemctl daemon-reload || die 'systemctl daemon-reload failed'
  fi
  for name in "${role_enable[@]}"; do
    if live && systemctl is-enabled --quiet "$name" 2>/dev/null; then continue; fi
    if ! live && [ -n "$(find "$prefix$units" -name "$name" -type l 2>/dev/null)" ]; then continue; fi
    if live; then
      change "enable $name" systemctl --quiet enable "$name"
    elif command -v systemctl >/dev/null; then
      change "enable $name" systemctl --quiet --root="$prefix" enable "$name"
    else
      warn "systemctl is missing here: enable $name on the machine itself"
    fi
  done
}

# start_units starts the units that are not running, and restarts those that run an old file.
start_units() {
  step="starting $unit"
  if ! live; then return; fi
  if systemctl is-active --quiet "$unit"; then
    if [ "$restart" = yes ]; then change "restart $unit" systemctl restart "$unit"; fi
  else
    change "start $unit" start_now
  fi
}

start_now() {
  systemctl start "${role_enable[@]}" && systemctl is-active --quiet "$unit" && return
  systemctl --no-pager --lines=5 status "$unit" >&2 || true
  return 1
}

# --- uninstall ---

remove() {
  local file
  step='stopping the units'
  if live && command -v systemctl >/dev/null; then
    for file in "${role_units[@]}"; do
      if [ ! -e "$units/$file" ]; then continue; fi
      if systemctl is-active --quiet "$file" || [ "$(systemctl is-enabled "$file" 2>/dev/null)" = enabled ]; then
        change "stop and disable $file" systemctl --quiet disable --now "$file"
      fi
    done
  fi
  step='removing the files'
  for file in "${role_units[@]}"; do
    gone "$units/$file"
    if ! live; then gone "$units/multi-user.target.wants/$file" && gone "$units/sockets.target.wants/$file"; fi
  done
  if [ -x "$prefix$bin/$unit" ] && make_docs "$prefix$bin/$unit"; then
    while read -r _ file; do gone "$share/$file"; done < <(docs)
  fi
  gone "/etc/sysusers.d/$unit.conf"
  gone "/etc/tmpfiles.d/$unit.conf"
  if [ "$(readlink "$prefix$bin/$role_program" 2>/dev/null)" = "$unit" ]; then gone "$bin/$role_program"; fi
  gone "$bin/$unit"
  if live && [ -z "$dry_run" ] && [ "$changes" -gt 0 ]; then
    systemctl daemon-reload
    systemctl reset-failed "${role_units[@]}" 2>/dev/null || true
  fi
  print_changes
  say "kept: $config_dir (configuration and keys), /var/lib/cis490 (recordings), $identity (keys), the users"
  if [ -d "$prefix/var/lib/cis490-hook" ]; then say "kept: /var/lib/cis490-hook (queued events of the hook command)"; fi
}

gone() {
  if [ -e "$prefix$1" ] || [ -L "$prefix$1" ]; then change "remove $prefix$1" rm -f "$prefix$1"; fi
}

print_changes() {
  if [ "$changes" -eq 0 ]; then
    say 'no change'
  elif [ -n "$dry_run" ]; then
    say "would make $changes changes; nothing was changed"
  else
    say "$changes changes"
  fi
}

install_role() {
  work=$(mktemp -d)
  trap finished EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  options "$@"
  check_machine
  if [ -n "$uninstall" ]; then
    remove
    return
  fi
  check_package
  check_binary
  role_prepare
  check_config
  role_check
  probe_disk
  place_files
  place_docs
  place_config
  make_users
  make_folders
  role_credentials
  enable_units
  role_finish
}
