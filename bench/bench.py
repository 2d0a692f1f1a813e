#!/usr/bin/env python3
"""Runs load against targets and prints tables. See README.md.

bench.py run PRESET[,PRESET] TARGET[,TARGET] [--reps 3] [--base floor] [--out out/x.jsonl] [-- LOAD-ARGS]
bench.py table out/x.jsonl [--base floor]
bench.py selftest
"""

import argparse
import json
import os
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


def start(target, conf, args, run):
    """Starts the server and waits until its ports are open. Its pids, or None where it is not installed."""
    server = conf["server"]
    pin = server.get("pin", True) and os.cpu_count() > 1
    env = dict(os.environ, BENCH_RUN=run, **{k: str(v) for k, v in server.get("env", {}).items()})
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


def one(target, load_args, keep_log=False):
    path = target if target.endswith(".toml") else f"{HERE}/targets/{target}.toml"
    with open(path, "rb") as f:
        conf = tomllib.load(f)
    args = conf["server"].get("args", [])
    if "storm" in load_args:
        if "resume" not in conf:
            return None
        args = args + conf["resume"].get("args", [])
        if not conf["resume"].get("survives"):  # it would have forgotten what is missed
            load_args = [a for a in load_args if a != "--restart"]
    for port in ports_of(conf):  # a server left over would share the port and the load
        if not socket.socket().connect_ex((conf.get("host", "127.0.0.1"), port)):
            raise RuntimeError(f"{target}: something listens on port {port} already")
    with tempfile.TemporaryDirectory(prefix="bench-") as run:
        pids = start(target, conf, args, run)
        if pids is None:
            return None
        core = "1" if os.cpu_count() > 1 else "0"
        cmd = ["taskset", "-c", core, f"{BIN}/load", "--target", path, "--pids", f"{run}/pids"] + load_args
        load = subprocess.Popen(nice(cmd, REALTIME), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(420, load.kill)
        watchdog.start()
        try:
            result = ""
            for line in load.stdout:
                if line != "restart\n":
                    result = line
                    continue
                stop(pids, signal.SIGKILL)
                os.remove(f"{run}/pids")
                pids = start(target, conf, args, run)
                load.stdin.write("restarted\n")
                load.stdin.flush()
            if load.wait() or keep_log:
                print(open(f"{run}/log").read()[-2000:], file=sys.stderr)
            return json.loads(result) if load.returncode == 0 else {"error": load.returncode}
        finally:
            watchdog.cancel()
            load.kill()
            load.wait()
            stop(pids)


def run(presets, targets, reps, out, extra):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    skipped = set()
    for preset in presets:
        for rep in range(reps):
            for target in targets:
                if target in skipped:
                    continue
                try:
                    got = one(target, PRESETS[preset].split() + extra)
                except (RuntimeError, subprocess.TimeoutExpired) as e:
                    got = {"error": str(e)}
                if got is None:
                    skipped.add(target)
                    continue
                if "error" in got:
                    print(f"{target} {preset}: {got['error']}", file=sys.stderr)
                got.update(
                    target=os.path.basename(target).removesuffix(".toml"),
                    preset=preset,
                    rep=rep,
                    load=os.getloadavg()[0],
                )
                with open(out, "a") as f:
                    f.write(json.dumps(got) + "\n")


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


def table(path, base):
    rows = [json.loads(l) for l in open(path)]
    order = list(dict.fromkeys(r["target"] for r in rows))
    for preset in dict.fromkeys(r["preset"] for r in rows):
        connect = preset.startswith(("idle", "ramp"))
        storm = preset.startswith("storm")
        fleet = preset.startswith("fleet")
        columns = CONNECT if connect else STORM if storm else FLEET_COLUMNS if fleet else COLUMNS
        key = (
            "ramp_server_us_per_conn"
            if connect
            else "storm_server_us_per_client"
            if storm
            else "server_us_per_publish"
            if preset == "publish" or fleet
            else "server_us_per_delivered"
        )

        def values(target, k):
            head, _, tail = k.partition(".")
            vs = [r.get(head) for r in rows if r["target"] == target and r["preset"] == preset]
            vs = [v.get(tail) if isinstance(v, dict) else v for v in vs]
            return [v for v in vs if v is not None]

        mid = lambda t, k: statistics.median(values(t, k)) if values(t, k) else None
        print(f"\n### {preset}\n")
        print("| target | " + " | ".join(c for c, _ in columns) + " |")
        print("|" + "---|" * (len(columns) + 1))
        for t in order:
            if not values(t, key):
                continue
            cells = []
            for name, k in columns:
                if name == "runs":
                    v = len(values(t, key))
                elif name in ("xfloor", "xbase"):  # against the base's run of the same round
                    ratios = []
                    for i, r in enumerate(rows):
                        if r["target"] == t and r["preset"] == preset and r.get(key):
                            near = [
                                (abs(i - j), b[key])
                                for j, b in enumerate(rows)
                                if b["target"] == base and b["preset"] == preset and b.get(key)
                            ]
                            ratios += [r[key] / min(near)[1]] if near else []
                    v = statistics.median(ratios) if ratios else None
                elif name in ("lost", "dup", "reord"):
                    v = max(values(t, k), default=None)
                elif name == "each hub":
                    v = " ".join(f"{statistics.median(vs):.0f}" for vs in zip(*values(t, k)))
                else:
                    v = mid(t, k)
                if name.endswith(" MB"):
                    v = round(v / 1e6, 1)
                if isinstance(v, str):
                    cells.append(v)
                    continue
                cells.append(
                    "" if v is None else f"{v:.2f}" if isinstance(v, float) and abs(v) < 100 else f"{v:.0f}"
                )
            print(f"| {t} | " + " | ".join(cells) + " |")


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


def main():
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(1))  # so that servers are stopped
    argv, extra = sys.argv[1:], []
    if "--" in argv:
        i = argv.index("--")
        argv, extra = argv[:i], argv[i + 1 :]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    r = sub.add_parser("run")
    r.add_argument("presets")
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
    if a.what == "run":
        run(a.presets.split(","), a.targets.split(","), a.reps, a.out, extra)
        table(a.out, a.base)
    elif a.what == "table":
        table(a.file, a.base)
    else:
        sys.exit(selftest())


if __name__ == "__main__":
    main()
