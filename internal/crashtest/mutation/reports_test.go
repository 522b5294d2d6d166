package mutation_test

// ofReports are the mutants of what hosts report.
var ofReports = []mutant{
	{
		"fleet: an outage of the receiver is one of each host",
		killer{"fleet", "TestHostIsSilentByItsOwnRhythm"},
		[]edit{{"fleet/health.go", "{at.ReceiverSince, at.SharedSince}", "{at.SharedSince}"}},
	},
	{
		"fleet: an outage of the bucket is one of each host",
		killer{"sharedhosts", "TestAnOutageOfTheBucketIsNotOneOfEachHost"},
		[]edit{{"fleet/health.go", "{at.ReceiverSince, at.SharedSince}", "{at.ReceiverSince}"}},
	},
	{
		"receiver: a full disk prevents its start",
		killer{"receiver", "TestReceiverStartsWithAFullDisk"},
		[]edit{{"receiver/reports.go", "	if errors.Is(err, durable.ErrFault) {\n		return err\n	}\n	if err != nil {", "	if err != nil {\n		return errors.Join(err)\n	}\n	if err != nil {"}},
	},
	{
		"wire: a report may have any text",
		killer{"wire", "TestHostileReportsAreRefused"},
		[]edit{{"wire/report.go", "len(r.LastError) > MaxReportError || printable.Text(r.LastError) != r.LastError", "len(r.LastError) > MaxReportError"}},
	},
	{
		"wire: a report may have any number",
		killer{"wire", "TestHostileReportsAreRefused"},
		[]edit{{"wire/report.go", "n.value < 0 || n.value > maxReported", "n.value > maxReported"}},
	},
	{
		"fleet: each report is kept, however soon",
		killer{"fleet", "TestReportThatComesTooSoonIsRefused"},
		[]edit{{"fleet/fleet.go", "wait := r.waitFor(report, now); wait > 0", "wait := r.waitFor(report, now); wait > time.Hour"}},
	},
	{
		"fleet: any number of hosts",
		killer{"fleet", "TestRecordsAreBounded"},
		[]edit{{"fleet/fleet.go", "err != nil || n < maxHosts", "err != nil || n >= 0"}},
	},
	{
		"fleet: a snapshot passes for a clone",
		killer{"fleet", "TestClonedMachineIsNoticed"},
		[]edit{{"fleet/fleet.go", "		if now.Sub(r.ReturnedAt) < cloneMemory {\n			r.ClonedAt = now\n		}\n", "		r.ClonedAt = now\n"}},
	},
	{
		"fleet: a host is never silent",
		killer{"fleet", "TestHostIsSilentByItsOwnRhythm"},
		[]edit{{"fleet/health.go", "!at.ReceiverDown && !at.lacksReports() && silence > limit", "!at.ReceiverDown && silence < -limit"}},
	},
	{
		"receiver: a report that cannot be kept is kept, it says",
		killer{"receiver", "TestReportThatCannotBeKeptIsNoFault"},
		[]edit{{"receiver/reports.go", "	if durable.IsFull(err) {\n		return wire.ErrReportNotKept\n	}\n	return err", "	if err != nil {\n		r.log.Debug(\"report\", \"err\", err)\n	}\n	if durable.IsFull(nil) {\n		return wire.ErrReportNotKept\n	}\n	return nil"}},
	},
	{
		"shipper: held episodes are not reported",
		killer{"shipper", "TestReportSaysWhatAStatusSays"},
		[]edit{{"backlog/report.go", "report.Held[heldAs(hold.Reason)]++", "_ = hold"}},
	},
	{
		"shipper: delivered episodes are counted once",
		killer{"shipper", "TestReportSaysWhatAStatusSays"},
		[]edit{{"backlog/report.go", "	if counted {\n", "	if counted && r.shipped == 0 {\n"}},
	},
	{
		"shipper: a change is not signalled",
		killer{"shipper", "TestChangesAreSignalled"},
		[]edit{{"shipper/report.go", "d.holdsRead && d.held != d.signalledHeld || now != d.signalled", "false"}},
	},
}
