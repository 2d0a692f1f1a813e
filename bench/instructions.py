#!/usr/bin/env python3
"""Counts the instructions of the hub's hot path, which hardly depend on the machine and on what else it does.

instructions.py [--hub target/x86_64-unknown-linux-musl/release/twine-hub] [--write]

Runs the hub under valgrind, with different numbers of publishes, subscribers and connections, and takes
from the differences what one of each costs the hub in user space. Fails where any is more than 5 % above what
instructions.json says; --write puts down what was found. The kernel's part is in no count: `make bench` has that.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

from bench import free_port

HERE = os.path.dirname(os.path.abspath(__file__))
BUDGET = f"{HERE}/instructions.json"
TOLERANCE = 0.05
# Medians of so many: how much of a round's work falls together differs a little from run to run.
ROUNDS = 3
KEY = "instructions-key-0123456789"
PATIENCE = 60


class Peer:
    """A socket that is read until something has come."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def until(self, what):
        while what not in self.read:
            data = self.socket.recv(65536)
            if not data:
                raise RuntimeError(f"the hub closed before {what}: {self.read[-300:]}")
            self.read += data
        self.read = self.read[self.read.index(what) + len(what) :]


@contextlib.contextmanager
def stopped(process):
    """What is sent meanwhile comes all at once: what it costs does not depend on who is faster."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def subscribe(hub, port, n):
    with stopped(hub):
        peer = Peer(port)
        first, then = {"type": "connect", "instance": f"i{n}"}, {"type": "subscribe", "id": 1, "room": "r"}
        early = base64.urlsafe_b64encode(f"{json.dumps(first)}\n{json.dumps(then)}".encode()).decode()
        peer.socket.sendall(
            f"GET /ws?early={early} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Cookie: twineid={uuid.UUID(int=n, version=4)}\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
    peer.until(b'"connected"')
    peer.until(b'"subscribed"')
    return peer


def publish(peer, n):
    body = json.dumps({"room": "r", "data": f"message-{n:08}-" + "x" * 64})
    peer.socket.sendall(
        (
            f"POST /api/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
    )


def count(hub, connections, publishes, store="memory"):
    """Instructions of a hub from its start to its end, with so many subscribers and publishes, one after the other."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        log = open(f"{folder}/log", "w+b")
        env = dict(
            os.environ,
            TWINE_LISTEN=f"127.0.0.1:{port}",
            TWINE_DATA_DIR=folder,
            TWINE_API_KEY=KEY,
            TWINE_STORE=store,
            TWINE_LOG="warn",
            TWINE_HEARTBEAT="1h",
        )
        tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={out}"]
        # One core, and so one shard and one worker.
        running = subprocess.Popen(["taskset", "-c", "0"] + tool + [hub, "serve"], env=env, stdout=log, stderr=log)
        try:
            end = time.time() + PATIENCE
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE).close()
                    break
                except (urllib.error.URLError, OSError):
                    if time.time() > end or running.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(f"the hub does not start:\n{log.read().decode()[-2000:]}")
                    time.sleep(0.1)
            subscribers = [subscribe(running, port, n) for n in range(connections)]
            publisher = Peer(port)
            for n in range(publishes):
                publish(publisher, n)
                publisher.until(b'"duplicate":false}')
                for peer in subscribers:
                    peer.until(f"message-{n:08}-".encode())
            running.send_signal(signal.SIGTERM)
            if running.wait(PATIENCE) != 0:
                log.seek(0)
                raise RuntimeError(f"the hub did not end well:\n{log.read().decode()[-2000:]}")
        finally:
            running.kill()
            running.wait()
            log.close()
        with open(out) as f:
            return int(re.search(r"^summary: (\d+)", f.read(), re.M)[1])


def measure(hub):
    # So many publishes that what the runs' starts and connections differ by does not show.
    few, more, publishes = 20, 220, 1000
    quiet = count(hub, few, 0)
    connection = (count(hub, more, 0) - quiet) / (more - few)
    narrow, wide = count(hub, few, publishes), count(hub, more, publishes)
    delivery = (wide - narrow - connection * (more - few)) / (more - few) / publishes
    publish = (narrow - quiet) / publishes - delivery * few
    # A commit of its own each; nobody listens.
    durable = (count(hub, 0, publishes, "sqlite") - count(hub, 0, 0, "sqlite")) / publishes
    return {"connection": connection, "publish": publish, "durable publish": durable, "delivery": delivery}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hub", default=f"{HERE}/../target/{os.uname().machine}-unknown-linux-musl/release/twine-hub")
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not there: `make setup` installs it")
    if not os.path.exists(a.hub):
        sys.exit(f"{a.hub} is not there: `make image` builds it")
    rounds = [measure(a.hub) for _ in range(ROUNDS)]
    found = {name: round(statistics.median(each[name] for each in rounds)) for name in rounds[0]}
    if a.write:
        with open(BUDGET, "w") as f:
            f.write(json.dumps(found, indent=2) + "\n")
    with open(BUDGET) as f:
        budget = json.load(f)
    failed = False
    for name, value in found.items():
        change = value / budget[name] - 1
        verdict = "ok" if abs(change) <= TOLERANCE else "MORE" if change > 0 else "less: write it down"
        failed |= change > TOLERANCE
        print(f"{name:<15} {value:>7} instructions, budget {budget[name]:>7}, {change:+.1%}  {verdict}")
    if failed:
        print("the hot path has grown: mend it, or say why in the commit that runs instructions.py --write", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
