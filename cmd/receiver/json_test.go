package main

import (
	"testing"

	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/hosts"
	"cis490/internal/pki"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
	"cis490/internal/serviceuser"
	"cis490/internal/storecopy"
)

func TestJSONMembersAreDocumented(t *testing.T) {
	const page = "../../docs/json.md"
	for section, structs := range map[string][]any{
		"receiver hosts":                         {hosts.Host{}, hosts.Report{}, hosts.Certificate{}, hosts.Rotation{}},
		"receiver status":                        {statusFacts{}, hosts.Summary{}, s3backend.Status{}},
		"receiver hosts disable, enable, remove": {datadir.HostChange{}},
		"receiver store":                         {datadir.StoreChange{}},
		"receiver store copy":                    {storecopy.Finding{}, storecopy.Report{}},
		"receiver invite":                        {printedInvitation{}},
		"receiver scrub":                         {scrub.Finding{}, scrub.Progress{}},
		"receiver index verify":                  {fsck.Finding{}, fsck.VerifyReport{}},
		"receiver index backfill":                {fsck.BackfillReport{}},
		"receiver pki":                           {createdCAs{}, issuedCertificate{}, pki.Issued{}, revokedCertificates{}, revokedCertificate{}, renewedCertificate{}, rotationReport{}},
		"receiver setup":                         {setupReport{}},
		"receiver probe":                         {probeReport{}, probeCheck{}},
		"check":                                  {checkFacts{}, listenFacts{}, cli.CheckReport{}, cli.Space{}, serviceuser.Folder{}, serviceuser.Secret{}},
	} {
		for _, s := range structs {
			fixture.CheckMembers(t, page, section, s)
		}
	}
}
