package durable_test

import (
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

func TestCallsThatAreNeededAreProbedWithoutEffect(t *testing.T) {
	d, path := openTemp(t)
	t.Chdir(path)
	fixture.Must(t, durable.CheckCalls(append(durable.RefusedCalls(), durable.BeneathCall())...))
	fixture.Must(t, d.CheckPath())
	wantEntries(t, path)
}
