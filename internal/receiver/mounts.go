package receiver

import (
	"errors"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// CheckKernel returns an error if this kernel, or a seccomp filter, refuses a system call that
// the receiver needs. openat2 is not one of them: the receiver opens no tree of other users,
// and the sandbox of its unit refuses it (RestrictSUIDSGID=).
func CheckKernel() error { return durable.CheckCalls(durable.RefusedCalls()...) }

// logSeparateHosts logs the hosts whose archives cannot be stored, because their directory is
// a separate mount. The others are served.
func (r *Receiver) logSeparateHosts() {
	for host, err := range r.store.SeparateHosts() {
		r.log.Error("host cannot be stored", "host", host, "err", err)
	}
}

// reportSeparateHost sets in the answer to a ping that archives of a host cannot be stored.
func (r *Receiver) reportSeparateHost(host episode.Name, s *wire.Storage) {
	_, separate := errors.AsType[*durable.SeparateError](r.store.CheckHost(host))
	if separate && s.Accepting {
		s.Accepting, s.Detail = false, wire.HostIsMount
	}
}

// separateHostProblem returns the problem for the sender if err says that the directory of its
// host is a separate mount, and nil otherwise.
func (r *Receiver) separateHostProblem(err error) error {
	if _, separate := errors.AsType[*durable.SeparateError](err); !separate {
		return nil
	}
	r.log.Warn("host cannot be stored", "err", err)
	return wire.Refuse(wire.Full, "%s", wire.HostIsMount)
}

// CheckMoves returns a [*ConfigError] if archives of some or all hosts cannot be stored in the
// data directory of c. Its directories may be on several mounts, or it may be a dangling link.
// CheckMoves changes nothing.
func (c Config) CheckMoves() error {
	data, err := durable.Open(string(c.DataDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // the start creates it, or reports the error
	}
	if _, dangling := errors.AsType[*durable.DanglingError](err); dangling {
		return &ConfigError{"data_dir", err}
	}
	if err != nil {
		return err
	}
	defer data.Close()
	err = store.CheckMoves(data)
	if errors.Is(err, store.ErrUnsuitable) {
		return &ConfigError{"data_dir", err}
	}
	return err
}
