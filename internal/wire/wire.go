// Package wire is the protocol between shipper and receiver, both ends of it.
// No other package knows a status code or a header.
//
// # Protocol, version 1
//
// HTTP/1.1 over TLS 1.3 with client certificates. A name (of a host or of an
// episode) is what [episode.ParseName] takes, after one decoding of the path.
//
//	PUT     /v1/episodes/{host}/{episode}   store an archive, or announce one
//	HEAD    /v1/episodes/{host}/{episode}   is it there?
//	OPTIONS /v1/episodes/{host}/{episode}   what is taken?
//	PATCH   /v1/uploads/{id}                go on with an upload
//	HEAD    /v1/uploads/{id}                how far has it come?
//	DELETE  /v1/uploads/{id}                give it up
//	POST    /v1/ping                        who am I, and how are you? Writes nothing.
//	POST    /v1/inventory                   do you still have these, on your disk?
//
// The host in the path must be the host that the certificate names. Where the
// receiver asks for tokens, Authorization carries one (RFC 6750) as well.
//
// A PUT has exactly one Content-Length and the sha256 of its body in one
// Repr-Digest (RFC 9530), or Content-Digest, which is the same here:
//
//	PUT /v1/episodes/lab-01/run-7 HTTP/1.1
//	Content-Length: 20000000
//	Repr-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:
//
// Bytes are opaque: Content-Encoding, Content-Range and chunked bodies are
// refused. Episode-Skipped may say how many files the sender left out of the
// archive (sockets and the like). Episode-Resent: ?1 says that the sender had a
// receipt for the episode once: the receiver has lost it, and looks for the row
// which the new one supersedes. Every refusal that can be made before the body
// is made before the body, but an early final answer to a body on its way costs
// the connection: a sender of [MinAnnounced] bytes or more should announce them,
// or at least send Expect: 100-continue.
//
// 201 says that the archive and its row in the index are on the disk; 200 that
// they were already, after reading the stored bytes again. Both carry the
// receipt of the first time:
//
//	{"status":"stored","host_id":"lab-01","episode_id":"run-7","sha256":"b94d27b9…",
//	 "size_bytes":20000000,"received_at_wall":"2026-11-23T07:17:41.000001+00:00"}
//
// A receipt that names the same host, episode, sha256 and size, of the store that the
// host knows, is the one permission to retire an episode. Anything else under a 2xx is no receipt.
//
// # Stores
//
// Each receipt, each answer to a ping and each answer to an inventory names the store of
// the receiver ([Store]), and how long its index is on the disk:
//
//	"store":{"id":"4TQ7…","index_bytes":18004,"index_tail":"9f3c…","replaces":["K2LM…"]}
//
// index_tail stands for the bytes of the index before that length. A host says in each
// request what it was told last, and other-store (412) refuses it before its body if the
// index is shorter now, or has other bytes there:
//
//	Store-Known: "4TQ7…";index-bytes=18004;index-tail="9f3c…"
//
// The id moves with the data. A host adopts the store of its first receipt. After that, a
// receipt of a store that neither is that one nor replaces it retires nothing, and neither
// does one of a store whose index was longer once. HEAD names no store: nobody retires or
// deletes for its answer. An answer without the member comes from an older receiver.
//
// # Resuming
//
// The fields are those of draft-ietf-httpbis-resumable-upload. An archive is
// announced by a PUT without a body:
//
//	PUT /v1/episodes/lab-01/run-7 HTTP/1.1
//	Content-Length: 0
//	Upload-Complete: ?0
//	Upload-Length: 20000000
//	Repr-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:
//
// 200 and a receipt say that it is here already. 201 says where to go on:
//
//	HTTP/1.1 201 Created
//	Location: /v1/uploads/QXKJ5TZ2B3MVY6NW7RDLA4CFEU
//	Upload-Complete: ?0
//	Upload-Offset: 5242880
//	Upload-Limit: max-size=34359738368, max-age=604800
//
//	{"status":"unfinished","host_id":"lab-01","episode_id":"run-7","sha256":"b94d27b9…","size_bytes":20000000,…,
//	 "upload_id":"QXKJ5TZ2B3MVY6NW7RDLA4CFEU","upload_offset":5242880}
//
// Announcing is idempotent: the same host, episode, sha256, length and Episode
// fields name the same upload, so that a sender need not remember its id, and asks again after any
// accident. What the receiver says is on its disk, so an offset never decreases.
// The bytes from there on follow with PATCH, all of them (Upload-Complete: ?1) or
// some (?0, answered with 204 and the new offset):
//
//	PATCH /v1/uploads/QXKJ5TZ2B3MVY6NW7RDLA4CFEU HTTP/1.1
//	Content-Length: 14757120
//	Content-Type: application/partial-upload
//	Upload-Offset: 5242880
//	Upload-Complete: ?1
//
// The last piece is answered as the PUT of the whole archive would be. When a
// connection breaks, what has arrived is kept, for max-age seconds after the last
// byte. A request for an upload ends the piece of it that is just coming, whose
// connection may be dead: its sender is told upload-superseded.
//
// An archive may be sent while it is still being made. An announcement with
// neither Upload-Length nor Repr-Digest opens an upload, which takes pieces with
// Upload-Complete: ?0. When the archive is whole it is announced as above: what was
// sent of it then counts as its beginning, and if it is not, the last piece is
// answered with digest-mismatched-values, and all is to be sent again.
//
// # Inventories
//
// An inventory asks about at most [MaxQueries] episodes of the caller, in at most
// 1 MiB of JSON:
//
//	{"episodes":[{"episode_id":"run-7","sha256":"b94d27b9…"}],"read_back":false}
//	{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present","sha256":"b94d27b9…","size_bytes":20000000,
//	 "received_at_wall":"2026-11-23T07:17:41.000001+00:00","verified_at_wall":"2026-11-24T02:00:00.000000+00:00"}]}
//
// The answers come in the order of the questions. The state is present,
// divergent (another sha256 is stored), absent, or damaged. verified_at_wall is
// when the receiver last read all of the archive from its disk, past the page
// cache, and found it right; it is missing if it never did. With read_back it
// does so now, for exactly one episode, one at a time for a host. An inventory
// counts as an upload, from before its body is read until its answer is written. No
// value in it may be longer than 16 KiB; unknown members are skipped.
//
// Every refusal is a problem document (RFC 9457, application/problem+json)
// whose type says which of the [Code] values it is. An answer without one comes
// from something else than a receiver, and is a fault of the path.
//
// # With curl
//
//	d=$(openssl dgst -sha256 -binary run-7.tar.zst | base64)
//	curl --cacert ca.crt --cert lab-01.crt --key lab-01.key -T run-7.tar.zst \
//	     -H "Repr-Digest: sha-256=:$d:" https://receiver.lab:8443/v1/episodes/lab-01/run-7
//
// docs/transport.md goes on with an upload by hand.
package wire

// Paths.
const (
	episodesPath = "/v1/episodes/"
	pingPath     = "/v1/ping"
)

const uploadsPath = "/v1/uploads/"

const inventoryPath = "/v1/inventory"
