#!/usr/bin/env python3
"""Where a balancer sends clients whose hubs are unequally busy, and how those fare. See README.md.

balance.py run [--cases busy,neighbour,equal] [--policies agent,leastconn,both] [--reps 3] [--out out/x.jsonl]
balance.py table out/x.jsonl
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import bench

HUBS = 3
POLICIES = {
    "agent": "`roundrobin`, weights by agent",
    "leastconn": "`leastconn`, no agent",
    "both": "`leastconn`, weights by agent",
}
CASES = {
    "busy": "hub-1 takes the publishes of other rooms",
    "neighbour": "another program shares hub-1's core",
    "equal": "none is busy",
}
# Arrivals, and what they get: rooms on all hubs, which know nothing of each other.
ARRIVE = "--scenario arrive --conns 1500 --rooms 50 --per-s 100 --rate 200 --warmup 0 --secs 8 --pub-conns 3"
# Batches a second that a busy hub-1 takes, of so many messages each.
BUSY, BATCH = int(os.environ.get("BENCH_BUSY", "4000")), 50
HUB_PORT, AGENT_PORT, PROXY_PORT = 7070, 7074, 7077
TIMES = [
    ("connect p50 us", "connect_us", "p50"),
    ("p99 us", "connect_us", "p99"),
    ("arriving p50 us", "arriving_latency_us", "p50"),
    ("p99 us", "arriving_latency_us", "p99"),
    ("all there p50 us", "latency_us", "p50"),
    ("p99 us", "latency_us", "p99"),
    ("p99.9 us", "latency_us", "p99.9"),
]
TARGET = """
name = "{name}"
port = {port}
ws_path = "/ws"
ws_headers = ["Sec-WebSocket-Protocol: twine.v1.json"]
subscribe = [
    {{ send = '{{"type":"connect"}}' }}, {{ expect = '"connected"' }},
    {{ send = '{{"type":"subscribe","id":1,"room":"{name}-{{room}}"}}' }}, {{ expect = '"subscribed"' }},
]
replies = [{{ starts = '{{"type":"ping"', send = '{{"type":"pong","cursors":{{}}}}' }}]
[publish]
ports = {publish}
each = {each}
path = "{path}"
headers = ["Content-Type: application/json", "Authorization: Bearer bench-key-0123456789abcdef"]
body = '{body}'
"""
MESSAGE = '{"room":"%s-{room}","data":"{payload}"}'
# Nobody listens to the others of a batch.
OTHERS = ",".join(
    '{"room":"quiet-%d","data":{"n":%d,"text":"a message that nobody waits for"}}' % (i % 7, i) for i in range(1, BATCH)
)


def proxy_config(policy, run):
    """The configuration that we ship, with these hubs."""
    with open(f"{bench.HERE}/../deploy/haproxy/haproxy.cfg") as f:
        text = f.read()
    agent = policy != "leastconn"
    servers = "".join(
        f"    server hub-{i + 1} 127.0.0.1:{HUB_PORT + i}" + (f" agent-port {AGENT_PORT + i}\n" if agent else "\n")
        for i in range(HUBS)
    )
    text = re.sub(r"(    server hub-\S+ .*\n)+", servers, text)
    for old, new in (
        ("bind :8080", f"bind 127.0.0.1:{PROXY_PORT}"),
        ("global\n", f"global\n    stats socket {run}/stats\n"),
        (" agent-check agent-inter 1s", " agent-check agent-inter 1s" if agent else ""),
        ("balance roundrobin", "balance roundrobin" if policy == "agent" else "balance leastconn"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


def target(run, name, port, publish, to, body):
    path, each = f"{run}/{name}.toml", str(len(publish) > 1).lower()
    with open(path, "w") as f:
        f.write(TARGET.format(name=name, port=port, publish=publish, each=each, path=to, body=body))
    return path


def load_of(i):
    with urllib.request.urlopen(f"http://127.0.0.1:{HUB_PORT + i}/load", timeout=5) as f:
        return json.load(f)


class Watch(threading.Thread):
    """Keeps what the hubs said of themselves while they had the most connections."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.loads, self.over = [0] * HUBS, [0] * HUBS, threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            try:
                now = [load_of(i) for i in range(HUBS)]
            except OSError:  # it has not answered in time
                continue
            connections = [int(l["parts"]["connections"]["used"]) for l in now]
            if sum(connections) >= sum(self.most):
                self.most, self.loads = connections, [l["load"] for l in now]


def one(policy, case):
    with tempfile.TemporaryDirectory(prefix="bench-") as run:
        pids, children = [], []

        def start(core, cmd, **kw):
            log = open(f"{run}/log", "a")
            cmd = bench.nice(["taskset", "-c", str(core)] + cmd, False)
            child = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stderr=log, **kw)
            children.append(child)
            pids.append(child.pid)
            return child

        # hub-1 has a core of its own, the others share one with the balancer and the load. Nothing is a
        # real-time process: neighbours are to be scheduled as the hub is.
        cores = [0, os.cpu_count() - 1, os.cpu_count() - 1]
        hub = os.environ.get("TWINE_HUB", f"{bench.HERE}/../target/release/twine-hub")
        try:
            for i in range(HUBS):
                env = dict(
                    os.environ,
                    TWINE_LISTEN=f"127.0.0.1:{HUB_PORT + i}",
                    TWINE_AGENT_LISTEN=f"127.0.0.1:{AGENT_PORT + i}",
                    TWINE_API_KEY="bench-key-0123456789abcdef",
                    TWINE_STORE="memory",
                    TWINE_DATA_DIR=f"{run}/data{i}",
                )
                start(cores[i], [hub, "serve"], env=env, stdout=subprocess.DEVNULL)
            for i in range(HUBS):
                bench.wait_until_ready(f"http://127.0.0.1:{HUB_PORT + i}/readyz", time.time() + 20)
            if case == "busy":
                body = f'{{"messages":[{MESSAGE % "busy"},{OTHERS}]}}'
                path = target(run, "busy", HUB_PORT, [HUB_PORT], "/api/publish/batch", body)
                args = f"--scenario manyrooms --conns 16 --rooms 16 --pub-conns 16 --rate {BUSY} --secs 120".split()
                start(cores[1], [f"{bench.BIN}/load", "--target", path] + args, stdout=subprocess.DEVNULL)
            elif case == "neighbour":
                start(0, ["sh", "-c", "while :; do :; done"])
            with open(f"{run}/haproxy.cfg", "w") as f:
                f.write(proxy_config(policy, run))
            path = f"{os.environ['PATH']}:/usr/sbin"
            start(cores[1], ["haproxy", "-db", "-f", f"{run}/haproxy.cfg"], env=dict(os.environ, PATH=path))
            bench.wait_until_ready(f"http://127.0.0.1:{PROXY_PORT}/readyz", time.time() + 20)
            time.sleep(8)  # what hubs say of themselves is smoothed over some seconds

            before = [int(load_of(i)["parts"]["connections"]["used"]) for i in range(HUBS)]
            watch = Watch()
            watch.start()
            every = [HUB_PORT + i for i in range(HUBS)]
            path = target(run, "arrivals", PROXY_PORT, every, "/api/publish", MESSAGE % "arrivals")
            arrivals = start(
                cores[1], [f"{bench.BIN}/load", "--target", path] + ARRIVE.split(), stdout=subprocess.PIPE, text=True
            )
            out, _ = arrivals.communicate(timeout=120)
            watch.over.set()
            watch.join()
            got = json.loads(out) if arrivals.returncode == 0 else {"error": arrivals.returncode}
            got["hubs"] = [most - were for most, were in zip(watch.most, before)]
            got["loads"] = watch.loads
            return got
        finally:
            bench.stop(pids, signal.SIGKILL)
            for child in children:
                child.wait()


def run(cases, policies, reps, out):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    for case in cases:
        for rep in range(reps):
            for policy in policies:
                got = dict(one(policy, case), case=case, policy=policy, rep=rep, load=os.getloadavg()[0])
                with open(out, "a") as f:
                    f.write(json.dumps(got) + "\n")


def table(path):
    with open(path) as f:
        rows = [json.loads(line) for line in f]
    for case in dict.fromkeys(r["case"] for r in rows):
        print(f"\n### {case}: {CASES[case]}\n")
        columns = ["balancer", "runs", "share of hub-1, -2, -3 %", "their load"]
        columns += [name for name, _, _ in TIMES] + ["lost"]
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for policy in dict.fromkeys(r["policy"] for r in rows):
            of = [r for r in rows if r["case"] == case and r["policy"] == policy and "error" not in r]
            if not of:
                continue

            def mid(pick):
                return f"{statistics.median(pick(r) for r in of):.0f}"

            shares = ", ".join(mid(lambda r: 100 * r["hubs"][i] / sum(r["hubs"])) for i in range(HUBS))
            loads = ", ".join(mid(lambda r: r["loads"][i]) for i in range(HUBS))
            cells = [POLICIES[policy], str(len(of)), shares, loads]
            for _, key, q in TIMES:
                cells.append(mid(lambda r: r[key][q]))
            cells.append(str(max(r["lost"] for r in of)))
            print("| " + " | ".join(cells) + " |")


def main():
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(1))  # so that all that was started is stopped
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    r = sub.add_parser("run")
    r.add_argument("--cases", default="busy,neighbour,equal")
    r.add_argument("--policies", default="agent,leastconn,both")
    r.add_argument("--reps", type=int, default=3)
    r.add_argument("--out", default=f"{bench.HERE}/out/balance-{int(time.time())}.jsonl")
    t = sub.add_parser("table")
    t.add_argument("file")
    a = p.parse_args()
    if a.what == "run":
        bench.own_session()
        run(a.cases.split(","), a.policies.split(","), a.reps, a.out)
        table(a.out)
    else:
        table(a.file)


if __name__ == "__main__":
    main()
