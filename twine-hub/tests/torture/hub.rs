//! A hub in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde::de::DeserializeOwned;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use twine_protocol::Position;
use twine_protocol::api::{History, StoredMessage};
use twine_server_sdk::{Twine, TwineBuilder};

pub(crate) const KEY: &str = "a-key-for-tests-only";
/// Lines of the log that a failure shows.
const LOG_LINES: usize = 200;

/// A hub that can be killed, and started again at the same address with the same files.
pub(crate) struct Hub {
    address: SocketAddr,
    folder: TempDir,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    /// The network namespace that it runs in, where that is not this process's.
    network: Option<String>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    /// Holds the port while no hub does; it does not listen.
    _port: Socket,
}

impl Hub {
    /// A hub that is not started yet, with these flags.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Then the hub may bind it as well.
        port.set_reuse_address(true).unwrap();
        port.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self {
            address: port.local_addr().unwrap().as_socket().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            environment: Vec::new(),
            network: None,
            child: None,
            log: Arc::default(),
            _port: port,
        }
    }

    /// Has it start with this variable in its environment.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has it start in another network, where it has this address.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) fn move_to(&mut self, network: &str, address: Ipv4Addr) {
        self.network = Some(network.to_owned());
        self.address.set_ip(address.into());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A publisher to this hub.
    pub(crate) fn twine(&self) -> TwineBuilder {
        Twine::builder(self.url(), KEY).no_proxy()
    }

    /// The process, of which nothing is known yet but that it exists; and word that it listens.
    pub(crate) fn spawn(&mut self) -> oneshot::Receiver<()> {
        let binary = env!("CARGO_BIN_EXE_twine-hub");
        let mut command = match &self.network {
            None => Command::new(binary),
            Some(network) => {
                // It becomes what it is told to run: the child is the hub.
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", network, binary]);
                ip
            }
        };
        // Debian keeps `ip` where only root looks by itself.
        command.env_clear().env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        command.current_dir(self.folder.path()).env("TWINE_API_KEY", KEY);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // DynamoDB Local wants to know who asks, and takes anybody.
        command.env("AWS_ACCESS_KEY_ID", "tests").env("AWS_SECRET_ACCESS_KEY", "tests");
        command.args(["--listen", &self.address.to_string()]).args(&self.settings);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        self.child = Some(child);
        let (listens, listening) = oneshot::channel();
        let (mut listens, log) = (Some(listens), self.log.clone());
        // Reads to the end, for a full pipe would stop the hub.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("listening")
                    && let Some(listens) = listens.take()
                {
                    // A hub that was killed meanwhile is waited for by nobody.
                    let _ = listens.send(());
                }
                let mut log = log.lock().unwrap();
                log.push(line);
                let too_many = log.len().saturating_sub(LOG_LINES);
                log.drain(..too_many);
            }
        });
        listening
    }

    /// Starts it, and returns when it listens.
    pub(crate) async fn start(&mut self) {
        self.spawn().await.expect("the hub starts");
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Ends it as a new version's deployment does: it is asked to stop, and waited for.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().expect("a running hub");
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        // Elsewhere, for its clients are on this thread.
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(ended.success(), "{ended}");
    }

    /// Kills it, and looks at what it leaves.
    pub(crate) fn end(mut self) {
        self.kill();
        let database = rusqlite::Connection::open(self.folder.path().join("twine-data/twine.db")).unwrap();
        let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }

    /// The most memory that the process has had at once, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.child.as_ref().expect("a running hub").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Whether it says that it takes work; not where it says nothing.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// The time of its day, in seconds, as it says itself.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) async fn seconds_of_day(&self) -> i64 {
        let answer = self.get("/healthz").await.unwrap();
        let date = answer.lines().find_map(|line| line.strip_prefix("date: ")).expect("an answer has a date");
        let time = date.split(' ').nth(4).expect("a date has a time");
        time.split(':').fold(0, |seconds, part| seconds * 60 + part.parse::<i64>().unwrap())
    }

    /// The value of a counter or gauge; 0 where it has not counted yet.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.ask("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Everything that a room holds, oldest first, read page by page.
    pub(crate) async fn history<T: DeserializeOwned>(&self, room: &str) -> Vec<StoredMessage<T>> {
        let (mut all, mut after) = (Vec::new(), Position::default());
        loop {
            let Position { epoch, offset } = &after;
            let path = format!("/api/rooms/{room}/messages?limit=1000&epoch={epoch}&after={offset}");
            let page: History<T> = serde_json::from_str(&self.ask(&path).await).unwrap();
            let Some(last) = page.messages.last() else { return all };
            after = Position { epoch: last.epoch.clone(), offset: last.offset };
            all.extend(page.messages);
        }
    }

    /// The body of the answer to a GET.
    async fn ask(&self, path: &str) -> String {
        let answer = self.get(path).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn get(&self, path: &str) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(self.address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n",
            self.address
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the hub's log ends with\n{}", self.log.lock().unwrap().join("\n"));
        }
    }
}
