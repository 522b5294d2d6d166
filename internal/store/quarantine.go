package store

import (
	"errors"
	"io/fs"

	"cis490/internal/durable"
)

// CountQuarantined returns the number of files in the quarantine of a data directory. It may
// run beside a live receiver. The error of a directory that cannot be listed is passed to
// skipped, and the others are counted.
func CountQuarantined(data *durable.Dir, skipped func(error)) int {
	quarantine, err := data.OpenDir("quarantine")
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		skipped(readError(err))
		return 0
	}
	defer quarantine.Close()
	n := 0
	for host, err := range quarantine.Names() {
		if err != nil {
			skipped(readError(err))
			break
		}
		if !host.IsDir() {
			continue
		}
		some, err := countNames(quarantine, host.Name())
		n += some
		if err != nil {
			skipped(readError(err))
		}
	}
	return n
}

func countNames(parent *durable.Dir, name string) (int, error) {
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
