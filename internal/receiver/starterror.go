package receiver

import (
	"errors"

	"cis490/internal/durable"
	"cis490/internal/store"
)

// ConfigError says that a start failed because of what a key of the configuration names. No
// other error of [New] can be corrected in the configuration.
type ConfigError struct {
	Key string
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Err }

// openData opens or creates the data directory.
func (r *Receiver) openData() error {
	var err error
	if r.data, err = durable.Create(string(r.cfg.DataDir)); err != nil {
		return &ConfigError{"data_dir", err}
	}
	return nil
}

// openStore opens the store in the data directory.
func (r *Receiver) openStore() error {
	var err error
	if r.store, err = store.Open(r.data); errors.Is(err, store.ErrUnsuitable) {
		return &ConfigError{"data_dir", err}
	}
	return err
}
