//! TLS under a WebSocket, by rustls with ring.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;

/// Shared by all clients of the process: some ten KB that need not be there for each.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
/// Mozilla's list of certificate authorities.
static ROOTS: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// Whom to trust.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Trusts Mozilla's list of certificate authorities, which is compiled in (a container has none of
    /// its own), and `more` (DER).
    pub(super) fn new(more: &[Vec<u8>]) -> Result<Self, Error> {
        let bad = |error: rustls::Error| Error::Certificate { problem: error.to_string() };
        let mut roots = Arc::clone(&ROOTS);
        for der in more {
            Arc::make_mut(&mut roots).add(der.clone().into()).map_err(bad)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }

    pub(super) async fn wrap(&self, host: String, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
