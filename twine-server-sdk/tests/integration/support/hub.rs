//! A real hub in this process, with its real store.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use twine_hub::config::{Config, StoreKind};
use twine_hub::{Hub, Running};
use twine_protocol::api::{History, StoredMessage};
use twine_server_sdk::{Twine, TwineBuilder};

use super::http::{self, Exchanged};
use super::{KEY, twine_at};

/// Keeps its folder when it is stopped, so that it can be started again.
pub(crate) struct TestHub {
    running: Running,
    data_dir: TempDir,
}

impl TestHub {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let running = run(data_dir.path(), change).await;
        Self { running, data_dir }
    }

    /// Stops it; what is returned starts it again, on another port and with the same messages.
    pub(crate) async fn stop(self) -> StoppedHub {
        self.running.shutdown().await;
        StoppedHub { data_dir: self.data_dir }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.running.address()
    }

    /// A publisher to this hub.
    pub(crate) fn twine(&self) -> Twine {
        self.twine_builder().build().unwrap()
    }

    pub(crate) fn twine_builder(&self) -> TwineBuilder {
        twine_at(&self.running.url())
    }

    /// What the room holds, oldest first, up to a thousand messages.
    pub(crate) async fn history(&self, room: &str) -> Vec<StoredMessage<Value>> {
        let head = format!(
            "GET /api/rooms/{room}/messages?limit=1000 HTTP/1.1\r\nHost: hub\r\n\
             Authorization: Bearer {KEY}\r\n\r\n"
        );
        let request = Exchanged { head, body: String::new() };
        let answer = http::exchange(self.addr(), &request).await.unwrap();
        assert!(answer.head.starts_with("HTTP/1.1 200 "), "{answer:?}");
        serde_json::from_str::<History<Value>>(&answer.body).unwrap().messages
    }

    /// The payloads of the room, oldest first.
    pub(crate) async fn payloads(&self, room: &str) -> Vec<Value> {
        self.history(room).await.into_iter().map(|message| message.data).collect()
    }
}

/// A hub that can be started again.
pub(crate) struct StoppedHub {
    data_dir: TempDir,
}

impl StoppedHub {
    pub(crate) async fn start(self) -> TestHub {
        let running = run(self.data_dir.path(), |_| {}).await;
        TestHub { running, data_dir: self.data_dir }
    }
}

async fn run(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let hub = Hub::builder().configure(|config| {
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.store = StoreKind::Sqlite;
        data_dir.clone_into(&mut config.data_dir);
        config.api_key = vec![KEY.parse().unwrap()];
        change(config);
    });
    hub.start().await.unwrap()
}
