//! Settings, seen from the other side.

use twine_server_sdk::{Twine, reqwest};

use super::support::{FaultyProxy, KEY, stored, tls_trusting, twine_at};

#[tokio::test]
async fn a_request_names_the_sdk_and_carries_the_key() {
    let hub = FaultyProxy::scripted([stored("chat")]).await;
    let twine = twine_at(&format!("{}/behind/a/path", hub.url())).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();

    let request = hub.requests().remove(0);
    assert!(request.head.starts_with("POST /behind/a/path/api/publish HTTP/1.1\r\n"));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let agent = concat!("twine-server-sdk/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
}

#[tokio::test]
async fn a_connection_is_kept_and_shared_by_clones() {
    let hub = FaultyProxy::scripted([stored("chat"), stored("chat"), stored("chat")]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    for _ in 0..3 {
        twine.clone().publish("chat", "hello").await.unwrap();
    }
    assert_eq!((hub.requests().len(), hub.n_connections()), (3, 1));
}

#[tokio::test]
async fn requests_go_through_the_proxy() {
    let proxy = FaultyProxy::scripted([stored("chat")]).await;
    let url = proxy.url().replace("http://", "http://me:secret@");
    // A name that never resolves, so that only the proxy can have answered.
    let twine = twine_at("http://hub.invalid").proxy(url).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();

    let request = proxy.requests().remove(0);
    assert!(request.head.starts_with("POST http://hub.invalid/api/publish HTTP/1.1\r\n"));
    assert!(request.header("proxy-authorization").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn a_client_of_ones_own_sends() {
    let hub = FaultyProxy::scripted([stored("chat")]).await;
    let client = reqwest::Client::builder()
        .user_agent("mine")
        .no_proxy()
        .tls_backend_preconfigured(tls_trusting([]))
        .build()
        .unwrap();
    let twine = Twine::builder(hub.url(), KEY).client(client).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();

    let request = hub.requests().remove(0);
    assert_eq!(request.header("user-agent"), Some("mine"));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}
