//! `twine-hub publish`: a message from the command line, by the same way as a backend's.

use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use twine_server_sdk::{Message, Twine};

use super::key::key;
use super::{Failure, Target, chain, print};
use crate::config::Config;

/// How long it tries to reach the hub: someone is waiting.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The room.
    room: String,
    /// The message's data: any JSON, or `-` to read it from standard input.
    json: String,
    /// An id: publishing again under it stores nothing.
    #[arg(long)]
    id: Option<String>,
    /// Who publishes, as subscribers see it.
    #[arg(long)]
    sender: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(publish: &Publish, config: &Config) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(chain(error));
    let message = message(publish)?;
    let key = key(config)?;
    let builder = Twine::builder(publish.target.url(config), key).deadline(PATIENCE);
    // A proxy of the environment knows no way to this machine's own hub.
    let builder = if publish.target.is_this_machine() { builder.no_proxy() } else { builder };
    let twine = builder.build().map_err(|error| failed(&error))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let published = runtime.block_on(twine.publish_message(&message)).map_err(|error| failed(&error))?;
    print(&serde_json::to_string(&published).map_err(|error| failed(&error))?)?;
    Ok(())
}

fn message(publish: &Publish) -> Result<Message, Failure> {
    let usage = |error: &dyn std::error::Error| Failure::Usage(chain(error));
    let mut text = publish.json.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).map_err(|error| usage(&error))?;
    }
    let data: &RawValue = serde_json::from_str(&text).map_err(|error| {
        Failure::Usage(format!("the data is not JSON: {error}\n(a text is quoted twice: '\"hello\"')"))
    })?;
    let mut message = Message::new(&publish.room, data).map_err(|error| usage(&error))?;
    if let Some(id) = &publish.id {
        message = message.with_id(id).map_err(|error| usage(&error))?;
    }
    if let Some(sender) = &publish.sender {
        message = message.with_sender(sender).map_err(|error| usage(&error))?;
    }
    Ok(message)
}
