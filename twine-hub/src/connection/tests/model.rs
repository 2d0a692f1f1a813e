//! Clients that do anything at all, held against a model.

use proptest::prelude::*;

use super::*;

/// What a client of the model does, or is done to it.
#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        client: usize,
        room: usize,
        how: How,
    },
    Unsubscribe {
        client: usize,
        room: usize,
    },
    Publish {
        room: usize,
        n: u64,
        bytes: usize,
    },
    /// Reads so many frames; until then the client takes nothing but what its buffers do.
    Read {
        client: usize,
        frames: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Plain,
    AfterCursor,
    History(u32),
    Both(u32),
}

/// A client that checks all it is told.
struct Checked {
    client: Client,
    /// By room: the cursor, while subscribed.
    cursors: [Option<u64>; ROOMS],
    /// Where a room was left.
    left: [u64; ROOMS],
    asked: u64,
    answered: u64,
    epoch: Option<Epoch>,
}

const ROOMS: usize = 3;

impl Checked {
    async fn step(&mut self) {
        let room = |name: &twine_protocol::RoomName| name.as_str().parse::<usize>().unwrap();
        match self.client.next().await {
            Frame::Subscribed(s) => {
                assert_ne!(s.recovered, Some(false));
                self.answered += 1;
                self.epoch = Some(s.epoch);
                self.cursors[room(&s.room)] = Some(s.offset.get());
            }
            Frame::Unsubscribed(u) => {
                self.answered += 1;
                let cursor = &mut self.cursors[room(&u.room)];
                self.left[room(&u.room)] = cursor.take().unwrap_or_default();
            }
            // It was overtaken, or there was nothing to leave.
            Frame::Error(error) => {
                assert_eq!(error.code, ErrorCode::NotSubscribed);
                self.answered += 1;
            }
            Frame::Message(message) => {
                let cursor =
                    self.cursors[room(&message.room)].as_mut().expect("no message of a room that was left");
                assert_eq!(message.offset.get(), *cursor + 1, "in order, none left out, none twice");
                *cursor += 1;
            }
            Frame::Ping => {}
            other => panic!("{other:?}"),
        }
    }

    async fn say(&mut self, text: &str) {
        self.asked += 1;
        self.client.say(text).await;
    }
}

fn model_steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        Just(How::Plain),
        Just(How::AfterCursor),
        (1u32..30).prop_map(How::History),
        (1u32..30).prop_map(How::Both),
    ];
    let step = prop_oneof![
        3 => (0..3usize, 0..ROOMS, how).prop_map(|(client, room, how)| Step::Subscribe { client, room, how }),
        1 => (0..3usize, 0..ROOMS).prop_map(|(client, room)| Step::Unsubscribe { client, room }),
        3 => (0..ROOMS, 1u64..20, prop_oneof![Just(10usize), Just(20_000)])
            .prop_map(|(room, n, bytes)| Step::Publish { room, n, bytes }),
        2 => (0..3usize, 1usize..40).prop_map(|(client, frames)| Step::Read { client, frames }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is subscribed, left, asked for again and not read for a while: what each client is
    /// told of a room follows on from what it was told before, and in the end it has everything.
    #[test]
    fn cursors_are_dense_whatever_clients_do(steps in model_steps(), tail_bytes in prop_oneof![Just(0usize), Just(100_000), Just(1 << 30)]) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run_model(steps, tail_bytes));
    }
}

async fn run_model(steps: Vec<Step>, tail_bytes: usize) {
    use std::fmt::Write as _;

    let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
    let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
    let mut clients = Vec::new();
    for _ in 0..3 {
        // A window of a few messages, so that not reading soon blocks the hub's side.
        let socket = bench.socket_with(|hub, client| {
            socket2::SockRef::from(hub).set_send_buffer_size(32 << 10).unwrap();
            socket2::SockRef::from(client).set_recv_buffer_size(32 << 10).unwrap();
        });
        let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
        client.connect().await;
        clients.push(Checked {
            client,
            cursors: [None; ROOMS],
            left: [0; ROOMS],
            asked: 0,
            answered: 0,
            epoch: None,
        });
    }
    let mut heads = [0; ROOMS];
    for step in steps {
        match step {
            Step::Subscribe { client, room, how } => {
                let checked = &mut clients[client];
                let cursor = checked.cursors[room].unwrap_or(checked.left[room]);
                let (after, history) = match how {
                    How::Plain => (false, None),
                    How::AfterCursor => (true, None),
                    How::History(n) => (false, Some(n)),
                    How::Both(n) => (true, Some(n)),
                };
                let mut text = format!(r#"{{"type":"subscribe","id":1,"room":"{room}""#);
                if let Some(epoch) = checked.epoch.as_ref().filter(|_| after) {
                    write!(text, r#","after":{{"epoch":"{epoch}","offset":{cursor}}}"#).unwrap();
                }
                if let Some(n) = history {
                    write!(text, r#","history":{n}"#).unwrap();
                }
                checked.say(&(text + "}")).await;
            }
            Step::Unsubscribe { client, room } => {
                clients[client].say(&format!(r#"{{"type":"unsubscribe","id":1,"room":"{room}"}}"#)).await;
            }
            Step::Publish { room, n, bytes } => {
                bench.publish_many(&room.to_string(), n, &"x".repeat(bytes)).await;
                heads[room] += n;
            }
            Step::Read { client, frames } => {
                let checked = &mut clients[client];
                for _ in 0..frames {
                    // Only what is sure to come.
                    let behind =
                        (0..ROOMS).any(|room| checked.cursors[room].is_some_and(|at| at < heads[room]));
                    if checked.answered < checked.asked || behind {
                        checked.step().await;
                    }
                }
            }
        }
    }
    for checked in &mut clients {
        while checked.answered < checked.asked
            || (0..ROOMS).any(|room| checked.cursors[room].is_some_and(|at| at < heads[room]))
        {
            checked.step().await;
        }
    }
    // Who hangs up is not waited for.
    drop(clients);
    bench.end().await;
}
