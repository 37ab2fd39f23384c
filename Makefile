# azs-courier. `make demo` rehearses the whole trip, `make test` runs every test.
# Both install what a fresh Debian with Go and git lacks.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

BIN      := bin
CACHE    := .cache
PROGRAMS := azs-agent azs-relay azuretest peptest
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD := -trimpath -ldflags=-s\ -w
MODULES  := shared agent relay
PACKAGES  = $$(go list -f '{{.Dir}}/...' -m)
PLATFORMS := linux/amd64 linux/arm64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
AGE         := filippo.io/age/cmd/age@v1.3.2

# A test that lacks one of its tools fails here, where `go test` alone skips it.
REQUIRE := $(foreach t,BIN NPM GSS ZBAR POPPLER QRENCODE FFMPEG CHROMIUM POSTGRES FAT SSH PYTHON MANDOC SHELLS,AZS_REQUIRE_$(t)=1)

FUZZTIME ?= 10s
BENCHTIME ?= 1s

azs-agent_DIR := ./agent
azs-relay_DIR := ./relay
azuretest_DIR := ./relay/cmd/azuretest
peptest_DIR   := ./agent/cmd/peptest

export CGO_ENABLED = 0

.PHONY: release modules build demo test unit faults mutants race cross standalone lint tidy bench pictures fuzz fuzz-smoke tools clean $(PROGRAMS)

build: $(PROGRAMS)

$(PROGRAMS):
	@mkdir -p $(BIN)
	go build $(GOFLAGS_BUILD) -o $(BIN)/$@ $($@_DIR)

# The trip, end to end, on simulated far ends.
demo: build
	@./testdata/demo.sh

# Everything that must hold before a change lands.
test: tools build standalone unit faults

unit: $(CACHE)/bin/age
	$(REQUIRE) AZS_AGE=$(CURDIR)/$(CACHE)/bin/age go test -timeout 20m $(PACKAGES)

# The same code with its write boundaries made visible: a test kills its own
# process at every one of them.
faults:
	go test -tags faultinject ./shared/internal/atomicfile ./shared/medium ./shared/ledger ./agent/internal/flow ./relay/internal/flow

# Each control of docs/THREATS.md taken out in turn: its tests fail. MUTANT=REGEXP for some.
mutants: tools $(CACHE)/bin/age
	AZS_MUTANTS=1 $(REQUIRE) AZS_AGE=$(CURDIR)/$(CACHE)/bin/age go test -count=1 -timeout 120m -parallel 2 -v -run 'TestMutants$$/$(MUTANT)' ./shared | grep -Ev '^=== (RUN|PAUSE|CONT|NAME)'

# Each module by itself, as somebody builds it who has only that folder's go.mod.
standalone:
	@for m in $(MODULES); do echo "GOWORK=off build of $$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./...); done

race: build
	@command -v gcc >/dev/null || $(call apt,gcc libc6-dev)
	AZS_REQUIRE_BIN=1 CGO_ENABLED=1 go test -race $(PACKAGES)

cross:
	@for p in $(PLATFORMS); do for b in azs-agent azs-relay; do echo "$$p $$b"; \
	  GOOS=$${p%/*} GOARCH=$${p#*/} go build $(GOFLAGS_BUILD) -o $(CACHE)/cross/$$b-$${p%/*}-$${p#*/} ./$${b#azs-}; done; done

# What is published: static programs for all platforms, built twice and compared,
# with bills of materials, licences, packages and signed checksums. VERSION=v1.2.0,
# RELEASE_KEY=FILE signs. Nothing is fetched: `make modules` does that before.
release:
	go run ./shared/cmd/mkrelease -twice -version $(VERSION) -platforms $$(echo $(PLATFORMS) | tr ' ' ,) -out dist $(if $(RELEASE_KEY),-key $(RELEASE_KEY))

modules:
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod download); done

lint: $(CACHE)/bin/staticcheck
	@bad=$$(gofmt -l $(MODULES)); if [ -n "$$bad" ]; then echo "gofmt: $$bad"; exit 1; fi
	go vet $(PACKAGES)
	GOOS=windows go vet $(PACKAGES)
	GOOS=darwin go vet $(PACKAGES)
	$(CACHE)/bin/staticcheck $(PACKAGES)

tidy:
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done
	go work sync

# The pictures of the README, from real runs.
pictures: tools build
	@./testdata/pictures.sh

# Sizes and times, ours and the peers' in one run.
bench: build $(CACHE)/bin/age
	AZS_AGE=$(CURDIR)/$(CACHE)/bin/age go test -timeout 60m -run '^$$' -bench . -benchtime $(BENCHTIME) ./shared/bundle ./shared/ledger ./shared/frame/... ./agent/internal/pep ./relay/...

# Every fuzz target in turn, ten minutes in all; what is found new stays in Go's
# cache, where the next run begins, and an input that fails under testdata/fuzz.
fuzz: FUZZTIME := 16s
fuzz fuzz-smoke:
	@for m in $(MODULES); do (cd $$m; for d in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$d/*_test.go | cut -c6- | sort -u); do \
	    echo "$$m $$d $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$d; done; done); done

$(CACHE)/bin/staticcheck:
	GOBIN=$(CURDIR)/$(CACHE)/bin go install $(STATICCHECK)

$(CACHE)/bin/age:
	GOBIN=$(CURDIR)/$(CACHE)/bin go install $(AGE)

# What the tests use beside Go: ssh-keygen as the second opinion on signatures,
# Microsoft's own npm client as the second opinion on the simulated Azure,
# gss-ntlmssp as the second opinion on sealing, zbar, zxing-wasm and jsQR on what
# is drawn, qrencode on what is read, Chromium for the pages, PostgreSQL for the
# state that hosts share, and FAT and exFAT for sticks where the kernel has neither.
tools: testdata/npm/node_modules/.installed
	@need() { command -v "$$1" >/dev/null || missing="$$missing $$2"; }; missing=; \
	need ssh-keygen openssh-client; need python3 python3; need mandoc mandoc; need zsh zsh; need fish fish; \
	need zbarimg zbar-tools; need pdftoppm poppler-utils; need qrencode qrencode; need ffmpeg ffmpeg; need chromium chromium; \
	need mkfs.vfat dosfstools; need mkfs.exfat exfatprogs; need fusefat fusefat; need mount.exfat-fuse exfat-fuse; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	ls /usr/lib/*/gssntlmssp/gssntlmssp.so >/dev/null 2>&1 || missing="$$missing gss-ntlmssp"; \
	/usr/bin/python3 -c 'import gssapi' 2>/dev/null || missing="$$missing python3-gssapi"; \
	/usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing="$$missing python3-cryptography"; \
	if [ -n "$$missing" ]; then $(call apt,$$missing); fi

testdata/npm/node_modules/.installed: testdata/npm/package-lock.json
	@command -v npm >/dev/null || $(call apt,npm nodejs)
	npm ci --prefix testdata/npm --no-audit --no-fund --loglevel=error
	@touch $@

define apt
{ sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); }
endef

clean:
	rm -rf $(BIN) $(CACHE) dist testdata/npm/node_modules
