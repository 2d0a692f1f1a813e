//! Where a hub's WebSocket is.

use tokio_tungstenite::tungstenite::http::uri::{PathAndQuery, Scheme};
use tokio_tungstenite::tungstenite::http::{self, Uri};

use super::Error;

/// The address of the WebSocket, checked: `ws` or `wss`, a host, a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint(Uri);

impl Endpoint {
    /// From the hub's base address (`http`, `https`; `/ws` is added) or its WebSocket's (`ws`, `wss`;
    /// taken as it is, with `/ws` where it has no path).
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Url { url: url.to_owned(), problem };
        let mut parts = url.parse::<Uri>().map_err(|_| wrong("it is no absolute URL"))?.into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str).to_owned();
        let (scheme, path) = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("http") => ("ws", base(&path)),
            Some("https") => ("wss", base(&path)),
            Some(scheme @ ("ws" | "wss")) => (scheme, if path == "/" { base(&path) } else { path }),
            _ => return Err(wrong("it starts with none of http://, https://, ws://, wss://")),
        };
        if scheme == "wss" && cfg!(not(feature = "rustls")) {
            return Err(wrong("TLS needs the feature `rustls` of twine-client"));
        }
        if parts.authority.as_ref().is_none_or(|authority| authority.host().is_empty()) {
            return Err(wrong("it names no host"));
        }
        parts.scheme = Scheme::try_from(scheme).ok();
        parts.path_and_query = PathAndQuery::try_from(path).ok();
        Uri::from_parts(parts).map(Self).map_err(|_| wrong("its path is not valid"))
    }

    /// The address with `more` behind its query, where that is not empty.
    ///
    /// # Errors
    /// Where it does not go into one.
    pub(super) fn with_query(&self, more: &str) -> Result<Uri, http::Error> {
        if more.is_empty() {
            return Ok(self.0.clone());
        }
        let between = if self.0.query().is_some() { '&' } else { '?' };
        let path = self.0.path_and_query().map_or("/", PathAndQuery::as_str);
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{between}{more}"))?);
        Ok(Uri::from_parts(parts)?)
    }

    /// Host and port to connect to.
    pub(super) fn host_and_port(&self) -> (String, u16) {
        let default = if self.is_tls() { 443 } else { 80 };
        // An IPv6 address stands in brackets in a URL, and without in what a resolver takes.
        let host = self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        (host.to_owned(), self.0.port_u16().unwrap_or(default))
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("wss")
    }
}

fn base(path: &str) -> String {
    format!("{}/ws", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> String {
        Endpoint::new(url).unwrap().0.to_string()
    }

    #[test]
    fn a_base_address_gets_the_path_and_a_websockets_keeps_its_own() {
        assert_eq!(endpoint("http://127.0.0.1:7070"), "ws://127.0.0.1:7070/ws");
        assert_eq!(endpoint("http://localhost/twine/"), "ws://localhost/twine/ws");
        assert_eq!(endpoint("ws://[::1]:7070"), "ws://[::1]:7070/ws");
        assert_eq!(endpoint("ws://localhost/socket?x=1"), "ws://localhost/socket?x=1");
    }

    #[test]
    fn a_query_goes_behind_the_one_that_is_there() {
        let with = |url: &str, more| Endpoint::new(url).unwrap().with_query(more).unwrap().to_string();
        assert_eq!(with("http://hub", "a=%7B"), "ws://hub/ws?a=%7B");
        assert_eq!(with("ws://hub/socket?x=1", "a=b"), "ws://hub/socket?x=1&a=b");
        assert_eq!(with("ws://hub/socket?x=1", ""), "ws://hub/socket?x=1");
        assert!(Endpoint::new("ws://hub").unwrap().with_query("a b").is_err());
    }

    #[test]
    fn host_and_port_are_as_a_resolver_takes_them() {
        assert_eq!(Endpoint::new("ws://[::1]:7070").unwrap().host_and_port(), ("::1".to_owned(), 7070));
        assert_eq!(Endpoint::new("http://hub").unwrap().host_and_port(), ("hub".to_owned(), 80));
    }

    #[test]
    fn what_is_no_hubs_address_is_refused_with_the_problem() {
        for bad in ["", "localhost:7070", "ftp://hub", "/ws", "http://", "not a url"] {
            assert!(matches!(Endpoint::new(bad), Err(Error::Url { .. })), "{bad:?}");
        }
    }

    #[test]
    #[cfg(feature = "rustls")]
    fn https_means_tls() {
        let endpoint = Endpoint::new("https://hub.example.com").unwrap();
        assert_eq!(endpoint.0.to_string(), "wss://hub.example.com/ws");
        assert_eq!(endpoint.host_and_port(), ("hub.example.com".to_owned(), 443));
    }

    #[test]
    #[cfg(not(feature = "rustls"))]
    fn tls_without_its_feature_is_refused() {
        assert!(matches!(Endpoint::new("https://hub.example.com"), Err(Error::Url { .. })));
    }
}
