#!/usr/bin/env python3
"""Runs load against targets and prints tables. See README.md.

bench.py run PRESET[,PRESET] TARGET[,TARGET] [--reps 3] [--base floor] [--out out/x.jsonl] [-- LOAD-ARGS]
bench.py curve CURVE[/VALUE][,CURVE] TARGET[,TARGET] [--reps 3] [--base floor] [--out out/x.jsonl] [-- LOAD-ARGS]
bench.py table out/x.jsonl [--base floor]
bench.py selftest
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request

from curves import CURVES, Point

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{HERE}/target"), "release")
PRESETS = {
    "ramp": "--scenario ramp",
    "idle": "--scenario idle",
    "idle-19k": "--scenario idle --conns 18900",
    "fanout-100": "--scenario fanout --conns 100 --rate 200",
    "fanout-1k": "--scenario fanout --conns 1000 --rate 20",
    "fanout-10k": "--scenario fanout --conns 10000 --rate 2",
    "saturate-100": "--scenario saturate --conns 100",
    "saturate-1k": "--scenario saturate --conns 1000",
    "saturate-10k": "--scenario saturate --conns 10000",
    "pipeline-1k": "--scenario saturate --conns 1000 --pipeline 16 --window 16",
    "manyrooms": "--scenario manyrooms",
    "publish-1": "--scenario publish --pub-conns 1",
    "publish": "--scenario publish",
    "publish-256": "--scenario publish --pub-conns 256",
    "storm": "--scenario storm",
    "storm-rooms": "--scenario storm --rooms 1000",
    "storm-restart": "--scenario storm --restart",
    "storm-spread": "--scenario storm --restart --groups 19",
    "storm-small": "--scenario storm --conns 500",
}
# One publish each 10 ms, as the emulator of the table can take, and six subscribers of each room. What
# the hubs do of themselves is measured before (`hold`), and Java has its time to warm up.
FLEET = "--rate 100 --secs 8 --warmup 6 --hold 4 --pub-conns 6"
for n in (1, 10, 100, 1000):
    PRESETS[f"fleet-{n}"] = f"--scenario fanout --rooms {n} --conns {6 * n} {FLEET}"
    PRESETS[f"fleet-{n}-on-1"] = PRESETS[f"fleet-{n}"] + " --on 1"
PRESETS["fleet-fanout"] = f"--scenario fanout --rooms 1 --conns 600 {FLEET}"
PRESETS["fleet-publish"] = "--scenario publish --rooms 64 --conns 64 --pub-conns 64 --secs 8 --warmup 6"


NICE = os.environ.get("BENCH_NICE", "-10")
REALTIME = os.environ.get("BENCH_REALTIME", "1") == "1"


def own_session():
    """Other work on the machine must not drown the latencies: a session (and
    so a scheduling group) of its own, with a priority above the rest."""
    if not os.environ.get("BENCH_SESSION"):
        os.environ["BENCH_SESSION"] = "1"
        os.execvp("setsid", ["setsid", "--wait", sys.executable] + sys.argv)
    try:
        with open("/proc/self/autogroup", "w") as f:
            f.write(NICE)
    except OSError:
        pass  # no such grouping, or no right to it: nice has to do


def nice(cmd, realtime):
    """SCHED_RR keeps other work on the machine out of the way, its cache misses
    too; a run takes a few seconds. BENCH_REALTIME=0 shares the cores instead."""
    return (["chrt", "-r", "2"] if realtime else ["nice", "-n", NICE]) + cmd


def descendants(roots):
    kids = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat") as f:
                ppid = int(f.read().rsplit(")", 1)[1].split()[1])
            kids.setdefault(ppid, []).append(int(p))
        except OSError:
            pass
    out = list(roots)
    for p in out:
        out += [k for k in kids.get(p, []) if k not in out]
    return out


def stop(pids, first=signal.SIGTERM):
    """Ends the processes this run started, and no others."""
    every = descendants(pids)
    for sig, wait in ((first, 5), (signal.SIGKILL, 5)):
        for p in every:
            try:
                os.kill(p, sig)
            except ProcessLookupError:
                pass
        end = time.time() + wait
        while time.time() < end:
            every = [p for p in every if os.path.exists(f"/proc/{p}")]
            if not every:
                return
            time.sleep(0.05)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ports_of(conf):
    return {conf["port"], conf.get("publish", {}).get("port", conf["port"]), *conf.get("ports", [])}


def wait_until_ready(url, end):
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if time.time() > end:
                raise RuntimeError(f"{url} is not well")
            time.sleep(0.05)


def pids_of(run):
    with open(f"{run}/pids") as f:
        return [int(line.split()[0]) for line in f]


def start(target, conf, args, run, env):
    """Starts the server and waits until its ports are open. Its pids, or None where it is not installed."""
    server = conf["server"]
    pin = server.get("pin", True) and os.cpu_count() > 1
    env = {**os.environ, "BENCH_RUN": run, **{k: str(v) for k, v in server.get("env", {}).items()}, **env}
    script = os.path.join(HERE, "peers", server["start"])
    cmd = nice((["taskset", "-c", "0"] if pin else []) + [script] + args, REALTIME)
    if subprocess.run(cmd, env=env, timeout=60, stdin=subprocess.DEVNULL).returncode == 3:
        return None
    pids = pids_of(run)
    end = time.time() + 20
    for port in ports_of(conf):
        while True:
            try:
                socket.create_connection((conf.get("host", "127.0.0.1"), port), 1).close()
                break
            except OSError:
                if time.time() > end:
                    stop(pids)
                    log = open(f"{run}/log").read()[-2000:]
                    raise RuntimeError(f"{target}: port {port} does not open:\n{log}")
                time.sleep(0.05)
        if "ready" in server:
            try:
                wait_until_ready(f"http://{conf.get('host', '127.0.0.1')}:{port}{server['ready']}", end)
            except RuntimeError:
                stop(pids)
                raise
    time.sleep(server.get("settle", 0.5))
    return pids


def read_target(target):
    path = target if target.endswith(".toml") else f"{HERE}/targets/{target}.toml"
    with open(path, "rb") as f:
        return path, tomllib.load(f)


def check_free(target, conf):
    for port in ports_of(conf):  # a server left over would share the port and the load
        with socket.socket() as s:
            if not s.connect_ex((conf.get("host", "127.0.0.1"), port)):
                raise RuntimeError(f"{target}: something listens on port {port} already")


def talks_of_rooms(conf):
    return any("{room}" in step.get("send", "") for step in conf.get("subscribe", []))


class Pair:
    """A server, and the load that is on it."""

    def __init__(self, target, args, env, copy):
        self.target, self.args, self.env, self.pids, self.load = target, args, env, [], None
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.run = self.folder.name
        self.path, self.conf = read_target(target)
        if copy:
            self.move(copy)
        check_free(target, self.conf)

    def move(self, copy):
        """Another server of the same kind, on a port of its own."""
        port = self.conf["port"] + copy
        with open(self.path) as f:
            text = re.sub(r"(?m)^port = .*", f"port = {port}", f.read(), count=1)
        self.path = f"{self.run}/target.toml"
        with open(self.path, "w") as f:
            f.write(text)
        self.conf, self.env = tomllib.loads(text), {**self.env, "BENCH_PORT": str(port)}

    def start(self):
        try:
            pids = start(self.target, self.conf, self.args, self.run, self.env)
        except SystemExit:  # told to stop meanwhile
            if os.path.exists(f"{self.run}/pids"):
                stop(pids_of(self.run))
            raise
        self.pids = pids or []
        return pids is not None

    def begin(self, load_args):
        core = "1" if os.cpu_count() > 1 else "0"
        cmd = ["taskset", "-c", core, f"{BIN}/load", "--target", self.path, "--pids", f"{self.run}/pids"] + load_args
        self.load = subprocess.Popen(nice(cmd, REALTIME), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.watchdog = threading.Timer(420, self.load.kill)
        self.watchdog.start()

    def say(self, answer):
        self.load.stdin.write(f"{answer}\n")
        self.load.stdin.flush()

    def until(self, question):
        """What load prints until it asks that, or ends; a restart is done when it asks for one."""
        last = ""
        for line in self.load.stdout:
            if line == f"{question}\n":
                return last
            if line == "restart\n":
                stop(self.pids, signal.SIGKILL)
                os.remove(f"{self.run}/pids")
                self.start()
                self.say("restarted")
            else:
                last = line
        return last

    def result(self, keep_log):
        result = self.until(None)
        if self.load.wait() or keep_log:
            print(open(f"{self.run}/log").read()[-2000:], file=sys.stderr)
        if self.load.returncode:
            return {"error": self.load.returncode}
        # As it was, not as it was asked for: with another one, who goes first on a full core is another.
        realtime = os.sched_getscheduler(self.pids[0]) == os.SCHED_RR
        return {**json.loads(result), "realtime": realtime}

    def end(self):
        if self.load:
            self.watchdog.cancel()
            self.load.kill()
            self.load.wait()
        stop(self.pids)
        self.folder.cleanup()


def one(target, load_args, keep_log=False, env={}, copies=1):
    """What load says of a run; None where the target is not installed, or can't do it."""
    _, conf = read_target(target)
    args = conf["server"].get("args", [])
    if "storm" in load_args:
        if "resume" not in conf:
            return None
        args = args + conf["resume"].get("args", [])
        if not conf["resume"].get("survives"):  # it would have forgotten what is missed
            load_args = [a for a in load_args if a != "--restart"]
    if copies > 1 and not conf["server"].get("copies"):
        return None
    with contextlib.ExitStack() as ends:
        pairs = []
        for copy in range(copies):
            pair = Pair(target, args, env, copy)
            ends.callback(pair.end)
            if not pair.start():
                return None
            pairs.append(pair)
        for pair in pairs:
            pair.begin(load_args + (["--barrier"] if copies > 1 else []))
        if copies > 1:  # none publishes before all are there
            for pair in pairs:
                pair.until("ready")
            for pair in pairs:
                pair.say("go")
        return together([pair.result(keep_log) for pair in pairs])


def together(results):
    """Several loads that ran at once as one. Each counts by its deliveries, latency by the median."""
    broken = next((r for r in results if "error" in r), None)
    if broken or len(results) == 1:
        return broken or results[0]
    out = dict(results[0], parts=len(results))
    delivered = sum(r["delivered"] for r in results) or 1
    for k, v in results[0].items():
        values = [r[k] for r in results]
        if k.endswith("_per_delivered"):
            out[k] = round(sum(r[k] * r["delivered"] for r in results) / delivered, 3)
        elif isinstance(v, dict):
            out[k] = {q: statistics.median(x[q] for x in values) for q in v}
        elif k in SUMS:
            out[k] = sum(values)
    return out


SUMS = {"conns", "subscribed", "failed", "published", "acked", "refused", "reopened", "expected", "delivered", "lost"}
SUMS |= {"dup", "reorder", "misrouted", "closed", "delivered_per_s", "published_per_s", "server_cpu_percent"}
SUMS |= {"load_cpu_percent", "pss_end", "rss_before", "rss_peak"}


def run(points, targets, reps, out, extra):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    skipped = set()
    for point in points:
        for rep in range(reps):
            for target in targets:
                if target in skipped or (point.talks and not talks_of_rooms(read_target(target)[1])):
                    continue
                got = measure(point, target, extra)
                if got is None:
                    if point.copies == 1:
                        skipped.add(target)
                    continue
                got.update(
                    target=os.path.basename(target).removesuffix(".toml"),
                    preset=point.preset,
                    rep=rep,
                    load=os.getloadavg()[0],
                )
                if point.curve:
                    got.update(curve=point.curve, value=point.value)
                with open(out, "a") as f:
                    f.write(json.dumps(got) + "\n")


def measure(point, target, extra):
    try:
        got = one(target, point.args.split() + extra, env=point.env, copies=point.copies)
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        got = {"error": str(e)}
    if got and "error" in got:
        print(f"{target} {point.preset}: {got['error']}", file=sys.stderr)
    return got


COLUMNS = [
    ("runs", None),
    ("us/msg", "server_us_per_delivered"),
    ("user", "server_user_us_per_delivered"),
    ("sys", "server_sys_us_per_delivered"),
    ("xfloor", None),
    ("us/pub", "server_us_per_publish"),
    ("msg/s", "delivered_per_s"),
    ("cpu%", "server_cpu_percent"),
    ("load us", "load_us_per_delivered"),
    ("p50", "latency_us.p50"),
    ("p99", "latency_us.p99"),
    ("p99.9", "latency_us.p99.9"),
    ("max", "latency_us.max"),
    ("lost", "lost"),
    ("dup", "dup"),
    ("reord", "reorder"),
]
FLEET_COLUMNS = [
    ("runs", None),
    ("us/pub", "server_us_per_publish"),
    ("xbase", None),
    ("each hub", "each_us_per_publish"),
    ("pub/s", "published_per_s"),
    ("redis us/pub", "redis_us_per_publish"),
    ("idle cpu%", "idle_server_cpu_percent"),
    ("idle redis%", "idle_redis_cpu_percent"),
    ("p50", "latency_us.p50"),
    ("p99", "latency_us.p99"),
    ("ack p50", "ack_us.p50"),
    ("late p99", "publish_late_us.p99"),
    ("(table us/pub)", "table_us_per_publish"),
    ("lost", "lost"),
    ("dup", "dup"),
    ("reord", "reorder"),
]
STORM = [
    ("runs", None),
    ("current", "current"),
    ("messages", "recovered"),
    ("us/client", "storm_server_us_per_client"),
    ("xfloor", None),
    ("user", "storm_server_user_us_per_client"),
    ("sys", "storm_server_sys_us_per_client"),
    ("us/msg", "storm_server_us_per_message"),
    ("load us/client", "storm_load_us_per_client"),
    ("p50 ms", "current_ms.p50"),
    ("p99 ms", "current_ms.p99"),
    ("max ms", "current_ms.max"),
    ("again", "came_again"),
    ("RSS MB", "rss_before"),
    ("peak MB", "rss_peak"),
    ("lost", "lost"),
    ("dup", "dup"),
    ("reord", "reorder"),
]
CONNECT = [
    ("runs", None),
    ("conns", "subscribed"),
    ("conn/s", "ramp_conns_per_s"),
    ("us/conn", "ramp_server_us_per_conn"),
    ("xfloor", None),
    ("PSS B/conn", "pss_per_conn"),
    ("kernel B/conn", "kernel_per_conn"),
    ("system B/conn", "system_per_conn"),
    ("empty MB", "pss_empty"),
    ("idle cpu%", "idle_server_cpu_percent"),
]


def layout(preset):
    """The columns of a preset's table, and what its ratios compare."""
    if preset.startswith(("idle", "ramp")):
        return CONNECT, "ramp_server_us_per_conn"
    if preset.startswith("storm"):
        return STORM, "storm_server_us_per_client"
    if preset.startswith("fleet"):
        return FLEET_COLUMNS, "server_us_per_publish"
    return COLUMNS, "server_us_per_publish" if preset == "publish" else "server_us_per_delivered"


def dig(row, path):
    """What is at a path like `latency_us.p99.9` or `cycles.0.pss.left`; a key may have a point in it."""
    if isinstance(row, dict) and path in row:
        return row[path]
    head, _, rest = path.partition(".")
    if isinstance(row, list):
        below = row[int(head)] if int(head) < len(row) else None
    else:
        below = row.get(head) if isinstance(row, dict) else None
    return dig(below, rest) if rest else below


def values(rows, path):
    return [v for v in (dig(r, path) for r in rows) if v is not None]


def ratios(mine, all_rows, key, base):
    """Each run against the base's run of the same round."""
    out = []
    for i, r in mine:
        near = [
            (abs(i - j), b[key])
            for j, b in all_rows
            if b["target"] == base and b["preset"] == r["preset"] and b.get(key)
        ]
        out += [r[key] / min(near)[1]] if near and r.get(key) else []
    return out


def figure(name, path, key, mine, all_rows, base):
    """One cell: mostly a median."""
    rows = [r for _, r in mine]
    if name == "runs":
        return len(values(rows, key))
    if name in ("xfloor", "xbase"):
        vs = ratios(mine, all_rows, key, base)
    else:
        vs = values(rows, path)
    if not vs:
        return None
    if name in ("lost", "dup", "reord"):
        return max(vs)
    if name == "each hub":
        return " ".join(f"{statistics.median(v):.0f}" for v in zip(*vs))
    v = statistics.median(vs)
    return round(v / 1e6, 1) if name.endswith(" MB") else v


def cell(v):
    if v is None or isinstance(v, str):
        return v or ""
    return f"{v:.2f}" if isinstance(v, float) and abs(v) < 100 else f"{v:.0f}"


def print_table(title, heads, lines, columns, key, all_rows, base):
    """A line for each (its first cells, preset, target) that was measured."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(heads + [c for c, _ in columns]) + " |")
    print("|" + "---|" * (len(heads) + len(columns)))
    for first, preset, target in lines:
        mine = [(i, r) for i, r in all_rows if r["target"] == target and r["preset"] == preset]
        if values([r for _, r in mine], key):
            cells = [cell(figure(name, path, key, mine, all_rows, base)) for name, path in columns]
            print("| " + " | ".join(first + cells) + " |")


def table(path, base):
    with open(path) as f:
        rows = list(enumerate(json.loads(line) for line in f))
    targets = list(dict.fromkeys(r["target"] for _, r in rows))
    for preset in dict.fromkeys(r["preset"] for _, r in rows if "curve" not in r):
        columns, key = layout(preset)
        print_table(preset, ["target"], [([t], preset, t) for t in targets], columns, key, rows, base)
    for name in dict.fromkeys(r["curve"] for _, r in rows if "curve" in r):
        curve = CURVES[name]
        points = dict.fromkeys((r["value"], r["preset"]) for _, r in rows if r.get("curve") == name)
        lines = [([value, t], preset, t) for value, preset in points for t in targets]
        print_table(name, [curve.parameter, "target"], lines, curve.columns, curve.key, rows, base)


def selftest():
    """The generator must see each fault the floor is told to make, and none otherwise."""
    live = "--scenario fanout --conns 200 --rate 100 --secs 2 --settle 0.2 --warmup 0".split()
    storm = "--scenario storm --conns 200 --settle 0.2".split()
    passed = failed = 0
    for load_args, args, key in (
        (live, [], None),
        (live, ["--lossy", "1000"], "lost"),
        (live, ["--dup", "1000"], "dup"),
        (live, ["--swap", "1000"], "reorder"),
        (storm, [], None),
        (storm + ["--groups", "19"], [], None),
        (storm, ["--lossy", "1000"], "lost"),
        (storm, ["--dup", "1000"], "dup"),
        (storm, ["--swap", "1000"], "reorder"),
    ):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as f:
            text = (
                open(f"{HERE}/targets/floor.toml")
                .read()
                .replace('start = "floor.sh"', f'start = "floor.sh"\nargs = {json.dumps(args)}')
            )
            f.write(text)
            f.flush()
            r = one(f.name, load_args)
        want = {k: 0 for k in ("lost", "dup", "reorder", "misrouted", "closed")}
        if key:
            want[key] = r["expected"] // 1000
        # --swap may leave messages held at the end
        slack = {"lost": want["reorder"], "reorder": 40} if key == "reorder" else {}
        enough = 19000 if load_args[1] == "storm" else 30000
        ok = r["expected"] > enough and all(abs(r[k] - v) <= slack.get(k, 0) for k, v in want.items())
        if load_args[1] == "storm":
            ok = ok and (r["current"] == 200) == (key != "lost")
        print("ok  " if ok else "FAIL", load_args[1], args, {k: r[k] for k in want}, "expected", r["expected"])
        passed, failed = passed + ok, failed + (not ok)
    print(f"{passed} passed, {failed} failed")
    return failed


def points_of(parser, a):
    if a.what == "run":
        known = {name: [Point(name, args)] for name, args in PRESETS.items()}
    else:
        known = {name: curve.points for name, curve in CURVES.items()}
        known.update((point.preset, [point]) for curve in CURVES.values() for point in curve.points)
    names = a.what_of.split(",")
    for name in names:
        if name not in known:
            parser.error(f"no {name}: {' '.join(known)}")
    return [point for name in names for point in known[name]]


def stop_servers_when_told():
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(1))


def main():
    stop_servers_when_told()
    argv, extra = sys.argv[1:], []
    if "--" in argv:
        i = argv.index("--")
        argv, extra = argv[:i], argv[i + 1 :]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    for what in ("run", "curve"):
        r = sub.add_parser(what)
        r.add_argument("what_of", metavar="presets" if what == "run" else "curves")
        r.add_argument("targets")
        r.add_argument("--reps", type=int, default=3)
        r.add_argument("--base", default="floor")
        r.add_argument("--out", default=f"{HERE}/out/{int(time.time())}.jsonl")
    t = sub.add_parser("table")
    t.add_argument("file")
    t.add_argument("--base", default="floor")
    sub.add_parser("selftest")
    a = p.parse_args(argv)
    if a.what != "table":
        own_session()
    if a.what in ("run", "curve"):
        run(points_of(p, a), a.targets.split(","), a.reps, a.out, extra)
        table(a.out, a.base)
    elif a.what == "table":
        table(a.file, a.base)
    else:
        sys.exit(selftest())


if __name__ == "__main__":
    main()
