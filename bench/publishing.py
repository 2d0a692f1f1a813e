#!/usr/bin/env python3
"""What a publish costs a server by HTTP/1.1 and HTTP/2, and a backend by the SDK. See README.md.

publishing.py http [TARGET,TARGET] [--only CASE] [--reps 3] [--secs 3] [--base axum-route] [--out out/x.jsonl]
publishing.py sdk [TARGET,TARGET] [--only MODE] [--reps 3] [--secs 3] [--out out/x.jsonl]
publishing.py table out/x.jsonl [--base axum-route]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

import bench

KEY = "bench-key-0123456789abcdef"
PAYLOAD = "~" + "x" * 127
# name: options of h2load. A client is a connection; one connection of HTTP/2 can do the work of many.
CLIENTS = {
    "h1 x 1": "--h1 -c 1 -m 1",
    "h2 x 1": "-c 1 -m 1",
    "h1 x 16": "--h1 -c 16 -m 1",
    "h2 x 16": "-c 16 -m 1",
    "h2 1 x 16 streams": "-c 1 -m 16",
    "h1 x 256": "--h1 -c 256 -m 1",
    "h2 x 256": "-c 256 -m 1",
    "h2 1 x 256 streams": "-c 1 -m 256",
}
# As fast as it goes, and by a clock that all of them keep up with.
MODES = {
    "background": "background",
    "await-1": "await-1",
    "await-16": "await-16",
    "await-256": "await-256",
    "background, 500/s": "background --rate 500",
    "await-16, 500/s": "await-16 --rate 500",
}
HTTP = [
    ("runs", None),
    ("us/pub", "server_us_per_publish"),
    ("xbase", None),
    ("user", "server_user_us_per_publish"),
    ("pub/s", "published_per_s"),
    ("cpu%", "server_cpu_percent"),
    ("mean us", "mean_us"),
    ("failed", "failed"),
]
SDK = [
    ("runs", None),
    ("SDK us/msg", "sdk_us_per_message"),
    ("msg/s", "messages_per_s"),
    ("SDK cpu%", "sdk_cpu_percent"),
    ("hub us/msg", "server_us_per_publish"),
    ("dropped", "dropped"),
]
# Requests that warm a server up, and tell how many take the time that is wanted.
WARMUP = 2000
TICK = 1e6 / os.sysconf("SC_CLK_TCK")


def cpu_us(pids):
    """Run time of all threads, and the part of the ticks that was in user space."""
    total = user = ticks = 0
    for pid in bench.descendants(pids):
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
                total += int(f.read().split()[0]) / 1000
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        user, ticks = user + int(fields[11]) * TICK, ticks + (int(fields[11]) + int(fields[12])) * TICK
    return total, user, ticks


class Spent:
    """CPU of a server from now on."""

    def __init__(self, pids):
        self.pids, self.before, self.start = pids, cpu_us(pids), time.monotonic()

    def per(self, published):
        total, user, ticks = (now - before for now, before in zip(cpu_us(self.pids), self.before))
        wall = (time.monotonic() - self.start) * 1e6
        return {
            "server_us_per_publish": round(total / published, 3),
            "server_user_us_per_publish": round(total * user / (ticks or 1) / published, 3),
            "server_cpu_percent": round(100 * total / wall, 1),
        }


def on_other_core(cmd):
    core = "1" if os.cpu_count() > 1 else "0"
    return bench.nice(["taskset", "-c", core] + cmd, bench.REALTIME)


def to_us(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def h2load(pair, options, requests):
    """So many publishes; by a duration (`-D`) HTTP/1.1 with many connections now and then does not end."""
    body = f"{pair.run}/body"
    with open(body, "w") as f:
        f.write('{"room":"r000000","data":"%s"}' % PAYLOAD)
    cmd = ["h2load", *options.split(), "-n", str(requests), "-d", body]
    cmd += ["-H", "content-type: application/json", "-H", f"authorization: Bearer {KEY}"]
    cmd += [f"http://127.0.0.1:{pair.conf['port']}/api/publish"]
    out = subprocess.run(on_other_core(cmd), stdout=subprocess.PIPE, text=True, timeout=60)
    if out.returncode or "status codes: " not in out.stdout:
        raise RuntimeError(f"h2load did not end well:\n{out.stdout[-1000:]}")
    mean = re.search(r"time for request: +\S+ +\S+ +(\S+)", out.stdout)
    succeeded = int(re.search(r"status codes: (\d+) 2xx", out.stdout)[1])
    return succeeded, {"failed": requests - succeeded, "mean_us": to_us(mean[1]) if mean else None}


def by_http(pair, options, secs):
    start = time.monotonic()
    h2load(pair, options, WARMUP)
    requests = max(WARMUP, int(WARMUP / (time.monotonic() - start) * secs))
    spent, start = Spent(pair.pids), time.monotonic()
    published, more = h2load(pair, options, requests)
    took = time.monotonic() - start
    return {**spent.per(published or 1), "published": published, "published_per_s": round(published / took), **more}


def by_sdk(pair, mode, secs):
    url = f"http://127.0.0.1:{pair.conf['port']}"
    cmd = [f"{bench.BIN}/sdk", url, KEY, *mode.split(), "--secs", str(secs), "--payload", str(len(PAYLOAD))]
    # Its warm-up is as dear a message as the rest: the hub's part is counted over both.
    before = published_by(pair)
    spent = Spent(pair.pids)
    out = subprocess.run(on_other_core(cmd), stdout=subprocess.PIPE, text=True, timeout=secs + 120)
    if out.returncode:
        raise RuntimeError(f"sdk {mode} did not end well: its error stands above")
    return {**json.loads(out.stdout), **spent.per(max(1, published_by(pair) - before))}


def published_by(pair):
    with bench.urllib.request.urlopen(f"http://127.0.0.1:{pair.conf['port']}/metrics", timeout=10) as f:
        return int(re.search(r"(?m)^twine_messages_published_total (\d+)", f.read().decode())[1])


def round_of(measure, cases, target, secs):
    """All cases on one server, started for this round."""
    _, conf = bench.read_target(target)
    pair = bench.Pair(target, conf["server"].get("args", []), {}, 0)
    try:
        if not pair.start():
            return
        for name, options in cases.items():
            try:
                yield name, measure(pair, options, secs)
            except (RuntimeError, subprocess.TimeoutExpired) as e:
                print(f"{target} {name}: {e}", file=sys.stderr)
    finally:
        pair.end()


def run(what, targets, only, reps, secs, out):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    measure, cases = (by_http, CLIENTS) if what == "http" else (by_sdk, MODES)
    cases = {name: options for name, options in cases.items() if name in (only or cases)}
    for rep in range(reps):
        for target in targets:
            for name, got in round_of(measure, cases, target, secs):
                got.update(target=target, preset=f"{what} {name}", what=what, rep=rep, load=os.getloadavg()[0])
                with open(out, "a") as f:
                    f.write(json.dumps(got) + "\n")


def table(path, base):
    with open(path) as f:
        rows = list(enumerate(json.loads(line) for line in f))
    targets = list(dict.fromkeys(r["target"] for _, r in rows))
    for what, columns in (("http", HTTP), ("sdk", SDK)):
        presets = dict.fromkeys(r["preset"] for _, r in rows if r["what"] == what)
        lines = [([p.removeprefix(f"{what} "), t], p, t) for p in presets for t in targets]
        if lines:
            heads = ["clients" if what == "http" else "mode", "target"]
            bench.print_table(what, heads, lines, columns, "server_us_per_publish", rows, base)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    for what, targets in (("http", "axum-route,twine-memory,twine"), ("sdk", "twine-memory,twine")):
        r = sub.add_parser(what)
        r.add_argument("targets", nargs="?", default=targets)
        r.add_argument("--only", action="append", choices=list(CLIENTS if what == "http" else MODES))
        r.add_argument("--reps", type=int, default=3)
        r.add_argument("--secs", type=int, default=3)
        r.add_argument("--base", default="axum-route")
        r.add_argument("--out", default=f"{bench.HERE}/out/{int(time.time())}.jsonl")
    t = sub.add_parser("table")
    t.add_argument("file")
    t.add_argument("--base", default="axum-route")
    a = p.parse_args()
    if a.what == "table":
        return table(a.file, a.base)
    if a.what == "http" and not shutil.which("h2load"):
        p.error("needs h2load: apt-get install nghttp2-client")
    bench.stop_servers_when_told()
    bench.own_session()
    run(a.what, a.targets.split(","), a.only, a.reps, a.secs, a.out)
    table(a.out, a.base)


if __name__ == "__main__":
    main()
