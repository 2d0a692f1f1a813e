//! HAProxy as a process, and what it thinks of its servers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const CONFIG: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");

/// The two hubs of the configuration, in each of its backends.
const EXAMPLES: &str = "    server hub-1 10.0.0.11:7070 agent-port 7071\n    \
                        server hub-2 10.0.0.12:7070 agent-port 7071\n";

/// A port that nobody else gets, and that several processes may listen at, one after the other.
pub(crate) struct Port {
    address: SocketAddr,
    /// Bound, and without ears.
    _held: Socket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Then others may bind it as well.
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self { address: held.local_addr().unwrap().as_socket().unwrap(), _held: held }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// HAProxy in front of hubs; killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    port: Port,
    stats: PathBuf,
    _folder: TempDir,
}

/// What HAProxy thinks of a hub, in one of its backends.
#[derive(Debug)]
pub(crate) struct Server {
    status: String,
    pub(crate) weight: u32,
}

impl Server {
    /// Whether it gets new connections.
    pub(crate) fn is_up(&self) -> bool {
        self.status == "UP"
    }
}

impl Proxy {
    /// Starts it in front of hubs at these addresses, each with its agent's. They are `hub-1`, `hub-2`
    /// and so on.
    pub(crate) fn start(hubs: &[(SocketAddr, SocketAddr)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, stats) = (Port::reserve(), folder.path().join("stats"));
        let replace = |config: &str, part: &str, by: &str| {
            assert!(config.contains(part), "{part:?} is not in the configuration");
            config.replace(part, by)
        };
        let mut config = replace(CONFIG, "bind :8080", &format!("bind {}", port.address()));
        config = replace(&config, "global\n", &format!("global\n    stats socket {}\n", stats.display()));
        let server = |(at, (http, agent)): (usize, &(SocketAddr, SocketAddr))| {
            format!("    server hub-{} {http} agent-port {}\n", at + 1, agent.port())
        };
        config = replace(&config, EXAMPLES, &hubs.iter().enumerate().map(server).collect::<String>());
        // On a busy machine a check may take too long a few times in a row; the agents say who drains.
        config = replace(&config, "fall 2", "fall 1000");
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        // Debian keeps it where only root looks by itself.
        let search = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("haproxy");
        command.env("PATH", search).args(["-db", "-f"]).arg(&path).stdin(Stdio::null());
        let child = command.spawn().expect("haproxy is installed (make setup)");
        let mut proxy = Self { child, port, stats, _folder: folder };
        // It listens to clients before it does to us.
        while std::net::TcpStream::connect(proxy.address()).is_err()
            || UnixStream::connect(&proxy.stats).is_err()
        {
            assert!(proxy.child.try_wait().unwrap().is_none(), "haproxy did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns when HAProxy thinks so of a hub, in each of its backends.
    pub(crate) async fn until(&self, hub: &str, is_so: impl Fn(&Server) -> bool) {
        while !self.servers(hub).iter().all(&is_so) {
            // HAProxy says nothing by itself. The hubs run on this thread too.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn servers(&self, hub: &str) -> [Server; 2] {
        let mut socket = UnixStream::connect(&self.stats).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut rows = table.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = rows.next().unwrap();
        let rows: Vec<_> = rows.collect();
        let place = |name| names.iter().position(|found| *found == name).unwrap();
        let (status, weight) = (place("status"), place("weight"));
        ["clients", "publishers"].map(|backend| {
            let row = rows.iter().find(|row| row.starts_with(&[backend, hub])).unwrap();
            Server { status: row[status].to_owned(), weight: row[weight].parse().unwrap() }
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
