package durable_test

import (
	"testing"

	"cis490/internal/durable"
)

func TestCallsThatAreNeededAreProbedWithoutEffect(t *testing.T) {
	d, path := open(t)
	t.Chdir(path)
	must(t, durable.CheckCalls(append(durable.RefusedCalls(), durable.BeneathCall())...))
	must(t, d.CheckPath())
	holds(t, path)
}
