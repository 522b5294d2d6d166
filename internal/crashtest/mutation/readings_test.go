package mutation_test

// ofReadings are the mutants of the code that verifies archives, and of the loops that read.
var ofReadings = []mutant{
	{
		"device: a copy of a disk's image passes for the disk",
		killer{"device", "TestIdentityIsOfOneFileOnOneDisk"},
		[]edit{
			{
				"device/device.go",
				"OnDisk: hashID(append(append(b, \"\\x00disk\\x00\"...), vol.disk...))",
				"OnDisk: hashID(b)",
			},
		},
	},
	{
		"device: a later file of an inode number passes for the former",
		killer{"device", "TestIdentityIsOfOneFileOnOneDisk"},
		[]edit{
			{
				"device/device.go",
				"\tif st.Mask&unix.STATX_BTIME != 0 {\n\t\tb = binary.BigEndian.AppendUint64(append(b, 'b'), uint64(st.Btime.Sec))\n\t\tb = binary.BigEndian.AppendUint32(b, st.Btime.Nsec)\n\t} else {",
				"\tif st.Mask&unix.STATX_BTIME == 0 {",
			},
		},
	},
	{
		"device: files of two file systems pass for one",
		killer{"store", "TestACopiedStoreWasNeverRead"},
		[]edit{
			{
				"device/device.go",
				"b := append([]byte(\"cis490 file\\x00\"), vol.fileSystem...)",
				"b := []byte(\"cis490 file\\x00\")",
			},
			{
				"device/device.go",
				"\tif st.Mask&unix.STATX_BTIME != 0 {\n\t\tb = binary.BigEndian.AppendUint64(append(b, 'b'), uint64(st.Btime.Sec))\n\t\tb = binary.BigEndian.AppendUint32(b, st.Btime.Nsec)\n\t} else {",
				"\tif st.Mask&unix.STATX_BTIME == 0 {",
			},
		},
	},
	{
		"device: a reboot voids nothing",
		killer{"device", "TestBootIDStandsInForASerialNumber"},
		[]edit{
			{
				"device/device.go",
				"standIn := \"boot \" + m.boot",
				"standIn := \"boot \"",
			},
		},
	},
	{
		"device: a slot of a virtual machine passes for a disk",
		killer{"device", "TestSerialNumbersOfDisks"},
		[]edit{
			{
				"device/disk.go",
				"strings.Contains(strings.ToLower(model+s), word)",
				"strings.Contains(model+s, word) && false",
			},
		},
	},
	{
		"store: a reading counts for a copy",
		killer{"store", "TestACopiedStoreWasNeverRead"},
		[]edit{
			{
				"store/readback.go",
				"|| v.File != id.OnDisk {",
				"{",
			},
		},
	},
	{
		"store: a reading counts on another disk",
		killer{"store", "TestACopiedImageWasNeverRead"},
		[]edit{
			{
				"store/readback.go",
				"v.File != id.OnDisk",
				"v.File != id.File",
			},
			{
				"store/readback.go",
				"o.VerifiedAt.UnixNano(), id.OnDisk, o.Contents",
				"o.VerifiedAt.UnixNano(), id.File, o.Contents",
			},
		},
	},
	{
		"store: what was not decoded counts as read back",
		killer{"store", "TestAReadingWithoutACheckVerifiesNothing"},
		[]edit{
			{
				"store/readback.go",
				"\tif how.Check == nil {\n\t\treturn o, nil\n\t}\n",
				"",
			},
		},
	},
	{
		"store: a lost sector is a fault of the storage",
		killer{"store", "TestReadingTellsTheDisksErrorsFromOthers"},
		[]edit{
			{
				"store/readback.go",
				"target != durable.ErrFault && ",
				"",
			},
		},
	},
	{
		"receiver: the position of the scrub counts on another disk",
		killer{"diskbackend", "TestAnotherDiskWasNeverRead"},
		[]edit{
			{
				"scrub/schedule.go",
				"p.Disk == disk.ID() {",
				"true {",
			},
		},
	},
	{
		"receiver: a host that cannot be listed ends the scrub",
		killer{"diskbackend", "TestOneBadEntryStopsNoLoop"},
		[]edit{
			{
				"scrub/hosts.go",
				"return p.reportUnlistable(w.host, err)",
				"return err",
			},
		},
	},
	{
		"receiver: what was not listed counts as read",
		killer{"diskbackend", "TestOneBadEntryStopsNoLoop"},
		[]edit{
			{
				"scrub/schedule.go",
				"if p.HostsUnreadable == 0 && p.HostsUnfinished == 0 && p.NotOpened == 0 {",
				"if p.HostsUnfinished == 0 && p.NotOpened == 0 {",
			},
		},
	},
	{
		"receiver: what was not opened counts as read",
		killer{"diskbackend", "TestWhatCannotBeOpenedWasNotRead"},
		[]edit{
			{
				"scrub/schedule.go",
				"if p.HostsUnreadable == 0 && p.HostsUnfinished == 0 && p.NotOpened == 0 {",
				"if p.HostsUnreadable == 0 && p.HostsUnfinished == 0 {",
			},
		},
	},
	{
		"receiver: a host reads its archives to the end before the next one",
		killer{"diskbackend", "TestNoHostKeepsTheScrubFromOthers"},
		[]edit{
			{
				"scrub/hosts.go",
				"for w.credit > 0 && !w.done {",
				"for !w.done {",
			},
		},
	},
	{
		"receiver: an expensive archive is decoded by each scrub",
		killer{"diskbackend", "TestABombIsDecodedOnce"},
		[]edit{
			{
				"store/readback.go",
				"how.Check, how.Remember = o.Decoded.checkRemembered, nil",
				"o.Decoded = Decoded{}",
			},
		},
	},
	{
		"receiver: a shortage of the process counts as an unreadable archive",
		killer{"diskbackend", "TestAShortageStopsTheScrub"},
		[]edit{
			{
				"scrub/pass.go",
				"case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):",
				"case ctx.Err() != nil || errors.Is(err, durable.ErrFault):",
			},
		},
	},
	{
		"diskbackend: what cannot be examined is sent again",
		killer{"diskbackend", "TestWhatCannotBeExaminedIsNotSentAgain"},
		[]edit{
			{
				"diskbackend/inventory.go",
				"return unreadableEntry(h, o, c), o, err",
				"h.State = wire.StateDamaged\n\t\treturn h, o, err",
			},
		},
	},
	{
		"device: a copy of a partition on the same disk counts as read",
		killer{"device", "TestPartitionsOfOneDiskDiffer"},
		[]edit{
			{
				"device/disk.go",
				"readAttribute(dir, \"size\") + start",
				"readAttribute(dir, \"size\")",
			},
		},
	},
	{
		"diskbackend: a claim that cannot be examined refuses the others",
		killer{"diskbackend", "TestOneBadEntryStopsNoLoop"},
		[]edit{
			{
				"diskbackend/inventory.go",
				"if err != nil && (ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err)) {",
				"if err != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {",
			},
		},
	},
	{
		"diskbackend: an upload that cannot be looked at stops the start",
		killer{"diskbackend", "TestOneBadEntryStopsNoLoop"},
		[]edit{
			{
				"diskbackend/recover.go",
				"case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):",
				"case err != nil:",
			},
		},
	},
	{
		"diskbackend: recovery empties the store of a failing disk",
		killer{"diskbackend", "TestUnreadableUploadDoesNotKeepTheReceiverFromStarting"},
		[]edit{
			{
				"diskbackend/recover.go",
				"if b.verifier.RecordReadError(err) {",
				"if b.verifier.RecordReadError(err) && false {",
			},
		},
	},
	{
		"diskbackend: a host's searches for rows are not paced",
		killer{"diskbackend", "TestSearchesForRowsArePaced"},
		[]edit{
			{
				"diskbackend/searches.go",
				"now.Add(min(searchPause*took, maxSearchPause))",
				"now",
			},
		},
	},
}
