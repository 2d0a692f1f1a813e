//! The agent that HAProxy asks (`agent-check`): one line to whoever connects.
//!
//! | line | the hub | HAProxy |
//! | --- | --- | --- |
//! | `ready up 75%` | works, and is a quarter full | gives it that share of its weight |
//! | `drain` | is about to stop | sends it nobody new |
//! | `down #why` | can't work | sends it nobody new, and shows why |
//!
//! `ready` takes back the `drain` of the process before, which HAProxy keeps over a restart.

use std::io;
use std::net::{self, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::debug;

use crate::accept::Acceptor;
use crate::http::Tasks;

/// Who asks at the same time; more wait to be accepted.
const MAX_ASKING: usize = 16;
/// How long one may take to read a line.
const PATIENCE: Duration = Duration::from_secs(2);
/// What one may send, which is read and not looked at (`agent-send`), in bytes.
const MAX_SENT: u64 = 4 << 10;

/// What the hub is like at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// It takes connections: this share of what it is meant to get, in percent.
    Up(u8),
    /// It is about to stop.
    Drain,
    /// It can't work, for this reason.
    Down(String),
}

impl Word {
    fn line(&self) -> String {
        match self {
            Self::Up(weight) => format!("ready up {weight}%\n"),
            Self::Drain => "drain\n".to_owned(),
            // A line, whatever the reason has in it.
            Self::Down(why) => format!("down #{}\n", why.replace(char::is_control, " ")),
        }
    }
}

/// What accepts those who ask.
///
/// # Errors
/// As [`Acceptor::new`].
pub(crate) fn acceptor(listener: TcpListener) -> io::Result<Acceptor> {
    Acceptor::new(listener, MAX_ASKING)
}

/// Answers whoever connects, for as long as it is polled.
pub(crate) async fn serve(mut acceptor: Acceptor, tasks: Tasks, word: impl Fn() -> Word) {
    loop {
        let (place, socket, peer) = acceptor.next().await;
        let line = word().line();
        tasks.spawn(async move {
            match tokio::time::timeout(PATIENCE, answer(socket, &line)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%peer, %error, "whoever asked the agent went away"),
                Err(_) => debug!(%peer, "whoever asked the agent did not read its answer in time"),
            }
            drop(place);
        });
    }
}

async fn answer(socket: net::TcpStream, line: &str) -> io::Result<()> {
    let mut socket = TcpStream::from_std(socket)?;
    socket.write_all(line.as_bytes()).await?;
    socket.shutdown().await?;
    // A socket that is closed with something unread in it takes its answer back.
    tokio::io::copy(&mut socket.take(MAX_SENT), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_line() {
        let why = "the disk is full\ntoday".to_owned();
        let lines = [Word::Up(75), Word::Drain, Word::Down(why)].map(|word| word.line());
        assert_eq!(lines, ["ready up 75%\n", "drain\n", "down #the disk is full today\n"]);
    }
}
