//! A hub that dies at a certain request: from then on nothing that it sends arrives anywhere, and it hears
//! nothing any more. Or one that is held up there.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Bench, DAY, Retention, Table};
use crate::broker::fleet::Fleet;
use crate::broker::redis::{Limits, Link, RoomLimits, Target};
use crate::rooms::locked;
use crate::store::dynamodb::tests::faulty_proxy::{Fault, FaultyProxy};
use crate::store::dynamodb::tests::{connect, location};

/// Whether the last request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Before,
    After,
}

/// A hub without rooms in memory, between whose requests death may come.
pub(super) struct Mortal {
    pub(super) fleet: Arc<Fleet>,
    /// Before the table.
    pub(super) table: FaultyProxy,
    life: Arc<Life>,
    // Ends with it.
    _redis: JoinSet<()>,
}

/// How many requests are left, to Redis and to the table together.
struct Life {
    left: Mutex<usize>,
    ending: Ending,
    dead: CancellationToken,
    pause: Pause,
}

/// Before so many commands to Redis the next one waits.
struct Pause {
    left: Mutex<Option<usize>>,
    is_reached: Notify,
    is_over: Notify,
}

impl Pause {
    async fn pass(&self) {
        let is_here = {
            let mut left = locked(&self.left);
            let is_here = *left == Some(0);
            *left = left.and_then(|left| left.checked_sub(1));
            is_here
        };
        if is_here {
            self.is_reached.notify_one();
            self.is_over.notified().await;
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Done,
    DoneUnheard,
    Lost,
}

impl Life {
    fn turn(&self) -> Turn {
        if self.dead.is_cancelled() {
            return Turn::Lost;
        }
        let mut left = locked(&self.left);
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            return Turn::Done;
        }
        self.dead.cancel();
        match self.ending {
            Ending::Before => Turn::Lost,
            Ending::After => Turn::DoneUnheard,
        }
    }
}

impl Mortal {
    /// A hub that dies with its request number `requests`, counted from 0.
    pub(super) async fn start(
        redis: u16,
        bench: Bench,
        table: &Table,
        requests: usize,
        ending: Ending,
    ) -> Self {
        Self::with(redis, bench, table, (requests, ending), None).await
    }

    /// A hub that is held up before its command number `commands` to Redis, counted from 0.
    pub(super) async fn held_up(redis: u16, bench: Bench, table: &Table, commands: usize) -> Self {
        Self::with(redis, bench, table, (usize::MAX, Ending::Before), Some(commands)).await
    }

    async fn with(
        redis: u16,
        bench: Bench,
        table: &Table,
        (requests, ending): (usize, Ending),
        commands: Option<usize>,
    ) -> Self {
        let (left, dead) = (Mutex::new(requests), CancellationToken::new());
        let left_commands = Mutex::new(commands);
        let pause = Pause { left: left_commands, is_reached: Notify::new(), is_over: Notify::new() };
        let life = Arc::new(Life { left, ending, dead, pause });
        let proxy = FaultyProxy::start(bench.port).await;
        let of_table = life.clone();
        proxy.decide(move || match of_table.turn() {
            Turn::Done => None,
            Turn::DoneUnheard => Some(Fault::LoseAnswer),
            Turn::Lost => Some(Fault::Hang),
        });
        let retention = Retention::For(DAY);
        let table = connect(&location(proxy.port(), table.name()), retention).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(listener, redis, life.clone()));
        let (link, _) = Link::start(&Target::parse(&url).unwrap(), Limits::default()).unwrap();
        let fleet = Arc::new(Fleet::new(link, table, RoomLimits::default(), Arc::default()));
        Self { fleet, table: proxy, life, _redis: tasks }
    }

    /// What it comes to, unless it dies first.
    pub(super) async fn lives<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        self.life.dead.run_until_cancelled(task).await
    }

    /// Returns once it is held up.
    pub(super) async fn until_held_up(&self) {
        self.life.pause.is_reached.notified().await;
    }

    /// Lets it go on.
    pub(super) fn release(&self) {
        self.life.pause.is_over.notify_one();
    }

    /// Nothing of it runs any more.
    pub(super) async fn bury(self) {
        self.life.dead.cancel();
        self.fleet.stop.cancel();
        self.fleet.table.close();
        self.fleet.link.close().await;
        self.fleet.tasks.close();
        self.fleet.tasks.wait().await;
    }
}

async fn relay(listener: TcpListener, redis: u16, life: Arc<Life>) {
    let mut connections = JoinSet::new();
    while let Some(Ok((client, _))) = life.dead.run_until_cancelled(listener.accept()).await {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, redis)).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        connections.spawn(commands(from_client, to_server, life.clone()));
        connections.spawn(answers(from_server, to_client, life.clone()));
    }
}

/// Hands on one command after the other.
async fn commands(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, life: Arc<Life>) {
    let mut bytes = Vec::new();
    loop {
        while let Some(len) = command(&bytes) {
            // What keeps the connection up comes when it comes, and changes nothing.
            let counts = [b"EVAL".as_slice(), b"EVALSHA", b"SET"].contains(&name(&bytes));
            if counts {
                life.pause.pass().await;
            }
            let turn = if counts { life.turn() } else { Turn::Done };
            if turn != Turn::Lost && to.write_all(&bytes[..len]).await.is_err() {
                return;
            }
            bytes.drain(..len);
        }
        if !matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, life: Arc<Life>) {
    let mut bytes = Vec::new();
    while let Some(Ok(1..)) = life.dead.run_until_cancelled(from.read_buf(&mut bytes)).await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
    // The server's last answers go nowhere.
    while matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
        bytes.clear();
    }
}

/// The length of the command that the bytes begin with, where all of it is there: `*N`, then N times
/// `$LENGTH` and so many bytes.
fn command(bytes: &[u8]) -> Option<usize> {
    let (n, mut at) = header(bytes, 0, b'*')?;
    for _ in 0..n {
        let (len, start) = header(bytes, at, b'$')?;
        at = start + len + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// The command's name: what follows two headers.
fn name(bytes: &[u8]) -> &[u8] {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.nth(2).unwrap_or_default()
}

fn header(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let line = bytes.get(at..)?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    assert_eq!(line[0], kind, "{:?}", String::from_utf8_lossy(line));
    let number = std::str::from_utf8(&line[1..end - 1]).unwrap().parse().unwrap();
    Some((number, at + end + 1))
}
