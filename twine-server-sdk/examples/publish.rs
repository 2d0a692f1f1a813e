//! Publishes what is on its standard input, a line a message, and says where each was stored.
//!
//! ```sh
//! TWINE_API_KEY=… cargo run -p twine-server-sdk --example publish -- chat http://127.0.0.1:7070
//! ```
//!
//! A line that is JSON is published as it is, any other as a string.

use std::env;
use std::error::Error;
use std::io::{self, BufRead as _};
use std::process::ExitCode;

use serde_json::Value;
use twine_server_sdk::Twine;

const USAGE: &str = "usage: TWINE_API_KEY=… publish ROOM [URL]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match publish_lines().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn publish_lines() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let room = arguments.next().ok_or(USAGE)?;
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:7070".to_owned());
    let key = env::var("TWINE_API_KEY").map_err(|_| USAGE)?;

    let twine = Twine::new(url, key)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let data = serde_json::from_str(&line).unwrap_or(Value::String(line));
        let published = twine.publish(&room, &data).await?;
        println!("{} {}:{}", published.room, published.epoch, published.offset);
    }
    Ok(())
}
