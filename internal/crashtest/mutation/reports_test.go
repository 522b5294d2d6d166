package mutation_test

// ofReports are the mutants of what hosts report.
var ofReports = []mutant{
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
		[]edit{{"fleet/fleet.go", "wait > 0 && !record.ReceivedAt.IsZero()", "wait > 0 && record.ReceivedAt.IsZero()"}},
	},
	{
		"fleet: any number of hosts",
		killer{"fleet", "TestRecordsAreBounded"},
		[]edit{{"fleet/fleet.go", "err != nil || n >= maxHosts", "err != nil || n < 0"}},
	},
	{
		"fleet: a reboot passes for a clone",
		killer{"fleet", "TestClonedMachineIsNoticed"},
		[]edit{{"fleet/fleet.go", "if report.Instance == r.Former && ", "if "}},
	},
	{
		"fleet: a host is never silent",
		killer{"fleet", "TestHostIsSilentByItsOwnRhythm"},
		[]edit{{"fleet/health.go", "silence > r.longestSilence()", "silence < 0"}},
	},
	{
		"receiver: a report that cannot be kept is kept, it says",
		killer{"receiver", "TestReportThatCannotBeKeptIsNoFault"},
		[]edit{{"receiver/reports.go", "err == nil || refused {\n		return err", "true || refused {\n		return nil"}},
	},
	{
		"shipper: held episodes are not reported",
		killer{"shipper", "TestReportSaysWhatAStatusSays"},
		[]edit{{"shipper/hostreport.go", "report.Held[heldAs(hold.Reason)]++", "_ = hold"}},
	},
	{
		"shipper: delivered episodes are counted once",
		killer{"shipper", "TestReportSaysWhatAStatusSays"},
		[]edit{{"shipper/hostreport.go", "	if counted {\n", "	if counted && r.shipped == 0 {\n"}},
	},
	{
		"shipper: a change is not signalled",
		killer{"shipper", "TestChangesAreSignalled"},
		[]edit{{"shipper/hostreport.go", "d.holdsRead && d.held != d.signalledHeld || now != d.signalled", "false"}},
	},
}
