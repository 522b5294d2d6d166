package main

import _ "embed"

// original is a stand-in for the shipper that this project began as. In shell
// it would start six programs more an episode than the original did.
//
//go:embed original.py
var original string

// system is one way to bring episodes home.
type system struct {
	name   string
	server string // see lab.serve; empty: none
	// prepare is done once, before the clock runs. It and the next two are bash
	// scripts, for that is what users type.
	prepare string
	// client sends what is in $SRC.
	client string
	// unpack makes the episodes of what was stored, in $TO.
	unpack string
	// archives says that each episode is an archive of its own at the server, as
	// ours are: the per-episode peers.
	archives bool
	title    string
	keeps    string // what is durable when it ends
}

// ours is the system that the others are compared with.
const ours = "cis490"

// pageCache is what a server promises that only writes.
const pageCache = "nothing (page cache), unchecked"

// systems are run in this order, round by round.
func systems() []system { return append(archivers(), copiers()...) }

// archivers make an archive of each episode.
func archivers() []system {
	return []system{
		{
			name: ours, server: "receiver", archives: true,
			title:  "`shipper --once`",
			client: `exec "$BIN/shipper" --config "$CONF" --once`,
			unpack: untar,
			keeps:  "archives and rows, sha256 checked; a receipt per episode on the host",
		},
		{
			name: "shell", server: "nginx", archives: true,
			title:  "`tar \\| zstd -3 \\| curl`, one at a time, to nginx",
			client: curl + `cd "$SRC"; for e in *; do tar -cf - "$e" | zstd -q -3 -T0 | "${curl[@]}" -T - "$URL/$e.tar.zst"; done`,
			unpack: untar,
			keeps:  pageCache,
		},
		{
			name: "shell-2", server: "nginx", archives: true,
			title: "the same, two at a time",
			client: curl + `cd "$SRC"; export args="${curl[*]}"
printf '%s\n' * | xargs -P2 -I{} sh -c 'tar -cf - "$1" | zstd -q -3 -T0 | $args -T - "$URL/$1.tar.zst"' sh {}`,
			unpack: untar,
			keeps:  pageCache,
		},
		{
			name: "shell-batch", server: "nginx", archives: true,
			title: "packed two at once, then one curl with 2 connections",
			client: packAll + curl + `cd "$OUT"
for f in *; do printf 'upload-file = "%s"\nurl = "%s/%s"\n' "$f" "$URL" "$f"; done | "${curl[@]}" --parallel --parallel-max 2 --config - >/dev/null`,
			unpack: untar,
			keeps:  pageCache,
		},
		{
			name: "original", server: "receiver", archives: true,
			title:  "the original in Python, but at level 3 instead of 19: tar, zstd, hash, PUT, one at a time",
			client: `exec python3 -c "$ORIGINAL"`,
			unpack: untar,
			keeps:  "as cis490 on its receiver; nothing on the host",
		},
		{
			name: "rclone", server: "webdav", archives: true,
			title:  "packed as by shell-batch, `rclone copy` to its WebDAV server; its pacer waits 10 ms per call",
			client: packAll + `rclone copy "$OUT" :webdav: --webdav-url "$URL" --webdav-vendor other --ca-cert "$CA" --client-cert "$CRT" --client-key "$KEY"`,
			unpack: untar,
			keeps:  pageCache,
		},
	}
}

// copiers bring the files home in a form of their own.
func copiers() []system {
	return []system{
		{
			name: "rsync", server: "rsync",
			title:  "`rsync -az` (zstd) to its daemon, no TLS",
			client: rsync,
			unpack: `cp -a "$DATA/." "$TO"`,
			keeps:  "nothing (page cache); files, not archives",
		},
		{
			name: "rsync-fsync", server: "rsync",
			title:  "the same with `--fsync`",
			client: rsync + ` --fsync`,
			unpack: `cp -a "$DATA/." "$TO"`,
			keeps:  "bytes of files, not their names",
		},
		{
			name: "restic", server: "restic",
			title:   "`restic backup` of all at once to `rclone serve restic`",
			prepare: restic + `restic init --repository-version 2`,
			client:  restic + `cd "$SRC"; restic backup .`,
			unpack:  restic + `restic restore latest --target "$TO"`,
			keeps:   "nothing (page cache); one snapshot, deduplicated and encrypted",
		},
	}
}

// diskAlone is what is left of ours where all but the disk costs nothing.
func diskAlone() system {
	return system{
		name:   custody,
		title:  "the disk operations of cis490 alone, in one process",
		client: `exec "$BENCH" custody -data "$DATA" -src "$SRC" -shipped "$SHIPPED" -outbox "$OUT"`,
		keeps:  "as cis490",
	}
}

// oursSettled is ours as it is configured by default: the markers are made when the clock
// starts, and what was finished has to settle.
const oursSettled = "cis490-settle"

func settledOurs() system {
	return system{
		name: oursSettled, server: "receiver",
		title:  "cis490 with the default `settle`; all episodes finished at the start",
		client: `sed /^settle/d "$CONF" >"$CONF.default"; touch "$SRC"/*/done.marker; exec "$BIN/shipper" --config "$CONF.default" --once`,
		keeps:  "as cis490",
	}
}

// curl keeps to HTTP/1.1, as ours does, and fails where the server refuses.
const curl = `curl=(curl -sS --fail --http1.1 --cacert "$CA" --cert "$CRT" --key "$KEY")
`

const packAll = `cd "$SRC"
printf '%s\n' * | xargs -P2 -I{} sh -c 'tar -cf - "$1" | zstd -q -3 -T0 -o "$OUT/$1.tar.zst"' sh {}
`

const rsync = `rsync -a -z --compress-choice=zstd --compress-level=3 "$SRC/" "rsync://127.0.0.1:$PORT/data/"`

const restic = `restic() { command restic -q --repo "rest:$URL/" --cacert "$CA" --tls-client-cert "$PEM" "$@"; }
`

const untar = `find "$DATA" -name '*.tar.zst' | while read -r f; do zstd -q -d -c "$f" | tar -x -C "$TO" -f -; done`
