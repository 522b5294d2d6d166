package statuspage

import (
	"strings"

	"cis490/internal/fleet"
)

// advice says what to do about a problem of a host.
type advice struct {
	Commands []text // to begin with
	There    bool   // on the host; otherwise at the receiver
	Section  text   // of docs/operations.md; empty if none has more
}

// adviceOn returns what to do about a problem of a host.
func adviceOn(p fleet.Problem, host string) advice {
	there := func(section text, commands ...text) advice { return advice{commands, true, section} }
	here := func(section text, commands ...text) advice { return advice{commands, false, section} }
	switch p.Kind {
	case "silent":
		return there("A host is silent", "systemctl status cis490-shipper", "shipper --ping")
	case "held":
		return there("An episode is held", "shipper held")
	case "absent":
		return there("An archive is corrupt", "shipper verify")
	case "failing", "waiting":
		return there("A host is silent", "shipper status", "shipper --ping")
	case "disk":
		return there("A disk is full", "shipper status", "shipper prune --max-age 30d")
	case "inodes":
		return there("A disk has no free inodes", "df -i")
	case "clock":
		if strings.Contains(p.Text, "from the future") { // by this clock
			return here("A clock is wrong", "timedatectl")
		}
		return there("A clock is wrong", "timedatectl")
	case "cloned":
		return here("Revoke or disable a host", command("receiver hosts disable %s", host))
	case "certificate":
		return here("Certificates and keys", command("receiver invite %s --again", host))
	case "report":
		return here("", "journalctl -u cis490-receiver -n 50")
	}
	return advice{}
}

// problem is a problem of a host, and what to do about it.
type problem struct {
	Mark   mark
	Kind   text
	Text   text
	Advice advice
}

func newProblems(list []fleet.Problem, host string) []problem {
	all := make([]problem, len(list))
	for i, p := range list {
		all[i] = problem{severityMark(p.Severity), clean(p.Kind), clean(p.Text), adviceOn(p, host)}
	}
	return all
}
