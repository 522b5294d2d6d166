package main

import (
	"testing"

	"cis490/internal/cli"
	"cis490/internal/doctor"
)

// TestReceiverThatASocketStartsNeedsNotRun: systemd starts it with the next connection.
func TestReceiverThatASocketStartsNeedsNotRun(t *testing.T) {
	d := &receiverDoctor{Doctor: &cli.Doctor{Unit: doctor.Unit{Service: serviceUnit, Starter: socketUnit, Waiting: true}}}
	if f := d.examineDaemon(); f.Verdict != doctor.OK {
		t.Errorf("got %+v", f)
	}
	d.Unit.Waiting = false
	if f := d.examineDaemon(); f.Verdict != doctor.Warning || f.Remedy == "" {
		t.Errorf("without a socket: got %+v", f)
	}
}
