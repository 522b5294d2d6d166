package mutation_test

// Killers of several mutants of joining.
var (
	oneCertificate = killer{"invite", "TestInvitationGivesOneKeyItsCertificate"}
	replacedEnds   = killer{"hostrecord", "TestCertificateEndsWithTheFirstUseOfItsSuccessor"}
	strangerAtCA   = killer{"credentials", "TestOtherCAGetsNothing"}
)

// ofJoining are the mutants of what a stranger must not get past.
var ofJoining = []mutant{
	{
		"invite: any secret is right",
		killer{"invite", "TestTenWrongSecretsEndAnInvitation"},
		[]edit{{"invite/invite.go", "return err == nil && subtle.ConstantTimeCompare(sum[:], want) == 1", "return err == nil && subtle.ConstantTimeCompare(sum[:], want) >= 0"}},
	},
	{
		"invite: secrets may be guessed for ever",
		killer{"invite", "TestTenWrongSecretsEndAnInvitation"},
		[]edit{{"invite/invite.go", "	case i.Wrong >= maxWrong:\n", "	case i.Wrong >= 1000*maxWrong:\n"}},
	},
	{
		"invite: wrong secrets are not written down",
		killer{"invite", "TestTenWrongSecretsEndAnInvitation"},
		[]edit{{"invite/book.go", "			i.Wrong++\n			if err := b.writeInvitation(i); err != nil {\n				return i, err\n			}\n", "			i.Wrong++\n"}},
	},
	{
		"invite: another key gets the certificate too", oneCertificate,
		[]edit{{"invite/book.go", "	case state == Used && i.Use.KeySHA256 != keySHA256:\n		return i, &RefusedError{State: Used, Host: i.Host}\n", ""}},
	},
	{
		"invite: a use is not written down", oneCertificate,
		[]edit{{"invite/book.go", "		return b.writeInvitation(used)\n", "		return nil\n"}},
	},
	{
		"invite: two machines are served at once",
		killer{"invite", "TestOneTokenAtTheSameTimeGivesOneCertificate"},
		[]edit{{"invite/book.go", "	lock, err := b.parent.WaitLock(ctx, bookLock, b.holder)\n", "	lock, err := b.parent.WaitLock(ctx, bookLock+randomWord(idBytes), b.holder)\n"}},
	},
	{
		"invite: an expired token is good",
		killer{"invite", "TestEndedInvitationIsRefused"},
		[]edit{{"invite/invite.go", "	case !now.Before(i.Expires):\n		return Expired\n", ""}},
	},
	{
		"invite: any clock is right",
		killer{"invite", "TestWrongClockIsNamedBeforeAnythingIsSent"},
		[]edit{{"invite/token.go", "	case now.Before(t.Created.Add(-maxClockSkew)):\n", "	case false:\n"}},
	},
	{
		"invite: a clock that was set back hides an invitation",
		killer{"invite", "TestDoorOpensAfterTheClockWasSetBack"},
		[]edit{{"invite/book.go", "!at.Equal(b.changed) || !at.Before(", "b.changed.IsZero() || !at.Before("}},
	},
	{
		"gate: joining beside another protocol needs no certificate",
		killer{"gate", "TestOnlyJoiningNeedsNoCertificate"},
		[]edit{{"gate/gate.go", "slices.Equal(hello.SupportedProtos, []string{g.join.Protocol})", "slices.Contains(hello.SupportedProtos, g.join.Protocol)"}},
	},
	{
		"gate: the door is always open",
		killer{"gate", "TestOnlyJoiningNeedsNoCertificate"},
		[]edit{{"gate/gate.go", "[]string{g.join.Protocol}) && g.join.IsOpen()", "[]string{g.join.Protocol})"}},
	},
	{
		"credentials: any CA is the one of the token", strangerAtCA,
		[]edit{{"credentials/dialjoin.go", "return cert.IsCA && pki.HashKey(cert) == rootHash", "return cert.IsCA || pki.HashKey(cert) == rootHash"}},
	},
	{
		"credentials: the CA of the token need not have signed", strangerAtCA,
		[]edit{{"credentials/dialjoin.go", "	return chain[at], err\n", "	_ = err\n	return chain[at], nil\n"}},
	},
	{
		"credentials: a server that agrees to nothing gets the token",
		killer{"credentials", "TestServerThatKnowsNoALPNGetsNothing"},
		[]edit{{"credentials/dialjoin.go", "conn.ConnectionState().NegotiatedProtocol != protocol {", "false {"}},
	},
	{
		"hostrecord: a replaced certificate stays", replacedEnds,
		[]edit{{"hostrecord/records.go", "		if joined.Again {\n			r.endOthers()\n		}\n", ""}},
	},
	{
		"hostrecord: a certificate ends before its successor is used", replacedEnds,
		[]edit{{"hostrecord/records.go", "	r.Joined = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}\n", "	r.Joined = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}\n	r.ReplacedBefore = &i.NotBefore\n"}},
	},
	{
		"hostrecord: another invitation brings an ended certificate back",
		killer{"hostrecord", "TestEndedCertificateStaysEndedWhenTheHostJoinsOnceMore"},
		[]edit{{"hostrecord/records.go", "	r.Joined = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}\n", "	r.Joined, r.ReplacedBefore = &Joined{Serial: i.Serial, NotBefore: i.NotBefore, Again: again}, nil\n"}},
	},
	{
		"credentials: a host takes the certificate of another key",
		killer{"credentials", "TestInstallRefusesWhatIsNotForThisHostAndKey"},
		[]edit{{"credentials/pending.go", "	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, public) {\n", "	if false && bytes.Equal(leaf.RawSubjectPublicKeyInfo, public) {\n"}},
	},
	{
		"gate: a request need not have the key",
		killer{"gate", "TestRequestCountsOnlyByItsKey"},
		[]edit{{"gate/request.go", "	if err := csr.CheckSignature(); err != nil {\n", "	if err := csr.CheckSignature(); false && err != nil {\n"}},
	},
	{
		"ca: the issuing CA may sign DNS names",
		killer{"ca", "TestIssuingCAOfHostsVouchesForHostsOnly"},
		[]edit{{"ca/issuing.go", "		ExcludedDNSDomains:          []string{anyName},\n", ""}},
	},
	{
		"gate: a certificate is not on record",
		killer{"receiver", "TestCertificateIsOnRecordBeforeItIsHandedOut"},
		[]edit{{"gate/issuer.go", "	if err := pki.RecordCertificate(pki.RecordsIn(i.path), cert); err != nil {\n		return pki.Issued{}, err\n	}\n	return pki.Describe", "	return pki.Describe"}},
	},
	{
		"receiver: a host's record is not written",
		killer{"receiver", "TestCertificateIsOnRecordBeforeItIsHandedOut"},
		[]edit{{"receiver/join.go", "	if err := d.records.SetJoined(issued, i.Again); err != nil || !endsNow {\n		return issued.Serial, err\n	}\n", "	if !endsNow {\n		return issued.Serial, nil\n	}\n"}},
	},
	{
		"receiver: a disabled host joins",
		killer{"receiver", "TestDisabledHostGetsNoCertificate"},
		[]edit{{"receiver/join.go", "	if p := access.RefuseDisabled(disabled, i.Host); p != nil && !(removed && i.Again) {\n		return \"\", p\n	}\n", ""}, {"receiver/join.go", "	if p := access.RefuseDisabled(d.receiver.access.Disabled(), used.Host); p != nil {\n", "	if p := access.RefuseDisabled(d.receiver.access.Disabled(), used.Host); false && p != nil {\n"}},
	},
	{
		"hostrecord: a host with a damaged record has access",
		killer{"hostrecord", "TestHostWhoseRecordIsDamagedIsRefused"},
		[]edit{{"hostrecord/records.go", "	if h.damaged[host] != nil {", "	if false {"}},
	},
	{
		"hostrecord: a replaced machine renews past its end",
		killer{"hostrecord", "TestRenewalDoesNotOutliveJoiningAgain"},
		[]edit{{"hostrecord/hostrecord.go", "	if r.Renewed != nil && r.Renewed.NotBefore.After(before) {\n", "	if false && r.Renewed.NotBefore.After(before) {\n"}},
	},
	{
		"hostrecord: what a replaced machine renewed is kept",
		killer{"hostrecord", "TestRenewalDoesNotOutliveJoiningAgain"},
		[]edit{{"hostrecord/hostrecord.go", "	r.ReplacedBefore, r.ReplacedBy, r.Renewed = &before, r.Joined.Serial, nil\n", "	r.ReplacedBefore, r.ReplacedBy = &before, r.Joined.Serial\n"}},
	},
	{
		"credentials: a host takes a certificate that ends earlier",
		killer{"credentials", "TestCandidateMustBeUsableAndLastLonger"},
		[]edit{{"credentials/renewal.go", "	if !leaf.NotAfter.After(r.replaces.NotAfter) && !r.client.MustRenew() {\n", "	if false {\n"}},
	},
	{
		"credentials: a host takes a certificate that is not valid now",
		killer{"credentials", "TestCandidateMustBeUsableAndLastLonger"},
		[]edit{{"credentials/renewal.go", "	if err := pki.CheckTime(leaf, now); err != nil {\n", "	if err := pki.CheckTime(leaf, now); false && err != nil {\n"}},
	},
	{
		"credentials: two processes renew at once",
		killer{"credentials", "TestRenewalKeepsItsKeyUntilItIsInstalled"},
		[]edit{{"credentials/pending.go", "	err = f.WaitFlock(ctx)\n", ""}},
	},
	{
		"gate: the receiver's certificate of the future is used",
		killer{"gate", "TestWrongClockLocksOutNoHost"},
		[]edit{{"gate/own.go", "	if pki.CheckTime(current.Leaf, now) == nil && now.Before(pki.RenewalTime(current.Leaf)) {\n", "	if now.Before(pki.RenewalTime(current.Leaf)) {\n"}},
	},
	{
		"gate: what renewal wrote wins over the operator",
		killer{"gate", "TestCertificateOfTheOperatorWins"},
		[]edit{{"gate/own.go", "	if block != nil && block.Headers[pki.ReplacesHeader] != pki.Fingerprint(configured) {\n", "	if false && block.Headers[pki.ReplacesHeader] != pki.Fingerprint(configured) {\n"}},
	},
	{
		"gate: the receiver replaces a certificate of another CA",
		killer{"gate", "TestReceiverRenewsOnlyWhatItsIssuingCASigned"},
		[]edit{{"gate/own.go", "	if current.Leaf.CheckSignatureFrom(ca.Cert) != nil || lastsAsLong {\n", "	if lastsAsLong {\n"}},
	},
	{
		"receiver: a renewed certificate is not on record",
		killer{"receiver", "TestNextCertificateIsOnRecordBeforeItIsHandedOut"},
		[]edit{{"receiver/renew.go", "	if err == nil {\n		err = d.records.SetRenewed(issued, request.KeySHA256)\n	}\n", ""}},
	},
	{
		"receiver: a certificate issued by hand is extended",
		killer{"receiver", "TestCertificateIssuedByHandIsNotExtended"},
		[]edit{{"receiver/renew.go", "!ok || !issuer.HasSigned(caller) {", "!ok || caller.Host != host {"}},
	},
	{
		"receiver: a host gets certificates without end",
		killer{"receiver", "TestNextCertificateForAnotherKeyMustWait"},
		[]edit{{"receiver/renew.go", "wait > 0 {", "wait > 0 && false {"}},
	},
	{
		"credentials: a host trusts any root that the receiver sends",
		killer{"credentials", "TestNewRootNeedsTheSignatureOfATrustedOne"},
		[]edit{{"credentials/learn.go", "return pki.IsLink(link, root, trusted) && pki.CheckTime(link, now) == nil", "return pki.CheckTime(link, now) == nil"}},
	},
	{
		"credentials: the link of a root may have expired",
		killer{"credentials", "TestNewRootNeedsTheSignatureOfATrustedOne"},
		[]edit{{"credentials/learn.go", "return pki.IsLink(link, root, trusted) && pki.CheckTime(link, now) == nil", "return pki.IsLink(link, root, trusted)"}},
	},
	{
		"pki: a link need not name its root",
		killer{"credentials", "TestNewRootNeedsTheSignatureOfATrustedOne"},
		[]edit{{"pki/certificate.go", "slices.Equal(uris, []string{LinkName(root).String()}) && ", "uris != nil && "}},
	},
	{
		"pki: an issuing CA is a link",
		killer{"credentials", "TestNewRootNeedsTheSignatureOfATrustedOne"},
		[]edit{{"pki/certificate.go", "slices.Equal(uris, []string{LinkName(root).String()}) && ", "uris == nil && "}},
	},
	{
		"rotation: a rotation is finished that no host knows of",
		killer{"rotation", "TestRotationIsFinishedOnlyIfItWasAnnounced"},
		[]edit{{"rotation/finish.go", "		if !installed {\n", "		if false && !installed {\n"}},
	},
	{
		"revocation: a revocation stops the receiver during a rotation",
		killer{"rotation", "TestRevocationAfterAnInterruptedRotationCanBeLoaded"},
		[]edit{{"revocation/lists.go", "func(ca revocationCA) bool { return ca.trusted }", "func(revocationCA) bool { return true }"}},
	},
	{
		"gate: a certificate that was never recorded follows a rotation",
		killer{"gate", "TestOnlyCertificatesOnRecordFollowARotation"},
		[]edit{{"gate/issuer.go", "	case signer.Equal(i.ca.Cert):\n", "	default:\n"}},
	},
	{
		"rotation: CAs of an abandoned rotation stay",
		killer{"rotation", "TestRotationAfterAnAbandonedOne"},
		[]edit{{"rotation/start.go", "WithoutCAs(cas, slices.Concat(others, added))", "WithoutCAs(cas, slices.Concat(added))"}},
	},
	{
		"revocation: the list of an abandoned CA stops the receiver's commands",
		killer{"rotation", "TestRotationAfterAnAbandonedOne"},
		[]edit{{"revocation/lists.go", "	if err := r.addOthers(); err != nil {\n		return nil, err\n	}\n", ""}},
	},
	{
		"ca: an interrupted init is used",
		killer{"ca", "TestInitContinuesAfterAnInterruption"},
		[]edit{{"ca/ca.go", "	if err == nil && incomplete {\n", "	if false && incomplete {\n"}},
	},
	{
		"ca: a rotation removes issuing keys that are used",
		killer{"rotation", "TestRotationWithIssuingKeysOffline"},
		[]edit{{"ca/install.go", "	case file.data == nil && file.cert != nil:\n", "	case false:\n"}},
	},
	{
		"ca: a rotation is missed by another path",
		killer{"rotation", "TestRotationIsFoundByAnyPath"},
		[]edit{{"ca/next.go", "	if path, err = filepath.EvalSymlinks(path); err != nil {\n		return nil, false, err\n	}\n", ""}},
	},
	{
		"hostrecord: a host's pings are written without limit",
		killer{"hostrecord", "TestWhatAHostTrustsIsWrittenSeldom"},
		[]edit{{"hostrecord/records.go", "changes.count > maxTrustChanges {", "false {"}},
	},
	{
		"credentials: a candidate counts as installed",
		killer{"credentials", "TestCandidateDoesNotSayWhatItTrusts"},
		[]edit{{"credentials/learn.go", "	if current.candidate {\n", "	if false {\n"}},
	},
	{
		"rotation: a rotation takes other files along",
		killer{"rotation", "TestRotationOfWhatCannotBeRotatedChangesNothing"},
		[]edit{{"rotation/rotation.go", "		err = r.refuseOtherFiles()\n", ""}},
	},
	{
		"credentials: a root of hosts becomes one of receivers",
		killer{"credentials", "TestNewRootNeedsTheSignatureOfATrustedOne"},
		[]edit{{"credentials/learn.go", "	if !pki.AllowsUse(root, x509.ExtKeyUsageServerAuth) {\n", "	if false {\n"}},
	},
	{
		"revocation: an interrupted revocation is lost with the rotation",
		killer{"rotation", "TestRevocationsOutlastTheRotation"},
		[]edit{{"revocation/lists.go", "	revoked, err := readRevocations(f)\n	if err != nil {\n		return err\n	}\n	return revoked.write()\n", "	_, err := readRevocations(f)\n	return err\n"}},
	},
	{
		"revocation: certificates of former CAs count as valid",
		killer{"rotation", "TestBothCAsGiveAccessUntilTheRotationIsFinished"},
		[]edit{{"revocation/lists.go", "	case r.isFormer(cert):\n		i.State = pki.Retired\n", ""}},
	},
	{
		"gate: the former issuing CA is forgotten when the rotation begins",
		killer{"rotation", "TestBothCAsGiveAccessUntilTheRotationIsFinished"},
		[]edit{{"gate/issuer.go", "	for _, ca := range i.former {\n", "	for _, ca := range i.former[:0] {\n"}},
	},
	{
		"receiver: a rotation waits for the interval between certificates",
		killer{"receiver", "TestHostIsAskedToRenewDuringARotation"},
		[]edit{{"receiver/renew.go", "last != nil && !issuer.WillEndSerial(last.Serial) {", "last != nil {"}},
	},
	{
		"receiver: a rotation gives a host certificates without end",
		killer{"receiver", "TestHostIsAskedToRenewDuringARotation"},
		[]edit{{"receiver/renew.go", "last != nil && !issuer.WillEndSerial(last.Serial) {", "last != nil && len(issuer.ServerCAHashes()) == 1 {"}},
	},
	{
		"wire: a ping may name CAs without end",
		killer{"wire", "TestHostileListOfCAsIsRefused"},
		[]edit{{"wire/cas.go", "	if len(cas) > maxTrustedCAs {\n", "	if false {\n"}},
	},
	{
		"receiver: a lost answer is not given again",
		killer{"receiver", "TestHostGetsItsNextCertificate"},
		[]edit{{"receiver/renew.go", "	if last == nil || last.KeySHA256 != request.KeySHA256 || now.Sub(last.NotBefore).Abs() >= minRenewalInterval {\n", "	if true {\n"}},
	},
	{
		"receiver: refused requests block a host",
		killer{"receiver", "TestRefusedRequestsNeitherBlockAHostNorFillTheLog"},
		[]edit{{"receiver/join.go", "	request, err := gate.ParseRequest(j.CSR)\n", "	if !d.limit.Allow() {\n		return nil, wire.Refuse(wire.Busy, \"\")\n	}\n	request, err := gate.ParseRequest(j.CSR)\n"}},
	},
	{
		"wire: a sender of drops holds a connection",
		killer{"wire", "TestSlowJoinEnds"},
		[]edit{{"wire/join.go", "	conn.SetDeadline(time.Now().Add(joinTimeout))\n	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()\n	w :=", "	conn.SetDeadline(time.Now().Add(joinTimeout + time.Hour))\n	w :="}},
	},
}
