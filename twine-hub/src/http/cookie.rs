//! `/set-cookie`: makes sure that a browser holds a `twineid`, or makes it a stranger.
//!
//! The id is a secret between this browser and the hub: it proves whose a session is. Where the
//! hub is reached by HTTPS its cookie can't be planted by a sibling domain (`__Host-`). On plain
//! HTTP a cookie that crosses sites works on loopback only, for nowhere else does a browser take
//! `Secure` without TLS.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, COOKIE, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use twine_protocol::ErrorCode;
use uuid::Uuid;

use super::App;
use super::page::Page;
use super::problem::Refusal;
use crate::auth::is_loopback;
use crate::session::CookieHash;

/// Seconds that a `twineid` lives without being asked for again.
const MAX_AGE: u32 = 86_400;

/// Sets the cookie, or prolongs the one that is there.
pub(super) async fn set(
    State(app): State<Arc<App>>,
    page: Page,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    page.check(&app)?;
    let kind = Kind::of(&app, &page);
    let id = current(&headers, kind.name()).unwrap_or_else(Uuid::new_v4);
    Ok(answer(&page, kind, id))
}

/// `DELETE /set-cookie`: an app's log-out. Forgets all sessions of the cookie and sets another, so
/// that whoever uses this browser next is a stranger.
pub(super) async fn forget(
    State(app): State<Arc<App>>,
    page: Page,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    page.check(&app)?;
    let kind = Kind::of(&app, &page);
    if let Some(id) = current(&headers, kind.name()) {
        let forgotten = app.sessions.forget(CookieHash::of(id)).await;
        // With the old cookie still in place, the same request may be sent again.
        forgotten.map_err(|error| Refusal::new(ErrorCode::Unavailable, error.to_string()))?;
    }
    Ok(answer(&page, kind, Uuid::new_v4()))
}

/// What a browser's sessions are known by, where it sends a cookie.
pub(super) fn hash(app: &App, page: &Page, headers: &HeaderMap) -> Option<CookieHash> {
    current(headers, Kind::of(app, page).name()).map(CookieHash::of)
}

fn answer(page: &Page, kind: Kind, id: Uuid) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    // Made of an id and constants: always a header's value.
    if let Ok(cookie) = HeaderValue::try_from(kind.cookie(id)) {
        answer.insert(SET_COOKIE, cookie);
    }
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    answer.insert(VARY, HeaderValue::from_static("Origin, Cookie"));
    allow_page(answer, page);
    response
}

/// `OPTIONS /set-cookie`: what a browser asks first where the request is not a simple one.
pub(super) async fn preflight(State(app): State<Arc<App>>, page: Page) -> Result<Response, Refusal> {
    page.check(&app)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, DELETE"));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer.insert(VARY, HeaderValue::from_static("Origin"));
    allow_page(answer, &page);
    Ok(response)
}

fn allow_page(answer: &mut HeaderMap, page: &Page) {
    if let Some(origin) = &page.origin {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// How the cookie must look to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The hub is reached by HTTPS.
    Https,
    /// Plain HTTP, page and hub on one site.
    SameSite,
    /// Plain HTTP on loopback, the page on another site.
    CrossSite,
}

impl Kind {
    fn of(app: &App, page: &Page) -> Self {
        if app.config.public_url.as_ref().is_some_and(crate::config::Origin::is_https) {
            return Self::Https;
        }
        let Some(hub) = page.host.as_ref().map(http::uri::Authority::host) else { return Self::SameSite };
        // Ports don't make sites differ, names do. A page without an origin is the hub's own.
        let one_site = page.parsed_origin().is_none_or(|page| page.host().eq_ignore_ascii_case(hub));
        if !one_site && is_loopback(hub) { Self::CrossSite } else { Self::SameSite }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Https => "__Host-twineid",
            Self::SameSite | Self::CrossSite => "twineid",
        }
    }

    fn cookie(self, id: Uuid) -> String {
        let more = match self {
            Self::SameSite => "SameSite=Lax",
            Self::Https | Self::CrossSite => "Secure; SameSite=None; Partitioned",
        };
        format!("{}={id}; HttpOnly; Path=/; Max-Age={MAX_AGE}; {more}", self.name())
    }
}

/// The id that came with the request: a random UUID, and one only. Of two, either may be planted.
fn current(headers: &HeaderMap, name: &str) -> Option<Uuid> {
    let mut values = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let id = Uuid::try_parse(value).ok().filter(|id| id.get_version_num() == 4)?;
    // `Uuid` reads other spellings too; the hub writes one.
    (id.to_string() == value).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "936da01f-9abd-4d9d-80c7-02af85c822a8";

    fn id_in(cookies: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, cookie.parse().unwrap());
        }
        current(&headers, "twineid").map(|id| id.to_string())
    }

    #[test]
    fn one_valid_id_is_kept() {
        assert_eq!(id_in(&[&format!("a=b; twineid={ID};c=d")]).as_deref(), Some(ID));
        assert_eq!(id_in(&["a=b", &format!("twineid={ID}")]).as_deref(), Some(ID));
        assert_eq!(id_in(&[]), None);
    }

    #[test]
    fn two_ids_count_as_none() {
        assert_eq!(id_in(&[&format!("twineid={ID}; twineid={ID}")]), None);
        assert_eq!(id_in(&[&format!("twineid={ID}"), "twineid=planted"]), None);
    }

    #[test]
    fn what_is_no_random_uuid_is_no_id() {
        for bad in [
            "",
            "x",
            "936DA01F-9ABD-4D9D-80C7-02AF85C822A8",
            "936da01f9abd4d9d80c702af85c822a8",
            "00000000-0000-0000-0000-000000000000",
            "936da01f-9abd-1d9d-80c7-02af85c822a8",
        ] {
            assert_eq!(id_in(&[&format!("twineid={bad}")]), None, "{bad}");
        }
        assert_eq!(id_in(&[&format!("__Host-twineid={ID}")]), None);
    }
}
