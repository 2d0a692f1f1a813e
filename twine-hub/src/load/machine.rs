//! What the system says of this process and of its limits. Where there is no `/proc`, nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

/// `/proc` counts processor time in hundredths of a second, on every system that Rust runs on
/// (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// Neither file of `/proc` is longer.
const LONGEST: usize = 8 << 10;

/// This process. Its files stay open: they are read also where no other can be opened any more.
pub(crate) struct Process {
    stat: Option<File>,
    status: Option<File>,
}

impl Process {
    pub(crate) fn open() -> Self {
        Self { stat: File::open("/proc/self/stat").ok(), status: File::open("/proc/self/status").ok() }
    }

    /// Processor time that all threads have used so far.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        cpu_time(&read(self.stat.as_ref()?)?)
    }

    /// Bytes of its memory that are in use.
    pub(crate) fn memory(&self) -> Option<u64> {
        kilobytes(&read(self.status.as_ref()?)?, "VmRSS:")
    }
}

/// `/proc` writes a file anew for who reads it from its start.
fn read(file: &File) -> Option<String> {
    let mut text = vec![0; LONGEST];
    let len = file.read_at(&mut text, 0).ok()?;
    text.truncate(len);
    String::from_utf8(text).ok()
}

/// The fields `utime` and `stime` of `/proc/self/stat`.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The program's name may have anything in it, also brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u32>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some(TICK * user + TICK * system)
}

/// A line like `VmRSS:     2020 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Bytes that this process may use: what its control groups allow, or what the machine has.
pub(super) fn memory_limit() -> Option<u64> {
    memory_limit_in(Path::new("/"))
}

fn memory_limit_in(root: &Path) -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let groups = text("proc/self/cgroup").unwrap_or_default();
    let machine = text("proc/meminfo").and_then(|text| kilobytes(&text, "MemTotal:"));
    let limits = groups.lines().filter_map(|line| {
        // `0::/group` (version 2) or `4:memory:/group` (version 1).
        let (kind, group) = line.split_once(':')?.1.split_once(':')?;
        let (folder, file) = match kind {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // Each group around it has a limit too. In a container the path may be the host's, and only
        // the root is there.
        let group = Path::new(group.trim_start_matches('/'));
        let files = group.ancestors().map(|group| root.join(folder).join(group).join(file));
        // Where there is no limit it says `max`, or a number beyond any machine.
        files.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min()
    });
    limits.chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = |name| format!("7 ({name}) S 1 7 7 0 -1 4194304 98 0 0 0 150 25 0 0 20 0 1 0 2476079");
        for name in ["twine-hub", "a) S 1 (b", ""] {
            assert_eq!(cpu_time(&stat(name)), Some(Duration::from_millis(1_750)), "{name}");
        }
        assert_eq!(cpu_time("7 (twine-hub) S 1 7"), None);
    }

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = || memory_limit_in(root.path());
        assert_eq!(limit(), None);
        write("proc/meminfo", "MemTotal:       24684084 kB\nMemFree: 1 kB\n");
        assert_eq!(limit(), Some(24_684_084 << 10));
        // Version 2: the group's own, and those around it.
        write("proc/self/cgroup", "0::/pods/hub\n");
        write("sys/fs/cgroup/pods/hub/memory.max", "max\n");
        assert_eq!(limit(), Some(24_684_084 << 10));
        write("sys/fs/cgroup/pods/memory.max", "1000000\n");
        assert_eq!(limit(), Some(1_000_000));
        // Version 1, in a container that has the host's path and its own root.
        write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/1\n0::/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(), Some(24_684_084 << 10));
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
        assert_eq!(limit(), Some(2_000_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_known() {
        let process = Process::open();
        assert!(process.memory().unwrap() > 0);
        let before = process.cpu_time().unwrap();
        while process.cpu_time().unwrap() == before {}
        assert!(memory_limit().is_some());
    }
}
