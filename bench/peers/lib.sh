# Sourced by every peer script. The runner gives BENCH_RUN: a fresh folder for
# this run, where the script writes its server's pids (one a line) to `pids`, with the name of the
# part behind it where a process is not the server itself but what it asks.
set -eu
: "${BENCH_RUN:?a scratch folder}"
cd "$(dirname "$0")"
PEERS=${BENCH_PEERS:-$(cd .. && pwd)/.peers} # where the peers of no Debian package are
ulimit -n "$(ulimit -Hn)"

# need PATH WHAT: stop with 3 (the runner skips the target) if PATH is missing
need() { [ -e "$1" ] || command -v "$1" >/dev/null || { echo "needs $1: $2" >&2; exit 3; }; }
# start COMMAND...: run it in the background and note its pid
start() { "$@" >>"$BENCH_RUN/log" 2>&1 & echo $! >>"$BENCH_RUN/pids"; }
# start_part NAME COMMAND...: the same for what the server asks; its CPU is counted apart
start_part() { part=$1; shift; "$@" >>"$BENCH_RUN/$part.log" 2>&1 & echo "$! $part" >>"$BENCH_RUN/pids"; }
