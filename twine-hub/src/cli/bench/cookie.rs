//! The cookie that a browser asks for before it connects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use twine_server_sdk::reqwest::header::{HeaderMap, SET_COOKIE};
use twine_server_sdk::reqwest::{Client, StatusCode, redirect};

use super::error::CookieError;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks for cookies from one address of this machine. Browsers have a connection each for that; here
/// they share some, for cookies are not what is measured.
pub(super) struct Visitor(Client);

impl Visitor {
    /// # Errors
    /// Where the system can't be used for TLS or sockets.
    pub(super) fn new(source: Option<IpAddr>) -> Result<Self, CookieError> {
        // As the WebSocket does: Mozilla's roots, and no proxy.
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = Client::builder()
            .local_address(source)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE);
        let builder =
            match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
                Ok(tls) => {
                    builder.tls_backend_preconfigured(tls.with_root_certificates(roots).with_no_client_auth())
                }
                // The provider has them all; without, reqwest says what is wrong.
                Err(_) => builder,
            };
        Ok(Self(builder.build()?))
    }

    /// A new cookie of the hub at `url`, as a client sends it back, with those that a balancer sets.
    ///
    /// # Errors
    /// Where there is none; see [`CookieError`].
    pub(super) async fn cookie(&self, url: &str) -> Result<String, CookieError> {
        let url = format!("{}/set-cookie", url.trim_end_matches('/'));
        let answer = self.0.get(url).send().await.map_err(twine_server_sdk::reqwest::Error::without_url)?;
        if answer.status() != StatusCode::NO_CONTENT {
            return Err(CookieError::Status(answer.status()));
        }
        sent_back(answer.headers()).ok_or(CookieError::Missing)
    }
}

/// All cookies that an answer sets; nothing where there are none.
fn sent_back(headers: &HeaderMap) -> Option<String> {
    let set = headers.get_all(SET_COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = set.filter_map(|set| set.split(';').next()).map(str::trim).filter(|pair| pair.contains('='));
    Some(pairs.collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(set: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for set in set {
            headers.append(SET_COOKIE, set.parse().unwrap());
        }
        sent_back(&headers)
    }

    #[test]
    fn a_balancers_cookie_is_sent_back_beside_the_hubs() {
        let both = cookie(&["lb=a1; Path=/", "twineid=b=2; HttpOnly; SameSite=Lax"]);
        assert_eq!(both.as_deref(), Some("lb=a1; twineid=b=2"));
        assert_eq!((cookie(&[]), cookie(&["", "none; Path=/"])), (None, None));
    }
}
