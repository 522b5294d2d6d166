package mutation_test

// ofLocks are the mutants of what prevents others from making a daemon wait.
var ofLocks = []mutant{
	{
		"durable: a lock file has the mode of the umask",
		killer{"durable", "TestLockFilesAreTheirOwnersUnderAnyUmask"},
		[]edit{
			{
				"durable/lock.go",
				"errors.Join(setExactMode(f, lockMode), d.giveToOwner(f))",
				"errors.Join(error(nil), d.giveToOwner(f))",
			},
		},
	},
	{
		"durable: a lock file stays open to others",
		killer{"durable", "TestLockFileThatOthersMayOpenIsClosedToThem"},
		[]edit{
			{
				"durable/lock.go",
				"	if st.Mode&0o7777 == lockMode {",
				"	if true {",
			},
		},
	},
	{
		"durable: a lock file of anybody is taken",
		killer{"durable", "TestLockFileOfAnotherUserIsRefused"},
		[]edit{
			{
				"durable/lock.go",
				"	if us := uint32(os.Geteuid()); st.Uid != us &&",
				"	if us := uint32(os.Geteuid()); false && st.Uid != us &&",
			},
		},
	},
	{
		"durable: a reader's lock on an old name keeps a daemon out",
		killer{"durable", "TestReadLockOnAnOldNameBlocksNoProcess"},
		[]edit{
			{
				"durable/lock.go",
				"	case kind == unix.F_WRLCK:\n		err = &LockedError",
				"	default:\n		err = &LockedError",
			},
		},
	},
	{
		"durable: an older daemon is not met",
		killer{"durable", "TestOlderProgramHasTheLock"},
		[]edit{
			{
				"durable/lock.go",
				"	case kind == unix.F_WRLCK:\n		err = &LockedError",
				"	case false:\n		err = &LockedError",
			},
		},
	},
	{
		"durable: a log waits for its readers",
		killer{"durable", "TestLogNeverWaitsForALockOnItself"},
		[]edit{
			{
				"durable/log.go",
				"	if err := waitLock(l.lock); err != nil {",
				"	if err := errors.Join(waitLock(l.lock), waitLock(l.f)); err != nil {",
			},
		},
	},
	{
		"durable: older programs append beside us",
		killer{"durable", "TestOlderAppenderWaitsForUs"},
		[]edit{
			{
				"durable/log.go",
				"	l.olderAppending = l.lockOlder()",
				"	l.olderAppending = false",
			},
		},
	},
	{
		"durable: a row that an older program writes is cut",
		killer{"durable", "TestLogNeverWaitsForALockOnItself"},
		[]edit{
			{
				"durable/log.go",
				"	if l.olderAppending || l.lockOlder() {",
				"	if l.olderAppending && false {",
			},
		},
	},
	{
		"durable: opening waits for a lease",
		killer{"durable", "TestOpeningNeverWaitsForALease"},
		[]edit{
			{
				"durable/durable.go",
				"flags|unix.O_CLOEXEC|unix.O_NONBLOCK, perm",
				"flags|unix.O_CLOEXEC, perm",
			},
		},
	},
	{
		"archive: opening waits for a lease",
		killer{"archive", "TestLeasedFileIsNotWaitedFor"},
		[]edit{
			{
				"archive/node.go",
				"unix.O_NOCTTY|unix.O_NONBLOCK",
				"unix.O_NOCTTY",
			},
		},
	},
}
