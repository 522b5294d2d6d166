package receiver_test

import (
	"fmt"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// After one upload's sync has failed, the results of another's cannot be trusted: it must not
// be acknowledged, although each of its own calls succeeded.
func TestNothingIsAcknowledgedAfterAnothersFault(t *testing.T) {
	l := newLab(t, nil)
	_ = l.r.NoteFault(fmt.Errorf("sync: %w", durable.ErrFault)) // its sender gets an error; the test is about the others
	if r, err := l.put(key("h", "e"), fixture.Noise(100, 1)); err == nil {
		t.Errorf("acknowledged after a fault: %+v", r)
	}
}
