use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use twine_client::{Client, Error, SubscribeOptions};

use crate::scene::{Scene, expect};

/// A proxy that ends TLS before the hub, as in production.
struct TlsProxy {
    address: SocketAddr,
    certificate: Vec<u8>,
    /// Ends with the proxy.
    _task: JoinSet<()>,
}

impl TlsProxy {
    async fn start(hub: SocketAddr) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), hub));
        Self { address, certificate: cert.der().to_vec(), _task: task }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, hub: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut hub = TcpStream::connect(hub).await.unwrap();
            // How a connection ends is the client's business.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut hub).await;
        });
    }
}

#[tokio::test]
async fn a_hub_behind_tls_is_reached_with_its_root_certificate() {
    let scene = Scene::start().await;
    let tls = TlsProxy::start(scene.hub.address()).await;
    let builder = Client::builder(&tls.url()).root_certificate(tls.certificate.clone());
    let client = builder.connect().await.unwrap();
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", [1]).await;
    expect(&mut chat, [1]).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let scene = Scene::start().await;
    let tls = TlsProxy::start(scene.hub.address()).await;
    let error = Client::builder(&tls.url()).connect().await.unwrap_err();
    assert!(matches!(&error, Error::Connect { problem } if problem.contains("certificate")), "{error}");
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_at_once() {
    let builder = Client::builder("https://localhost").root_certificate(*b"no certificate");
    assert!(matches!(builder.start(), Err(Error::Certificate { .. })));
}
