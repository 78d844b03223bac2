# VPS for Linux.  make demo: see it work.  make test: test it.  Both install what they need (Debian 12, as root).
SHELL := /bin/bash
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)
export CGO_ENABLED := 0
# The version is given below; asking git a second time fails where the clone belongs to somebody else.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BENCHFLAGS ?=

.PHONY: build setup test check demo bench coverage install clean

build:
	@scripts/setup-go
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/vpsctl ./cmd/vpsctl

setup:
	@scripts/setup

# Everything, and then a look at what the tests left behind on the machine.
test:
	@scripts/setup gdb
	go run ./internal/leak/leakcheck go test -timeout 20m ./...

# What needs no privilege and runs nothing: form, vet, staticcheck, and that the binary is static.
check: build
	@bad=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)) && test -z "$$bad" || { echo "not as gofmt writes it: $$bad"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	scripts/check-static bin/vpsctl

demo: setup build
	scripts/demo

# Rivals join in when they are there: runc (installed), CRIU=PATH, RUNSC=PATH.  BENCHFLAGS='-n 20 -o docs/performance.md'
bench: build
	@scripts/setup runc
	go run ./internal/bench $(BENCHFLAGS)

# ZDTM=DIR names the folder with the built programs of CRIU's test suite.
coverage: build
	go run ./internal/coverage -o docs/coverage.md

PREFIX ?= /usr/local
install: build
	install -D -m 755 bin/vpsctl $(DESTDIR)$(PREFIX)/sbin/vpsctl
	ln -sf vpsctl $(DESTDIR)$(PREFIX)/sbin/vpsd
	for page in man/*.[1-9]; do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	install -d $(DESTDIR)/etc/systemd/system
	for unit in contrib/systemd/*.service; do sed 's#/usr/local#$(PREFIX)#' $$unit >$(DESTDIR)/etc/systemd/system/$${unit##*/}; done

clean:
	rm -rf bin .cache
