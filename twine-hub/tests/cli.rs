//! The binary as an operator meets it.
// clippy allows these in functions marked as tests only, and here helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

/// The binary in `folder`, with nothing of this process's environment.
fn twine_hub(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twine-hub"));
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A hub in a process of its own; killed when dropped.
struct Served {
    child: Child,
    /// Its log, line by line, read by a thread: a full pipe would stop the hub.
    log: Receiver<String>,
    address: String,
    folder: TempDir,
}

impl Served {
    /// Starts `serve` on a free port, and returns when it listens.
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same in a folder that a hub may have used before.
    fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let command = twine_hub(folder.path());
        Self::spawn(command, folder, arguments)
    }

    /// The same, started by this command.
    fn spawn(mut command: Command, folder: TempDir, arguments: &[&str]) -> Self {
        command.arg("serve").args(["--listen", "127.0.0.1:0"]).args(arguments).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        std::thread::spawn(move || {
            // A test that is over listens no more.
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        let mut hub = Self { child, log, address: String::new(), folder };
        let line = hub.logged("address=");
        let (_, rest) = line.split_once("address=").unwrap();
        rest.split_whitespace().next().unwrap().clone_into(&mut hub.address);
        hub
    }

    /// Waits for a line of the log that has `part` in it.
    fn logged(&self, part: &str) -> String {
        self.log
            .iter()
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("{part:?} was never logged"))
    }

    /// Sends a request with the hub's key; the answer as it came, `None` where none did.
    fn ask(&self, request_line: &str, headers: &str, body: &str) -> Option<String> {
        let key = std::fs::read_to_string(self.folder.path().join("twine-data/api-key")).unwrap();
        ask(&self.address, key.trim(), request_line, headers, body)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end; gives its status and what it logged since it listened.
    fn wait(mut self) -> (ExitStatus, String) {
        let log: Vec<_> = self.log.iter().collect();
        (self.child.wait().unwrap(), log.join("\n"))
    }

    /// Waits for its end, and keeps its files.
    fn into_folder(mut self) -> TempDir {
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// The binary with this hub's address and folder.
    fn command(&self, name: &str) -> Command {
        let mut command = twine_hub(self.folder.path());
        command.arg(name).env("TWINE_LISTEN", &self.address);
        command
    }
}

/// One request on a connection of its own.
fn ask(address: &str, key: &str, request_line: &str, headers: &str, body: &str) -> Option<String> {
    let mut answer = String::new();
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    let request = format!(
        "{request_line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).ok()?;
    socket.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn version_and_help_need_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("twine.toml"), "listen = \"nowhere\"").unwrap();
    let (code, version, _) = run(twine_hub(folder.path()).arg("--version"));
    assert_eq!((code, version), (Some(0), format!("twine-hub {}\n", twine_hub::VERSION)));
    let (code, help, _) = run(twine_hub(folder.path()).arg("--help"));
    assert_eq!(code, Some(0));
    assert!(help.contains("--allowed-origins") && help.contains("healthcheck"), "{help}");
}

#[test]
fn print_config_shows_values_with_their_origin_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("twine.toml"), "max_frame = \"32KiB\"\nheartbeat = \"5s\"\n").unwrap();
    let mut command = twine_hub(folder.path());
    command.env("TWINE_API_KEY", "open-sesame").env("TWINE_HEARTBEAT", "6s");
    command.env("TWINE_BROKER", "redis://me:sesame@localhost").env("TWINE_STORE", "dynamodb:twine");
    let (code, shown, _) = run(command.args(["--print-config", "--max-data", "1KiB"]));
    assert_eq!(code, Some(0));
    for line in [
        "max_data = \"1KiB\"  # --max-data",
        "heartbeat = \"6s\"  # TWINE_HEARTBEAT",
        "max_frame = \"32KiB\"  # twine.toml",
        "listen = \"127.0.0.1:7070\"  # default",
        "# api_key = [\"********\"]  # TWINE_API_KEY",
        "# broker = \"********\"  # TWINE_BROKER",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
    }
    assert!(!shown.contains("sesame"));
}

#[test]
fn what_print_config_shows_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (_, shown, _) = run(twine_hub(folder.path()).arg("--print-config"));
    std::fs::write(folder.path().join("mine.toml"), &shown).unwrap();
    let (code, again, _) = run(twine_hub(folder.path()).args(["--config", "mine.toml", "--print-config"]));
    assert_eq!(code, Some(0));
    assert_eq!(again, shown.replace("# default", "# mine.toml"));
}

#[test]
fn a_bad_configuration_stops_the_start_and_names_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("twine.toml"), "max_dta = 1\nstore = \"redis\"\n").unwrap();
    let mut command = twine_hub(folder.path());
    command.env("TWINE_HEARTBEAT", "often");
    let (code, _, errors) = run(command.args(["--listen", "here"]));
    assert_eq!(code, Some(2));
    for part in [
        "twine.toml: unknown key `max_dta`; did you mean `max_data`?",
        "twine.toml: \"redis\" is no value of `store`",
        "TWINE_HEARTBEAT: \"often\" is no value of `heartbeat`",
        "--listen: \"here\" is no value of `listen`",
    ] {
        assert!(errors.contains(part), "{part} is missing in\n{errors}");
    }
    assert!(!folder.path().join("twine-data").exists());
}

#[test]
fn a_missing_file_that_was_asked_for_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(twine_hub(folder.path()).env("TWINE_CONFIG", "missing.toml"));
    assert_eq!(code, Some(2));
    assert!(errors.contains("missing.toml: can't be read"), "{errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_hub_does_without_huge_pages() {
    let hub = Served::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.child.id())).unwrap();
    // A kernel that has none says nothing of them.
    assert!(!status.contains("THP_enabled:\t1"), "{status}");
}

#[test]
fn sigterm_and_sigint_stop_the_hub_cleanly() {
    for name in ["-TERM", "-INT"] {
        let hub = Served::start(&[]);
        hub.signal(name);
        let (status, log) = hub.wait();
        assert!(status.success(), "{name}: {status}\n{log}");
        let phases = ["drain connections", "stop accepting", "finish requests", "close store", "shut down"];
        let places: Vec<_> = phases.iter().map(|phase| log.find(phase).expect(phase)).collect();
        assert!(places.is_sorted(), "{log}");
    }
}

/// A publisher goes on until the hub is killed; what it was told is stored must be there afterwards,
/// once and in order, and the next offset is in a later epoch.
#[test]
fn what_was_acknowledged_survives_a_kill() {
    let hub = Served::start(&[]);
    let key = std::fs::read_to_string(hub.folder.path().join("twine-data/api-key")).unwrap();
    let address = hub.address.clone();
    let (acknowledged, so_far) = channel();
    let publisher = std::thread::spawn(move || {
        // No more than a page of history shows, however late the kill comes.
        for n in 0_u64..1_000 {
            let body = format!(r#"{{"room":"chat","data":{n}}}"#);
            let Some(answer) = ask(&address, key.trim(), "POST /api/publish", "", &body) else { return };
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            acknowledged.send(n).unwrap();
        }
    });
    let mut told: Vec<u64> = so_far.iter().take(50).collect();
    hub.signal("-KILL");
    publisher.join().unwrap();
    told.extend(so_far.iter());

    let folder = hub.into_folder();
    let hub = Served::start_in(folder, &[]);
    let answer = hub.ask("GET /api/rooms/chat/messages?limit=1000", "", "").unwrap();
    let (_, history) = answer.split_once("\r\n\r\n").unwrap();
    let history: serde_json::Value = serde_json::from_str(history).unwrap();
    let stored: Vec<_> =
        history["messages"].as_array().unwrap().iter().map(|m| m["data"].as_u64().unwrap()).collect();
    assert_eq!(told[..], stored[..told.len()]);
    // The last publish may have been stored without its answer having been sent.
    assert!(stored.len() <= told.len() + 1, "{stored:?}");
    assert!(history["messages"][0]["epoch"].as_str().unwrap() < history["epoch"].as_str().unwrap());
    assert_eq!(history["offset"], 0);
}

#[test]
fn a_refused_page_is_named_in_the_log_with_what_to_set() {
    let hub = Served::start(&["--allowed-origins", "https://app.example.com"]);
    let answer = hub.ask("GET /set-cookie", "Origin: https://evil.example\r\n", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let line = hub.logged("a page was refused");
    assert!(line.contains("WARN") && line.contains("origin=https://evil.example"), "{line}");
    assert!(line.contains("`allowed_origins`"), "{line}");
}

#[test]
fn a_second_signal_ends_a_hub_that_is_waiting() {
    let hub = Served::start(&["--shutdown-grace", "1h", "--request-timeout", "1h"]);
    let mut socket = std::net::TcpStream::connect(&hub.address).unwrap();
    let key = std::fs::read_to_string(hub.folder.path().join("twine-data/api-key")).unwrap();
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: 10\r\n\r\n",
        key.trim()
    );
    socket.write_all(head.as_bytes()).unwrap();
    // "100 Continue" shows that the hub has begun to wait for the body.
    socket.read_exact(&mut [0; 12]).unwrap();
    hub.signal("-TERM");
    hub.logged("finish requests");
    hub.signal("-TERM");
    let (status, log) = hub.wait();
    assert_eq!(status.code(), Some(1), "{log}");
}

/// A system that gives no more files makes those who come wait, and nobody else.
#[test]
fn a_hub_without_a_file_left_serves_on_and_accepts_again_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_twine-hub")]);
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    // Each shard has files of its own.
    let hub = Served::spawn(command, folder, &["--shards", "1"]);
    let key = std::fs::read_to_string(hub.folder.path().join("twine-data/api-key")).unwrap();
    let mut publisher = std::net::TcpStream::connect(&hub.address).unwrap();
    let mut publish = || {
        let head =
            format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json", key.trim());
        let body = r#"{"room":"chat","data":1}"#;
        let request =
            format!("POST /api/publish HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        publisher.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut byte = [0];
            publisher.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    };
    publish();
    let crowd: Vec<_> = (0..150).map(|_| std::net::TcpStream::connect(&hub.address).unwrap()).collect();
    hub.logged("no connection can be accepted");
    publish();
    drop(crowd);
    assert!(hub.ask("GET /readyz", "", "").unwrap().starts_with("HTTP/1.1 200 "));
    // It waits longer from one failure to the next, so there are few in any time.
    hub.signal("-TERM");
    assert!(hub.wait().0.success());
}

#[test]
fn without_a_key_one_is_made_for_its_owner_and_shown_nowhere() {
    let hub = Served::start(&["--log", "trace"]);
    let path = hub.folder.path().join("twine-data/api-key");
    let key = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, published, errors) = run(hub.command("publish").args(["chat", "{\"n\":1}"]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(published.starts_with(r#"{"room":"chat","epoch":""#), "{published}");
    hub.signal("-TERM");
    let (_, log) = hub.wait();
    assert!(!log.contains(&key), "the key is in the log");
}

#[test]
fn logs_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = twine_hub(folder.path());
    // The address is taken from no log here: this hub can't listen, which it says as its last word.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, errors) =
        run(command.args(["--log-format", "json", "--listen", &address]).env("TWINE_COLOUR", "red"));
    assert_eq!(code, Some(1));
    let first: serde_json::Value = serde_json::from_str(errors.lines().next().unwrap()).unwrap();
    assert_eq!(first["level"], "WARN");
    assert_eq!(first["fields"]["message"], "unknown environment variable `TWINE_COLOUR`");
    assert!(errors.lines().last().unwrap().starts_with(&format!("can't start: can't listen on {address}: ")));
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    let hub = Served::start(&[]);
    assert_eq!(run(&mut hub.command("healthcheck")), (Some(0), String::new(), String::new()));
    let address = hub.address.clone();
    hub.signal("-TERM");
    let folder = tempfile::tempdir().unwrap();
    assert!(hub.wait().0.success());
    let (code, _, errors) = run(twine_hub(folder.path()).args(["healthcheck", "--listen", &address]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("does not answer"), "{errors}");
}

#[test]
fn publish_takes_json_from_its_arguments_or_standard_input() {
    let hub = Served::start(&["--store", "memory"]);
    let (_, first, _) = run(hub.command("publish").args(["chat", "1", "--id", "a", "--sender", "me"]));
    assert!(first.contains(r#""offset":1,"duplicate":false"#), "{first}");
    let (_, again, _) = run(hub.command("publish").args(["chat", "1", "--id", "a"]));
    assert!(again.contains(r#""offset":1,"duplicate":true"#), "{again}");

    let mut child = hub
        .command("publish")
        .args(["chat", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"from\": \"stdin\"}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(r#""offset":2"#));

    let (code, _, errors) = run(hub.command("publish").args(["chat", "hello"]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("not JSON"), "{errors}");
    let (code, _, errors) = run(hub.command("publish").args(["", "1"]));
    assert_eq!(code, Some(2), "{errors}");
    let (code, _, errors) = run(hub.command("publish").args(["chat", "1", "--api-key", "wrong"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("key_invalid"), "{errors}");
}

#[test]
fn tail_prints_what_was_and_what_comes() {
    let hub = Served::start(&[]);
    let publish = |json: &str| run(hub.command("publish").args(["chat", json, "--sender", "me"])).1;
    let first: serde_json::Value = serde_json::from_str(&publish(r#"{"n" : 1.0}"#)).unwrap();
    publish("2");
    let position = format!("{}:{}", first["epoch"].as_str().unwrap(), first["offset"]);

    let follow = |arguments: &[&str]| {
        let mut command = hub.command("tail");
        let mut child = command.arg("chat").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
        (child, lines)
    };
    let (mut all, mut lines) = follow(&["--history", "10"]);
    let (one, two) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!((&one["room"], &one["offset"], &one["sender"]), (&"chat".into(), &1.into(), &"me".into()));
    assert_eq!((&one["data"]["n"], &two["data"]), (&1.0.into(), &2.into()));
    let (mut later, mut later_lines) = follow(&["--after", &position]);
    assert_eq!(later_lines.next().unwrap()["data"], 2);

    publish("3");
    assert_eq!(
        (&lines.next().unwrap()["data"], &later_lines.next().unwrap()["data"]),
        (&3.into(), &3.into())
    );
    for child in [&mut all, &mut later] {
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn tail_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(twine_hub(folder.path()).args(["tail", "chat", "--after", "x"]));
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("EPOCH:OFFSET"), "{errors}");
    // Bound, so that nobody else gets the port, and without ears.
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = taken.local_addr().unwrap().as_socket().unwrap().to_string();
    let (code, _, errors) = run(twine_hub(folder.path()).args(["tail", "chat", "--listen", &address]));
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("can't be reached"), "{errors}");
}

#[test]
fn publish_without_a_key_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(twine_hub(folder.path()).args(["publish", "chat", "1"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("twine-data/api-key") && errors.contains("TWINE_API_KEY"), "{errors}");
}
