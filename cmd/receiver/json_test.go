package main

import (
	"testing"

	"cis490/internal/fixture"
)

func TestJSONMembersAreDocumented(t *testing.T) {
	const page = "../../docs/json.md"
	fixture.CheckMembers(t, page, "receiver hosts", hostFacts{})
	fixture.CheckMembers(t, page, "receiver hosts", hostReport{})
	fixture.CheckMembers(t, page, "receiver hosts", certificateFacts{})
	fixture.CheckMembers(t, page, "receiver hosts", hostRotation{})
	fixture.CheckMembers(t, page, "receiver status", statusFacts{})
	fixture.CheckMembers(t, page, "receiver status", hostSummary{})
}
