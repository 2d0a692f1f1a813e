//! Settings of a [`Twine`], checked in [`TwineBuilder::build`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use reqwest::Url;

use crate::exchange::Hub;
use crate::{Error, RetryPolicy, Twine, tls};

/// Settings of a [`Twine`]; made by [`Twine::builder`].
///
/// ```
/// use std::time::Duration;
/// use twine_server_sdk::Twine;
///
/// let twine = Twine::builder("https://rt.example.com", "API_KEY")
///     .deadline(Duration::from_secs(5))
///     .build()?;
/// # Ok::<(), twine_server_sdk::Error>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
#[derive(Clone)]
pub struct TwineBuilder {
    url: String,
    api_key: String,
    connect_timeout: Option<Duration>,
    request_timeout: Duration,
    deadline: Duration,
    retry: RetryPolicy,
    proxy: Option<Proxy>,
    root_certificates: Vec<Vec<u8>>,
    client: Option<reqwest::Client>,
}

#[derive(Clone)]
enum Proxy {
    None,
    At(String),
}

impl TwineBuilder {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
    const DEADLINE: Duration = Duration::from_secs(30);

    pub(crate) fn new(url: String, api_key: String) -> Self {
        Self {
            url,
            api_key,
            connect_timeout: None,
            request_timeout: Self::REQUEST_TIMEOUT,
            deadline: Self::DEADLINE,
            retry: RetryPolicy::default(),
            proxy: None,
            root_certificates: Vec::new(),
            client: None,
        }
    }

    /// How long a connection may take to come about, TLS included; 5 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: Some(timeout), ..self }
    }

    /// How long one attempt may take, from connecting to the last byte of the answer; 10 s by default.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout, ..self }
    }

    /// How long a publish may take in all, retries and the delays between them included; 30 s by
    /// default. Keep it below the hub's idempotency window (10 min by default), or a late retry may
    /// store a message twice.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// When a failed attempt is followed by another; see [`RetryPolicy`] for the default.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        Self { retry: policy, ..self }
    }

    /// Reaches the hub through the HTTP proxy at this URL, which may hold a user name and a password.
    ///
    /// By default the system's proxy is used: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub fn proxy(self, url: impl Into<String>) -> Self {
        Self { proxy: Some(Proxy::At(url.into())), ..self }
    }

    /// Reaches the hub directly, also where the system has a proxy.
    pub fn no_proxy(self) -> Self {
        Self { proxy: Some(Proxy::None), ..self }
    }

    /// Trusts these roots besides the system's: one or more certificates in PEM, as they stand in a
    /// `.pem` or `.crt` file. Call it again for more.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Sends by this client of the re-exported [`reqwest`] instead of one of our own. Its own settings
    /// hold for connections, TLS, proxies and redirects; ours for everything else.
    ///
    /// This crate compiles `reqwest` without a TLS provider: enable one by a feature of `reqwest`, install
    /// one with rustls, or hand it a whole configuration (`tls_backend_preconfigured`).
    pub fn client(self, client: reqwest::Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) says which setting is wrong. So does it where the system's
    /// root certificates can't be read, and where [`client`](Self::client) is combined with a setting
    /// that it would override.
    pub fn build(self) -> Result<Twine, Error> {
        for (name, value) in [
            ("connect timeout", self.connect_timeout.unwrap_or(Self::CONNECT_TIMEOUT)),
            ("request timeout", self.request_timeout),
            ("deadline", self.deadline),
        ] {
            if value.is_zero() {
                return Err(Error::config(format!("the {name} is zero")));
            }
        }
        let url = parse_url(&self.url)?;
        Ok(Twine {
            hub: Arc::new(Hub {
                authorization: authorization(&self.api_key)?,
                http: match &self.client {
                    Some(client) => self.overridden_by(client.clone())?,
                    None => self.http_client(&url)?,
                },
                url,
                request_timeout: self.request_timeout,
                deadline: self.deadline,
                retry: self.retry,
            }),
        })
    }

    fn overridden_by(&self, client: reqwest::Client) -> Result<reqwest::Client, Error> {
        let ignored = [
            ("a connect timeout", self.connect_timeout.is_some()),
            ("a proxy", self.proxy.is_some()),
            ("root certificates", !self.root_certificates.is_empty()),
        ];
        match ignored.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(Error::config(format!(
                "{name} and an HTTP client of your own: set it where you build that client"
            ))),
            None => Ok(client),
        }
    }

    fn http_client(&self, url: &Url) -> Result<reqwest::Client, Error> {
        // A connection that died without a word is noticed this soon while an answer is awaited.
        const PING_EVERY: Duration = Duration::from_secs(5);
        // Before the hub closes it (`header_timeout`, 30 s by default), which a publish that goes
        // out at the same moment would notice as a cut connection.
        const KEEP_IDLE: Duration = Duration::from_secs(20);

        let mut roots = Vec::new();
        for pem in &self.root_certificates {
            roots.append(&mut tls::certificates(pem)?);
        }
        let scheme = if url.scheme() == "https" { tls::Scheme::Https } else { tls::Scheme::Http };
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("twine-server-sdk/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout.unwrap_or(Self::CONNECT_TIMEOUT))
            .pool_idle_timeout(KEEP_IDLE)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_EVERY)
            // A redirected POST becomes a GET, or carries the key elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls::config(scheme, roots)?);
        match &self.proxy {
            Some(Proxy::At(url)) => {
                let proxy = reqwest::Proxy::all(url).map_err(|source| {
                    Error::config("the proxy's URL is none").because(source.without_url())
                })?;
                client = client.proxy(proxy);
            }
            Some(Proxy::None) => client = client.no_proxy(),
            None => {}
        }
        client.build().map_err(|source| Error::config("the HTTP client can't be built").because(source))
    }
}

/// The hub's URL, with a slash at its end, so that paths append to it.
fn parse_url(text: &str) -> Result<Url, Error> {
    let mut url =
        Url::parse(text).map_err(|source| Error::config("the hub's URL is none").because(source))?;
    let problem = if !matches!(url.scheme(), "http" | "https") {
        "does not start with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "holds a user name or a password: a hub takes an API key"
    } else if url.query().is_some() || url.fragment().is_some() {
        "has a query or a fragment"
    } else {
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        return Ok(url);
    };
    Err(Error::config(format!("the hub's URL {problem}")))
}

fn authorization(api_key: &str) -> Result<HeaderValue, Error> {
    // The reason says where the key is wrong, never what it is.
    if api_key.is_empty() {
        return Err(Error::config("the API key is empty"));
    }
    if !api_key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::config(
            "the API key holds a space, a line end or another character that no key has",
        ));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {api_key}"))
        .map_err(|source| Error::config("the API key does not fit into a header").because(source))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for TwineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor a proxy's password.
        f.debug_struct("TwineBuilder")
            .field("url", &self.url)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn refusal(builder: TwineBuilder) -> String {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn a_wrong_url_is_refused() {
        for (url, problem) in [
            ("rt.example.com", "is none"),
            ("ftp://rt.example.com", "https://"),
            ("https://", "is none"),
            ("https://me:secret@rt.example.com", "API key"),
            ("https://rt.example.com/?a=b", "query"),
            ("https://rt.example.com/#top", "fragment"),
        ] {
            let what = refusal(Twine::builder(url, "key"));
            assert!(what.contains(problem), "{url}: {what}");
            assert!(!what.contains("secret"));
        }
    }

    #[test]
    fn a_path_in_the_url_stays_in_front() {
        for (url, publish) in [
            ("https://example.com", "https://example.com/api/publish"),
            ("https://example.com/", "https://example.com/api/publish"),
            ("https://example.com/rt", "https://example.com/rt/api/publish"),
            ("http://127.0.0.1:7070/rt/", "http://127.0.0.1:7070/rt/api/publish"),
        ] {
            assert_eq!(parse_url(url).unwrap().join("api/publish").unwrap().as_str(), publish);
        }
    }

    #[test]
    fn a_wrong_key_is_refused_without_being_shown() {
        assert_eq!(refusal(Twine::builder("http://localhost", "")), "the API key is empty");
        for key in ["abc\n", "a b", "schlüssel"] {
            let error = Twine::builder("http://localhost", key).build().unwrap_err();
            assert!(!format!("{error:?}").contains(key.trim()));
        }
    }

    #[test]
    fn no_time_at_all_is_refused() {
        let builder = || Twine::builder("http://localhost", "key");
        assert_eq!(refusal(builder().connect_timeout(Duration::ZERO)), "the connect timeout is zero");
        assert_eq!(refusal(builder().request_timeout(Duration::ZERO)), "the request timeout is zero");
        assert_eq!(refusal(builder().deadline(Duration::ZERO)), "the deadline is zero");
    }

    #[test]
    fn a_setting_that_would_be_ignored_is_refused() {
        let own = Twine::builder("http://localhost", "key").build().unwrap().hub.http.clone();
        let builder = || Twine::builder("http://localhost", "key").client(own.clone());
        builder().build().unwrap();
        assert!(refusal(builder().no_proxy()).starts_with("a proxy and"));
        assert!(refusal(builder().connect_timeout(Duration::from_secs(1))).starts_with("a connect"));
        assert!(refusal(builder().root_certificates("pem")).starts_with("root certificates"));
    }

    #[test]
    fn a_wrong_proxy_or_certificate_is_refused() {
        let builder = || Twine::builder("https://rt.example.com", "key");
        assert_eq!(refusal(builder().proxy("")), "the proxy's URL is none");
        assert!(refusal(builder().root_certificates("hello")).contains("BEGIN CERTIFICATE"));
    }

    #[test]
    fn neither_key_nor_proxy_password_is_printed() {
        let builder = Twine::builder("http://localhost", "key-4711").proxy("http://me:secret@localhost");
        let printed = format!("{builder:?} {:?}", builder.clone().build().unwrap());
        assert!(!printed.contains("4711") && !printed.contains("secret"), "{printed}");
    }
}
