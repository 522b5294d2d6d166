package receiver_test

import (
	"fmt"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// After one upload's sync has failed, what the kernel says of another's is worth
// nothing: it must not be acknowledged, though every call of its own went well.
func TestNothingIsAcknowledgedAfterAnothersFault(t *testing.T) {
	l := newLab(t, nil)
	_ = l.r.NoteFault(fmt.Errorf("sync: %w", durable.ErrFault)) // its sender is told, the others are the point
	if r, err := l.put(key("h", "e"), fixture.Noise(100, 1)); err == nil {
		t.Errorf("acknowledged after a fault: %+v", r)
	}
}
