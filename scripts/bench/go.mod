// The benchmarks, which never ship, as a module of their own: what only they need stays out
// of the programs' go.mod.
module cis490/scripts/bench

go 1.26.0

require (
	cis490 v0.0.0
	golang.org/x/sys v0.48.0
)

require github.com/klauspost/compress v1.20.4 // indirect

replace cis490 => ../..
