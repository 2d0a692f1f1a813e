//! Which pages may open a WebSocket and set the cookie.

use twine_hub::{Config, Running};

use crate::support::{Answer, Request, hub, hub_with};

const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The answers of `/set-cookie`, its preflight and `/ws` to a page.
async fn ask(hub: &Running, headers: &[(&str, &str)]) -> [Answer; 3] {
    let with = |request: Request, headers: &[(&str, &str)]| {
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    let preflight = Request::new("OPTIONS", "/set-cookie").header("Access-Control-Request-Method", "GET");
    let handshake = with(Request::get("/ws"), &HANDSHAKE);
    [
        with(Request::get("/set-cookie"), headers).send(hub).await,
        with(preflight, headers).send(hub).await,
        crate::websocket::first_answer(hub, &with(handshake, headers)).await,
    ]
}

async fn assert_allowed(hub: &Running, headers: &[(&str, &str)]) {
    let [cookie, preflight, ws] = ask(hub, headers).await;
    assert_eq!((cookie.status, preflight.status, ws.status), (204, 204, 101), "{headers:?}");
    let origin = headers.iter().find(|(name, _)| *name == "Origin").map(|(_, value)| *value);
    for answer in [&cookie, &preflight] {
        assert_eq!(answer.header("access-control-allow-origin"), origin, "{headers:?}");
        let credentials = origin.map(|_| "true");
        assert_eq!(answer.header("access-control-allow-credentials"), credentials, "{headers:?}");
        assert!(answer.header("vary").unwrap().contains("Origin"));
    }
}

async fn assert_refused(hub: &Running, headers: &[(&str, &str)]) {
    for answer in ask(hub, headers).await {
        assert_eq!(answer.problem(), (403, "origin_not_allowed".into()), "{headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("set-cookie"), None);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let origin = headers.iter().find(|(name, _)| *name == "Origin").unwrap().1;
        assert!(detail.contains(origin) && detail.contains("allowed_origins"), "{detail}");
    }
}

#[tokio::test]
async fn a_request_without_an_origin_is_no_page() {
    let hub = hub().await;
    assert_allowed(&hub, &[]).await;
    assert_allowed(&hub, &[("Host", "anything.example"), ("X-Forwarded-For", "10.0.0.1")]).await;
}

#[tokio::test]
async fn a_developers_hub_takes_pages_of_the_same_machine() {
    let hub = hub().await;
    for origin in ["http://localhost:3000", "http://127.0.0.1:5500", "https://localhost", "http://[::1]"] {
        assert_allowed(&hub, &[("Origin", origin)]).await;
        assert_allowed(&hub, &[("Origin", origin), ("Host", "localhost:7070")]).await;
        assert_refused(&hub, &[("Origin", origin), ("Host", "rebound.example:7070")]).await;
        for header in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via"] {
            assert_refused(&hub, &[("Origin", origin), (header, "x")]).await;
        }
    }
}

#[tokio::test]
async fn a_foreign_page_is_refused() {
    let hub = hub().await;
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "file://", "x"] {
        assert_refused(&hub, &[("Origin", origin)]).await;
    }
    // The name was pointed at this machine: its owner is not the hub's.
    assert_refused(&hub, &[("Origin", "http://evil.example:7070"), ("Host", "evil.example:7070")]).await;
}

#[tokio::test]
async fn a_hub_takes_pages_of_its_own_address() {
    let hub = hub().await;
    let forwarded = ("X-Forwarded-For", "10.0.0.1");
    assert_allowed(&hub, &[("Origin", "http://10.1.2.3:7070"), ("Host", "10.1.2.3:7070"), forwarded]).await;
    assert_allowed(&hub, &[("Origin", "http://localhost:7070"), ("Host", "localhost:7070"), forwarded]).await;
    assert_refused(&hub, &[("Origin", "http://10.1.2.4:7070"), ("Host", "10.1.2.3:7070"), forwarded]).await;
}

#[tokio::test]
async fn configured_origins_are_the_only_ones() {
    let hub = hub_with(|config: &mut Config| {
        config.allowed_origins = Some(vec!["https://app.example.com".parse().unwrap()]);
        config.public_url = Some("https://rt.example.com".parse().unwrap());
    })
    .await;
    assert_allowed(&hub, &[("Origin", "https://app.example.com"), ("Via", "1.1 proxy")]).await;
    for origin in ["https://rt.example.com", "http://app.example.com", "http://localhost:3000", "null"] {
        assert_refused(&hub, &[("Origin", origin)]).await;
    }
}

#[tokio::test]
async fn the_public_address_is_the_default() {
    let hub = hub_with(|config| config.public_url = Some("https://rt.example.com".parse().unwrap())).await;
    assert_allowed(&hub, &[("Origin", "https://rt.example.com"), ("X-Forwarded-Proto", "https")]).await;
    for origin in ["http://rt.example.com", "https://rt.example.com:8443", "http://localhost:3000"] {
        assert_refused(&hub, &[("Origin", origin)]).await;
    }
}
