# Everything one does with this repository. `make help` lists it; CI is `make test`.
#
# Tools that scripts/setup built come first, then those of npm.
export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/npm/node_modules/.bin:$(PATH)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

CRATES := twine-protocol twine-client twine-server-sdk twine-hub
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml).0
# The hub needs a later one: the AWS SDK does.
HUB_MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' twine-hub/Cargo.toml)
WASM := --target wasm32-unknown-unknown --no-default-features --features wasm
STAGE := scripts/stage

# How long `make torture` goes on.
TORTURE_MINUTES ?= 30

# What `make bench` runs; see bench/README.md for more.
PRESETS ?= idle,fanout-1k,saturate-1k,publish,storm,storm-restart
TARGETS ?= floor,twine,twine-memory,nchan,nats,mosquitto,uws,bun,sockudo,ws-node,socketio

.DEFAULT_GOAL := help
.PHONY: help setup client hub demo lint deny test test-rust test-vectors test-wasm test-npm test-e2e image instructions package msrv torture bench bench-client clean

help: ## List what make can do here
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## Install what is missing on this machine (demo and test do so by themselves)
	@scripts/setup

client: twine-hub/assets/twine.js ## Build the browser client into npm/dist, and for the hub

# The last file that the build writes. Only what it is made from counts: a hub that carries the
# client is not linked anew for nothing.
twine-hub/assets/twine.js: Cargo.toml $(wildcard npm/package*.json) \
    $(shell find twine-client/Cargo.toml twine-client/src twine-protocol/Cargo.toml twine-protocol/src \
        npm/scripts npm/src npm/types -type f)
	cd npm && npm run --silent build

hub: client ## Build the hub as it ships: target/release/twine-hub
	cargo build --locked --release -p twine-hub

demo: ## Start a hub and the chat example; Ctrl-C stops both
	@scripts/setup demo
	@$(MAKE) --no-print-directory client
	@scripts/demo

test: ## Everything that CI runs
	@$(STAGE) setup scripts/setup
	@$(STAGE) lint $(MAKE) --no-print-directory lint
	@$(STAGE) deny $(MAKE) --no-print-directory deny
	@$(STAGE) client $(MAKE) --no-print-directory client
	@$(STAGE) rust $(MAKE) --no-print-directory test-rust
	@$(STAGE) vectors $(MAKE) --no-print-directory test-vectors
	@$(STAGE) wasm $(MAKE) --no-print-directory test-wasm
	@$(STAGE) npm $(MAKE) --no-print-directory test-npm
	@$(STAGE) e2e $(MAKE) --no-print-directory test-e2e
	@$(STAGE) image $(MAKE) --no-print-directory image
	@$(STAGE) counts $(MAKE) --no-print-directory instructions
	@$(STAGE) package $(MAKE) --no-print-directory package
	@$(STAGE) msrv $(MAKE) --no-print-directory msrv

lint: ## Formatting, clippy, rustdoc: no warnings
	cargo fmt --all --check
	cargo fmt --manifest-path bench/Cargo.toml --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo clippy --locked -p twine-protocol --all-targets --no-default-features -- -D warnings
	cargo clippy --locked -p twine-client --all-targets $(WASM) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps

deny: ## Licences, bans, duplicates and sources of the dependencies
	cargo deny check licenses bans sources

test-rust: ## Tests of all crates, and the examples in their documentation
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --locked --workspace --all-features; \
	else \
	  cargo test --locked --workspace --all-features --lib --bins --tests; \
	fi
	cargo test --locked --workspace --all-features --doc
	cargo test --locked --manifest-path bench/Cargo.toml --workspace

test-vectors: ## The golden vectors of the protocol, in plain Node
	node --test twine-protocol/vectors/vectors.test.mjs

test-wasm: ## The client's browser driver, in headless Chromium
	wasm-pack test --mode no-install --headless --chrome --chromedriver "$$(command -v chromedriver)" \
	  twine-client --no-default-features --features wasm

test-npm: client test-vectors ## The vectors, and the npm package: types, exports, size, bundlers
	cargo build --locked -p twine-hub
	cd npm && npm test

test-e2e: client ## Browsers, hub, chat and package together
	cargo build --locked -p twine-hub -p chat
	cargo build --locked -p chat -p twine-server-sdk --examples
	cd e2e && npm test

image: client ## Build the container image and try it, locked down
	deploy/test-image

instructions: ## Instructions of the hot path, in the image's binary, against what they were
	bench/instructions.py

package: client ## What would be published: each crate and the npm package, verified
	scripts/package $(CRATES)

msrv: ## Compile with the oldest Rust that is supported
	@for version in $(MSRV) $(HUB_MSRV); do \
	  rustup toolchain install $$version --profile minimal --target wasm32-unknown-unknown --no-self-update \
	    || { echo "make msrv: Rust $$version is not installed, and could not be: rustup toolchain install $$version" >&2; exit 1; }; \
	done
	cargo +$(MSRV) check --locked --workspace --exclude twine-hub --all-features
	cargo +$(MSRV) check --locked -p twine-client $(WASM)
	cargo +$(HUB_MSRV) check --locked -p twine-hub --all-features

torture: ## Every failure of a fleet, and then random ones, for TORTURE_MINUTES=30
	TWINE_FLEET_MINUTES=$(TORTURE_MINUTES) cargo test --locked -p twine-hub --test fleet torture -- \
	  --exact --ignored --nocapture

bench: hub ## A short comparison with the floor and with the peers that are installed
	cargo build --locked --release --manifest-path bench/Cargo.toml
	bench/bench.py run $(PRESETS) $(TARGETS)

bench-client: hub ## What the browser client costs a page, against Socket.IO's and a bare WebSocket
	cd bench/browser && npm ci --silent --no-audit --no-fund
	bench/browser/run.mjs

clean: ## Remove what was built, except the tools
	rm -rf target npm/dist npm/wasm twine-hub/assets/twine.js bench/target
