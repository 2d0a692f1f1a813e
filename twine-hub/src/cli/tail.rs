//! `twine-hub tail`: a room's messages on standard output, a line of JSON each.

use clap::Args;
use serde::Serialize;
use twine_client::{Client, Event, Message, SubscribeOptions};
use twine_protocol::{Epoch, InvalidPosition, MessageId, Offset, Position, RoomName};

use super::signals::Signals;
use super::{Failure, Output, Target, chain, print};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// The room.
    room: String,
    /// Begins after this position, as an earlier line had it.
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position)]
    after: Option<Position>,
    /// Begins with the last N messages.
    #[arg(long, value_name = "N")]
    history: Option<u32>,
    #[command(flatten)]
    target: Target,
}

/// A message as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    room: &'a RoomName,
    epoch: &'a Epoch,
    offset: Offset,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    data: &'a twine_protocol::Data,
}

/// Prints messages, across restarts of the hub, until a signal comes or nobody reads the output.
pub(super) fn run(tail: Tail, config: &Config) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(chain(&error)))?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| Failure::Failed(chain(&error)))?;
        tokio::select! {
            result = follow(tail, config) => result,
            _ = signals.next() => Ok(()),
        }
    })
}

async fn follow(tail: Tail, config: &Config) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(chain(error));
    let client = Client::builder(&tail.target.url(config)).connect().await.map_err(|error| failed(&error))?;
    let options =
        SubscribeOptions { after: tail.after, history: tail.history, ..SubscribeOptions::default() };
    let mut room = client.subscribe(&tail.room, options).await.map_err(|error| failed(&error))?;
    if room.recovered() == Some(false) {
        eprintln!("messages after that position are no longer there; going on after {}", room.position());
    }
    while let Some(event) = room.recv().await {
        match event.map_err(|error| failed(&error))? {
            Event::Message(message) => {
                let line = serde_json::to_string(&Line::of(&message)).map_err(|error| failed(&error))?;
                if print(&line)? == Output::Closed {
                    break;
                }
            }
            Event::Gap(gap) => {
                eprintln!("messages from {} to {} are lost: {}", gap.from, gap.to, gap.reason.as_str());
            }
            _ => {}
        }
    }
    client.disconnect().await;
    Ok(())
}

impl<'a> Line<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            room: &message.room,
            epoch: &message.position.epoch,
            offset: message.position.offset,
            time: message.time,
            id: message.id.as_ref(),
            sender: message.sender.as_deref(),
            data: &message.data,
        }
    }
}

fn position(text: &str) -> Result<Position, String> {
    let (epoch, offset) = text.rsplit_once(':').ok_or("it has the form EPOCH:OFFSET")?;
    let offset = offset.parse().map_err(|_| "the offset is no number")?;
    Position::new(epoch, offset).map_err(|error: InvalidPosition| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_printed() {
        let at = Position::new("01a2007153ea-6a405a05", 42).unwrap();
        assert_eq!(position(&at.to_string()), Ok(at));
        for bad in ["", "42", "a:b", "a b:1", "a:-1", "a:9007199254740992"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }
}
