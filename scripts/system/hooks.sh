# shellcheck shell=bash disable=SC2154,SC2317 # run in cell.sh, by name
# The command of cis490-hook.service, as docs/hooks.md sets it up.

hook_scenarios() {
  check "the hook units are installed, and not enabled" hook_units_are_off
  check "the hook command gets events on stdin" hook_gets_events
  check "the hook command reads neither store nor keys" hook_is_boxed
  check "a hook command that fails is retried, and nothing spins" hook_is_retried
  check "without the hook the receiver works as before" hook_is_disabled
}

readonly hook_queue=/var/lib/cis490-hook/queue

hook_units_are_off() {
  unit_is receiver cis490-hook.path UnitFileState disabled
  same "the queue" "$(on receiver stat -c '%a %U:%G' "$hook_queue")" '2770 cis490:cis490-hook'
  same "groups of the command" "$(on receiver id -nG cis490-hook)" cis490-hook
}

# write_hook installs a command, from stdin, which writes to the journal.
write_hook() { on receiver install -m 0755 /dev/stdin /etc/cis490/hook; }

hook_said() { said_by receiver cis490-hook "$hook_cursor" | grep -F -e "$1"; }

queue_is_empty() { same "queued" "$(find "$(root receiver)$hook_queue" -type f)" ''; }

hook_gets_events() {
  hook_cursor=$(cursor receiver)
  write_hook <<'SCRIPT'
#!/bin/sh
echo "user=$(id -un) arguments=$#"
cat
for file in /var/lib/cis490/index.jsonl /var/lib/cis490-identity /etc/cis490/pki/server.key /etc/cis490/pki; do
  if ls "$file" >/dev/null 2>&1; then echo "can see $file"; fi
done
for file in /etc/cis490/x /var/lib/x /usr/bin/x; do
  if touch "$file" 2>/dev/null; then echo "can write $file"; fi
done
cp /bin/true /tmp/true
if /tmp/true 2>/dev/null; then echo 'can execute what it wrote'; fi
echo 'the hook has ended'
SCRIPT
  configure "$(root receiver)/etc/cis490/receiver.toml" "queue_dir=$hook_queue"
  on receiver systemctl enable --now cis490-hook.path
  on receiver systemctl restart cis490-receiver
  ship ep-hook
  eventually hook_said '"episode_id":"ep-hook"'
  eventually hook_said 'the hook has ended'
  hook_said '"type":"stored"'
  hook_said 'user=cis490-hook arguments=0'
  eventually queue_is_empty
  on receiver receiver hooks test | grep 'added a test event'
  eventually hook_said '"type":"test"'
  eventually unit_is receiver cis490-hook ActiveState inactive
}

hook_is_boxed() {
  local all
  all=$(on receiver journalctl -q --no-pager -o cat -u cis490-hook)
  grep 'the hook has ended' <<<"$all"
  fails grep -e 'can see' -e 'can write' -e 'can execute' <<<"$all"
}

hook_is_retried() {
  local runs
  hook_cursor=$(cursor receiver)
  write_hook <<<$'#!/bin/sh\necho "a failing hook"\nexit 1'
  on receiver receiver hooks test
  eventually hook_said 'command failed'
  ship ep-hook-failing # it does not wait for the hook
  sleep 2
  runs=$(hook_said 'a failing hook' | wc -l)
  [ "$runs" -le 3 ] || { echo "$runs runs in 2 s"; return 1; }
  active receiver cis490-hook.path
  unit_is receiver cis490-hook ActiveState activating
  on receiver receiver hooks list | grep -E '^command +2 '
  write_hook <<<$'#!/bin/sh\nexec cat'
  eventually hook_said '"episode_id":"ep-hook-failing"'
  eventually queue_is_empty
}

hook_is_disabled() {
  on receiver systemctl disable --now cis490-hook.path
  configure "$(root receiver)/etc/cis490/receiver.toml" queue_dir=
  on receiver systemctl restart cis490-receiver
  on receiver rm /etc/cis490/hook
  ship ep-hook-none
  queue_is_empty
  no_failed_units
}
