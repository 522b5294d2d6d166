// Package fleettest runs several receivers behind a load balancer over one object store, with hosts
// that send to whichever receiver the balancer chooses, and kills receivers and the engine.
//
// Invariant: it judges custody by the objects alone: it parses them by itself, and compares them with
// what the hosts were told.
package fleettest
