package mutation_test

// Killers of the mutants that mistake one store for another.
var (
	anotherStore  = killer{"shipper", "TestReceiptOfAnotherStoreRetiresNothing"}
	restoredImage = killer{"shipper", "TestRestoredImageIsAnotherStore"}
	grownImage    = killer{"diskbackend", "TestRestoredImageIsNotWhatItsHostsKnew"}
	knowsNothing  = killer{"shipper", "TestStoreThatKnowsNothingIsNotAdopted"}
	deletes       = killer{"shipper", "TestNothingIsDeletedOrResentToAnotherStore"}
)

// ofStores are the mutants that mistake one store for another.
var ofStores = []mutant{
	{
		"shipper: a receipt of another store retires",
		killer{"shipper", "TestDaemonWaitsForItsStore"},
		[]edit{{"uplink/adoption.go", "	return &OtherStoreError{Adopted: now, Reported: *reported}\n", "	return nil\n"}},
	},
	{
		"shipper: a receipt is not asked for its store", anotherStore,
		[]edit{
			{"transfer/send.go", "	if err := p.Store.AcceptReceipt(ctx, receipt.Store, before); err != nil {\n		return \"\", err\n	}\n", "	_ = before\n"},
			{"uplink/adoption.go", "	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Code == wire.OtherStore && p.Store != nil {\n		return &OtherStoreError{Adopted: before, Reported: *p.Store}\n	}\n", ""},
		},
	},
	{
		"shipper: requests do not say what is known", restoredImage,
		[]edit{
			{"uplink/adoption.go", "	return before, withKnown(ctx, before)\n", "	return before, ctx\n"},
			{"uplink/adoption.go", "		if reported.IndexBytes < before.IndexBytes {\n			return &OtherStoreError{Adopted: before, Reported: *reported}\n		}\n", ""},
		},
	},
	{
		"shipper: a shorter index is the same store",
		killer{"uplink", "TestPingOfAnotherStoreSaysSo"},
		[]edit{{"uplink/adoption.go", "		if reported.IndexBytes < before.IndexBytes {\n			return &OtherStoreError{Adopted: before, Reported: *reported}\n		}\n", ""}},
	},
	{
		"shipper: a store that knows nothing is adopted", knowsNothing,
		[]edit{{"uplink/adoption.go", "		if err := a.checkKnowsRetired(ctx, &reported); err != nil {\n			return err\n		}\n", ""}},
	},
	{
		"shipper: a name alone says that a store knows", knowsNothing,
		[]edit{{"uplink/inventory.go", "queries[i].Digest == anyDigest {", "(queries[i].Digest == anyDigest || true) {"}},
	},
	{
		"shipper: a store is adopted and not written down", shipperOrder,
		[]edit{{"uplink/adoption.go", "	err := a.out.AdoptStore(next)\n", "	var err error\n"}, {"uplink/adoption.go", "	if err == nil {\n		a.savedBytes = next.IndexBytes", "	if true {\n		a.savedBytes = next.IndexBytes"}},
	},
	{
		"shipper: the pings of a link that is down ask for no store",
		killer{"shipper", "TestDaemonOfAnOlderHostWaits"},
		[]edit{{"uplink/adoption.go", "	return a.checkKnowsRetired(ctx, reported)\n", "	return nil\n"}},
	},
	{
		"shipper: a report does not say which store the host knows",
		killer{"uplink", "TestReportIsCheckedLikeAPing"},
		[]edit{{"uplink/adoption.go", "client.SendReport(ctx, r)", "client.SendReport(context.Background(), r)"}},
	},
	{
		"shipper: the answer to a report of another store counts",
		killer{"uplink", "TestReportIsCheckedLikeAPing"},
		[]edit{{"uplink/adoption.go", "	return response, a.checkPing(ctx, response.Store, before, nil)\n", "	a.noteGrowth(response.Store)\n	return response, nil\n"}},
	},
	{
		"shipper: inventories of another store count", deletes,
		[]edit{{"uplink/inventory.go", "	if err := i.store.CheckResponse(reported, before, err); err != nil {\n		return nil, err\n	}\n", "	if _ = before; err != nil && reported == nil {\n		_, reported, err = i.client.Inventory(context.Background(), nil, false)\n	}\n	if err != nil {\n		return nil, err\n	}\n"}, {"uplink/inventory.go", "	before, ctx := i.store.WithKnown(ctx)\n	entries, reported", "	before := i.store.knownStore()\n	entries, reported"}},
	},
	{
		"shipper: healing trusts a store that knows nothing",
		killer{"shipper", "TestHealRequiresAStoreWithEpisodes"},
		[]edit{{"shipped/verify.go", "	if err := v.inventory.CheckStore(ctx); err != nil {\n		return err\n	}\n", ""}},
	},
	{
		"shipper: the length of the index is judged by later answers",
		killer{"shipper", "TestAnswersMayOvertakeOneAnother"},
		[]edit{{"uplink/adoption.go", "	case reported.ID == before.ID:\n", "	case reported.ID == now.ID && reported.IndexBytes < now.IndexBytes:\n		return &OtherStoreError{Adopted: now, Reported: *reported}\n	case reported.ID == before.ID:\n"}},
	},
	{
		"diskbackend: an image that has grown is what it was", grownImage,
		[]edit{{"diskbackend/identity.go", "(known.IndexTail == \"\" || known.IndexTail == tail)", "true"}},
	},
	{
		"receiver: a damaged name is replaced",
		killer{"diskbackend", "TestDamagedStoreNameIsNeverReplaced"},
		[]edit{{"datadir/store.go", "	isNew := errors.Is(err, fs.ErrNotExist)\n", "	isNew := err != nil\n"}},
	},
	{
		"diskbackend: an empty store is begun in silence",
		killer{"diskbackend", "TestNewEmptyStoreIsBegunLoudly"},
		[]edit{{"diskbackend/identity.go", "	case empty:\n", "	case empty && false:\n"}},
	},
	{
		"wire: no request is refused for its store",
		killer{"wire", "TestRequestsOfAHostThatKnowsAnotherStoreAreRefused"},
		[]edit{{"wire/server.go", "	if err := h.checkKnownStore(r); err != nil {\n		return err\n	}\n", ""}},
	},
	{
		"index: bytes count that are not synced",
		killer{"durable", "TestSyncedIsWhatIsOnTheDisk"},
		[]edit{{"durable/log.go", "func (l *Log) SyncedSize() int64 { return l.synced.Load() }", "func (l *Log) SyncedSize() int64 { n, _ := l.Size(); return n }"}},
	},
}
