package statuspage

import (
	"strings"

	"cis490/internal/fleet"
)

// advice says what to do about a problem of a host.
type advice struct {
	Commands []text // to run first
	OnHost   bool   // where to run them: on the host, or on the receiver
	Section  text   // of docs/operations.md; empty if there is none
}

// adviceOn returns what to do about a problem of a host.
func adviceOn(p fleet.Problem, host string) advice {
	onHost := func(section text, commands ...text) advice { return advice{commands, true, section} }
	onReceiver := func(section text, commands ...text) advice { return advice{commands, false, section} }
	switch p.Kind {
	case "silent":
		return onHost("A host is silent", "systemctl status cis490-shipper", "shipper --ping")
	case "held":
		return onHost("An episode is held", "shipper held")
	case "absent":
		return onHost("An archive is corrupt", "shipper verify")
	case "failing", "waiting":
		return onHost("A host is silent", "shipper status", "shipper --ping")
	case "disk":
		return onHost("A disk is full", "shipper status", "shipper verify && shipper prune --max-age 30d")
	case "inodes":
		return onHost("A disk has no free inodes", "df -i")
	case "clock":
		if strings.Contains(p.Text, "from the future") { // then the receiver's clock is probably wrong
			return onReceiver("A clock is wrong", "timedatectl")
		}
		return onHost("A clock is wrong", "timedatectl")
	case "cloned":
		return onReceiver("Revoke or disable a host", commandLine("receiver hosts disable %s", host))
	case "certificate":
		return onReceiver("Certificates and keys", commandLine("receiver invite %s --again", host))
	case "report":
		return onReceiver("", "journalctl -u cis490-receiver -n 50")
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
