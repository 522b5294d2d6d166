// Package fleettest runs several receivers behind a load balancer over one object store, with hosts
// that send to whichever receiver the balancer chooses. It kills receivers and the engine, and delivers
// requests to the engine minutes late.
//
// Invariant: it judges custody by the objects alone: it parses them by itself, and compares them with
// what the hosts were told.
package fleettest
