package main

import (
	"strings"
	"testing"

	"cis490/internal/scripttest"
)

func TestManualIsComplete(t *testing.T) {
	const example = "../../etc/lab-host.toml.example"
	pages := scripttest.CheckManual(t, newRootCommand(), example)
	for name, page := range pages {
		for _, section := range []string{"NAME", "DESCRIPTION", "FILES", "SEE ALSO"} {
			if !strings.Contains(page, "\n.SH "+section+"\n") {
				t.Errorf("%s has no section %s", name, section)
			}
		}
		if strings.HasSuffix(name, ".1") && (!strings.Contains(page, "\n.SH EXIT STATUS\n.TP\n\\fB0\\fR\n") || !strings.Contains(page, "\n.SH EXAMPLES\n.EX\n")) {
			t.Errorf("%s has no exit codes or no examples", name)
		}
	}
}
