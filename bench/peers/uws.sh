#!/bin/sh
# A bare uWebSockets (C++) app: app.publish(). The program is not in this
# repository; UWS_BIN names it: it takes a port, serves /ws/:room and POST /publish/:room.
. "$(dirname "$0")/lib.sh"
BIN=${UWS_BIN:-uws-hub}
need "$BIN" "a uWebSockets app, see ../README.md"
start "$BIN" 7400
