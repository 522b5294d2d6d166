package hosts

import (
	"cis490/internal/datadir"
	"cis490/internal/fleet"
)

// Summary counts the hosts that are served, and what they report.
type Summary struct {
	Active   int   `json:"active"`
	Warning  int   `json:"warning"`  // of Active: the worst problem of the host
	Critical int   `json:"critical"` // the same, and hosts whose certificate has expired
	Stored   int64 `json:"stored_archives"`
	Waiting  int64 `json:"waiting"` // of hosts that are not silent
	Held     int64 `json:"held"`    // the same
}

// Summarize counts hosts.
func Summarize(hosts []Host) (s Summary) {
	for _, h := range hosts {
		if !h.IsServed() {
			continue
		}
		if h.State == datadir.HostActive {
			s.Active++
		}
		switch fleet.Worst(h.Problems) {
		case fleet.Warning:
			s.Warning++
		case fleet.Critical:
			s.Critical++
		}
		r := h.Report
		if r != nil && r.Stored != nil {
			s.Stored += *r.Stored
		}
		if r != nil && !r.Silent {
			s.Waiting, s.Held = s.Waiting+r.Waiting, s.Held+r.HeldTotal()
		}
	}
	return s
}

// IsServed reports whether the host has access, or would have it if its certificate had not expired.
func (h Host) IsServed() bool { return h.State == datadir.HostActive || h.State == Expired }
