//! Networks of the tests' own, in which packets are lost: network namespaces of Linux, joined by a
//! bridge.
//!
//! A test that wants them is run again by itself, in a world of its own: in namespaces for networks,
//! processes and mounts that end with it, however that comes. So nothing of them is seen by anyone
//! else, and nothing has to be removed. That needs no root where the kernel lets anyone have
//! namespaces.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::scenario::PacketFault;

/// Tells a test that it is in a world of its own.
const WITHIN: &str = "TWINE_FLEET_WITHIN";
/// Where Debian keeps some commands, and only root looks by itself.
pub(crate) const SYSTEM: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// Whether this process is in a world of its own, where [`Network`]s can be made.
pub(crate) fn is_within() -> bool {
    std::env::var_os(WITHIN).is_some()
}

/// Runs a test of this program, by its name, in a world of its own; and there `body`. Where there can
/// be none it is left out, says why, and gives `false`; but not in CI, which is to notice.
pub(crate) fn within(test: &str, body: impl FnOnce()) -> bool {
    if is_within() {
        for command in [
            // The names of namespaces, which are nobody's business outside.
            "mount -t tmpfs none /run",
            "ip link set lo up",
            "ip link add bridge type bridge",
            "ip address add 10.77.0.1/24 dev bridge",
            "ip link set bridge up",
        ] {
            run(command);
        }
        body();
        return true;
    }
    let Some(mut world) = world() else {
        assert!(std::env::var_os("CI").is_none(), "namespaces are needed in CI (`unshare --net` failed)");
        println!(
            "LEFT OUT: {test}: no network namespaces can be made here, neither by `unshare --net` nor as \
            a user of one's own (`unshare --user`): be root, or allow unprivileged user namespaces"
        );
        return false;
    };
    let status = world
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(WITHIN, "yes")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test}, in a world of its own: {status}");
    true
}

/// What runs a program in a world of its own, if anything does.
fn world() -> Option<Command> {
    let all = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    [&[][..], &["--user", "--map-root-user"][..]].into_iter().find_map(|more| {
        let unshare = || {
            // It takes no notice of Ctrl-C, and so is to end when this process does.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "unshare"]).args(more).args(all);
            command
        };
        let tried = unshare().args(["ip", "link", "set", "lo", "up"]).env("PATH", SYSTEM).output();
        tried.is_ok_and(|tried| tried.status.success()).then(unshare)
    })
}

/// Runs a command of the system. Gives what it prints.
fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap());
    let output =
        program.args(words).env("PATH", SYSTEM).output().expect("iproute2 and iptables (make setup)");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A network with one machine, which is a hub's, and a way to this process's own.
pub(crate) struct Network {
    name: String,
    at: u8,
}

impl Network {
    /// Where networks find this process.
    pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// The network of a hub.
    ///
    /// # Panics
    /// Outside [`within`].
    pub(crate) fn new(at: usize) -> Self {
        let network = Self { name: format!("hub-{at}"), at: u8::try_from(at).unwrap() + 10 };
        let (name, address) = (&network.name, network.address());
        run(&format!("ip netns add {name}"));
        run(&format!("ip link add to-{name} type veth peer name eth0 netns {name}"));
        run(&format!("ip link set to-{name} master bridge up"));
        run(&format!("ip -n {name} address add {address}/24 dev eth0"));
        for device in ["lo", "eth0"] {
            run(&format!("ip -n {name} link set {device} up"));
        }
        network
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.at)
    }

    /// Packets don't arrive from now on that go between here and a port of this process's network.
    pub(crate) fn suffer(&self, fault: PacketFault, port: u16) {
        let name = &self.name;
        let (from, to) = (format!("INPUT -p tcp --sport {port}"), format!("OUTPUT -p tcp --dport {port}"));
        let losses = match fault {
            PacketFault::Partition => vec![from, to],
            PacketFault::Unheard => vec![to],
            PacketFault::Deaf => vec![from],
            PacketFault::Loss { percent } => {
                let some = format!("-m statistic --mode random --probability {}", f64::from(percent) / 100.0);
                vec![format!("{from} {some}"), format!("{to} {some}")]
            }
            PacketFault::Rate { kbit } => {
                let rate = format!("tbf rate {kbit}kbit burst 16kb latency 400ms");
                run(&format!("ip netns exec {name} tc qdisc add dev eth0 root {rate}"));
                return;
            }
        };
        for loss in losses {
            run(&format!("ip netns exec {name} iptables -A {loss} -j DROP"));
        }
    }

    /// Whether packets were lost, or held up, since they are.
    pub(crate) fn has_suffered(&self) -> bool {
        let within = |command: &str| run(&format!("ip netns exec {} {command}", self.name));
        let rules = within("iptables -nvxL");
        // Packets, bytes, what becomes of them.
        let dropped = rules.lines().map(|rule| rule.split_whitespace().collect::<Vec<_>>());
        let has_dropped = dropped.filter(|rule| rule.get(2) == Some(&"DROP")).any(|rule| rule[0] != "0");
        let queues = within("tc -s qdisc show dev eth0");
        let held_up = queues.split("overlimits ").nth(1).and_then(|rest| rest.split(' ').next());
        has_dropped || held_up.is_some_and(|n| n != "0")
    }

    /// All packets arrive again.
    pub(crate) fn heal(&self) {
        run(&format!("ip netns exec {} iptables -F", self.name));
        // The rate may be what it was all the time.
        let tc = ["netns", "exec", &self.name, "tc", "qdisc", "del", "dev", "eth0", "root"];
        let _ = Command::new("ip").args(tc).env("PATH", SYSTEM).output().unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The kernel takes a network's devices away some time after it: the next one of this name may come before.
        // A test that panics may leave both to the end of its world.
        for command in [format!("link delete to-{}", self.name), format!("netns delete {}", self.name)] {
            let _ = Command::new("ip").args(command.split(' ')).env("PATH", SYSTEM).output();
        }
    }
}
