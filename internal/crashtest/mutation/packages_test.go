package mutation_test

// ofPackages are the mutants of the packages that handle episodes.
var ofPackages = []mutant{
	{
		"diskbackend: a store that moved before the answer is acknowledged",
		killer{"diskbackend", "TestStoreThatMovesBeforeTheAnswer"},
		[]edit{{"diskbackend/fault.go", "	if err == nil {\n		err = b.checkPaths()\n	}\n	if err == nil && b.faulted", "	if err == nil && b.faulted"}},
	},
	{
		"diskbackend: vouches for stored bytes after a storage fault",
		killer{"diskbackend", "TestNoAnswerVouchesForBytesAfterAFault"},
		[]edit{{"diskbackend/fault.go", "	err = b.checkFault(err)\n	refused", "	refused"}},
	},
	{
		"shipper: retires into a folder that moved",
		killer{"shipper", "TestNothingIsRetiredIntoAMovedFolder"},
		[]edit{{"transfer/send.go", "	if err := p.Dirs.CheckPaths(); err != nil {\n		return err\n	}\n", ""}},
	},
	{
		"pathwatch: a mount beneath ours is not seen",
		killer{"pathwatch", "TestMountBeneathOursIsFound"},
		[]edit{{"pathwatch/mounts.go", "w.moved = w.compareMounts(now)", "_ = now"}},
	},
	{
		"durable: another mount of one file system passes for the same",
		killer{"durable", "TestTwoMountsOfOneFileSystemAreSeparate"},
		[]edit{{"durable/probe.go", "if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EIO) {", "if errors.Is(err, unix.EIO) {"}},
	},
	{
		"store: no sync at start of what a killed process made", receiverStart,
		[]edit{
			{
				"store/store.go",
				"errors.Join(episodes.Sync(), staging.Sync())",
				"nil",
			},
		},
	},
	{
		"store: the attribute after the sync", receiverOrder,
		[]edit{
			{
				"store/store.go",
				"	if err := u.writeReceipt(arrived); err != nil {\n		return err\n	}\n	to, err := ",
				"	to, err := ",
			},
		},
	},
	{
		"store: recovery does not sync the folder, and nor does settling",
		killer{"labtest", "TestRecoverySyncsTheFolderBeforeItWritesARow"},
		[]edit{
			{
				"store/recover.go",
				"	if err := to.Sync(); err != nil {\n		return Object{}, false, err\n	}",
				"",
			},
			{
				"store/recover.go",
				"	defer dir.Close()\n	return dir.Sync()",
				"	defer dir.Close()\n	return nil",
			},
		},
	},
	{
		"store: recovery takes any file of the name for the upload's",
		killer{"store", "TestRecoveryOfEachCrashPoint"},
		[]edit{
			{
				"store/recover.go",
				" || err == nil && !stored.IsSameFile(ours)",
				" || err == nil && !stored.IsSameFile(ours) && false",
			},
		},
	},
	{
		"store: rot is not seen",
		killer{"diskbackend", "TestDamagedCopyIsNeverAcknowledged"},
		[]edit{
			{
				"store/readback.go",
				"got.Size != o.Size || !d.IsZero() && got.Digest != d",
				"got.Size != o.Size",
			},
		},
	},
	{
		"store: an old name is not synced before its row",
		killer{"labtest", "TestAlreadyPresentSyncsTheFolderBeforeItWritesARow"},
		[]edit{
			{
				"store/recover.go",
				"	defer dir.Close()\n	return dir.Sync()",
				"	defer dir.Close()\n	return nil",
			},
		},
	},
	{
		"store: a copy by hand passes for a settled file",
		killer{"diskbackend", "TestCopyByHandGetsItsRow"},
		[]edit{
			{
				"store/read.go",
				"!o.InFlight && receipt.File == fileID(id.File[:8])",
				"!o.InFlight",
			},
		},
	},
	{
		"receiver: no recovery",
		killer{"receiver", "TestStartCompletesAnInterruptedUpload"},
		[]edit{
			{
				"receiver/receiver.go",
				"r.backend.Recover(ctx, recovered); err != nil",
				"error(nil); err != nil",
			},
		},
	},
	{
		"diskbackend: recovery takes no upload for a committed one",
		killer{"diskbackend", "TestEveryCrashPointIsRecovered"},
		[]edit{
			{
				"diskbackend/recover.go",
				"	if !committed {",
				"	if true {",
			},
		},
	},
	{
		"diskbackend: other bytes than announced are stored",
		killer{"diskbackend", "TestOtherBytesThanAnnouncedLeaveNothing"},
		[]edit{
			{
				"diskbackend/put.go",
				"d != u.Digest || n != u.Size",
				"d != u.Digest && false || n != u.Size",
			},
		},
	},
	{
		"diskbackend: other bytes than announced are stored, in pieces",
		killer{"diskbackend", "TestLyingDigestLeavesNothing"},
		[]edit{
			{
				"diskbackend/resume.go",
				"d != c.h.Digest || n != c.h.Size",
				"d != c.h.Digest && false || n != c.h.Size",
			},
		},
	},
	{
		"refusal: a piece is taken wherever the upload is",
		killer{"diskbackend", "TestPiecesMustFit"},
		[]edit{
			{
				"refusal/refusal.go",
				"	if p.Offset != offset {",
				"	if false {",
			},
		},
	},
	{
		"s3backend: a commit is acknowledged without its row",
		killer{"s3backend", "TestNoRowNoReceipt"},
		[]edit{
			{
				"s3backend/lookup.go",
				"	found.row, err = b.ensureRow(context.WithoutCancel(ctx), c)\n",
				"	found.row = c.row\n",
			},
		},
	},
	{
		"s3backend: commits are replaced",
		killer{"s3backend", "TestOfTwoRecordingsOneIsStored"},
		[]edit{
			{
				"s3backend/commit.go",
				"b.bucket.Create(ctx, name, bytes",
				"b.bucket.Put(ctx, name, bytes",
			},
		},
	},
	{
		"batchlog: batches are replaced",
		killer{"s3backend", "TestEachOperationFailsOnce"},
		[]edit{
			{
				"batchlog/log.go",
				"l.bucket.Create(ctx",
				"l.bucket.Put(ctx",
			},
		},
	},
	{
		"batchlog: a row is looked for in later batches only",
		killer{"batchlog", "TestACommitHasOneRow"},
		[]edit{
			{
				"batchlog/log.go",
				"	for {\n		found, next, err := l.search(ctx, row.Key, since)",
				"	since = l.Head()\n	for {\n		found, next, err := l.search(ctx, row.Key, since)",
			},
		},
	},
	{
		"diskbackend: one host goes on with another's upload",
		killer{"diskbackend", "TestUploadOfAnotherHostIsNotFound"},
		[]edit{
			{
				"resumable/resumable.go",
				"u == nil || u.Key.Host != host",
				"u == nil",
			},
		},
	},
	{
		"diskbackend: a dead connection keeps its upload",
		killer{"diskbackend", "TestLatestRequestContinues"},
		[]edit{
			{
				"resumable/resumable.go",
				"		u.interrupt(ErrSuperseded)\n",
				"",
			},
		},
	},
	{
		"diskbackend: what a former receiver left of an upload is not read back",
		killer{"diskbackend", "TestDamagedPartIsNeverAcknowledged"},
		[]edit{
			{
				"diskbackend/resume.go",
				"	if !c.h.restored {",
				"	if true {",
			},
		},
	},
	{
		"diskbackend: an upload is off the books before its commit",
		killer{"diskbackend", "TestAnnouncementWaitsForACommit"},
		[]edit{
			{
				"diskbackend/resume.go",
				"	got, err := b.storeStaged(ctx, up",
				"	b.sessions.Remove(h.Held)\n	got, err := b.storeStaged(ctx, up",
			},
		},
	},
	{
		"store: the name of a part is not synced before it is told", partOrder,
		[]edit{
			{
				"store/resume.go",
				"	if u.nameUnsynced {",
				"	if false {",
			},
		},
	},
	{
		"store: a part may have less than its attribute says",
		killer{"diskbackend", "TestPartThatLiesIsDropped"},
		[]edit{
			{
				"store/resume.go",
				"ok && p.Offset <= info.Size()",
				"ok",
			},
		},
	},
	{
		"diskbackend: already-present without its row",
		killer{"diskbackend", "TestRowWithoutSpaceIsWrittenLater"},
		[]edit{
			{
				"diskbackend/lookup.go",
				"	if !o.Indexed {",
				"	if false {",
			},
		},
	},
	{
		"diskbackend: an answer that was heard counts for the next time",
		killer{"diskbackend", "TestResponseIsKeptWhenItsSenderIsGone"},
		[]edit{
			{
				"readback/readback.go",
				"	if ctx.Err() == nil {\n		return\n	}\n",
				"",
			},
		},
	},
	{
		"diskbackend: already-present is not compared",
		killer{"labtest", "TestFileCopiedInByHandConflictsToo"},
		[]edit{
			{
				"diskbackend/lookup.go",
				"	if o.Digest != u.Digest {",
				"	if false {",
			},
		},
	},
	{
		"diskbackend: a failed sync of the name forgets the debt",
		killer{"diskbackend", "TestFailedSyncOfTheNameLeavesTheDebt"},
		[]edit{
			{
				"diskbackend/commit.go",
				"errors.Join(err, up.Abandon())\n	}\n	if !errors.Is",
				"errors.Join(err, up.Discard())\n	}\n	if !errors.Is",
			},
		},
	},
	{
		"diskbackend: the staging name goes before the row", receiverOrder,
		[]edit{
			{
				"diskbackend/commit.go",
				"	if row, err = b.index.Append(ctx, row); err != nil {\n		// The file is",
				"	up.UnlinkStaged()\n	if row, err = b.index.Append(ctx, row); err != nil {\n		// The file is",
			},
		},
	},
	{
		"diskbackend: commits without asking again who sends",
		killer{"receiver", "TestCommitAsksAgainWhoSends"},
		[]edit{
			{
				"diskbackend/commit.go",
				"		err = access.Recheck(sender)\n",
				"",
			},
		},
	},
	{
		"diskbackend: answers without asking again who sends",
		killer{"receiver", "TestAnswerAsksAgainWhoSends"},
		[]edit{
			{
				"diskbackend/fault.go",
				"	if refused == nil || errors.Is(err, refused) {",
				"	if true {",
			},
		},
	},
	{
		"receiver: a reload ends nothing",
		killer{"receiver", "TestReloadEndsWhatItNoLongerAllows"},
		[]edit{
			{
				"receiver/receiver.go",
				"	r.access.ReviewAll()\n",
				"",
			},
		},
	},
	{
		"receiver: a request outlives its certificate",
		killer{"receiver", "TestRequestEndsWithItsCertificate"},
		[]edit{
			{
				"access/access.go",
				"return changed || now.After(ends)",
				"return changed || now.IsZero()",
			},
		},
	},
	{
		"receiver: a damaged list of disabled hosts lets all in",
		killer{"receiver", "TestListOfDisabledHostsFailsClosed"},
		[]edit{
			{
				"access/access.go",
				"	if list.Err != nil {",
				"	if false {",
			},
		},
	},
	{
		"diskbackend: goes on after a fault of the storage",
		killer{"receiver", "TestFaultEndsTheReceiver"},
		[]edit{
			{
				"diskbackend/fault.go",
				"b.faults <- err",
				"_ = b.faults",
			},
		},
	},
	{
		"receiver: verifies what does not decode",
		killer{"diskbackend", "TestScrubDecodes"},
		[]edit{
			{
				"scrub/decoding.go",
				"return archive.ContentDigest(r, d) }",
				"archive.ContentDigest(r, d); return digest.Digest{}, nil }",
			},
		},
	},
	{
		"store: what was found to be unfit stays verified",
		killer{"store", "TestReadBackHasTheBytesChecked"},
		[]edit{
			{
				"store/readback.go",
				"time.Time{}, digest.Digest{}\n		return o, errors.Join(err, clearVerified(f))",
				"time.Time{}, digest.Digest{}\n		return o, err",
			},
		},
	},
	{
		"index: acknowledges after a fault",
		killer{"index", "TestFaultIsFinal"},
		[]edit{
			{
				"index/index.go",
				"	if errors.Is(err, durable.ErrFault) {\n		return err\n	}\n	return nil",
				"	return nil",
			},
		},
	},
	{
		"index: a torn tail stays",
		killer{"index", "TestTornTailIsCutWhereverItTears"},
		[]edit{
			{
				"index/writer.go",
				"	if end < size {",
				"	if false {",
			},
		},
	},
	{
		"index: a torn tail is cut and not saved",
		killer{"index", "TestTornTailIsCutWhereverItTears"},
		[]edit{
			{
				"index/writer.go",
				"	if err := f.Commit(saved); err != nil {\n		return err\n	}",
				"	f.Discard()",
			},
		},
	},
	{
		"index: a tail that cannot be saved is cut",
		killer{"index", "TestTailIsNotCutUnlessSaved"},
		[]edit{
			{
				"index/writer.go",
				"	if err := w.dir.Unlink(temp); err != nil { // left by a crash\n		return err",
				"	if err := w.dir.Unlink(temp); err != nil {\n		return w.log.Truncate(end)",
			},
		},
	},
	{
		"outbox: partials are not swept",
		killer{"outbox", "TestSweepTakesPartialsOnly"},
		[]edit{
			{
				"outbox/outbox.go",
				"strings.HasSuffix(e.Name(), partialEnd)",
				"false",
			},
		},
	},
	{
		"outbox: no seal", shipperOrder,
		[]edit{
			{
				"outbox/outbox.go",
				"d.SetAttr(sealAttr, s.encode())",
				"error(nil)",
			},
		},
	},
	{
		"outbox: no sync after an accepted entry went",
		killer{"labtest", "TestAcceptedEntryIsGoneForGood"},
		[]edit{
			{
				"outbox/outbox.go",
				"		if there && end == acceptedEnd {\n			return o.dir.Sync()\n		}\n",
				"",
			},
		},
	},
	{
		"outbox: rot is not seen",
		killer{"shipper", "TestACorruptEntryIsPackedAgain"},
		[]edit{
			{
				"outbox/outbox.go",
				"return d == e.Digest, err",
				"return true || d == e.Digest, err",
			},
		},
	},
	{
		"source: what is in shipped/ is no obstacle",
		killer{"source", "TestRetireNeverReplaces"},
		[]edit{
			{
				"durable/durable.go",
				"!errors.Is(err, fs.ErrExist) || n > last",
				"true || n > last",
			},
		},
	},
	{
		"archive: times outside of 1677 to 2262 overflow",
		killer{"archive", "TestTimesArePackedAsTheyAre"},
		[]edit{
			{
				"archive/node.go",
				"	convertInt(&ts.Sec, t.Sec)\n	convertInt(&ts.Nsec, t.Nsec)\n	return ts",
				"	return unix.NsecToTimespec(t.Sec*1e9 + int64(t.Nsec))",
			},
		},
	},
	{
		"archive: the first instant of the year 1 is none",
		killer{"archive", "TestTimesArePackedAsTheyAre"},
		[]edit{
			{
				"archive/pack.go",
				"first := h.ModTime.IsZero()",
				"first := h.ModTime.IsZero() && false",
			},
		},
	},
	{
		"archive: a name passes for a time",
		killer{"archive", "TestANameCannotPassForATime"},
		[]edit{
			{
				"archive/pack.go",
				"		records = records[size:]\n",
				"		records = records[1:]\n",
			},
		},
	},
	{
		"archive: a subvolume is packed as a folder",
		killer{"shipper", "TestASubvolumeIsHeld"},
		[]edit{
			{
				"archive/tree.go",
				"own.Dev != of.Dev",
				"own.Dev != of.Dev && false",
			},
		},
	},
	{
		"shipper: an episode that the disk does not give fails for ever",
		killer{"shipper", "TestWhatTheDiskDoesNotGiveIsHeld"},
		[]edit{
			{
				"shipper/backoff.go",
				"return reading && b.attempts",
				"return false && reading && b.attempts",
			},
		},
	},
	{
		"shipper: one read error holds an episode",
		killer{"shipper", "TestPassesHoldWhatTheDiskDoesNotGive"},
		[]edit{
			{
				"shipper/backoff.go",
				"b.attempts >= minReadAttempts && b.lastAt.Sub(b.firstAt) >= minReadTime",
				"b.attempts >= 1",
			},
		},
	},
	{
		"shipper: what is stuck is never tried again",
		killer{"shipper", "TestStuckIsTriedAgain"},
		[]edit{
			{
				"outbox/hold.go",
				"return r == Stuck || r == Unreadable",
				"return r == Unreadable",
			},
		},
	},
	{
		"shipper: a conflict is tried again by itself",
		killer{"shipper", "TestAConflictIsHeldUntilAnOperatorRetries"},
		[]edit{
			{
				"outbox/hold.go",
				"return r == Stuck || r == Unreadable",
				"return true",
			},
		},
	},
	{
		"shipper: a hold goes though its episode did not get on",
		killer{"shipper", "TestAPassTriesWhatIsStuck"},
		[]edit{
			{
				"shipper/hold.go",
				"	c.held, c.Stage = true, c.Unheld\n",
				"	c.held, c.Stage = true, c.Unheld\n	d.out.RemoveHold(c.Name)\n",
			},
			{
				"shipper/hold.go",
				"	if r.held {\n		if was, err",
				"	if r.held {\n		return true, nil\n	}\n	if r.held {\n		if was, err",
			},
		},
	},
	{
		"shipper: a pass does not say why an episode stays",
		killer{"shipper", "TestAPassSaysWhyEachEpisodeStays"},
		[]edit{
			{
				"shipper/result.go",
				"case d.once && d.loggedFailures < maxLoggedFailures:",
				"case d.once && d.loggedFailures < maxLoggedFailures && false:",
			},
		},
	},
	{
		"shipper: passes do not count together",
		killer{"shipper", "TestFailuresAreCountedAcrossPasses"},
		[]edit{
			{
				"shipper/dispatcher.go",
				"		d.loadReport(time.Now())\n",
				"",
			},
		},
	},
	{
		"source: a link to a directory is an episode",
		killer{"source", "TestFinishedIsARealDirectoryWithARegularMarker"},
		[]edit{
			{
				"source/source.go",
				"	if !st.IsDir() {\n		return marker{}, nil",
				"	if !st.IsDir() && false {\n		return marker{}, nil",
			},
		},
	},
	{
		"shipper: what was changed after packing is retired",
		killer{"shipper", "TestAChangeAfterPackingIsSeen"},
		[]edit{
			{
				"transfer/send.go",
				"state, err := p.checkUnchanged(ctx, name, entry)",
				"state, err := source.State{}, error(nil)",
			},
		},
	},
	{
		"shipper: a good episode is dropped with its bad copy",
		killer{"shipper", "TestACorruptEntryWithoutItsEpisodeIsHeld"},
		[]edit{
			{
				"transfer/send.go",
				"err != nil || !finished {",
				"err != nil || !finished && false {",
			},
		},
	},
	{
		"shipper: a later unfinished run is retired for the former",
		killer{"shipper", "TestALaterUnfinishedRunIsNotMoved"},
		[]edit{
			{
				"transfer/send.go",
				"	if finished {",
				"	if finished || true {",
			},
		},
	},
	{
		"shipper: goes on after a fault of the storage",
		killer{"shipper", "TestAFailingDiskEndsTheDaemon"},
		[]edit{
			{
				"shipper/result.go",
				"errors.Is(err, durable.ErrFault) || ",
				"errors.Is(err, durable.ErrFault) && false || ",
			},
		},
	},
	{
		"wire, shipper: any success is a receipt",
		killer{"labtest", "TestRetireNeedsReceipt"},
		[]edit{
			{
				"wire/client_upload.go",
				"errors.Join(receipt.Covers(u), receipt.Store.Validate()); err != nil",
				"error(nil); err != nil",
			},
			{
				"transfer/send.go",
				"receipt.Covers(upload); err != nil",
				"error(nil); err != nil",
			},
		},
	},
	{
		"outbox: a judgement that is not synced",
		pruneOrder,
		[]edit{
			{
				"outbox/trash.go",
				"	if err := d.trash.dir.Rename(d.name, d.trash.dir, name); err != nil {",
				"	if err := os.Rename(d.trash.dir.Path(d.name), d.trash.dir.Path(name)); err != nil {",
			},
			{
				"outbox/trash.go",
				"	\"iter\"\n",
				"	\"iter\"\n	\"os\"\n",
			},
		},
	},
	{
		"outbox: no sync of the marker that goes first",
		pruneOrder,
		[]edit{
			{
				"outbox/trash.go",
				"err = d.Remove(episode.Marker)",
				"err = d.Unlink(episode.Marker)",
			},
		},
	},
	{
		"outbox: a file that is younger than the judgement is deleted",
		killer{"outbox", "TestAFileYoungerThanTheJudgementIsKept"},
		[]edit{
			{
				"outbox/trash.go",
				"!time.Unix(ctime.Unix()).After(changedAt) && unchanged(s)",
				"(unchanged(s) && ctime.Sec != changedAt.Unix()-1)",
			},
		},
	},
	{
		"outbox: a file that changed while the episode is deleted goes too",
		killer{"outbox", "TestAFileThatChangedSinceTheJudgementIsKept"},
		[]edit{
			{
				"outbox/trash.go",
				"!time.Unix(ctime.Unix()).After(changedAt) && unchanged(s)",
				"!time.Unix(ctime.Unix()).After(changedAt)",
			},
		},
	},
	{
		"outbox: what nobody judged is deleted",
		killer{"shipped", "TestAnUnjudgedEpisodeGoesBack"},
		[]edit{
			{
				"shipped/delete.go",
				"	if judged {\n",
				"	if d.RecordJudgement(p.startedAt) == nil {\n",
			},
		},
	},
	{
		"shipper: what changed is deleted",
		killer{"shipped", "TestPruneKeepsWhatChangedSinceItWasShipped"},
		[]edit{
			{
				"shipped/delete.go",
				"	if c.equal {\n		return false\n	}",
				"	if c.equal || c.differs {\n		return false\n	}",
			},
		},
	},
	{
		"shipper: a fingerprint does for any tree",
		killer{"shipped", "TestVerifyFindsWhatChangedSinceItWasShipped"},
		[]edit{
			{
				"shipped/compare.go",
				"r.State.Fingerprint == below && !c.readAll",
				"below == below && !c.readAll",
			},
		},
	},
	{
		"shipper: other skipped entries are no change",
		killer{"shipped", "TestSkippedEntriesMustBeThoseOfThen"},
		[]edit{
			{
				"shipped/compare.go",
				"found.Skips.Short() != r.State.Skips",
				"false",
			},
		},
	},
	{
		"shipper: what changed just now is deleted",
		killer{"shipped", "TestPruneKeepsWhatIsYoung"},
		[]edit{
			{
				"shipped/delete.go",
				"return now.Sub(changedAt) < quiet, nil",
				"return now.Sub(changedAt) < 0, nil",
			},
		},
	},
	{
		"shipper: one obstacle ends a pruning",
		killer{"shipper", "TestOneObstacleKeepsOneEpisode"},
		[]edit{
			{
				"shipped/delete.go",
				"	if isObstructed(c, found) {\n		return true\n	}\n",
				"	if isObstructed(c, found) {\n		return false\n	}\n",
			},
		},
	},
	{
		"shipper: a copy that begins with the marker is packed at once",
		killer{"shipper", "TestACopyIsNotPackedBeforeItsEnd"},
		[]edit{
			{
				"settling/settling.go",
				"return survey, checkSettled(settle, survey.Marks, seen, time.Now())",
				"return survey, nil",
			},
		},
	},
	{
		"shipper: the copy of a changed episode is dropped unasked",
		killer{"shipper", "TestKeepBothDropsTheCopyOfAChangedEpisodeOnlyIfDelivered"},
		[]edit{
			{
				"shipped/keepboth.go",
				"err != nil && r.hasReceipt(entry.Digest) &&",
				"err != nil &&",
			},
		},
	},
	{
		"shipper: a receipt counts for a packed copy although the receiver answers",
		killer{"shipper", "TestKeepBothAsksAReceiverThatAnswers"},
		[]edit{
			{
				"shipped/keepboth.go",
				"	entries, err := uplink.NewInventory(",
				"	if r.hasReceipt(entry.Digest) {\n		return nil\n	}\n	entries, err := uplink.NewInventory(",
			},
		},
	},
	{
		"source: a fingerprint counts of what changed just now",
		killer{"source", "TestFingerprintCountsOnlyOfWhatWasQuiet"},
		[]edit{
			{
				"source/state.go",
				"at.Sub(m.ChangedAt) >= minUnchanged",
				"at.Sub(m.ChangedAt) >= 0",
			},
		},
	},
	{
		"durable: a write is taken for our own unlink",
		killer{"durable", "TestRemovingTellsItsOwnUnlinkFromAWrite"},
		[]edit{
			{
				"durable/remove.go",
				" || now.Ctim != st.st.Ctim {",
				" {",
			},
		},
	},
}
