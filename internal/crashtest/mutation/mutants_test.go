package mutation_test

import "slices"

// Killers that see more than one mutant. The order of system calls sees each
// sync of a directory, which no power cut does.
var (
	receiverOrder = killer{"labtest", "TestReceiverMakesEachStepDurableBeforeTheNext"}
	receiverStart = killer{"labtest", "TestReceiverSyncsAtStartWhatAKilledOneMade"}
	shipperOrder  = killer{"labtest", "TestShipperMakesEachStepDurableBeforeTheNext"}
	startOrder    = killer{"labtest", "TestStartSyncsTheParentsOfFoldersThatAKilledProcessMade"}
	partOrder     = killer{"labtest", "TestPartOfAnUploadIsDurableBeforeItIsAcknowledged"}
	pruneOrder    = killer{"labtest", "TestPruneJudgesDurablyBeforeItDeletes"}
	holdOrder     = killer{"labtest", "TestHoldIsDurable"}
	powerCuts     = killer{"crashtest", "TestPowerCuts"}
	tearingCuts   = killer{"crashtest", "TestPowerCutsOfATearingDisk"}
)

// fileSync is the sync of a file's bytes, and indexSync that of a row. Power cuts must miss
// these two, or they test nothing.
const (
	fileSync  = "	if err := f.f.Sync(); err != nil {\n		return faultError(\"sync\", f.f.Name(), err)\n	}\n	f.synced = true"
	indexSync = "	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {\n		return faultError(\"sync\", l.f.Name(), err)\n	}\n	l.synced.Store(end + int64(len(p)))\n	return nil\n}\n\n// Truncate"
)

// mutants returns all mutants, in the order of the table.
func mutants() []mutant {
	return slices.Concat(ofDurable, ofJoining, ofLocks, ofPackages, ofReadings, ofReports, ofStores)
}

// ofDurable are the mutants of the packages that all others use.
var ofDurable = []mutant{
	{
		"durable: no sync of a file, power cuts", powerCuts,
		[]edit{
			{
				"durable/file.go",
				fileSync,
				"	f.synced = true",
			},
		},
	},
	{
		"durable: no sync of a row, power cuts", powerCuts,
		[]edit{
			{
				"durable/log.go",
				indexSync,
				"	l.synced.Store(end + int64(len(p)))\n	return nil\n}\n\n// Truncate",
			},
		},
	},
	{
		"durable: no sync of a file, tearing disk", tearingCuts,
		[]edit{
			{
				"durable/file.go",
				fileSync,
				"	f.synced = true",
			},
		},
	},
	{
		"durable: no sync of a row, tearing disk", tearingCuts,
		[]edit{
			{
				"durable/log.go",
				indexSync,
				"	l.synced.Store(end + int64(len(p)))\n	return nil\n}\n\n// Truncate",
			},
		},
	},
	{
		"durable: no sync of a file", receiverOrder,
		[]edit{
			{
				"durable/file.go",
				fileSync,
				"	f.synced = true",
			},
		},
	},
	{
		"durable: no sync of a row", receiverOrder,
		[]edit{
			{
				"durable/log.go",
				indexSync,
				"	l.synced.Store(end + int64(len(p)))\n	return nil\n}\n\n// Truncate",
			},
		},
	},
	{
		"durable: a checkpoint speaks of bytes that are not synced", partOrder,
		[]edit{
			{
				"durable/file.go",
				"	if err := unix.Fdatasync(int(f.f.Fd())); err != nil {\n		return faultError(\"sync\", f.f.Name(), err)\n	}\n",
				"",
			},
		},
	},
	{
		"durable: a checkpoint that is not synced", partOrder,
		[]edit{
			{
				"durable/file.go",
				"	if err := f.f.Sync(); err != nil {\n		return faultError(\"sync\", f.f.Name(), err)\n	}\n	return nil",
				"	return nil",
			},
		},
	},
	{
		"durable: what was not durable of a part stays",
		killer{"durable", "TestUploadContinuesAfterTheDurableBytes"},
		[]edit{
			{
				"durable/file.go",
				"	if err := f.Truncate(size); err != nil {\n		return OpError(\"truncate\", f.Name(), err)\n	}\n",
				"",
			},
		},
	},
	{
		"durable: a sync that has begun does for who asks then",
		killer{"durable", "TestSyncsAreShared"},
		[]edit{
			{
				"durable/durable.go",
				"want := s.started + 1",
				"want := max(1, s.started)",
			},
		},
	},
	{
		"durable: publish before the sync of the bytes", receiverOrder,
		[]edit{
			{
				"durable/file.go",
				"func (f *File) CommitTo(to *Dir, name string) error {\n	if err := f.syncOnce(); err != nil {\n		return err\n	}",
				"func (f *File) CommitTo(to *Dir, name string) error {",
			},
		},
	},
	{
		"durable: commit before the sync of the bytes", shipperOrder,
		[]edit{
			{
				"durable/file.go",
				"func (f *File) Commit(name string) error {\n	if err := f.syncOnce(); err != nil {\n		return err\n	}",
				"func (f *File) Commit(name string) error {",
			},
		},
	},
	{
		"durable: no sync of the folder of a link", receiverOrder,
		[]edit{
			{
				"durable/durable.go",
				"		return OpError(\"link\", to.Path(name), err)\n	}\n	return to.Sync()",
				"		return OpError(\"link\", to.Path(name), err)\n	}\n	return nil",
			},
		},
	},
	{
		"durable: no sync of the folder that a rename goes to", shipperOrder,
		[]edit{
			{
				"durable/durable.go",
				"	if err := to.Sync(); err != nil {\n		return err\n	}\n	if to == d {",
				"	if to == d {",
			},
		},
	},
	{
		"durable: no sync of the folder that a rename leaves", shipperOrder,
		[]edit{
			{
				"durable/durable.go",
				"	if to == d {\n		return nil\n	}\n	return d.Sync()",
				"	return nil",
			},
		},
	},
	{
		"durable: a rename may replace",
		killer{"durable", "TestNothingIsReplaced"},
		[]edit{
			{
				"durable/durable.go",
				"unix.Renameat2(d.fd(), old, to.fd(), name, unix.RENAME_NOREPLACE)",
				"unix.Renameat2(d.fd(), old, to.fd(), name, 0)",
			},
		},
	},
	{
		"durable: no sync of the parent of a new folder", receiverOrder,
		[]edit{
			{
				"durable/durable.go",
				"	if err := d.Sync(); err != nil {\n		return nil, err\n	}\n	sub, err := d.OpenDir(name)",
				"	sub, err := d.OpenDir(name)",
			},
		},
	},
	{
		"durable: no sync of the parent of a folder that was there", startOrder,
		[]edit{
			{
				"durable/durable.go",
				"		return d, syncParent(path)",
				"		return d, nil",
			},
		},
	},
	{
		"durable: no sync of the folder of a new log", receiverOrder,
		[]edit{
			{
				"durable/log.go",
				"	if err := l.dir.Sync(); err != nil {\n		return err\n	}",
				"",
			},
		},
	},
	{
		"durable: what did not fit stays in the log",
		killer{"durable", "TestFullDiskLeavesTheLogAsItWas"},
		[]edit{
			{
				"durable/log.go",
				"l.Truncate(end); cut != nil",
				"error(nil); cut != nil && end > 0",
			},
		},
	},
	{
		"durable: a sync that failed is no fault",
		killer{"durable", "TestFailedSyncIsAFault"},
		[]edit{
			{
				"durable/errors.go",
				"%s %s: %w: %w\", op, path, ErrFault, err",
				"%s %s: %v: %w\", op, path, ErrFault, err",
			},
		},
	},
	{
		"durable: a fault of which a wait was told is forgotten",
		killer{"durable", "TestFaultOfTheDiskIsNotForgotten"},
		[]edit{
			{
				"durable/file.go",
				"if f.synced || f.writeback.err != nil {",
				"if f.synced {",
			},
		},
	},
	{
		"durable: a write that the disk failed under another name is no fault",
		killer{"durable", "TestOnlyWhatIsNoDiskErrorIsPassedOver"},
		[]edit{
			{
				"durable/file.go",
				"unix.ENOSYS, unix.EINVAL",
				"unix.ENOSYS, unix.ENODATA, unix.EINVAL",
			},
		},
	},
	{
		"durable: a broken disk is no fault",
		killer{"durable", "TestReadOnlyIsAFault"},
		[]edit{
			{
				"durable/errors.go",
				"errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS)",
				"false",
			},
		},
	},
	{
		"durable: uncached reads come from the cache",
		killer{"durable", "TestUncachedSeesTheDisk"},
		[]edit{
			{
				"durable/uncached.go",
				"unix.O_NOFOLLOW|unix.O_DIRECT",
				"unix.O_NOFOLLOW",
			},
		},
	},
	{
		"durable: no sync of a small file", holdOrder,
		[]edit{
			{
				"durable/file.go",
				"	if err := f.syncOnce(); err != nil {\n		return err\n	}\n	if err := f.replaceName(name); err != nil {",
				"	if err := f.replaceName(name); err != nil {",
			},
		},
	},
	{
		"durable: no sync of the folder of a small file", holdOrder,
		[]edit{
			{
				"durable/file.go",
				"	if err := f.replaceName(name); err != nil {\n		return err\n	}\n	return d.Sync()",
				"	return f.replaceName(name)",
			},
		},
	},
	{
		"durable: the umask decides about modes",
		killer{"durable", "TestModesDoNotDependOnTheUmask"},
		[]edit{
			{
				"durable/owner.go",
				"if st.Mode&0o7777 == mode {",
				"if mode != 0 {",
			},
		},
	},
	{
		"durable: a file with a second name is handed over",
		killer{"durable", "TestHandOverGivesOnlyOurOwn"},
		[]edit{
			{
				"durable/owner.go",
				"links != 1 || ",
				"links < 1 || ",
			},
			{
				"durable/owner.go",
				"|| !entry.Dir && now.Nlink != 1 {",
				"{",
			},
		},
	},
	{
		"serviceuser: a link of anybody leads root on",
		killer{"serviceuser", "TestLinkOfAnotherLeadsRootNowhere"},
		[]edit{
			{
				"serviceuser/path.go",
				"if l.uid != 0 && l.uid != owner.Uid {",
				"if l.uid == owner.Uid+1 {",
			},
		},
	},
	{
		"cli: a command of root stays root",
		killer{"labtest", "TestEveryCommandOfRootLeavesWhatTheDaemonWould"},
		[]edit{
			{
				"serviceuser/serviceuser.go",
				"if os.Geteuid() != 0 {\n		return Current(), nil, nil\n	}\n	dir,",
				"if os.Geteuid() >= 0 {\n		return Current(), nil, nil\n	}\n	dir,",
			},
		},
	},
}
