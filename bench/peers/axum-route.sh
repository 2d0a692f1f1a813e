#!/bin/sh
# A bare axum route that takes publishes and does nothing with them. Build: cargo build --release -p axum-route
. "$(dirname "$0")/lib.sh"
BIN=${CARGO_TARGET_DIR:-../target}/release/axum-route
need "$BIN" "cargo build --release -p axum-route"
start "$BIN" ${BENCH_PORT:+--port "$BENCH_PORT"}
