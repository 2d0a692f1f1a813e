//! The driver for Rust programs: the [core](crate::core) on tokio, over tokio-tungstenite.
//!
//! ```no_run
//! # async fn run() -> Result<(), twine_client::Error> {
//! use twine_client::{Client, Event, SubscribeOptions};
//!
//! let client = Client::builder("http://127.0.0.1:7070").connect().await?;
//! let mut chat = client.subscribe("chat", SubscribeOptions::default()).await?;
//! while let Some(event) = chat.recv().await {
//!     match event? {
//!         Event::Message(message) => println!("{}: {}", message.position, message.data),
//!         Event::Gap(gap) => eprintln!("lost up to {}: {}", gap.to, gap.reason.as_str()),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One task a client runs the core, its socket and its timer; [`Client`] and [`Subscription`] are
//! handles to it. A subscription that is not read fills its queue of [`QUEUE_MAX`] events; then the
//! task stops reading the socket, and with it all rooms of this client. What the hub can't send
//! stays in the rooms' logs, so that nothing is lost and nothing grows.

mod client;
mod driver;
mod early;
mod endpoint;
mod error;
mod headers;
mod socket;
mod subscription;
#[cfg(feature = "rustls")]
mod tls;
mod transport;

pub use client::{Builder, Client, States};
pub use error::Error;
pub use subscription::{Event, Message, QUEUE_MAX, Subscription};
