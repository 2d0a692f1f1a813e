//! Latency histogram (log-linear, 1.6 % wide buckets), CPU and memory of processes.

use std::collections::{BTreeMap, HashMap};
use std::fs;

const SUB: u32 = 6; // 64 buckets to each power of two

pub struct Histogram {
    counts: Vec<u64>,
    pub n: u64,
    pub max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram { counts: vec![0; 64 << SUB], n: 0, max: 0 }
    }

    pub fn add(&mut self, v: u64) {
        let i = if v < 1 << SUB {
            v as usize
        } else {
            let shift = 63 - v.leading_zeros() - SUB;
            (((shift + 1) as usize) << SUB) + ((v >> shift) as usize - (1 << SUB))
        };
        self.counts[i] += 1;
        self.n += 1;
        self.max = self.max.max(v);
    }

    /// The value at or under which a share `q` of the samples lies, in microseconds.
    pub fn us(&self, q: f64) -> f64 {
        let want = ((self.n as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= want {
                let v = if i < 1 << SUB {
                    i as u64
                } else {
                    let shift = (i >> SUB) as u32 - 1;
                    (((i & ((1 << SUB) - 1)) + (1 << SUB)) as u64) << shift
                };
                return v.min(self.max) as f64 / 1000.0;
            }
        }
        0.0
    }
}

pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// (ppid, user ticks, sys ticks) of a process.
fn stat(pid: i32) -> Option<(i32, u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let f: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    Some((f[1].parse().ok()?, f[11].parse().ok()?, f[12].parse().ok()?))
}

/// The given processes and all their descendants.
pub fn family(roots: &[i32]) -> Vec<i32> {
    let mut parent: HashMap<i32, i32> = HashMap::new();
    for e in fs::read_dir("/proc").unwrap().flatten() {
        if let Some(pid) = e.file_name().to_str().and_then(|s| s.parse().ok())
            && let Some((ppid, ..)) = stat(pid)
        {
            parent.insert(pid, ppid);
        }
    }
    let mut out: Vec<i32> = roots.iter().copied().filter(|p| parent.contains_key(p)).collect();
    let mut i = 0;
    while i < out.len() {
        let p = out[i];
        let kids: Vec<i32> =
            parent.iter().filter(|&(k, v)| *v == p && !out.contains(k)).map(|(k, _)| *k).collect();
        out.extend(kids);
        i += 1;
    }
    out
}

#[derive(Clone, Default)]
pub struct Cpu {
    pub user_us: u64,
    pub sys_us: u64,
    /// Scheduler time of each thread, ns: finer than the 10 ms ticks above.
    threads: BTreeMap<i32, u64>,
    pub ksoftirqd_us: u64,
    pub at: u64,
}

pub struct Spent {
    pub total_us: f64,
    pub user_us: f64,
    pub sys_us: f64,
    pub ksoftirqd_us: f64,
    pub wall_us: f64,
}

impl Cpu {
    pub fn of(roots: &[i32]) -> Cpu {
        let mut c = Cpu { at: now(), ..Default::default() };
        for pid in family(roots) {
            if let Some((_, u, s)) = stat(pid) {
                c.user_us += u * 10_000;
                c.sys_us += s * 10_000;
            }
            for t in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let Ok(text) = fs::read_to_string(t.path().join("schedstat")) else { continue };
                let tid = t.file_name().to_str().unwrap().parse().unwrap();
                c.threads.insert(tid, text.split(' ').next().unwrap().parse().unwrap_or(0));
            }
        }
        for e in fs::read_dir("/proc").unwrap().flatten() {
            let comm = fs::read_to_string(e.path().join("comm")).unwrap_or_default();
            if comm.starts_with("ksoftirqd")
                && let Some((_, u, s)) = e.file_name().to_str().and_then(|s| s.parse().ok()).and_then(stat)
            {
                c.ksoftirqd_us += (u + s) * 10_000;
            }
        }
        c
    }

    pub fn since(&self, before: &Cpu) -> Spent {
        let user = (self.user_us - before.user_us.min(self.user_us)) as f64;
        let sys = (self.sys_us - before.sys_us.min(self.sys_us)) as f64;
        let fine: u64 =
            self.threads.iter().map(|(t, ns)| ns - before.threads.get(t).unwrap_or(&0).min(ns)).sum();
        // Threads that ended in between took their share along: then trust the ticks.
        let ended = before.threads.keys().any(|t| !self.threads.contains_key(t));
        let total = if ended { user + sys } else { fine as f64 / 1000.0 };
        let split = if user + sys > 0.0 { total / (user + sys) } else { 0.0 };
        Spent {
            total_us: total,
            user_us: user * split,
            sys_us: sys * split,
            ksoftirqd_us: (self.ksoftirqd_us - before.ksoftirqd_us) as f64,
            wall_us: (self.at - before.at) as f64 / 1000.0,
        }
    }
}

/// The processes of a server, and of what it asks, each kind of which is a part by name.
#[derive(Default)]
pub struct Processes {
    pub server: Vec<i32>,
    others: BTreeMap<String, Vec<i32>>,
}

impl Processes {
    /// Reads the runner's file: a pid a line, and the name of its part where it is not the server's own.
    pub fn read(path: Option<&str>) -> Processes {
        let mut out = Processes::default();
        let text =
            path.map_or(String::new(), |f| fs::read_to_string(f).unwrap_or_else(|e| panic!("{f}: {e}")));
        for line in text.lines() {
            let (pid, part) = line.split_once(' ').unwrap_or((line, ""));
            let pid = pid.parse().expect("a pid");
            match part {
                "" => out.server.push(pid),
                part => out.others.entry(part.to_string()).or_default().push(pid),
            }
        }
        out
    }

    /// What each part has used so far, the server left out.
    pub fn parts(&self) -> Stopwatch {
        Stopwatch::start(self.others.iter().map(|(name, pids)| (name.clone(), pids.clone())))
    }

    /// What each of the server's processes has used so far.
    pub fn each(&self) -> Stopwatch {
        Stopwatch::start(self.server.iter().map(|pid| (pid.to_string(), vec![*pid])))
    }
}

/// CPU of some groups of processes, from a moment on.
pub struct Stopwatch(Vec<(String, Vec<i32>, Cpu)>);

impl Stopwatch {
    fn start(groups: impl Iterator<Item = (String, Vec<i32>)>) -> Stopwatch {
        Stopwatch(groups.map(|(name, pids)| (name, pids.clone(), Cpu::of(&pids))).collect())
    }

    pub fn since(&self) -> Vec<(String, Spent)> {
        self.0.iter().map(|(name, pids, before)| (name.clone(), Cpu::of(pids).since(before))).collect()
    }
}

#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub pss: i64,
    pub rss: i64,
    pub available: i64,
    /// Unreclaimable slab: sockets, epoll items, files of both ends.
    pub slab: i64,
}

/// Bytes: of the processes, and what the whole system has left.
pub fn memory(roots: &[i32]) -> Memory {
    let kb = |text: &str, key: &str| -> i64 {
        text.lines()
            .find_map(|l| l.strip_prefix(key))
            .and_then(|v| v.trim().split(' ').next()?.parse::<i64>().ok())
            .unwrap_or(0)
            * 1024
    };
    let mut m = Memory::default();
    for pid in family(roots) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        m.pss += kb(&text, "Pss:");
        m.rss += kb(&text, "Rss:");
    }
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    m.available = kb(&info, "MemAvailable:");
    m.slab = kb(&info, "SUnreclaim:");
    m
}

/// Has the kernel forget the most that these processes have had resident.
pub fn forget_peak(roots: &[i32]) {
    for pid in family(roots) {
        // Without the right to it the peak counts from the start, and is no less true.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// The most bytes that these processes have had resident.
pub fn peak(roots: &[i32]) -> i64 {
    let of = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
        line.trim().split(' ').next()?.parse::<i64>().ok()
    };
    family(roots).into_iter().filter_map(of).sum::<i64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut h = Histogram::new();
        for v in 1..=100_000u64 {
            h.add(v * 1000);
        }
        for q in [0.5, 0.99, 0.999] {
            let want = q * 100_000.0;
            assert!((h.us(q) - want).abs() / want < 0.02, "{q}: {}", h.us(q));
        }
        assert_eq!((h.n, h.max), (100_000, 100_000_000));
    }
}
