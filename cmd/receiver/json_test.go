package main

import (
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/hosts"
)

func TestJSONMembersAreDocumented(t *testing.T) {
	const page = "../../docs/json.md"
	fixture.CheckMembers(t, page, "receiver hosts", hosts.Host{})
	fixture.CheckMembers(t, page, "receiver hosts", hosts.Report{})
	fixture.CheckMembers(t, page, "receiver hosts", hosts.Certificate{})
	fixture.CheckMembers(t, page, "receiver hosts", hosts.Rotation{})
	fixture.CheckMembers(t, page, "receiver status", statusFacts{})
	fixture.CheckMembers(t, page, "receiver status", hosts.Summary{})
}
