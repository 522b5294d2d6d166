package mutation_test

// Killers of the mutants that mistake one store for another.
var (
	anotherStore  = killer{"shipper", "TestReceiptOfAnotherStoreRetiresNothing"}
	restoredImage = killer{"shipper", "TestRestoredImageIsAnotherStore"}
	grownImage    = killer{"receiver", "TestRestoredImageIsNotWhatItsHostsKnew"}
	knowsNothing  = killer{"shipper", "TestStoreThatKnowsNothingIsNotAdopted"}
	deletes       = killer{"shipper", "TestNothingIsDeletedOrHealedAgainstAnotherStore"}
)

// ofStores are the mutants that mistake one store for another.
var ofStores = []mutant{
	{
		"shipper: a receipt of another store retires",
		killer{"shipper", "TestDaemonWaitsForItsStore"},
		[]edit{{"shipper/store.go", "	return &OtherStoreError{Adopted: now, Said: *said}\n", "	return nil\n"}},
	},
	{
		"shipper: a receipt is not asked for its store", anotherStore,
		[]edit{
			{"shipper/send.go", "	if err := s.store.receipt(ctx, receipt.Store, before); err != nil {\n		return \"\", err\n	}\n", "	_ = before\n"},
			{"shipper/store.go", "	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Code == wire.OtherStore && p.Store != nil {\n		return &OtherStoreError{Adopted: before, Said: *p.Store}\n	}\n", ""},
		},
	},
	{
		"shipper: requests do not say what is known", restoredImage,
		[]edit{
			{"shipper/store.go", "	return before, asking(ctx, before)\n", "	return before, ctx\n"},
			{"shipper/store.go", "		if said.IndexBytes < before.IndexBytes {\n			return &OtherStoreError{Adopted: before, Said: *said}\n		}\n", ""},
		},
	},
	{
		"shipper: a shorter index is the same store",
		killer{"shipper", "TestPingOfAnotherStoreSaysSo"},
		[]edit{{"shipper/store.go", "		if said.IndexBytes < before.IndexBytes {\n			return &OtherStoreError{Adopted: before, Said: *said}\n		}\n", ""}},
	},
	{
		"shipper: a store that knows nothing is adopted", knowsNothing,
		[]edit{{"shipper/store.go", "		if err := a.isKnownTo(ctx, &said); err != nil {\n			return err\n		}\n", ""}},
	},
	{
		"shipper: a name alone says that a store knows", knowsNothing,
		[]edit{{"shipper/storeknown.go", "claims[i].Digest == anyDigest {", "(claims[i].Digest == anyDigest || true) {"}},
	},
	{
		"shipper: a store is adopted and not written down", shipperOrder,
		[]edit{{"shipper/store.go", "	err := a.out.Adopt(next)\n", "	var err error\n"}, {"shipper/store.go", "	if err == nil {\n		a.noted = next.IndexBytes", "	if true {\n		a.noted = next.IndexBytes"}},
	},
	{
		"shipper: the pings of a link that is down ask for no store",
		killer{"shipper", "TestDaemonOfAnOlderHostWaits"},
		[]edit{{"shipper/store.go", "	return pong, a.isKnownTo(ctx, pong.Store)\n", "	return pong, nil\n"}},
	},
	{
		"shipper: inventories of another store count", deletes,
		[]edit{{"shipper/storeknown.go", "	if err := s.store.answered(said, before, err); err != nil {\n		return nil, err\n	}\n", "	if _ = before; err != nil && said == nil {\n		_, said, err = s.up.Inventory(context.Background(), nil, false)\n	}\n	if err != nil {\n		return nil, err\n	}\n"}, {"shipper/storeknown.go", "	before, ctx := s.store.ask(ctx)\n	held, said", "	before := s.store.known()\n	held, said"}},
	},
	{
		"shipper: healing trusts a store that knows nothing",
		killer{"shipper", "TestHealNeedsAStoreThatKnowsSomething"},
		[]edit{{"shipper/audit.go", "	if err := a.up.isOurs(ctx); err != nil {\n		return err\n	}\n", ""}},
	},
	{
		"shipper: the length of the index is judged by later answers",
		killer{"shipper", "TestAnswersMayOvertakeOneAnother"},
		[]edit{{"shipper/store.go", "	case said.ID == before.ID:\n", "	case said.ID == now.ID && said.IndexBytes < now.IndexBytes:\n		return &OtherStoreError{Adopted: now, Said: *said}\n	case said.ID == before.ID:\n"}},
	},
	{
		"receiver: an image that has grown is what it was", grownImage,
		[]edit{{"receiver/identity.go", "(known.IndexTail == \"\" || known.IndexTail == tail)", "true"}},
	},
	{
		"receiver: a damaged name is replaced",
		killer{"receiver", "TestDamagedStoreNameIsNeverReplaced"},
		[]edit{{"datadir/store.go", "	isNew := errors.Is(err, fs.ErrNotExist)\n", "	isNew := err != nil\n"}},
	},
	{
		"receiver: an empty store is begun in silence",
		killer{"receiver", "TestNewEmptyStoreIsBegunLoudly"},
		[]edit{{"receiver/identity.go", "	case empty:\n", "	case empty && false:\n"}},
	},
	{
		"wire: no request is refused for its store",
		killer{"wire", "TestRequestsOfAHostThatKnowsAnotherStoreAreRefused"},
		[]edit{{"wire/server.go", "	if err := h.checkKnownStore(r); err != nil {\n		return err\n	}\n", ""}},
	},
	{
		"index: bytes count that are not synced",
		killer{"durable", "TestSyncedIsWhatIsOnTheDisk"},
		[]edit{{"durable/log.go", "func (l *Log) Synced() int64 { return l.synced.Load() }", "func (l *Log) Synced() int64 { n, _ := l.Size(); return n }"}},
	},
}
