//! `GET /ws`: from an HTTP request to a socket of `connection`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tracing::debug;
use tungstenite::handshake::derive_accept_key;
use twine_protocol::{ErrorCode, SUBPROTOCOL};

use super::page::Page;
use super::problem::Refusal;
use super::stall::Impatient;
use super::{App, cookie, early, extensions};
use crate::connection::{Caller, Handover, Place};

/// How long a socket may take to accept the 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that is let in, once it has its answer.
pub(super) struct Admission {
    pub(super) place: Place,
    pub(super) caller: Caller,
    /// Whether the answer agrees to compression.
    pub(super) is_compressed: bool,
    /// The headers of the 101.
    pub(super) answer: HeaderMap,
}

/// Takes a place for a page that may use this hub, whose key is answered with `accept`.
///
/// # Errors
/// [`Refusal`] says that the hub is full or going.
pub(super) fn admit(app: &App, page: &Page, accept: HeaderValue) -> Result<Admission, Refusal> {
    if app.draining.is_cancelled() {
        return Err(Refusal::new(ErrorCode::Draining, "the hub is shutting down"));
    }
    let caller = Caller {
        cookie: cookie::hash(app, page, page.headers()),
        origin: page.origin_text().into(),
        address: page.address()?,
    };
    let Some(place) = app.connections.reserve() else {
        let detail = format!("the hub holds {} connections (`max_connections`)", app.config.max_connections);
        return Err(Refusal::new(ErrorCode::Full, detail));
    };
    let mut answer = HeaderMap::with_capacity(5);
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if has_token(page.headers(), &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let extension = app.config.compress_from.and_then(|_| extensions::deflate(page.headers()));
    let is_compressed = extension.is_some();
    if let Some(extension) = extension {
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    Ok(Admission { place, caller, is_compressed, answer })
}

/// Checks the handshake, takes a place, answers 101 and hands the socket over.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    page: Page,
    mut request: Request,
) -> Result<Response, Refusal> {
    // A `HEAD` comes here too, where a router sends it for every `GET`.
    if request.method() != Method::GET {
        return Err(Refusal::new(ErrorCode::UpgradeRequired, "a WebSocket is opened by GET"));
    }
    let accept = accept_key(request.version(), request.headers())?;
    page.check(&app)?;
    let early = early::frames(request.uri().query())?;
    let Admission { place, caller, is_compressed, answer } = admit(&app, &page, accept)?;
    // Absent where a proxy or a test drives the router without hyper below it.
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Refusal::new(ErrorCode::UpgradeRequired, "this connection can't be upgraded"));
    };
    app.tasks.spawn(hand_over(app.clone(), place, caller, early, is_compressed, upgrade));
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

/// The answer to the handshake's key, where it is a handshake (RFC 6455, section 4.2.1).
pub(super) fn accept_key(version: Version, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let upgrade_required = |detail: &str| {
        Refusal::new(ErrorCode::UpgradeRequired, detail)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
    };
    if version != Version::HTTP_11 {
        return Err(upgrade_required("a WebSocket is opened over HTTP/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(upgrade_required("the request is no WebSocket handshake"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("the WebSocket version is not 13").header(SEC_WEBSOCKET_VERSION, "13"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if is_sixteen_bytes(key.as_bytes()) => key,
        _ => {
            return Err(Refusal::new(ErrorCode::BadRequest, "`Sec-WebSocket-Key` is not 16 bytes in base64"));
        }
    };
    // Base64 of a digest is always a header's value.
    HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))
}

/// Whether `text` is base64 of 16 bytes: 22 digits and two signs that fill up.
fn is_sixteen_bytes(text: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(digit))
}

/// Whether a header that lists tokens has this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

async fn hand_over(
    app: Arc<App>,
    place: Place,
    caller: Caller,
    early: Vec<u8>,
    is_compressed: bool,
    upgrade: OnUpgrade,
) {
    let upgraded = match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return debug!(error = %error, "a client went away during its upgrade"),
        Err(_) => return debug!("a client did not take its upgrade in time"),
    };
    match take_socket(upgraded, caller, &early, is_compressed) {
        Ok(handover) => app.connections.adopt(place, handover),
        Err(error) => debug!(error = %error, "a socket could not be handed over"),
    }
}

/// The socket itself, out of the runtime's hands, and what was read past the request, after what was said with it.
fn take_socket(
    upgraded: Upgraded,
    caller: Caller,
    early: &[u8],
    is_compressed: bool,
) -> std::io::Result<Handover> {
    let parts = downcast::<TokioIo<Impatient>>(upgraded)
        .map_err(|_| std::io::Error::other("the connection is no TCP socket"))?;
    let (socket, unread) = parts.io.into_inner().into_inner();
    let read = [early, &parts.read_buf, &unread].concat();
    Ok(Handover { socket: socket.into_std()?, answer: Bytes::new(), read, is_compressed, caller })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 6455, section 1.3.
    const HANDSHAKE: [(HeaderName, &str); 4] = [
        (CONNECTION, "keep-alive, Upgrade"),
        (UPGRADE, "WebSocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn with(name: &HeaderName, value: Option<&str>) -> HeaderMap {
        let mut headers: HeaderMap =
            HANDSHAKE.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        match value {
            Some(value) => headers.insert(name, value.parse().unwrap()),
            None => headers.remove(name),
        };
        headers
    }

    fn status(headers: &HeaderMap) -> u16 {
        accept_key(Version::HTTP_11, headers)
            .map_or_else(|refusal| refusal.into_response().status().as_u16(), |_| 101)
    }

    #[test]
    fn a_handshake_is_accepted_as_the_rfc_says() {
        let headers = with(&UPGRADE, Some("websocket"));
        assert_eq!(accept_key(Version::HTTP_11, &headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for name in [&CONNECTION, &UPGRADE, &SEC_WEBSOCKET_VERSION] {
            assert_eq!(status(&with(name, None)), 426, "{name}");
            assert_eq!(status(&with(name, Some("8"))), 426, "{name}");
        }
        assert_eq!(status(&with(&SEC_WEBSOCKET_KEY, None)), 400);
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ?==", "AAAA"] {
            assert_eq!(status(&with(&SEC_WEBSOCKET_KEY, Some(key))), 400, "{key}");
        }
        assert!(accept_key(Version::HTTP_2, &with(&UPGRADE, Some("websocket"))).is_err());
    }
}
