//! A chat: people post messages to this backend, which publishes them to a Twine hub; the hub
//! delivers them to everyone's page, also what a page missed while it was away.
//!
//! ```text
//! page -- POST /messages --> chat -- publish --> hub -- WebSocket --> every page
//! ```
//!
//! [`post`] is what a page may post, [`chat`] what becomes of it, [`http`] how it is asked for,
//! [`page`] what a browser loads, [`settings`] what the program is told at its start.

mod chat;
mod http;
mod page;
mod post;
mod settings;

use std::error::Error;
use std::io::IsTerminal as _;

use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;
use twine_server_sdk::Twine;

use crate::chat::Chat;
use crate::page::Page;
use crate::settings::Settings;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let twine =
        Twine::builder(settings.hub.as_str(), settings.api_key()?).deadline(chat::PATIENCE).build()?;
    let chat = Chat::start(twine)?;
    let page = Page::new(settings.public_hub());

    let listener = TcpListener::bind(settings.listen).await?;
    info!(address = %listener.local_addr()?, hub = %settings.hub, "listening");
    axum::serve(listener, http::router(chat.clone(), page)).with_graceful_shutdown(stopped()?).await?;
    chat.stop().await;
    Ok(())
}

/// Ends with the first SIGTERM or SIGINT.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
