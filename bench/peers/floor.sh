#!/bin/sh
# The floor; arguments go to it. Build: cargo build --release -p floor
. "$(dirname "$0")/lib.sh"
BIN=${CARGO_TARGET_DIR:-../target}/release/floor
need "$BIN" "cargo build --release -p floor"
start "$BIN" ${BENCH_PORT:+--port "$BENCH_PORT"} "$@"
