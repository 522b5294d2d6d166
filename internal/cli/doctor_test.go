package cli

import (
	"strings"
	"testing"

	"cis490/internal/doctor"
	"cis490/internal/fixture"
	"cis490/internal/terminal"
)

func TestDoctorsJSONIsDocumented(t *testing.T) {
	for _, s := range []any{doctorReport{}, doctor.Finding{}} {
		fixture.CheckMembers(t, "../../docs/json.md", "doctor", s)
	}
}

// TestFindingFitsATerminal: verdict, check and fact in columns, and below what to do.
func TestFindingFitsATerminal(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 30))
	for _, c := range []struct {
		f    doctor.Finding
		want string
	}{
		{doctor.Finding{Check: "disk", Verdict: doctor.OK, Fact: "fast"}, "ok       disk           fast\n"},
		{doctor.Finding{Check: "authorisation", Verdict: doctor.Skipped, Fact: "why"}, "skipped  authorisation  why\n"},
		{doctor.Finding{Check: "disk", Verdict: doctor.Failed, Fact: "slow", Remedy: "run x"}, "FAILED   disk           slow\n         do: run x\n"},
		{doctor.Finding{Check: "disk", Verdict: doctor.Warning, Fact: long, Remedy: long}, "warning  disk           word word word"},
	} {
		got := formatFinding(terminal.Painter{}, c.f)
		if !strings.HasPrefix(got, c.want) || c.f.Fact != long && got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		for line := range strings.Lines(got) {
			if len(line) > 81 {
				t.Errorf("%d columns: %q", len(line)-1, line)
			}
		}
		if c.f.Fact == long && (strings.Count(got, "word") != 60 || strings.Count(got, "do: ") != 1) {
			t.Errorf("got %q", got)
		}
	}
}
