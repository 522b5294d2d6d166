package store

import (
	"errors"
	"io/fs"

	"cis490/internal/durable"
)

// CountSetAside returns how many copies are in the quarantine of a data
// directory. It may be asked beside a live receiver. A host whose folder cannot be
// listed goes to skipped, and the others are counted.
func CountSetAside(data *durable.Dir, skipped func(error)) (int, error) {
	quarantine, err := data.OpenDir("quarantine")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer quarantine.Close()
	n := 0
	for host, err := range quarantine.Names() {
		if err != nil {
			return n, err
		}
		if !host.IsDir() {
			continue
		}
		some, err := countIn(quarantine, host.Name())
		if errors.Is(err, durable.ErrFault) {
			return n, err
		}
		if err != nil {
			skipped(err)
		}
		n += some
	}
	return n, nil
}

func countIn(parent *durable.Dir, name string) (int, error) {
	dir, err := parent.OpenDir(name)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	n := 0
	for _, err := range dir.Names() {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
