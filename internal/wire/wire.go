// Package wire is the protocol between shipper and receiver. It has both ends: [Client] and
// [Handler]. No other package knows a status code or a header.
//
// Invariant: a refusal that does not need the body is sent before the body is read. Only a receipt
// for the same host, episode, sha256 and size, from the store that the host adopted, lets the host
// retire an episode.
//
// # Requests
//
// The protocol is HTTP/1.1 over TLS 1.3 with client certificates:
//
//	PUT     /v1/episodes/{host}/{episode}   store an archive, or announce one
//	HEAD    /v1/episodes/{host}/{episode}   is it stored?
//	OPTIONS /v1/episodes/{host}/{episode}   limits of the receiver
//	PATCH   /v1/uploads/{id}                continue an upload
//	HEAD    /v1/uploads/{id}                how many bytes are stored?
//	DELETE  /v1/uploads/{id}                discard an upload
//	POST    /v1/ping                        check the connection; writes nothing
//	POST    /v1/inventory                   are these episodes still on the disk?
//	POST    /v1/report                      how is the host? ([Report])
//	POST    /v1/probe                       how fast is the connection? stores nothing
//
// A host without a certificate asks for one on a connection of its own: see [JoinProtocol].
//
// Names of hosts and episodes must be valid for [episode.ParseName], after the path is
// unescaped once. The host in the path must be the host in the certificate. A receiver that
// requires tokens also checks the bearer token in Authorization (RFC 6750).
//
// # Storing an archive
//
// A PUT has exactly one Content-Length, and exactly one sha-256 of its body in Repr-Digest
// (RFC 9530) or in Content-Digest, which means the same here:
//
//	PUT /v1/episodes/lab-01/run-7 HTTP/1.1
//	Content-Length: 20000000
//	Repr-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:
//
// The receiver does not interpret the bytes. It refuses Content-Encoding, Content-Range and
// chunked bodies. Two headers are optional:
//
//   - Episode-Skipped is the number of files, such as sockets, that are not in the archive.
//   - Episode-Resent: ?1 says that the host had a receipt for the episode. The receiver has
//     lost the archive, and looks for the row that the new row supersedes.
//
// The receiver refuses before it reads the body whatever it can refuse by then. An early
// refusal closes a connection on which the body is in flight. Therefore a sender should
// announce an archive of [MinAnnounced] bytes or more, or send Expect: 100-continue.
//
// Status 201 means that the archive and its index row are on the disk. Status 200 means that
// they were there already; the receiver has read the stored bytes again. Both responses carry
// the original receipt:
//
//	{"status":"stored","host_id":"lab-01","episode_id":"run-7","sha256":"b94d27b9…",
//	 "size_bytes":20000000,"received_at_wall":"2026-11-23T07:17:41.000001+00:00"}
//
// A host may retire an episode only if the receipt names the same host, episode, sha256 and
// size, and comes from the store that the host knows. No other 2xx response is a receipt.
//
// # Stores
//
// Receipts and responses to pings and inventories name the receiver's store ([Store]) and the
// length of its index on the disk:
//
//	"store":{"id":"4TQ7…","index_bytes":18004,"index_tail":"9f3c…","replaces":["K2LM…"]}
//
// The index_tail identifies the last bytes of the index before that length. Each request of a
// host repeats the values of the last response:
//
//	Store-Known: "4TQ7…";index-bytes=18004;index-tail="9f3c…"
//
// The receiver refuses the request with other-store (412), before its body, if the store is
// another one, or if its index is shorter now or has other bytes there.
//
// The id moves with the data. A host adopts the store of its first receipt. After that, a
// receipt retires nothing if its store neither is that one nor replaces it, or if the index of
// the store was longer before. A response to HEAD names no store, because nothing is retired or
// deleted for it. Older receivers send no store.
//
// # Resuming
//
// The headers are those of draft-ietf-httpbis-resumable-upload. A PUT without a body announces
// an archive:
//
//	PUT /v1/episodes/lab-01/run-7 HTTP/1.1
//	Content-Length: 0
//	Upload-Complete: ?0
//	Upload-Length: 20000000
//	Repr-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:
//
// Status 200 and a receipt mean that the archive is stored already. Status 201 says where to
// continue:
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
// Announcing is idempotent: the same host, episode, sha256, length and Episode headers name the
// same upload. A sender need not remember the id, and announces again after any failure. The
// offset counts bytes on the receiver's disk, so it never decreases.
//
// PATCH sends the bytes from the offset on: all of them (Upload-Complete: ?1), or some of them
// (Upload-Complete: ?0, answered with 204 and the new offset):
//
//	PATCH /v1/uploads/QXKJ5TZ2B3MVY6NW7RDLA4CFEU HTTP/1.1
//	Content-Length: 14757120
//	Content-Type: application/partial-upload
//	Upload-Offset: 5242880
//	Upload-Complete: ?1
//
// The response to the last piece is that to a PUT of the whole archive. If the connection
// breaks, the receiver keeps the bytes that arrived, for max-age seconds after the last byte.
// Any request for an upload ends a piece of it that is in flight, because the connection of that
// piece may be dead. The sender of the piece gets upload-superseded.
//
// An archive can be sent while it is still being packed. An announcement with neither
// Upload-Length nor Repr-Digest opens an upload, which takes pieces with Upload-Complete: ?0.
// Once the archive is complete, the sender announces it as above, and the bytes sent so far
// count as its beginning. If they are not, the response to the last piece is
// digest-mismatched-values, and the sender must send all bytes again.
//
// # Inventories
//
// An inventory asks about at most [MaxQueries] episodes of the caller, in at most 1 MiB of
// JSON:
//
//	{"episodes":[{"episode_id":"run-7","sha256":"b94d27b9…"}],"read_back":false}
//	{"host_id":"lab-01","episodes":[{"episode_id":"run-7","state":"present","sha256":"b94d27b9…","size_bytes":20000000,
//	 "received_at_wall":"2026-11-23T07:17:41.000001+00:00","verified_at_wall":"2026-11-24T02:00:00.000000+00:00"}]}
//
// The entries have the order of the queries. Each [InventoryEntry] has one state: present,
// divergent (another sha256 is stored), absent, or damaged. The verified_at_wall is when the
// receiver last verified the archive from its disk, past the page cache; it is missing if it
// never did. With read_back the receiver verifies the archive now. That takes exactly one
// episode, and one request per host at a time.
//
// An inventory counts as an upload, from before its body is read until the response is written.
// No value in it may be longer than 16 KiB. Unknown members are skipped.
//
// # Refusals
//
// Every refusal is a problem document (RFC 9457, application/problem+json), whose type is one of
// the [Code] values. A response without one does not come from a receiver, but from something
// on the path ([UnexpectedResponseError]).
//
// # With curl
//
//	d=$(openssl dgst -sha256 -binary run-7.tar.zst | base64)
//	curl --cacert ca.crt --cert lab-01.crt --key lab-01.key -T run-7.tar.zst \
//	     -H "Repr-Digest: sha-256=:$d:" https://receiver.lab:8443/v1/episodes/lab-01/run-7
//
// docs/transport.md shows how to resume an upload by hand.
package wire

// URL paths.
const (
	episodesPath  = "/v1/episodes/"
	uploadsPath   = "/v1/uploads/"
	pingPath      = "/v1/ping"
	inventoryPath = "/v1/inventory"
)
