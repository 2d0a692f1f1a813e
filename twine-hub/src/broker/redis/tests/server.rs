//! Real servers, started as children on free ports and killed at the end, also of a test that panics.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A `redis-server` or `redis-sentinel`.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A server that keeps nothing.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        Self::launch(|_, port| {
            let own = ["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--port"];
            own.iter().chain([&port.to_string().as_str()]).chain(args).map(|&arg| arg.to_owned()).collect()
        })
    }

    /// A member of a cluster that does not exist yet.
    pub(crate) fn cluster_node() -> Self {
        Self::launch(|_, port| {
            format!(
                "--bind 127.0.0.1 --appendonly no --port {port} --cluster-enabled yes --cluster-port {} \
                 --cluster-node-timeout 2000",
                free_port()
            )
            .split_whitespace()
            .map(str::to_owned)
            .collect()
        })
    }

    /// A sentinel that alone decides.
    pub(crate) fn sentinel(master: &Self, name: &str) -> Self {
        Self::launch(|dir, port| {
            let config = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 5000\n",
                master.port
            );
            let path = dir.join("sentinel.conf");
            std::fs::write(&path, config).unwrap();
            vec![path.to_str().unwrap().to_owned(), "--sentinel".to_owned()]
        })
    }

    /// Starts a server on a free port; on another where somebody took that one first.
    fn launch(args: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        loop {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let args = args(dir.path(), port);
            let mut server = Self { port, dir, args, child: None };
            if server.try_start() {
                return server;
            }
            assert!(server.log().contains("Address already in use"), "redis ended: {}", server.log());
        }
    }

    /// Starts it again, with what is on its disk.
    pub(crate) fn restart(&mut self) {
        let give_up = Instant::now() + PATIENCE;
        while !self.try_start() {
            assert!(Instant::now() < give_up, "redis does not start: {}", self.log());
        }
    }

    /// Waits until it answers; `false` where it ended before.
    fn try_start(&mut self) -> bool {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::inherit())
            .spawn()
            .expect("redis-server is installed (scripts/setup)");
        let process = format!("process_id:{}\r", child.id());
        // From here on it ends with this value, whatever happens.
        self.child = Some(child);
        let give_up = Instant::now() + PATIENCE;
        loop {
            // Another server may answer at the port.
            let info = self.try_admin(&["INFO", "server"]);
            if info.is_ok_and(|info| text(info).contains(&process)) && self.try_admin(&["PING"]).is_ok() {
                return true;
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < give_up, "redis does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _gone = child.kill();
            child.wait().unwrap();
        }
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process()]).status().unwrap().success());
    }

    /// Its process, while it runs.
    pub(crate) fn process(&self) -> String {
        self.child.as_ref().unwrap().id().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Asks the server over a connection of its own.
    pub(crate) fn admin<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        redis::from_redis_value(self.try_admin(command).unwrap()).unwrap()
    }

    /// The same where the server may not answer: one that learns of its master cuts who is connected.
    pub(crate) fn try_admin(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(PATIENCE)?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(value: redis::Value) -> String {
    redis::from_redis_value(value).unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three masters that share the slots.
pub(crate) fn cluster() -> Vec<Server> {
    let nodes: Vec<_> = (0..3).map(|_| Server::cluster_node()).collect();
    let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .stdout(Stdio::null())
        .status()
        .expect("redis-cli is installed (scripts/setup)");
    assert!(created.success());
    let give_up = Instant::now() + PATIENCE;
    for node in &nodes {
        while !node.admin::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            assert!(Instant::now() < give_up, "the cluster does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    nodes
}

/// Nanoseconds that all threads of a process have run, by the scheduler's own count.
pub(crate) fn cpu(process: &str) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.map(|thread| of(thread.unwrap().path())).sum()
}
