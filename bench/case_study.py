#!/usr/bin/env python3
"""The two phases of a published case study in full, each over several hubs on this machine. See README.md.

case_study.py ramp|fanout [--hubs 5] [--hub ../target/release/twine-hub] [-- FLAGS OF `twine-hub bench`]

A process may be capped at 20,000 open files: so there are several hubs, which know nothing of each other, and `twine-hub
bench` takes as many processes as it needs. Hubs keep their messages in SQLite, and everything shares all cores. Prints what
`twine-hub bench` found, with the processor time and the memory of the hubs meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import bench

KEY = "bench-key-0123456789abcdef"
# Of a hub's files, those that are not for clients.
HTTP_CONNECTIONS = 500


class Hub:
    def __init__(self, binary, folder):
        port = bench.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(f"{folder}/log", "wb")
        env = {k: v for k, v in os.environ.items() if not k.startswith("TWINE_")} | {
            "TWINE_LISTEN": f"127.0.0.1:{port}",
            "TWINE_DATA_DIR": f"{folder}/data",
            "TWINE_API_KEY": KEY,
            "TWINE_MAX_HTTP_CONNECTIONS": str(HTTP_CONNECTIONS),
            "TWINE_LOG": "warn",
            # As the image sets them.
            "MIMALLOC_PURGE_DELAY": "0",
            "MIMALLOC_ALLOW_THP": "0",
        }
        self.process = subprocess.Popen([binary, "serve"], env=env, stdout=self.log, stderr=self.log)

    def cpu(self):
        """Seconds of all its threads. None of them ends while it serves."""
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        return total / 1e9

    def memory(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Watch(threading.Thread):
    """Notes once a second what all hubs have used."""

    def __init__(self, hubs):
        super().__init__(daemon=True)
        self.hubs, self.seen, self.over = hubs, [], threading.Event()

    def look(self):
        # The kernel walks all of a process's pages for its memory: for a moment, and not every time.
        memory = sum(hub.memory() for hub in self.hubs) if len(self.seen) % 10 == 0 else self.seen[-1][2]
        self.seen.append((time.time(), sum(hub.cpu() for hub in self.hubs), memory))

    def run(self):
        while not self.over.wait(1):
            self.look()

    def at(self, moment):
        """What was seen last by then."""
        return max((seen for seen in self.seen if seen[0] <= moment), default=self.seen[0])

    def cores(self, begin, end):
        (t0, cpu0, _), (t1, cpu1, _) = self.at(begin), self.at(end)
        return (cpu1 - cpu0) / max(t1 - t0, 1e-9)


def run(scenario, binary, n_hubs, flags):
    hubs = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for n in range(n_hubs):
                os.mkdir(f"{folder}/{n}")
                hubs.append(Hub(binary, f"{folder}/{n}"))
                bench.wait_until_ready(f"{hubs[-1].url}/readyz", time.time() + 20)
            watch = Watch(hubs)
            watch.look()
            watch.start()
            urls = ",".join(hub.url for hub in hubs)
            command = [binary, "bench", "--scenario", scenario, "--url", urls, "--json", *flags]
            env = dict(os.environ, TWINE_API_KEY=KEY)
            begin = time.time()
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE)
            watch.over.set()
            watch.join()
        finally:
            for hub in hubs:
                hub.end()
    if not done.stdout:
        sys.exit(done.returncode or 1)
    report = json.loads(done.stdout)
    # The report's times begin with the run.
    arrived = begin + report["elapsed"]["arriving"]
    empty, full = watch.seen[0][2], watch.at(arrived)[2]
    connections, deliveries = report["connections"], report["deliveries"]

    def times(measured):
        return " and ".join(f"{measured[p] * 1e3:.1f}" for p in ("p50", "p99")) if measured else "-"

    rows = [
        ("connections made", f"{connections['made']:,} of {connections['asked']:,}"),
        ("reconnects", connections["reconnects"]),
        ("made in, p50 and p99, ms", times(connections["time"])),
        ("messages received", f"{deliveries['received']:,} of {deliveries['expected']:,}"),
        ("lost, repeated, out of order", ", ".join(str(deliveries[k]) for k in ("lost", "repeated", "out_of_order"))),
        ("delivered in, p50 and p99, ms", times(deliveries["latency"])),
        ("messages a second", f"{deliveries['rate']:,.0f}"),
        ("cores of the hubs while connecting", f"{watch.cores(begin, arrived):.2f}"),
        (
            "cores of the hubs while delivering",
            f"{watch.cores(arrived, arrived + report['elapsed']['delivering']):.2f}",
        ),
        ("cores of the generator", f"{report['generator']['cpu'] / report['elapsed']['total']:.2f}"),
        ("processes of the generator", report["generator"]["processes"]),
        ("memory of the hubs a connection, bytes", f"{(full - empty) / max(connections['made'], 1):,.0f}"),
        ("passed", report["passed"]),
    ]
    print(f"\n| `{scenario}` | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")
    for fault in report["faults"]:
        print(f"fault: {fault}")
    return 0 if report["passed"] else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["ramp", "fanout"])
    parser.add_argument("--hubs", type=int, default=5)
    parser.add_argument("--hub", default=f"{bench.HERE}/../target/release/twine-hub")
    argv = sys.argv[1:]
    i = argv.index("--") if "--" in argv else len(argv)
    a = parser.parse_args(argv[:i])
    bench.stop_servers_when_told()
    sys.exit(run(a.scenario, os.path.abspath(a.hub), a.hubs, argv[i + 1 :]))


if __name__ == "__main__":
    main()
