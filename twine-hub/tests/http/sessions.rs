//! Cookies and sessions together, as a browser brings them: by real requests and handshakes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use twine_hub::Running;

use crate::support::{Answer, Request, hub, hub_in, hub_with};
use crate::tab::{APP, Tab};

/// Of a page on the same machine, which this hub lets in too.
const OTHER_APP: &str = "http://localhost:4000";
const EVIL: &str = "https://evil.example";

/// A cookie as the hub of this request sets it: name and value.
async fn set_cookie(hub: &Running, origin: &str) -> String {
    cookie_of(&Request::get("/set-cookie").header("Origin", origin).send(hub).await)
}

fn cookie_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

/// Publishes a number to `chat`; gives its position.
async fn publish(hub: &Running, n: u64) -> Value {
    position(&Request::publish(&json!({ "room": "chat", "data": n }).to_string()).send(hub).await)
}

fn position(published: &Answer) -> Value {
    let Value::Object(mut published) = published.json() else { panic!("{published:?}") };
    published.retain(|field, _| ["epoch", "offset"].contains(&field.as_str()));
    published.into()
}

/// How a session came about: `resumed` and `adopted`.
fn how(connected: &Value) -> (bool, bool) {
    (connected["resumed"].as_bool().unwrap(), connected["adopted"].as_bool().unwrap())
}

const NEW: (bool, bool) = (false, false);
const RESUMED: (bool, bool) = (true, false);
const ADOPTED: (bool, bool) = (false, true);

#[tokio::test]
async fn a_handshake_with_the_cookie_gets_a_session_and_one_without_gets_none() {
    let hub = hub().await;
    let cookie = set_cookie(&hub, APP).await;
    let (_, connected) = Tab::of(hub.address(), &cookie, json!({})).await;
    assert!(connected["session"].is_string(), "{connected}");
    let (_, connected) = Tab::of(hub.address(), &format!("theme=dark; {cookie}; x=y"), json!({})).await;
    assert!(connected["session"].is_string(), "{connected}");

    let other = set_cookie(&hub, APP).await;
    let two = format!("{cookie}; {other}");
    let twice = format!("{cookie}; {cookie}");
    for headers in [
        vec![("Origin", APP)],
        // Of two, either may have been planted.
        vec![("Origin", APP), ("Cookie", &two)],
        vec![("Origin", APP), ("Cookie", &twice)],
        vec![("Origin", APP), ("Cookie", &cookie), ("Cookie", &other)],
        vec![("Origin", APP), ("Cookie", "twineid=936da01f-9abd-1d9d-80c7-02af85c822a8")],
        vec![("Origin", APP), ("Cookie", "twineid=mine")],
    ] {
        let (mut tab, connected) = Tab::open(hub.address(), &headers, json!({})).await;
        assert_eq!(connected["session"], Value::Null, "{headers:?}");
        // It does without, and no worse.
        tab.subscribe().await;
        publish(&hub, 1).await;
        assert_eq!(tab.data_up_to(1).await, [1]);
    }
}

#[tokio::test]
async fn behind_https_only_the_protected_cookie_gets_a_session() {
    let page = "https://rt.example.com";
    let hub = hub_with(|config| config.public_url = Some(page.parse().unwrap())).await;
    let cookie = set_cookie(&hub, page).await;
    let id = cookie.strip_prefix("__Host-twineid=").unwrap();
    let has_session = async |cookie: &str| {
        let headers = [("Origin", page), ("Cookie", cookie)];
        Tab::open(hub.address(), &headers, json!({})).await.1["session"].is_string()
    };
    assert!(has_session(&cookie).await);
    // A sibling domain can plant the other name: it neither counts nor stands in the way.
    assert!(!has_session(&format!("twineid={id}")).await);
    assert!(has_session(&format!("twineid={id}; {cookie}")).await);
    assert!(!has_session(&format!("{cookie}; {cookie}")).await);
}

#[tokio::test]
async fn a_session_id_is_worthless_without_its_cookie_or_from_another_origin() {
    let hub = hub().await;
    let cookie = set_cookie(&hub, APP).await;
    let (mut tab, connected) = Tab::of(hub.address(), &cookie, json!({ "instance": "tab" })).await;
    tab.has_acknowledged_half(async |n| publish(&hub, n).await).await;
    tab.leave().await;

    let session = &connected["session"];
    let stolen = json!({ "session": session, "instance": "thief", "prev": "tab" });
    let own = set_cookie(&hub, APP).await;
    for headers in [
        // A program that has seen the id: on a log, over a shoulder.
        vec![],
        vec![("Origin", APP)],
        vec![("Origin", APP), ("Cookie", &own)],
        vec![("Cookie", &cookie)],
        // A page of another app, in the very browser that has the cookie.
        vec![("Origin", OTHER_APP), ("Cookie", &cookie)],
    ] {
        for claim in [stolen.clone(), json!({})] {
            let (mut tab, connected) = Tab::open(hub.address(), &headers, claim).await;
            assert_eq!((how(&connected), &connected["rooms"]), (NEW, &json!([])), "{headers:?}");
            assert_ne!(connected["session"], *session);
            let subscribed = tab.subscribe().await;
            assert_eq!((&subscribed["offset"], &subscribed["recovered"]), (&json!(4), &Value::Null));
            tab.unsubscribe().await;
            tab.leave().await;
        }
    }
    let (mut tab, connected) = Tab::of(hub.address(), &cookie, json!({ "session": session })).await;
    assert_eq!((how(&connected), &connected["rooms"]), (RESUMED, &json!(["chat"])));
    assert_eq!(tab.subscribe().await["offset"], 2);
    assert_eq!(tab.data_up_to(4).await, [3, 4]);
}

#[tokio::test]
async fn who_logs_out_gets_another_cookie_and_leaves_nothing_behind() {
    let hub = hub().await;
    let cookie = set_cookie(&hub, APP).await;
    let (gone, _) = Tab::of(hub.address(), &cookie, json!({ "scope": "/other" })).await;
    gone.leave().await;
    let (mut tab, connected) = Tab::of(hub.address(), &cookie, json!({})).await;
    tab.has_acknowledged_half(async |n| publish(&hub, n).await).await;

    let forget = Request::new("DELETE", "/set-cookie").header("Origin", APP);
    let answer = forget.header("Cookie", &cookie).send(&hub).await;
    let next = cookie_of(&answer);
    assert_ne!(next, cookie);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("cache-control"), Some("no-store, private"));

    // Who is connected goes on, and is not remembered.
    publish(&hub, 5).await;
    assert_eq!(tab.data_up_to(5).await, [5]);
    tab.leave().await;
    for cookie in [&cookie, &next] {
        for claim in [json!({ "session": connected["session"] }), json!({}), json!({ "scope": "/other" })] {
            let (mut tab, connected) = Tab::of(hub.address(), cookie, claim).await;
            assert_eq!((how(&connected), &connected["rooms"]), (NEW, &json!([])));
            assert_eq!(tab.subscribe().await["offset"], 5);
            tab.unsubscribe().await;
            tab.leave().await;
        }
    }
}

#[tokio::test]
async fn a_page_may_log_out_where_it_may_connect_and_a_foreign_one_logs_nobody_out() {
    let hub = hub().await;
    let preflight = |origin: &str| {
        let asked = Request::new("OPTIONS", "/set-cookie").header("Origin", origin);
        asked.header("Access-Control-Request-Method", "DELETE")
    };
    let answer = preflight(APP).send(&hub).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(methods.split(", ").any(|method| method == "DELETE"), "{methods}");

    let cookie = set_cookie(&hub, APP).await;
    let (mut tab, connected) = Tab::of(hub.address(), &cookie, json!({})).await;
    tab.subscribe().await;
    tab.leave().await;
    let forget = Request::new("DELETE", "/set-cookie").header("Origin", EVIL).header("Cookie", &cookie);
    for request in [preflight(EVIL), forget] {
        let answer = request.send(&hub).await;
        assert_eq!(answer.problem(), (403, "origin_not_allowed".into()));
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("set-cookie"), None);
    }
    let (_, again) = Tab::of(hub.address(), &cookie, json!({ "session": connected["session"] })).await;
    assert_eq!(how(&again), RESUMED);
}

#[tokio::test]
async fn a_session_goes_on_on_a_hub_that_was_shut_down_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    for claims_by_id in [true, false] {
        let hub = hub_in(folder.path()).await;
        let cookie = set_cookie(&hub, APP).await;
        let (mut tab, connected) = Tab::of(hub.address(), &cookie, json!({})).await;
        tab.has_acknowledged_half(async |n| publish(&hub, n).await).await;
        // It is connected while the hub goes.
        tokio::join!(hub.shutdown(), tab.ended());

        let hub = hub_in(folder.path()).await;
        publish(&hub, 5).await;
        let (claim, expected) = if claims_by_id {
            (json!({ "session": connected["session"] }), RESUMED)
        } else {
            (json!({}), ADOPTED)
        };
        let (mut tab, again) = Tab::of(hub.address(), &cookie, claim).await;
        assert_eq!(how(&again), expected);
        assert_eq!((&again["session"], &again["rooms"]), (&connected["session"], &json!(["chat"])));
        let subscribed = tab.subscribe().await;
        assert_eq!((&subscribed["offset"], &subscribed["recovered"]), (&json!(2), &json!(true)));
        assert_eq!(tab.data_up_to(5).await, [3, 4, 5]);
        tokio::join!(hub.shutdown(), tab.ended());
    }
}

#[tokio::test]
async fn a_session_goes_on_on_a_hub_that_was_killed_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let headers = |cookie| [("Origin", APP), ("Cookie", cookie)];
    let mut killed = Killed::start(folder.path());
    let hub = killed.address;
    let request = Request::get("/set-cookie").header("Origin", APP);
    let cookie = cookie_of(&request.send_to(hub).await);
    let (mut tab, connected) = Tab::open(hub, &headers(&cookie), json!({ "scope": "/a" })).await;
    tab.has_acknowledged_half(async |n| {
        position(&Request::publish(&json!({ "room": "chat", "data": n }).to_string()).send_to(hub).await)
    })
    .await;
    tab.leave().await;
    // Sessions have one owner: what was given back before this is answered is stored.
    let (_live, _) = Tab::open(hub, &headers(&cookie), json!({ "scope": "/b" })).await;
    killed.kill();

    let hub = hub_in(folder.path()).await;
    publish(&hub, 5).await;
    let (mut tab, again) =
        Tab::of(hub.address(), &cookie, json!({ "session": connected["session"], "scope": "/a" })).await;
    assert_eq!((how(&again), &again["rooms"]), (RESUMED, &json!(["chat"])));
    assert_eq!(tab.subscribe().await["offset"], 2);
    assert_eq!(tab.data_up_to(5).await, [3, 4, 5]);
    tokio::join!(hub.shutdown(), tab.ended());
}

/// A hub in a process of its own, for a kill leaves no time for anything.
struct Killed {
    process: std::process::Child,
    address: SocketAddr,
}

impl Killed {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twine-hub"));
        command.env_clear().env("TWINE_API_KEY", crate::support::KEY).env("TWINE_DATA_DIR", folder);
        let mut process = command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            log.find_map(|line| line.split_once(" address=")?.1.split_whitespace().next()?.parse().ok());
        // What else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, address: address.expect("a hub that listens") }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // A test that has failed leaves it running.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}
