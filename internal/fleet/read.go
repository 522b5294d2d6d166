package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// ErrInvalid says that a record can be read and is not what it should be.
var ErrInvalid = errors.New("is damaged")

// Read returns the records in a data directory by host, and why others cannot be read. It changes
// nothing, and may run beside a receiver.
func Read(data *durable.Dir) (records map[episode.Name]Record, unreadable map[episode.Name]error, err error) {
	records, unreadable = make(map[episode.Name]Record), make(map[episode.Name]error)
	dir, err := data.OpenDir(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return records, unreadable, nil // no host has reported
	}
	if err != nil {
		return records, unreadable, err
	}
	defer dir.Close()
	err = eachRecord(dir, func(host episode.Name) {
		r, err := readRecord(dir, host)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			unreadable[host] = err
		default:
			records[host] = r
		}
	})
	return records, unreadable, err
}

// ReadReceiver returns what is kept of the receiver itself. Its times are zero if nothing is.
func ReadReceiver(data *durable.Dir) (Receiver, error) {
	dir, err := data.OpenDir(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return Receiver{}, nil
	}
	if err != nil {
		return Receiver{}, err
	}
	defer dir.Close()
	return readReceiver(dir)
}

func readReceiver(dir *durable.Dir) (Receiver, error) {
	var r Receiver
	err := readJSON(dir, receiverName, &r)
	if errors.Is(err, fs.ErrNotExist) {
		return Receiver{}, nil
	}
	if err == nil && (r.Version != 1 || len(r.Samples) > maxSamples) {
		err = fmt.Errorf("%s %w", dir.Path(receiverName), ErrInvalid)
	}
	if err != nil {
		return Receiver{}, err
	}
	return r, nil
}

func readRecord(dir *durable.Dir, host episode.Name) (Record, error) {
	var r Record
	name := string(host) + suffix
	if err := readJSON(dir, name, &r); err != nil {
		return Record{}, err
	}
	if !r.isValid() {
		return Record{}, fmt.Errorf("%s %w", dir.Path(name), ErrInvalid)
	}
	return r, nil
}

// isValid reports whether [Reports.Add] could have written the record.
func (r Record) isValid() bool {
	return !(r.Version != 1 || r.Stored < 0 || len(r.Gaps) > maxGaps || len(r.Machines) > maxMachines || len(r.Samples) > maxSamples || r.Report.Validate() != nil)
}

// readJSON reads a file into v. The error wraps [fs.ErrNotExist] if there is none.
func readJSON(dir *durable.Dir, name string, v any) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return durable.AsReadError(err)
	}
	if len(text) > maxRecord || json.Unmarshal(text, v) != nil {
		return fmt.Errorf("%s %w", dir.Path(name), ErrInvalid)
	}
	return nil
}

// writeJSON replaces a file, without fsync.
func writeJSON(dir *durable.Dir, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return dir.WriteFileNoSync(name, append(text, '\n'), 0o640)
}
