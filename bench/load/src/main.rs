//! load: WebSocket pub/sub load generator. One thread, one epoll, a few dozen
//! bytes for each client, so that the server under test stays the bottleneck.
//! Every published payload carries "~~" + send time (16 hex digits, ns,
//! CLOCK_MONOTONIC) + sequence in its room (8) + room (8) + "~" and then
//! padding: subscribers find it in any framing without parsing JSON.

mod arrive;
mod publisher;
mod rooms;
mod socket;
mod stats;
mod storm;
mod subscriber;
mod target;
mod traffic;

use publisher::{PUBLISHER, Publisher};
use stats::{Cpu, Histogram, Processes, forget_peak, memory, now, peak};
use storm::Storm;
use subscriber::{Client, Cursor, State};
use target::Target;
use traffic::Plan;

#[derive(Default)]
struct Room {
    subs: u64,
    seq: u32,
}

#[derive(Default)]
struct Counts {
    published: u64,
    acked: u64,
    refused: u64,
    reopened: u64,
    expected: u64,
    unique: u64,
    dup: u64,
    reorder: u64,
    misrouted: u64,
    closed: u64,
    failed: u64,
    subscribed: usize,
    reads: u64,
    bytes: u64,
}

struct Args {
    pairs: Vec<(String, String)>,
}

impl Args {
    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    fn num(&self, name: &str, default: f64) -> f64 {
        self.get(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("--{name} {v}: not a number")))
    }
}

struct Load {
    t: Target,
    ep: i32,
    clients: Vec<Client>,
    per_conn: usize,      // rooms of each client
    cursors: Vec<Cursor>, // and where it is in them: those of a client lie beside each other
    rooms: Vec<Room>,
    pubs: Vec<Publisher>,
    cookies: Vec<String>,
    buf: Vec<u8>,
    events: Vec<libc::epoll_event>,
    c: Counts,
    latency: Histogram,
    ack: Histogram,
    connecting: Histogram, // from the first SYN until subscribed
    payload: usize,
    pipeline: usize,
    in_flight: usize, // connections between connect() and subscribed
    last: u64,        // when the last message came
    plan: Option<Plan>,
    keeps: bool, // whether clients keep what they need to come back
    storm: Option<Storm>,
    trace: bool,
}

impl Load {
    fn epoll(&self, op: i32, fd: i32, events: i32, id: u64) {
        let mut ev = libc::epoll_event { events: events as u32, u64: id };
        let r = unsafe { libc::epoll_ctl(self.ep, op, fd, &mut ev) };
        assert!(r == 0, "epoll_ctl: {}", std::io::Error::last_os_error());
    }

    fn ip(&self) -> [u8; 4] {
        self.t.host.parse::<std::net::Ipv4Addr>().expect("an IPv4 host").octets()
    }

    fn pump(&mut self, wait_ns: u64) {
        let ts = libc::timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        };
        let mut events = std::mem::take(&mut self.events);
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.ep,
                events.as_mut_ptr(),
                events.len(),
                &raw const ts,
                0usize,
                8usize,
            )
        };
        for (j, ev) in events[..n.max(0) as usize].iter().enumerate() {
            if j % 32 == 31 && self.plan.is_some() {
                for k in 0..self.pubs.len().min(4) {
                    if !self.pubs[k].sent.is_empty() {
                        self.answered(k);
                    }
                }
                self.publish_due();
            }
            let (id, what) = (ev.u64, ev.events as i32);
            if id & PUBLISHER != 0 {
                let k = (id & !PUBLISHER) as usize;
                if what & !libc::EPOLLOUT != 0 {
                    self.answered(k);
                }
                self.flush(k);
                continue;
            }
            let i = id as usize;
            match self.clients[i].state {
                State::Connecting => self.connected(i),
                State::Closed => {}
                _ => {
                    self.readable(i);
                    while what & libc::EPOLLRDHUP != 0 && self.clients[i].state != State::Closed {
                        self.readable(i);
                    }
                }
            }
        }
        self.events = events;
    }

    /// Connects clients until there are `n`, so many at a time.
    fn ramp(&mut self, n: usize, concurrency: usize) {
        let deadline = now() + 180_000_000_000;
        while self.clients.len() < n || self.in_flight > 0 {
            while self.clients.len() < n && self.in_flight < concurrency {
                self.connect();
            }
            self.pump(100_000_000);
            if now() > deadline || self.c.failed as usize > 100 + n / 10 {
                eprintln!(
                    "ramp given up: {} subscribed, {} failed, {} pending",
                    self.c.subscribed, self.c.failed, self.in_flight
                );
                break;
            }
        }
    }

    fn idle(&mut self, secs: f64) {
        let end = now() + (secs * 1e9) as u64;
        while now() < end {
            self.pump((end - now().min(end)).min(50_000_000));
        }
    }
}

fn main() {
    let mut argv = std::env::args().skip(1).peekable();
    let mut args = Args { pairs: vec![] };
    while let Some(a) = argv.next() {
        let name =
            a.strip_prefix("--").unwrap_or_else(|| panic!("unexpected {a}; see README.md")).to_string();
        let value = argv.next_if(|v| !v.starts_with("--")).unwrap_or_default();
        args.pairs.push((name, value));
    }
    let scenario = args.get("scenario").unwrap_or("fanout").to_string();
    // connections, rooms, rate (0: closed loop), seconds, settle, publishing connections
    let (conns, rooms, rate, secs, settle, pub_conns) = match scenario.as_str() {
        "ramp" => (10_000, 1000, 0.0, 0.0, 0.0, 0),
        "idle" => (10_000, 1000, 0.0, 0.0, 5.0, 0),
        "fanout" => (1000, 1, 20.0, 5.0, 1.0, 1),
        "saturate" => (1000, 1, 0.0, 5.0, 1.0, 1),
        "manyrooms" => (10_000, 1000, 500.0, 5.0, 1.0, 4),
        "publish" => (1000, 1000, 0.0, 5.0, 1.0, 16),
        "storm" => (10_000, 1, 0.0, 0.0, 1.0, 16),
        "rooms" => (0, 100_000, 0.0, 0.0, 1.0, 16),
        "arrive" => (1000, 1, 20.0, 5.0, 0.0, 1),
        other => {
            panic!("no scenario {other}: ramp idle fanout saturate manyrooms publish storm arrive rooms")
        }
    };
    let conns = args.num("conns", conns as f64) as usize;
    let rooms = args.num("rooms", rooms as f64) as usize;
    let rate = args.num("rate", rate);
    let secs = args.num("secs", secs).min(300.0);
    let settle = args.num("settle", settle);
    let pub_conns = args.num("pub-conns", pub_conns as f64) as usize;
    let window = args.num("window", if scenario == "publish" { 1e9 } else { 4.0 }) as u64;
    let warmup = args.num("warmup", if secs > 0.0 { 1.0 } else { 0.0 });
    let processes = Processes::read(args.get("pids"));
    let pids = processes.server.clone();
    let mut t = Target::read(args.get("target").expect("--target FILE.toml"));
    let per_conn = args.num("rooms-per-conn", 1.0) as usize;
    assert!((1..=rooms).contains(&per_conn), "--rooms-per-conn {per_conn}: 1 to the {rooms} of --rooms");
    assert!(
        per_conn == 1
            || t.subscribe.iter().any(|s| s.send.as_ref().is_some_and(|text| text.contains("{room}"))),
        "{}: the room is in its path, so that a connection has one: leave --rooms-per-conn out",
        t.name
    );
    t.narrow(args.num("on", 1e9) as usize, args.num("publish-on", 1e9) as usize);
    unsafe {
        let lim = libc::rlimit { rlim_cur: 1_048_576, rlim_max: 1_048_576 };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &lim) != 0 {
            let mut own = lim;
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut own);
            own.rlim_cur = own.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &own);
            assert!(
                conns as u64 + 100 < own.rlim_max,
                "this machine allows {} files a process",
                own.rlim_max
            );
        }
    }
    let ep = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut l = Load {
        t,
        ep,
        clients: Vec::with_capacity(conns),
        per_conn,
        cursors: vec![],
        rooms: (0..rooms).map(|_| Room::default()).collect(),
        pubs: vec![],
        cookies: vec![],
        buf: vec![0; 1 << 18],
        events: vec![libc::epoll_event { events: 0, u64: 0 }; 512],
        c: Counts::default(),
        latency: Histogram::new(),
        ack: Histogram::new(),
        connecting: Histogram::new(),
        payload: args.num("payload", 128.0) as usize,
        pipeline: args.num("pipeline", 1.0) as usize,
        in_flight: 0,
        last: 0,
        plan: None,
        keeps: scenario == "storm",
        storm: None,
        trace: args.get("trace").is_some(),
    };
    let me = [std::process::id() as i32];
    l.fetch_cookies(conns);

    let (mem0, own0) = (memory(&pids), memory(&me));
    let (cpu0, gen0) = (Cpu::of(&pids), Cpu::of(&me));
    let arrived = if scenario == "arrive" {
        l.arrive(conns, args.num("per-s", 50.0), rate, pub_conns)
    } else {
        l.ramp(conns, args.num("concurrency", 128.0) as usize);
        serde_json::json!({})
    };
    let (ramp, ramp_gen) = (Cpu::of(&pids).since(&cpu0), Cpu::of(&me).since(&gen0));
    l.idle(settle);
    let (mem1, own1) = (memory(&pids), memory(&me));
    let n = l.c.subscribed.max(1) as f64;
    let per = |a: i64, b: i64| ((a - b) as f64 / n).round();

    let mut out = serde_json::json!({
        "target": l.t.name, "scenario": scenario, "conns": conns, "rooms": rooms,
        "subscribed": l.c.subscribed, "failed": l.c.failed,
        "ramp_conns_per_s": (n / (ramp.wall_us / 1e6)).round(),
        "ramp_server_us_per_conn": round(ramp.total_us / n), "ramp_server_sys_us_per_conn": round(ramp.sys_us / n),
        "ramp_load_us_per_conn": round(ramp_gen.total_us / n),
        "pss_per_conn": per(mem1.pss, mem0.pss), "rss_per_conn": per(mem1.rss, mem0.rss),
        "system_per_conn": per(mem0.available - mem1.available - (own1.rss - own0.rss), 0),
        "kernel_per_conn": per(mem1.slab, mem0.slab),
        "pss_empty": mem0.pss, "load_rss_per_conn": per(own1.rss, own0.rss),
        "connect_us": {"p50": l.connecting.us(0.5), "p99": l.connecting.us(0.99), "max": l.connecting.max as f64 / 1000.0},
    });
    let mut add = |v: serde_json::Value| out.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());
    add(arrived);

    let hold = args.num("hold", if scenario == "idle" { 5.0 } else { 0.0 });
    if hold > 0.0 {
        let (before, parts) = (Cpu::of(&pids), processes.parts());
        l.idle(hold);
        let s = Cpu::of(&pids).since(&before);
        add(
            serde_json::json!({"idle_server_cpu_percent": round(100.0 * s.total_us / s.wall_us), "closed": l.c.closed}),
        );
        for (name, spent) in parts.since() {
            add(
                serde_json::json!({format!("idle_{name}_cpu_percent"): round(100.0 * spent.total_us / spent.wall_us)}),
            );
        }
    }
    if scenario == "storm" {
        add(l.storm(&args, pub_conns));
    }
    if scenario == "rooms" {
        add(l.fill_rooms(&args, pub_conns));
    }
    if args.get("prime").is_some() {
        // A room's first message is another matter than those that follow.
        l.open_publishers(pub_conns);
        let before = Cpu::of(&pids);
        l.publish_in_each(0..rooms, 1);
        let s = Cpu::of(&pids).since(&before);
        add(serde_json::json!({"first_server_us_per_publish": round(s.total_us / rooms as f64)}));
    }
    // Without clients, publishing alone counts.
    if secs > 0.0 && (l.c.subscribed > 0 || conns == 0) {
        if l.pubs.is_empty() {
            l.open_publishers(pub_conns);
        }
        l.idle(0.2);
        let rate = (rate > 0.0).then_some(rate);
        if warmup > 0.0 {
            l.traffic(warmup, rate, window);
        }
        if args.get("barrier").is_some() {
            ask_runner("ready", "go");
        }
        l.reset();
        forget_peak(&pids);
        let rss = memory(&pids).rss;
        let (before, own) = (Cpu::of(&pids), Cpu::of(&me));
        let (parts, each) = (processes.parts(), processes.each());
        let started = now();
        let lag = l.traffic(secs, rate, window);
        let took = l.last.max(started + 1) - started;
        let (s, g) = (Cpu::of(&pids).since(&before), Cpu::of(&me).since(&own));
        let (parts, each) = (parts.since(), each.since());
        let c = &l.c;
        let (d, p) = (c.unique.max(1) as f64, c.published.max(1) as f64);
        let each: Vec<_> = each.iter().map(|(_, spent)| round(spent.total_us / p)).collect();
        let h = &l.latency;
        add(serde_json::json!({
            "rate": rate, "window": window, "pub_conns": pub_conns, "pipeline": l.pipeline, "secs": secs, "payload": l.payload,
            "published": c.published, "acked": c.acked, "refused": c.refused, "reopened": c.reopened,
            "expected": c.expected, "delivered": c.unique, "lost": c.expected as i64 - c.unique as i64,
            "dup": c.dup, "reorder": c.reorder, "misrouted": c.misrouted, "closed": c.closed,
            "wall_ms": took / 1_000_000,
            "delivered_per_s": (c.unique as f64 / (took as f64 / 1e9)).round(),
            "published_per_s": (c.published as f64 / (took as f64 / 1e9)).round(),
            "server_us_per_delivered": round(s.total_us / d), "server_user_us_per_delivered": round(s.user_us / d),
            "server_sys_us_per_delivered": round(s.sys_us / d), "server_us_per_publish": round(s.total_us / p),
            "server_user_percent": round(100.0 * s.user_us / s.total_us.max(1.0)),
            "server_cpu_percent": round(100.0 * s.total_us * 1000.0 / took as f64),
            "ksoftirqd_us_per_delivered": round(s.ksoftirqd_us / d),
            "load_us_per_delivered": round(g.total_us / d), "load_cpu_percent": round(100.0 * g.total_us * 1000.0 / took as f64),
            "delivered_per_read": round(d / c.reads.max(1) as f64), "bytes_per_delivered": round(c.bytes as f64 / d),
            "latency_us": {"p50": h.us(0.5), "p99": h.us(0.99), "p99.9": h.us(0.999), "max": h.max as f64 / 1000.0},
            "ack_us": {"p50": l.ack.us(0.5), "p99": l.ack.us(0.99)},
            "publish_late_us": {"p99": lag.us(0.99), "max": lag.max as f64 / 1000.0},
            "pss_end": memory(&pids).pss, "rss_before": rss, "rss_peak": peak(&pids),
            "each_us_per_publish": each,
        }));
        for (name, spent) in parts {
            add(serde_json::json!({
                format!("{name}_us_per_publish"): round(spent.total_us / p),
                format!("{name}_cpu_percent"): round(100.0 * spent.total_us * 1000.0 / took as f64),
            }));
        }
    }
    println!("{out}");
    if scenario == "storm" || scenario == "rooms" {
        return;
    }
    let g = |k: &str| out.get(k).and_then(|v| v.as_f64()).unwrap_or(f64::NAN);
    eprintln!(
        "{:<16} {:<9} {:>6} conns | ramp {:>6.0}/s {:>6.1} us | {:>6.0} B/conn (kernel {:>6.0}) | {:>8} msgs, lost {} dup {} reorder {} | {:>6.2} us/msg ({:.2} user) | {:>7.0} msg/s at {:>3.0} % (load {:>3.0} %) | p50 {:.0} p99 {:.0} us",
        l.t.name,
        scenario,
        l.c.subscribed,
        g("ramp_conns_per_s"),
        g("ramp_server_us_per_conn"),
        g("pss_per_conn"),
        g("kernel_per_conn"),
        g("delivered"),
        g("lost"),
        g("dup"),
        g("reorder"),
        g("server_us_per_delivered"),
        g("server_user_us_per_delivered"),
        g("delivered_per_s"),
        g("server_cpu_percent"),
        g("load_cpu_percent"),
        l.latency.us(0.5),
        l.latency.us(0.99)
    );
}

/// Tells the runner where things stand, and waits until it has done its part.
fn ask_runner(question: &str, answer: &str) {
    use std::io::{BufRead, Write};
    println!("{question}");
    std::io::stdout().flush().expect("the runner listens");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("the runner answers");
    assert_eq!(line.trim_end(), answer);
}

fn round(v: f64) -> f64 {
    (v * 1000.0).round() / 1000.0
}
