//! TLS in front of a plain server, as a load balancer has it: it decrypts, and passes bytes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Its certificate is for `localhost` alone.
pub(crate) struct TlsProxy {
    addr: SocketAddr,
    certificate: CertificateDer<'static>,
    pem: String,
    alpn: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl TlsProxy {
    /// Offers these protocols, the preferred one first, and passes everything on to `to`.
    pub(crate) async fn start(to: SocketAddr, protocols: &[&str]) -> Self {
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
        let alpn = Arc::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(accept(listener, acceptor, to, Arc::clone(&alpn)));
        Self { addr, certificate: cert.der().clone(), pem: cert.pem(), alpn, task }
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
        self.alpn.lock().unwrap().clone()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr, alpn: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, alpn) = (acceptor.clone(), Arc::clone(&alpn));
        connections.spawn(async move {
            // A client that does not trust the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default();
            alpn.lock().unwrap().push(String::from_utf8(agreed.to_vec()).unwrap());
            let mut server = TcpStream::connect(to).await.unwrap();
            // How a connection ends is the two ends' business.
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        });
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
