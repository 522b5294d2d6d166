package main

import (
	"testing"

	"cis490/internal/backlog"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

func TestJSONMembersAreDocumented(t *testing.T) {
	for section, structs := range map[string][]any{
		"shipper status":        {backlog.Status{}},
		"shipper held":          {backlog.HeldEpisode{}, unshippableEpisode{}},
		"shipper retry, resend": {retriedEpisode{}},
		"shipper verify":        {shipped.VerifyResult{}, shipped.VerifyReport{}},
		"shipper prune":         {shipped.PruneResult{}, shipped.PruneReport{}},
		"shipper --once":        {shipper.Tally{}},
		"shipper --ping":        {pingReport{}, wire.PingResponse{}},
		"shipper join":          {joinReport{}},
		"check":                 {checkFacts{}},
	} {
		for _, s := range structs {
			fixture.CheckMembers(t, "../../docs/json.md", section, s)
		}
	}
}
