//! A run in a process of its own.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::hub::{Hub, KEY};

/// A run that is going on; killed when dropped.
pub(crate) struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

/// What came of one.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// The command in an empty environment.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twine-hub"));
    command.env_clear().env("TWINE_API_KEY", KEY).current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command.arg("bench").args(arguments);
    command
}

impl Run {
    /// Starts a run that reports as JSON.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits until it says something with `part` in it. The rest of what it says is few lines.
    pub(crate) fn said(&mut self, part: &str) {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        assert!(lines.any(|line| line.contains(part)), "it never said {part:?}");
    }

    /// Waits until it shows that some have arrived.
    pub(crate) fn some_have_arrived(&mut self) {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        let some = |line: String| {
            let number = line.strip_prefix("arriving ").and_then(|rest| rest.split('/').next()?.parse().ok());
            number.is_some_and(|number: u64| number > 0)
        };
        assert!(lines.any(some), "nobody has ever arrived");
    }

    /// Waits for the end of all its processes.
    pub(crate) fn end(mut self) -> Ended {
        // Each process of the run has this end of the pipe.
        let errors: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        Ended { code: self.child.wait().unwrap().code(), output, errors: errors.join("\n") }
    }
}

impl Ended {
    /// Its report, where it has the status that it should.
    pub(crate) fn report(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{}\n{}", self.errors, self.output);
        serde_json::from_str(&self.output).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a hub may take to deliver what a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// Waits until a hub has delivered so many messages, and says how many it has.
pub(crate) async fn delivered(hub: &Hub, least: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let delivered = hub.metric("twine_messages_delivered_total ").await;
        if delivered >= least {
            return delivered;
        }
        assert!(begun.elapsed() < PATIENCE, "{delivered} of {least} messages were delivered");
    }
}

/// The counts of a report's part, by name.
pub(crate) fn counts<const N: usize>(part: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| part[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {part}")))
}
