//! Publishes one message.

use std::env;

use serde_json::json;
use twine_server_sdk::Twine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let twine = Twine::new(env::var("TWINE_URL")?, env::var("TWINE_API_KEY")?)?;
    twine.publish("chat", &json!({ "name": "Rust", "text": "hello from Rust" })).await?;
    Ok(())
}
