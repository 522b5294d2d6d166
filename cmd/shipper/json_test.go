package main

import (
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

func TestJSONMembersAreDocumented(t *testing.T) {
	fixture.CheckMembers(t, "../../docs/json.md", "shipper status", shipper.Status{})
}
