//! Origins: from which pages a browser may use this hub.
//!
//! A browser tells in `Origin` which page asks. With `allowed_origins` that list decides alone.
//! Without it, the origin of `public_url` may. Without either, the hub is taken for one that
//! nobody has configured yet: a page of the same host may where that host is a loopback name or an
//! IP address (a name could be rebound to this address by whoever owns it), and any page of this
//! machine may where the request does not leave it: peer and `Host` are loopback and no header
//! tells of a proxy. The origin `null` (sandboxed frames, local files) never may.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::HeaderMap;
use http::uri::Authority;

/// Where a page comes from: scheme, host and port.
///
/// ```
/// use twine_hub::Origin;
///
/// let origin: Origin = "https://App.example.com:443".parse()?;
/// assert_eq!(origin.to_string(), "https://app.example.com");
/// assert!("https://app.example.com/path".parse::<Origin>().is_err());
/// # Ok::<(), twine_hub::InvalidOrigin>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` stands for the scheme's own port.
    port: Option<u16>,
}

/// Why a text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is a scheme, a host and perhaps a port, like https://app.example.com")]
pub struct InvalidOrigin;

/// Which pages may use this hub.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    allowed: Option<Vec<Origin>>,
    public: Option<Origin>,
}

/// What of a request decides whether its page may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// Who is at the other end of the socket.
    pub(crate) peer: IpAddr,
    /// `Host`, or HTTP/2's `:authority`.
    pub(crate) host: Option<&'a Authority>,
    pub(crate) headers: &'a HeaderMap,
}

impl Origin {
    /// An origin that can be a hub's address: http or https. A slash at its end is fine.
    pub(crate) fn parse_web(text: &str) -> Option<Self> {
        let origin: Self = text.strip_suffix('/').unwrap_or(text).parse().ok()?;
        matches!(origin.scheme.as_str(), "http" | "https").then_some(origin)
    }

    /// Whether what it names is reached over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// The host's name or address, in lower case; an IPv6 address has its brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn is_at(&self, host: &Authority) -> bool {
        let port = |port: Option<u16>| port.or(default_port(&self.scheme));
        self.host.eq_ignore_ascii_case(host.host()) && port(self.port) == port(host.port_u16())
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin)?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(named) {
            return Err(InvalidOrigin);
        }
        let authority: Authority = rest.parse().map_err(|_| InvalidOrigin)?;
        // `Authority` takes user names and, in a port, anything; an origin has neither.
        let text_after_host = rest.strip_prefix(authority.host()).ok_or(InvalidOrigin)?;
        let port = match text_after_host.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse::<u16>().map_err(|_| InvalidOrigin)?)
            }
            None if text_after_host.is_empty() => None,
            _ => return Err(InvalidOrigin),
        };
        if authority.host().is_empty() || authority.host().contains('*') {
            return Err(InvalidOrigin);
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Ok(Self { host: authority.host().to_ascii_lowercase(), scheme, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Origins {
    pub(crate) fn new(allowed: Option<Vec<Origin>>, public: Option<Origin>) -> Self {
        Self { allowed, public }
    }

    /// Whether a page of `origin`, as the header spells it, may use this hub.
    pub(crate) fn allow(&self, origin: &str, asking: Asking<'_>) -> bool {
        let Ok(origin) = origin.parse::<Origin>() else { return false };
        if let Some(allowed) = &self.allowed {
            return allowed.contains(&origin);
        }
        if let Some(public) = &self.public {
            return origin == *public;
        }
        let Some(host) = asking.host else { return false };
        let own = origin.is_at(host) && (is_loopback(host.host()) || is_address(host.host()));
        let developer = is_loopback(&origin.host)
            && is_loopback(host.host())
            && asking.peer.to_canonical().is_loopback()
            && !came_through_a_proxy(asking.headers);
        own || developer
    }
}

/// Whether `host`, of a `Host` header or an origin, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    // Names under `localhost` never leave the machine (RFC 6761).
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || v6(&host).is_some_and(|address| address.is_loopback())
}

fn is_address(host: &str) -> bool {
    host.parse::<Ipv4Addr>().is_ok() || v6(host).is_some()
}

fn v6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name == "forwarded" || name == "via" || name.starts_with("x-forwarded-")
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    struct Request {
        peer: &'static str,
        host: &'static str,
        proxy: Option<&'static str>,
    }

    const LOCAL: Request = Request { peer: "127.0.0.1", host: "localhost:7070", proxy: None };

    fn allow(origins: &Origins, origin: &str, request: &Request) -> bool {
        let host: Authority = request.host.parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(name) = request.proxy {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        origins.allow(
            origin,
            Asking { peer: request.peer.parse().unwrap(), host: Some(&host), headers: &headers },
        )
    }

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("HTTPS://App.Example.com:443"), origin("https://app.example.com"));
        assert_ne!(origin("http://a.example"), origin("https://a.example"));
        assert_ne!(origin("http://a.example:81"), origin("http://a.example"));
        assert_eq!(origin("http://[::1]:3000").to_string(), "http://[::1]:3000");
        assert_eq!(origin("tauri://localhost").to_string(), "tauri://localhost");
        for bad in [
            "null",
            "",
            "*",
            "https://",
            "//a",
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://*.example.com",
            "https://user@a.example",
            "https://a.example:",
            "https://a.example:+80",
            "https://a.example:x",
            "https://a.example:99999",
            "https://a b",
            "://a",
            "1http://a",
            "https://a.example?x",
            "https://a,b#",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_an_origin_is_written_as_one(text in "\\PC*|[a-z]{1,5}://[a-zA-Z0-9.:@/\\[\\]+-]{0,20}") {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(origin.to_string().parse::<Origin>(), Ok(origin));
            }
        }
    }

    #[test]
    fn a_list_decides_alone() {
        let origins = Origins::new(
            Some(vec![origin("https://app.example.com")]),
            Some(origin("https://rt.example.com")),
        );
        assert!(allow(&origins, "https://app.example.com", &LOCAL));
        for other in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://rt.example.com",
            "http://localhost:7070",
            "null",
        ] {
            assert!(!allow(&origins, other, &LOCAL), "{other}");
        }
        assert!(!allow(&Origins::new(Some(Vec::new()), None), "http://localhost:7070", &LOCAL));
    }

    #[test]
    fn without_a_list_the_public_address_is_the_only_one() {
        let origins = Origins::new(None, Some(origin("https://rt.example.com")));
        assert!(allow(&origins, "https://rt.example.com", &LOCAL));
        assert!(!allow(&origins, "http://rt.example.com", &LOCAL));
        assert!(!allow(&origins, "http://localhost:7070", &LOCAL));
    }

    #[test]
    fn an_unconfigured_hub_serves_pages_of_this_machine_to_this_machine() {
        let origins = Origins::new(None, None);
        for page in [
            "http://localhost:3000",
            "https://localhost",
            "http://127.0.0.1:5500",
            "http://[::1]:8080",
            "http://app.localhost",
        ] {
            assert!(allow(&origins, page, &LOCAL), "{page}");
            for proxy in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "via"] {
                assert!(!allow(&origins, page, &Request { proxy: Some(proxy), ..LOCAL }), "{page} {proxy}");
            }
            assert!(!allow(&origins, page, &Request { peer: "192.168.1.7", ..LOCAL }), "{page}");
            assert!(!allow(&origins, page, &Request { host: "hub.example:7070", ..LOCAL }), "{page}");
        }
        assert!(allow(&origins, "http://localhost:3000", &Request { peer: "::ffff:127.0.0.1", ..LOCAL }));
        for page in ["https://evil.example", "http://localhost.evil.example", "null", ""] {
            assert!(!allow(&origins, page, &LOCAL), "{page}");
        }
    }

    #[test]
    fn an_unconfigured_hub_serves_its_own_host_where_that_can_not_be_rebound() {
        let origins = Origins::new(None, None);
        let at = |host| Request { peer: "192.168.1.7", host, proxy: Some("x-forwarded-for") };
        assert!(allow(&origins, "http://192.168.1.2:7070", &at("192.168.1.2:7070")));
        assert!(allow(&origins, "https://192.168.1.2", &at("192.168.1.2")));
        assert!(allow(&origins, "http://[fe80::2]:7070", &at("[fe80::2]:7070")));
        assert!(!allow(&origins, "http://192.168.1.2:8080", &at("192.168.1.2:7070")));
        assert!(!allow(&origins, "http://192.168.1.3:7070", &at("192.168.1.2:7070")));
        // The owner of this name can point it at the hub's address: the page would be theirs.
        assert!(!allow(&origins, "http://rebound.example:7070", &at("rebound.example:7070")));
    }
}
