//! The page that a browser's request comes from, and whether it may ask.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use tracing::warn;
use twine_protocol::ErrorCode;

use super::App;
use super::problem::Refusal;
use super::server::Peer;
use crate::auth::{Asking, Origin};

/// What a request tells of the page behind it.
#[derive(Debug)]
pub(super) struct Page {
    /// `Origin` as it came; `None` where no browser asks for another site's page.
    pub(super) origin: Option<HeaderValue>,
    /// Whom the request was meant for.
    pub(super) host: Option<Authority>,
    peer: Option<Peer>,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<Peer>().copied();
        Ok(Self::new(parts.uri.authority().cloned(), parts.headers.clone(), peer))
    }
}

impl Page {
    /// `authority` is that of the request's URI: HTTP/2 has the host there.
    pub(super) fn new(authority: Option<Authority>, headers: HeaderMap, peer: Option<Peer>) -> Self {
        let host = authority.or_else(|| headers.get(HOST)?.to_str().ok()?.parse().ok());
        Self { origin: headers.get(ORIGIN).cloned(), host, peer, headers }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Refuses a page that may not use this hub. A request without `Origin` is no page's: browsers
    /// send it with every WebSocket and with every request to another site.
    pub(super) fn check(&self, app: &App) -> Result<(), Refusal> {
        let Some(origin) = &self.origin else { return Ok(()) };
        if self.may_ask(app)? {
            return Ok(());
        }
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let host = self.host.as_ref().map_or("", Authority::as_str);
        app.refused_pages.say(|unsaid| {
            warn!(%origin, host, unsaid, "a page was refused: if it is yours, add its origin to `allowed_origins`");
        });
        let detail = format!(
            "pages of the origin {origin} may not use this hub; its operator can add that origin to `allowed_origins` (TWINE_ALLOWED_ORIGINS)"
        );
        Err(Refusal::new(ErrorCode::OriginNotAllowed, detail))
    }

    /// Whether it may use this hub; without a word to anybody.
    pub(super) fn may_ask(&self, app: &App) -> Result<bool, Refusal> {
        let Some(origin) = &self.origin else { return Ok(true) };
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let peer = self.address()?;
        let asking = Asking { peer, host: self.host.as_ref(), headers: &self.headers };
        Ok(app.origins.allow(&origin, asking))
    }

    /// The other end's address.
    pub(super) fn address(&self) -> Result<IpAddr, Refusal> {
        let missing = || Refusal::new(ErrorCode::Internal, "the connection has no peer");
        self.peer.map(|Peer(address)| address).ok_or_else(missing)
    }

    /// `Origin` as text; empty where there is none.
    pub(super) fn origin_text(&self) -> &str {
        self.origin.as_ref().and_then(|origin| origin.to_str().ok()).unwrap_or_default()
    }

    /// `Origin` where it is one.
    pub(super) fn parsed_origin(&self) -> Option<Origin> {
        self.origin.as_ref()?.to_str().ok()?.parse().ok()
    }
}
