package shipper_test

import (
	"strings"
	"testing"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
)

// An archive that the receiver cannot examine is neither healed nor reported as lost. If the
// receiver does not know its digest, it is not reported as stored either.
func TestAuditResendsNothingThatCannotBeExamined(t *testing.T) {
	for _, quick := range []bool{false, true} {
		l := newLab(t)
		l.shipEpisodes("closed", "nameless")
		l.receiver.archives.unreadable = map[episode.Name]bool{"closed": true, "nameless": true}
		nameless := l.receiver.stored["nameless"]
		nameless.Digest = digest.Digest{}
		l.receiver.stored["nameless"] = nameless
		report, found := l.verifyShipped(shipped.VerifyOptions{Heal: true, Quick: quick})
		if found != "closed stored, nameless unknown" || report.Healing != 0 || report.ProblemCount() != 1 {
			t.Errorf("quick %v: got %s, %v", quick, found, report)
		}
		_, err := shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.VerifyOptions{Quick: quick, OnResult: func(a shipped.VerifyResult) error {
			if !strings.HasPrefix(a.Detail, "not read back: ") {
				t.Errorf("quick %v: %s does not say why: %q", quick, a.Dir, a.Detail)
			}
			return nil
		}})
		fixture.Must(l, err)
	}
}
