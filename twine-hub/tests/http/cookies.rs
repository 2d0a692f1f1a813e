//! `GET /set-cookie`: the cookie's name and attributes by scheme and site, and when an id is kept.

use twine_hub::Running;

use crate::support::{Answer, Request, hub, hub_with};

const ID: &str = "936da01f-9abd-4d9d-80c7-02af85c822a8";

/// Name, id and attributes of the cookie that came.
fn parts(answer: &Answer) -> (String, String, String) {
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store, private"));
    assert_eq!(answer.header("vary"), Some("Origin, Cookie"));
    let cookie = answer.header("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    let (name, id) = pair.split_once('=').unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    (name.to_owned(), id.to_owned(), attributes.to_owned())
}

async fn attributes(hub: &Running, host: &str, origin: Option<&str>) -> (String, String) {
    let request = Request::get("/set-cookie").header("Host", host);
    let request = origin.map_or(request.clone(), |origin| request.header("Origin", origin));
    let (name, _, attributes) = parts(&request.send(hub).await);
    (name, attributes)
}

const LAX: &str = "HttpOnly; Path=/; Max-Age=86400; SameSite=Lax";
const CROSS: &str = "HttpOnly; Path=/; Max-Age=86400; Secure; SameSite=None; Partitioned";

#[tokio::test]
async fn on_plain_http_the_cookie_depends_on_the_site() {
    let hub = hub().await;
    for (host, origin, expected) in [
        ("localhost:7070", None, LAX),
        ("localhost:7070", Some("http://localhost:3000"), LAX),
        ("127.0.0.1:7070", Some("http://127.0.0.1:3000"), LAX),
        ("127.0.0.1:7070", Some("http://localhost:3000"), CROSS),
        ("localhost:7070", Some("http://127.0.0.1:3000"), CROSS),
        ("hub.localhost:7070", Some("http://localhost:3000"), CROSS),
        ("10.1.2.3:7070", Some("http://10.1.2.3:7070"), LAX),
    ] {
        let found = attributes(&hub, host, origin).await;
        assert_eq!(found, ("twineid".into(), expected.into()), "{host} {origin:?}");
    }
}

#[tokio::test]
async fn away_from_loopback_a_browser_takes_no_secure_cookie_without_tls() {
    let hub = hub_with(|config| {
        config.allowed_origins = Some(vec!["http://app.example.com".parse().unwrap()]);
    })
    .await;
    let found = attributes(&hub, "hub.example.com", Some("http://app.example.com")).await;
    assert_eq!(found, ("twineid".into(), LAX.into()));
}

#[tokio::test]
async fn behind_https_the_cookie_can_not_be_planted() {
    let hub = hub_with(|config| config.public_url = Some("https://rt.example.com".parse().unwrap())).await;
    for origin in [None, Some("https://rt.example.com")] {
        let found = attributes(&hub, "rt.example.com", origin).await;
        assert_eq!(found, ("__Host-twineid".into(), CROSS.into()));
    }
}

#[tokio::test]
async fn a_header_of_a_proxy_does_not_make_the_hub_secure() {
    let hub = hub().await;
    let answer = Request::get("/set-cookie").header("X-Forwarded-Proto", "https").send(&hub).await;
    assert_eq!(parts(&answer).0, "twineid");
}

#[tokio::test]
async fn one_valid_id_is_kept_and_any_other_is_replaced() {
    let hub = hub().await;
    let id =
        async |cookie: &str| parts(&Request::get("/set-cookie").header("Cookie", cookie).send(&hub).await).1;
    assert_eq!(id(&format!("twineid={ID}")).await, ID);
    assert_eq!(id(&format!("theme=dark; twineid={ID}; x=y")).await, ID);
    for cookie in [
        format!("twineid={ID}; twineid={ID}"),
        format!("__Host-twineid={ID}"),
        "twineid=".to_owned(),
        "twineid=../../etc".to_owned(),
        format!("twineid={}", ID.to_uppercase()),
    ] {
        assert_ne!(id(&cookie).await, ID, "{cookie}");
    }
}

#[tokio::test]
async fn behind_https_only_the_protected_name_counts() {
    let hub = hub_with(|config| config.public_url = Some("https://rt.example.com".parse().unwrap())).await;
    let id =
        async |cookie: &str| parts(&Request::get("/set-cookie").header("Cookie", cookie).send(&hub).await).1;
    assert_eq!(id(&format!("__Host-twineid={ID}")).await, ID);
    // A sibling domain can plant the unprotected name: it must neither count nor stand in the way.
    assert_ne!(id(&format!("twineid={ID}")).await, ID);
    assert_eq!(id(&format!("twineid=planted; __Host-twineid={ID}")).await, ID);
}

#[tokio::test]
async fn two_browsers_get_two_ids() {
    let hub = hub().await;
    let request = Request::get("/set-cookie");
    assert_ne!(parts(&request.send(&hub).await).1, parts(&request.send(&hub).await).1);
}
