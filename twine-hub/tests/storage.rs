//! The binary over files that can't be written, can't be read, or are not its own.
// clippy allows these in functions marked as tests only, and here helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const KEY: &str = "a-key-for-tests-only";

fn serve(data_dir: &Path) -> Command {
    // A file that may not grow is to be an error of the write, and not the end of the process.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#, env!("CARGO_BIN_EXE_twine-hub")])
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .env("TWINE_API_KEY", KEY)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A hub in a process of its own; killed when dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(data_dir: &Path) -> Self {
        let mut child = serve(data_dir).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = log.find(|line| line.contains("address=")).expect("a hub that listens");
        // A full pipe would stop the hub.
        std::thread::spawn(move || log.for_each(drop));
        let (_, rest) = line.split_once("address=").unwrap();
        let address = rest.split_whitespace().next().unwrap().to_owned();
        Self { child, address }
    }

    /// Status and body of an answer.
    fn ask(&self, request_line: &str, body: &str) -> (u16, serde_json::Value) {
        let mut socket = std::net::TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "{request_line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn publish(&self, id: &str) -> (u16, serde_json::Value) {
        self.ask("POST /api/publish", &format!(r#"{{"room":"chat","data":1,"id":"{id}"}}"#))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a start over `data_dir` ends with: its exit code and its last words.
fn refused(data_dir: &Path) -> (Option<i32>, String) {
    let output = serve(data_dir).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.lines().last().unwrap().to_owned())
}

/// The system refuses each write to a file, as it does for a quota or a file system that has become
/// read-only; then it allows them again.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_refuses_writes_costs_no_subscriber_and_heals() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use rlimit::{Resource, prlimit};
    use tokio_tungstenite::tungstenite::Message;

    let folder = tempfile::tempdir().unwrap();
    let hub = Served::start(folder.path());
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", hub.address)).await.unwrap();
    for frame in [r#"{"type":"connect"}"#, r#"{"type":"subscribe","id":1,"room":"chat"}"#] {
        socket.send(Message::text(frame)).await.unwrap();
        socket.next().await.unwrap().unwrap();
    }
    let mut received = async || {
        let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        (frame["offset"].as_u64(), frame["id"].as_str().map(str::to_owned))
    };
    assert_eq!(hub.publish("first").0, 200);
    assert_eq!(received().await, (Some(1), Some("first".into())));

    let id = hub.child.id().try_into().unwrap();
    let (mut soft, mut hard) = (0, 0);
    prlimit(id, Resource::FSIZE, None, Some((&mut soft, &mut hard))).unwrap();
    prlimit(id, Resource::FSIZE, Some((0, hard)), None).unwrap();
    for _ in 0..3 {
        let (status, problem) = hub.publish("second");
        assert_eq!((status, &problem["code"]), (503, &"unavailable".into()), "{problem}");
    }
    let (status, ready) = hub.ask("GET /readyz", "");
    assert_eq!((status, &ready["store"]["ok"]), (503, &false.into()), "{ready}");
    assert_eq!(hub.ask("GET /api/rooms/chat", "").1["head"]["offset"], 1, "it is still read");

    prlimit(id, Resource::FSIZE, Some((soft, hard)), None).unwrap();
    let (status, published) = hub.publish("second");
    assert_eq!((status, &published["offset"], &published["duplicate"]), (200, &2.into(), &false.into()));
    assert_eq!(received().await, (Some(2), Some("second".into())), "on the same connection");
    assert_eq!(hub.ask("GET /readyz", "").0, 200);
}

/// The hub has its files open: what they may be opened for from now on changes nothing.
#[test]
fn files_that_are_made_read_only_while_it_runs_are_still_written() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Served::start(folder.path());
    let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        set(&file.unwrap().path(), 0o400);
    }
    set(folder.path(), 0o500);
    let (status, published) = hub.publish("x");
    set(folder.path(), 0o700);
    assert_eq!(status, 200, "{published}");
}

#[test]
fn a_database_that_was_moved_away_is_missed_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Served::start(folder.path());
    let (path, elsewhere) = (folder.path().join("twine.db"), folder.path().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    let (status, problem) = hub.publish("x");
    assert_eq!((status, &problem["code"]), (503, &"unavailable".into()));
    assert!(problem["detail"].as_str().unwrap().contains("put it back, or restart the hub"), "{problem}");
    std::fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(hub.publish("x").0, 200);
}

#[test]
fn a_folder_that_can_not_be_used_stops_the_start_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "no folder").unwrap();
    let (code, said) = refused(&path);
    assert_eq!(code, Some(1));
    assert!(said.contains("can't be used; make it writable or set `data_dir`"), "{said}");
}

#[test]
fn a_damaged_database_stops_the_start_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("twine.db"), [0x5a; 10_000]).unwrap();
    let (code, said) = refused(folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("is damaged; restore a backup, or move it"), "{said}");
}
