//! Publishers, who send again what they got no answer for.

use std::task::{Context, Poll, Waker};

use serde_json::value::RawValue;
use twine_protocol::{MessageId, RoomName};

use super::hub::{Hub, Publishing};
use super::log::Serial;
use super::world::World;
use crate::rooms::{NewMessage, locked};

/// Messages that are sent together, until it is known that they are stored.
pub(super) struct Outgoing {
    messages: Vec<(RoomName, Serial)>,
    /// Bytes of a payload, at least.
    size: usize,
    /// The attempt under way.
    attempt: Option<Publishing>,
}

impl Outgoing {
    fn messages(&self) -> Vec<NewMessage> {
        let message = |(room, serial): &(RoomName, Serial)| {
            let text = format!("\"{serial}:{}\"", "x".repeat(self.size));
            let id = MessageId::new(&serial.to_string()).unwrap();
            let data = RawValue::from_string(text).unwrap();
            NewMessage { room: room.clone(), data, id: Some(id), sender: None }
        };
        self.messages.iter().map(message).collect()
    }

    fn send(&mut self, hub: &Hub) {
        let mut attempt = hub.publish(self.messages());
        // That hands it over; no answer is there yet.
        let answer = attempt.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(answer.is_pending());
        self.attempt = Some(attempt);
    }
}

impl World {
    /// Somebody publishes something new.
    pub(super) fn publish(&mut self) {
        let n = if self.random.u8(..8) == 0 { 3 } else { 1 };
        let messages = (0..n).map(|_| {
            self.n_messages += 1;
            (self.rooms[self.random.usize(..self.rooms.len())].clone(), self.n_messages)
        });
        let messages: Vec<_> = messages.collect();
        let size =
            [10, 100, 300, 3_000, 30_000][usize::from(self.random.u8(..).trailing_zeros().min(4) as u8)];
        self.note(format!("publish {messages:?}, {size} bytes"));
        let mut outgoing = Outgoing { messages, size, attempt: None };
        if let Some(hub) = &self.hub {
            outgoing.send(hub);
        }
        self.outgoing.push(outgoing);
    }

    /// Sends again what was lost, and takes the answers that are there: some of them are lost.
    pub(super) fn hear_publishers(&mut self, loses: bool) {
        let Some(hub) = &self.hub else { return };
        let machine = locked(&self.machine);
        let present = machine.log(machine.boot());
        let mut acknowledged = Vec::new();
        for outgoing in &mut self.outgoing {
            let Some(attempt) = &mut outgoing.attempt else {
                outgoing.send(hub);
                continue;
            };
            let Poll::Ready(answer) = attempt.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                continue;
            };
            outgoing.attempt = None;
            if loses && self.random.u8(..8) == 0 {
                continue;
            }
            let Ok(published) = answer else { continue };
            assert_eq!(published.len(), outgoing.messages.len(), "answers to a publish");
            for ((room, serial), published) in outgoing.messages.drain(..).zip(published) {
                let position = twine_protocol::Position { epoch: published.epoch, offset: published.offset };
                let entry = present.entry(&room, &position);
                assert_eq!(
                    entry.map(|entry| entry.serial),
                    Some(serial),
                    "a message of {room} was acknowledged at {position}, and another one is there"
                );
                acknowledged.push(serial);
            }
        }
        drop(machine);
        self.outgoing.retain(|outgoing| !outgoing.messages.is_empty());
        if !acknowledged.is_empty() {
            self.note(format!("acknowledged: {acknowledged:?}"));
        }
    }

    /// What was under way is lost with the hub.
    pub(super) fn lose_publishes(&mut self) {
        for outgoing in &mut self.outgoing {
            outgoing.attempt = None;
        }
    }
}
