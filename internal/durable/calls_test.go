package durable_test

import (
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/pathwatch"
)

func TestCallsThatAreNeededAreProbedWithoutEffect(t *testing.T) {
	d, path := openTemp(t)
	t.Chdir(path)
	fixture.Must(t, durable.CheckCalls(append(durable.RefusedCalls(), durable.BeneathCall())...))
	fixture.Must(t, pathwatch.Check(d))
	wantEntries(t, path)
}
