//! What the program is told at its start: flags, or the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A chat on Twine.
#[derive(Debug, clap::Parser)]
#[command(name = "chat", version)]
pub(crate) struct Settings {
    /// Where the chat listens. Port 0 takes a free one.
    #[arg(long, env = "CHAT_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The hub to publish to.
    #[arg(long, env = "TWINE_URL", default_value = "http://127.0.0.1:7070")]
    pub(crate) hub: HubUrl,
    /// The hub as browsers reach it, where that is another address.
    #[arg(long, env = "TWINE_PUBLIC_URL")]
    public_hub: Option<HubUrl>,
    /// The hub's API key.
    #[arg(long, env = "TWINE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// A file with the hub's API key, read where no key is given. A hub without a configured key
    /// makes this one.
    #[arg(long, env = "TWINE_API_KEY_FILE", default_value = "twine-data/api-key")]
    api_key_file: PathBuf,
}

/// There is no API key to publish with.
#[derive(Debug, thiserror::Error)]
#[error("no API key: TWINE_API_KEY is not set and {} can't be read", path.display())]
pub(crate) struct NoApiKey {
    path: PathBuf,
    source: std::io::Error,
}

impl Settings {
    /// The key to publish with.
    pub(crate) fn api_key(&self) -> Result<String, NoApiKey> {
        if let Some(key) = &self.api_key {
            return Ok(key.clone());
        }
        let path = self.api_key_file.clone();
        let text = std::fs::read_to_string(&path).map_err(|source| NoApiKey { path, source })?;
        Ok(text.trim().to_owned())
    }

    /// The hub as pages see it.
    pub(crate) fn public_hub(&self) -> &HubUrl {
        self.public_hub.as_ref().unwrap_or(&self.hub)
    }
}

/// The address of a hub, `http://127.0.0.1:7070`: a scheme and an authority, without a path.
///
/// Its characters can't end an attribute of HTML nor a directive of a Content-Security-Policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubUrl(String);

/// A text is no hub's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address looks like http://127.0.0.1:7070 or https://rt.example.com, without a path")]
pub(crate) struct InvalidHubUrl;

impl FromStr for HubUrl {
    type Err = InvalidHubUrl;

    fn from_str(text: &str) -> Result<Self, InvalidHubUrl> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let authority =
            text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or(InvalidHubUrl)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(is_plain) {
            return Err(InvalidHubUrl);
        }
        Ok(Self(text.to_owned()))
    }
}

impl HubUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The same address for a WebSocket: `ws://127.0.0.1:7070`.
    pub(crate) fn socket(&self) -> String {
        // `http` becomes `ws`, `https` becomes `wss`.
        self.0.replacen("http", "ws", 1)
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_no_path() {
        for (text, socket) in [
            ("http://127.0.0.1:7070", "ws://127.0.0.1:7070"),
            ("https://rt.example.com/", "wss://rt.example.com"),
            ("http://[::1]:7070", "ws://[::1]:7070"),
        ] {
            assert_eq!(text.parse::<HubUrl>().unwrap().socket(), socket);
        }
        for bad in [
            "",
            "localhost:7070",
            "http://",
            "ftp://a",
            "http://a/b",
            "http://a\"b",
            "http://a;b",
            "http://a b",
        ] {
            assert_eq!(bad.parse::<HubUrl>(), Err(InvalidHubUrl), "{bad}");
        }
    }
}
