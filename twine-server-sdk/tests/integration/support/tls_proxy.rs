//! TLS in front of a plain server, as a load balancer has it: it decrypts, and passes bytes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Its certificate is for `localhost` alone.
pub(crate) struct TlsProxy {
    addr: SocketAddr,
    certificate: CertificateDer<'static>,
    pem: String,
    relay: Arc<Relay>,
    task: JoinHandle<()>,
}

struct Relay {
    acceptor: TlsAcceptor,
    to: SocketAddr,
    agreed_protocols: Mutex<Vec<String>>,
    /// After so many bytes of answers a connection is cut.
    max_answer_bytes: u64,
}

impl TlsProxy {
    /// Offers these protocols, the preferred one first, and passes everything on to `to`.
    pub(crate) async fn start(to: SocketAddr, protocols: &[&str]) -> Self {
        Self::start_cutting(to, protocols, u64::MAX).await
    }

    /// As [`Self::start`], and cuts each connection after so many bytes of answers.
    pub(crate) async fn start_cutting(to: SocketAddr, protocols: &[&str], max_answer_bytes: u64) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let relay = Arc::new(Relay {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            to,
            agreed_protocols: Mutex::default(),
            max_answer_bytes,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&relay)));
        Self { addr, certificate: cert.der().clone(), pem: cert.pem(), relay, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }

    /// An address at which the certificate does not hold.
    pub(crate) fn wrong_url(&self) -> String {
        format!("https://{}", self.addr)
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What was agreed on, a connection each.
    pub(crate) fn agreed_protocols(&self) -> Vec<String> {
        self.relay.agreed_protocols.lock().unwrap().clone()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, relay: Arc<Relay>) {
    // Owns the connections, and so ends them with itself.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let relay = Arc::clone(&relay);
        connections.spawn(async move { relay.pass_on(stream).await });
    }
}

impl Relay {
    async fn pass_on(&self, stream: TcpStream) {
        // A client that does not trust the certificate hangs up.
        let Ok(stream) = self.acceptor.accept(stream).await else { return };
        let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default();
        self.agreed_protocols.lock().unwrap().push(String::from_utf8(agreed.to_vec()).unwrap());
        let mut server = TcpStream::connect(self.to).await.unwrap();
        let (mut requests, mut to_client) = split(stream);
        let (answers, mut to_server) = server.split();
        let mut answers = answers.take(self.max_answer_bytes);
        // Both ways end together, and how is the two ends' business.
        tokio::select! {
            _ = copy(&mut requests, &mut to_server) => {}
            _ = copy(&mut answers, &mut to_client) => {}
        }
    }
}

/// A client's settings that trust nothing but `roots`.
pub(crate) fn tls_trusting(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}
