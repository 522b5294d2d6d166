# `make help` prints the text after ##. .ci/run runs these targets in stages.

VERSION   := $(shell git describe --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -X cis490/internal/cli.version=$(VERSION)
GO_STATIC := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
TOOL      := go tool -modfile=scripts/tools.mod

FUZZTIME  ?= 10s
BENCHTIME ?= 1s
BENCH     ?= .
CUTS      ?= 200
MINUTES   ?= 10
ROUNDS    ?= 20

BENCHFLAGS = $(if $(RUNS),-runs $(RUNS)) $(if $(SCALE),-scale $(SCALE)) $(if $(WORK),-work $(WORK))

.DEFAULT_GOAL := help
.PHONY: help build pi release packages dist repo reproducible lintian units installers fmt check check-static fmt-check lint vuln shell tidy test lab fleet fleet-ceph race readers page demo crash crash-short soak links system system-arm64 fuzz bench bench-peers bench-growth bench-fleet cover ci clean

help: ## Print this list
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/shipper and bin/receiver, static, for this machine
	$(GO_STATIC) -o bin/ ./cmd/...

pi: ## Build bin/arm64/shipper and bin/arm64/receiver, static, for a Raspberry Pi
	@mkdir -p bin/arm64
	GOOS=linux GOARCH=arm64 $(GO_STATIC) -o bin/arm64/ ./cmd/...

# Without symbols: stack traces do not need them.
release:
	@mkdir -p bin/release/amd64 bin/release/arm64
	GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/release/amd64/ ./cmd/...
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/release/arm64/ ./cmd/...

packages: release ## Build the Debian packages of both roles, amd64 and arm64, in dist/
	@scripts/packages.sh

dist: packages ## Build packages, static tarballs and SHA256SUMS in dist/
	@scripts/dist.sh

# Packages of earlier versions stay in the repository.
repo: ## Add the packages to the signed apt repository REPO=DIR; KEY=ID of gpg
	@scripts/repo.sh check "$(KEY)" "$(REPO)"
	@$(MAKE) --no-print-directory dist
	@scripts/repo.sh add "$(KEY)" "$(REPO)" dist

reproducible: ## Build dist/ of this commit twice and compare
	@scripts/reproducible.sh

lintian: packages ## Check the packages with lintian
	@lintian --allow-root --fail-on error,warning dist/*.deb

units: ## Check the unit files with systemd, and the systemd sandbox
	@scripts/units.sh

installers: build ## Test both install scripts in a directory
	@scripts/installers.sh

fmt: ## Format all Go files
	$(TOOL) gofumpt -w .

check: check-static ## Run before each commit: formatting, vet, linters, units, short tests
	go test -short -count=1 ./...
	go test -C scripts/bench -short -count=1 ./...

# What check does without running tests; .ci/run runs all tests after it.
check-static: fmt-check tidy lint shell units vuln

fmt-check:
	@unformatted=$$($(TOOL) gofumpt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; fi

lint:
	go vet ./...
	go vet -C scripts/bench ./...
	$(TOOL) staticcheck ./...
	cd scripts/bench && go tool -modfile=../tools.mod staticcheck ./...

vuln:
	@scripts/vuln.sh

shell:
	@scripts/shellcheck.sh .ci/run scripts/*.sh scripts/packages/p* scripts/system/*.sh

tidy:
	@go mod tidy -diff || { echo 'go.mod: not tidy, run go mod tidy' >&2; exit 1; }
	@go mod tidy -C scripts/bench -diff || { echo 'scripts/bench/go.mod: not tidy, run go mod tidy there' >&2; exit 1; }

# The limit per package is for machines that are slow and busy: go test's own is ten minutes.
test: ## Run the tests; the targets below run the slow ones
	go test -count=1 -timeout 20m ./...
	go test -C scripts/bench -count=1 ./...

# Tests that only read source text need no race detector, and take minutes under it.
race: ## Run the short tests under the race detector (needs gcc)
	CGO_ENABLED=1 go test -race -short -timeout 20m $$(go list ./... | grep -v -e '/internal$$' -e '/mutation$$')
	CGO_ENABLED=1 go test -C scripts/bench -race -short ./...

lab: ## Run the slow labs: kills, cut connections, proxies, hostile hosts (5 min)
	go test -C internal/labtest -count=1 -timeout 20m -slow

# Needs versitygw and haproxy. SEED=N repeats the faults of a run.
fleet: ## Run three receivers behind haproxy over one object store, and kill them, ROUNDS=20 times
	go test -C internal/s3backend -count=1 -timeout 10m -run RandomRounds -rounds 300 $(if $(SEED),-seed $(SEED))
	go test -C internal/fleettest -count=1 -timeout 40m -rounds $(ROUNDS) $(if $(SEED),-seed $(SEED))

# Needs Ceph, haproxy and root. It cuts the power of the disk as well.
fleet-ceph: ## The same over Ceph with two gateways, whose OSD is killed, too
	go test -C internal/fleettest -count=1 -timeout 60m -run NothingIsLost -ceph -rounds $(ROUNDS) $(if $(SEED),-seed $(SEED))

readers: ## Run the snippets of docs/index.md with jq, Python, pandas, Polars, DuckDB, tar
	@scripts/readers.sh

page: ## Check the status page in Chromium with axe-core; screenshots in bin/page
	@scripts/page.sh

demo: build ## Run both daemons on loopback, ship an episode and compare what arrived
	@scripts/demo.sh

system: ## Test installation and faults on real Debian systems (root; SYSTEM=CELL for one)
	@scripts/system/run.sh $(SYSTEM)

system-arm64: pi ## End-to-end test of the Raspberry Pi's programs, emulated
	@scripts/system/arm64.sh

# SEED=N repeats the random times and sizes of a run that printed it.
crash: ## Power-loss tests, CUTS=200 per file system and kind of disk; failing operations; mutations (root)
	go test -C internal/crashtest -count=1 -timeout 25m -cuts $(CUTS) -tears $(CUTS) $(if $(SEED),-seed $(SEED))
	go test -C internal/crashtest/failpoint -count=1 -timeout 30m -parallel 4 -every 1
	CRASH_MUTATIONS=1 go test -C internal/crashtest/mutation -count=1 -timeout 20m -parallel 2

crash-short: ## Short power-loss tests: 20 per file system, every sixth operation fails (root)
	go test -C internal/crashtest -count=1 -timeout 10m -cuts 20 -tears 6 $(if $(SEED),-seed $(SEED))
	go test -C internal/crashtest/failpoint -count=1 -timeout 30m -every 6

# SEED=N repeats the faults of a run. Disks are filled only as root.
soak: ## Run two labs for MINUTES=10 with random faults and check the invariants (root)
	go test -C internal/crashtest/soak -count=1 -timeout $$(($(MINUTES) + 5))m -minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

links: ## Ship over slow, lossy, dead, narrow or interrupted links between two namespaces (root; 2 min)
	go test -C internal/linktest -count=1 -timeout 5m -parallel 8 -all

fuzz: ## Run each fuzz target for FUZZTIME=10s
	@scripts/fuzz.sh $(FUZZTIME)

# Includes the end-to-end benchmarks in internal/labtest.
bench: ## Run the benchmarks that match BENCH=. for BENCHTIME=1s each
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...

# RUNS=n rounds, WORK=M,S,L,receiver,idle, SCALE=0.02 for a smoke test.
bench-peers: build ## Compare cis490 with alternatives, for docs/performance.md (root on Debian, half an hour)
	go build -C scripts/bench -o $(CURDIR)/bin/cis490-bench . && bin/cis490-bench peers $(BENCHFLAGS)

# RUNS and SCALE as above, WORK=backlog,away,rows,hosts,fleet.
bench-growth: build ## Plot time and memory against backlog, rows and hosts; docs/growth-*.svg
	go build -C scripts/bench -o $(CURDIR)/bin/cis490-bench . && bin/cis490-bench growth $(BENCHFLAGS)

# RUNS and SCALE as above, WORK=large,small. Needs versitygw.
bench-fleet: build ## Compare 1, 2 and 4 receivers over one object store with a disk, for docs/performance.md
	go build -C scripts/bench -o $(CURDIR)/bin/cis490-bench . && bin/cis490-bench fleet $(BENCHFLAGS)

cover: ## Run all tests and write bin/cover.html
	@mkdir -p bin
	go test -coverpkg=./cmd/...,./internal/... -coverprofile=bin/cover.out ./...
	go tool cover -html=bin/cover.out -o bin/cover.html
	@go tool cover -func=bin/cover.out | tail -n 1

ci: ## Run what CI runs
	@.ci/run

clean: ## Remove generated files
	rm -rf bin dist
