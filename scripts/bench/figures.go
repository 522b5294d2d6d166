package main

// Figures of a row.
func wall(r row) float64        { return r.Wall }
func clientCPU(r row) float64   { return r.ClientCPU }
func serverCPU(r row) float64   { return r.ServerCPU }
func kernelCPU(r row) float64   { return r.KernelCPU }
func clientMiB(r row) float64   { return r.ClientMiB }
func serverMiB(r row) float64   { return r.ServerMiB }
func storedBytes(r row) float64 { return float64(r.Stored) }
func syncTime(r row) float64    { return r.Sync }
func foreign(r row) float64     { return r.Foreign }
func rate(r row) float64        { return float64(r.Requests) / r.Wall }
func serverPerGB(r row) float64 { return r.ServerCPU / float64(r.Input) * 1e9 }
func endsPerGB(r row) float64   { return (r.ServerCPU + r.KernelCPU) / float64(r.Input) * 1e9 }
func allPerGB(r row) float64    { return r.AllCPU / float64(r.Input) * 1e9 }
func startTime(r row) float64   { return r.Start }
func middle(r row) float64      { return r.P50 }
func slow(r row) float64        { return r.P99 }
func perSecond(r row) float64   { return float64(r.Episodes) / r.Wall }

// Figures of receivers over an object store, per archive; those of CPU in milliseconds.
func engineMiB(r row) float64           { return r.EngineMiB }
func callsPerArchive(r row) float64     { return float64(r.Calls.sum()) / float64(r.Requests) }
func receiversPerArchive(r row) float64 { return 1000 * r.ServerCPU / float64(r.Requests) }
func enginePerArchive(r row) float64    { return 1000 * r.EngineCPU / float64(r.Requests) }
func kernelPerArchive(r row) float64    { return 1000 * r.KernelCPU / float64(r.Requests) }
func cpuPerArchive(r row) float64 {
	return 1000 * (r.ServerCPU + r.EngineCPU + r.KernelCPU) / float64(r.Requests)
}
