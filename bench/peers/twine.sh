#!/bin/sh
# The hub itself: TWINE_HUB names the binary (default: the workspace's release build), $1 the store.
. "$(dirname "$0")/lib.sh"
BIN=${TWINE_HUB:-../../target/release/twine-hub}
need "$BIN" "make hub"
export TWINE_LISTEN="127.0.0.1:${BENCH_PORT:-7070}" TWINE_DATA_DIR="$BENCH_RUN/data" TWINE_API_KEY=bench-key-0123456789abcdef TWINE_STORE="$1"
export MIMALLOC_PURGE_DELAY=0 MIMALLOC_ALLOW_THP=0 # as the image sets them
# Of 20,000 open files, where there are no more, the rest are for clients.
export TWINE_MAX_HTTP_CONNECTIONS="${TWINE_MAX_HTTP_CONNECTIONS:-500}"
mkdir -p "$TWINE_DATA_DIR"
start "$BIN" serve
