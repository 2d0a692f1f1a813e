//! Over real TLS, with a certificate made for the test.

use std::time::Duration;

use twine_server_sdk::{ErrorKind, RetryPolicy, Stored, Twine, reqwest};

use super::support::{FaultyProxy, KEY, TlsProxy, stored, tls_trusting, twine_at};

#[tokio::test]
async fn http_1_1_is_used_where_the_other_end_knows_no_better() {
    let hub = FaultyProxy::scripted([stored("chat"), stored("chat")]).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let proxy = TlsProxy::start(hub.addr(), protocols).await;
        let twine = twine_at(&proxy.url()).root_certificates(proxy.pem()).build().unwrap();
        twine.publish("chat", "hello").await.unwrap();
        assert_eq!(proxy.agreed_protocols(), [protocols.first().copied().unwrap_or_default()]);
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let hub = FaultyProxy::scripted([]).await;
    let proxy = TlsProxy::start(hub.addr(), &["http/1.1"]).await;
    let twine = twine_at(&proxy.url()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Certificate, Stored::No));
    assert_eq!((error.attempts(), error.is_retryable()), (1, false));
    assert!(hub.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let hub = FaultyProxy::scripted([]).await;
    let proxy = TlsProxy::start(hub.addr(), &["http/1.1"]).await;
    let twine = twine_at(&proxy.wrong_url()).root_certificates(proxy.pem()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Certificate, 1));
    assert!(hub.requests().is_empty());
}

#[tokio::test]
async fn a_handshake_without_an_end_is_no_connection() {
    // Plain HTTP waits for a line that TLS never sends.
    let hub = FaultyProxy::scripted([]).await;
    let twine = twine_at(&hub.url().replace("http://", "https://"))
        .connect_timeout(Duration::from_millis(50))
        .retry(RetryPolicy::never())
        .build()
        .unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Connect, Stored::No));
}

#[tokio::test]
async fn a_client_of_ones_own_brings_its_own_trust() {
    let hub = FaultyProxy::scripted([stored("chat")]).await;
    let proxy = TlsProxy::start(hub.addr(), &["http/1.1"]).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls_trusting([proxy.certificate()]))
        .build()
        .unwrap();
    let twine = Twine::builder(proxy.url(), KEY).client(client).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();
}
