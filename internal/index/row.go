package index

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

// schema is the schema_version that this package writes and reads.
const schema = 1

// A Row says that the receiver has stored an episode. The JSON members are named after the
// fields. Optional ones are omitted if they are zero.
type Row struct {
	ReceivedAt time.Time     // received_at_wall; microseconds, UTC
	Key        episode.Key   // host_id, episode_id
	SHA256     digest.Digest // sha256, of the stored archive
	Size       int64         // size_bytes, of the stored archive
	Commit     string        // commit, optional: 40 lower-case hex digits
	Backfilled bool          // backfilled, optional: made from the stored file, not at arrival
	Repaired   bool          // repaired, optional: supersedes the key's earlier row
	Skipped    int           // skipped, optional: entries of the episode that are not in the archive
}

// sameArchive reports whether two rows have the same sha256 and size.
func (r Row) sameArchive(other Row) bool { return r.SHA256 == other.SHA256 && r.Size == other.Size }

// Append appends the row to b as one line, byte for byte as Python's
// json.dumps(row, sort_keys=True) followed by a newline. Names, digests and
// commits are ASCII without quotes by their grammar: nothing needs escaping.
func (r Row) Append(b []byte) []byte {
	b = append(b, '{')
	if r.Backfilled {
		b = append(b, backfilledMember...)
	}
	if r.Commit != "" {
		b = append(append(append(b, commitMember...), r.Commit...), nextMember...)
	}
	b = append(append(b, episodeMember...), r.Key.Name...)
	b = append(append(b, hostMember...), r.Key.Host...)
	b = append(append(b, timeMember...), episode.FormatWall(r.ReceivedAt)...)
	b = append(b, nextMember...)
	if r.Repaired {
		b = append(b, repairedMember...)
	}
	b = hex.AppendEncode(append(b, digestMember...), r.SHA256[:])
	b = strconv.AppendInt(append(b, sizeMember...), r.Size, 10)
	if r.Skipped != 0 {
		b = strconv.AppendInt(append(b, skippedMember...), int64(r.Skipped), 10)
	}
	return append(b, "}\n"...)
}

// The text between the values of a row, in Python's spelling and order.
const (
	backfilledMember = `"backfilled": true, `
	commitMember     = `"commit": "`
	episodeMember    = `"episode_id": "`
	hostMember       = `", "host_id": "`
	timeMember       = `", "received_at_wall": "`
	nextMember       = `", `
	repairedMember   = `"repaired": true, `
	digestMember     = `"schema_version": 1, "sha256": "`
	sizeMember       = `", "size_bytes": `
	skippedMember    = `, "skipped": `
)

// Validate returns an error if [ParseRow] would refuse the row.
func (r Row) Validate() error {
	_, err := ParseRow(r.Append(nil))
	return err
}

// ParseRow parses one line, with or without its newline. The order of the members, spacing and
// unknown members do not matter. A row without schema_version has the first version. With an
// error it returns what was parsed before it. The names are parsed first.
func ParseRow(line []byte) (Row, error) {
	if r, ok := parseCanonical(line); ok {
		return r, nil
	}
	var m jsonMembers
	if err := json.Unmarshal(line, &m); err != nil {
		return Row{}, fmt.Errorf("is not a JSON object: \"%s\"", printable.Text(err.Error()))
	}
	r := Row{}
	version := schema
	var at string
	err := firstError(
		m.readRequired("host_id", &r.Key.Host),
		m.readRequired("episode_id", &r.Key.Name),
		m.readOptional("schema_version", &version),
		m.readRequired("received_at_wall", &at),
		m.readRequired("sha256", &r.SHA256),
		m.readRequired("size_bytes", &r.Size),
		m.readOptional("commit", &r.Commit),
		m.readOptional("backfilled", &r.Backfilled),
		m.readOptional("repaired", &r.Repaired),
		m.readOptional("skipped", &r.Skipped),
	)
	if err != nil {
		return r, err
	}
	if r.ReceivedAt, err = episode.ParseWall(at); err != nil {
		return r, fmt.Errorf("received_at_wall: \"%s\"", printable.Text(err.Error()))
	}
	return r, r.checkValues(version)
}

// commitPattern is what [episode.Meta] promises of a commit.
var commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)

func (r Row) checkValues(version int) error {
	switch {
	case version != schema:
		return fmt.Errorf("schema_version is %d: only %d is known here", version, schema)
	case r.SHA256.IsZero():
		return errors.New("sha256 is all zeros")
	case r.Size < 0:
		return fmt.Errorf("size_bytes is %d", r.Size)
	case r.Skipped < 0:
		return fmt.Errorf("skipped is %d", r.Skipped)
	case r.Commit != "" && !commitPattern.MatchString(r.Commit):
		return errors.New("commit is not 40 of 0-9 a-f")
	}
	return nil
}

// jsonMembers has the members of a JSON object under their exact names: a struct would accept
// HOST_ID for host_id, which no reader in Python does.
type jsonMembers map[string]json.RawMessage

// readRequired reads a member that a row must have.
func (m jsonMembers) readRequired(key string, into any) error {
	if raw, found := m[key]; !found || string(raw) == "null" {
		return fmt.Errorf("%s is missing", key)
	}
	return m.readOptional(key, into)
}

// readOptional reads a member if it is there.
func (m jsonMembers) readOptional(key string, into any) error {
	raw, found := m[key]
	if !found {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: \"%s\"", key, printable.Text(err.Error()))
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
