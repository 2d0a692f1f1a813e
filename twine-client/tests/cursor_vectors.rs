//! The core keeps the rules of cursors: `twine-protocol/vectors/cursors.json`, step by step.
#![cfg(all(feature = "native", not(target_arch = "wasm32")))]
// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use serde_json::{Value, json};
use twine_client::core::{Config, Core, Effect, SocketId, SubscribeOptions};
use twine_protocol::json::decode_server;
use twine_protocol::{ClientFrame, Data, RoomName};

const NOW: u64 = 0;
const CONNECTED: &str =
    r#"{"type":"connected","resumed":false,"adopted":false,"heartbeat":25000,"rooms":[]}"#;

/// A core with a listener on `chat`, and what a runner has to remember.
struct Client {
    core: Core<Data>,
    room: RoomName,
    socket: Option<SocketId>,
    /// The `id` of the latest request.
    request: u64,
    /// What the core did in this step, as the vectors spell it.
    then: Vec<Value>,
}

impl Client {
    fn new() -> Self {
        let room = RoomName::new("chat").unwrap();
        let mut core = Core::new(Config::default());
        core.attach(NOW, &room).unwrap();
        core.connect(NOW);
        let mut client = Self { core, room, socket: None, request: 0, then: Vec::new() };
        client.run();
        client
    }

    fn step(&mut self, step: &Value) {
        match step["do"].as_str() {
            Some("subscribe") => drop(self.core.subscribe(NOW, &self.room, SubscribeOptions::default())),
            Some("unsubscribe") => drop(self.core.unsubscribe(NOW, &self.room)),
            Some("reconnect") => {
                self.core.closed(NOW, self.socket.unwrap(), 1006, "");
                self.core.connect(NOW);
            }
            Some(other) => panic!("no step is called {other}"),
            None => {
                let mut frame = step["frame"].clone();
                if frame["type"] == "subscribed" || frame["type"] == "unsubscribed" {
                    frame["id"] = self.request.into();
                }
                self.core.frame(NOW, self.socket.unwrap(), decode_server(&frame.to_string()).unwrap());
            }
        }
        self.run();
    }

    /// Does what the core wants done, until it wants nothing more.
    fn run(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Open { socket, .. } => {
                    self.socket = Some(socket);
                    self.core.opened(NOW, socket);
                }
                Effect::Send(socket, ClientFrame::Connect(_)) => {
                    self.core.frame(NOW, socket, decode_server(CONNECTED).unwrap());
                }
                Effect::Send(_, ClientFrame::Subscribe(subscribe)) => {
                    self.request = subscribe.id;
                    self.then.push(json!({ "subscribe_after": subscribe.after }));
                }
                Effect::Send(_, ClientFrame::Unsubscribe(unsubscribe)) => self.request = unsubscribe.id,
                Effect::Deliver(delivery) => {
                    self.core.delivered(NOW, &delivery.room, delivery.delivery);
                    let delivered = json!({ "deliver": delivery.position, "recovered": delivery.recovered });
                    self.then.push(delivered);
                }
                Effect::Gap(gap) => {
                    let lost =
                        json!({ "from": gap.from, "to": gap.to, "count": gap.count, "reason": gap.reason });
                    self.then.push(json!({ "lost": lost }));
                }
                Effect::State(_) | Effect::Done(..) => {}
                other => panic!("no vector tells of {other:?}"),
            }
        }
    }
}

#[test]
fn the_core_keeps_the_rules_of_cursors() {
    let file: Value =
        serde_json::from_str(include_str!("../../twine-protocol/vectors/cursors.json")).unwrap();
    assert_eq!(file["format"], 1);
    for scenario in file["scenarios"].as_array().unwrap() {
        let mut client = Client::new();
        for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
            client.step(step);
            let at = format!("{}, step {index}", scenario["name"]);
            assert_eq!(json!(std::mem::take(&mut client.then)), step["then"], "{at}");
            assert_eq!(json!(client.core.cursor(&client.room)), step["cursor"], "{at}");
        }
    }
}
