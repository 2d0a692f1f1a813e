//! Browsers whose every connection comes to another hub: the balancer knows nothing of sessions.

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use crate::dynamodb_local::DynamoDbLocal;
use crate::faulty_proxy::FaultyProxy;
use crate::members::{Fleet, PATIENCE, PAUSE};
use crate::scenario::{Scenario, roles};
use crate::support::Request;
use crate::tab::{APP, Tab};

/// Connections of one page, one after the other: each hub gets some.
const VISITS: u64 = 12;
/// Pages that a browser opens at once when it is opened again.
const TABS: usize = 9;

/// Publishes a number to `chat`, again where the machine is too busy; gives its position.
async fn publish(address: SocketAddr, n: u64) -> Value {
    let body = json!({ "room": "chat", "data": n, "id": format!("number-{n}") }).to_string();
    loop {
        let answer = Request::publish(&body).send_to(address).await;
        if answer.status == 503 {
            continue;
        }
        let Value::Object(mut published) = answer.json() else { panic!("{answer:?}") };
        published.retain(|field, _| ["epoch", "offset"].contains(&field.as_str()));
        return published.into();
    }
}

/// How many claims each hub has answered so.
async fn answered(fleet: &Fleet, how: &str) -> Vec<u64> {
    let name = format!("twine_session_attaches_total{{how=\"{how}\"}}");
    join_all(fleet.members.iter().map(|member| member.hub.metric(&name))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_whichever_hub_its_browser_comes_to() {
    let dynamodb = tokio::task::spawn_blocking(DynamoDbLocal::start).await.unwrap();
    let table = FaultyProxy::start(dynamodb.port()).await;
    let scenario = Scenario { roles: roles(&["all", "all", "all"]), balanced: true, ..Scenario::default() };
    let mut fleet = Fleet::start(&scenario, 0, table).await;
    let balancer = fleet.balancer.as_ref().unwrap().address();
    let cookie = Request::get("/set-cookie").header("Origin", APP).send_to(balancer).await;
    let cookie = cookie.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    // Its first message makes the room, which may take a moment.
    publish(balancer, 0).await;
    // A page whose connection is lost again and again, and which says no cursor of its own. Of two messages
    // it acknowledges one each time; what it said last may be lost with the connection, so that something may
    // come again, but nothing is left out.
    let (mut page, connected) = Tab::of(balancer, &cookie, json!({ "instance": "page" })).await;
    assert_eq!((&connected["resumed"], &connected["rooms"]), (&json!(false), &json!([])));
    let session = connected["session"].clone();
    page.subscribe().await;
    let mut last = 0;
    for visit in 1..=VISITS {
        let acknowledged = publish(balancer, last + 1).await;
        publish(balancer, last + 2).await;
        assert_eq!(page.data_up_to(last + 2).await, [last + 1, last + 2]);
        page.acknowledge(&acknowledged).await;
        if visit == VISITS {
            break;
        }
        // Gone without a word.
        drop(page);
        let connected;
        (page, connected) =
            Tab::of(balancer, &cookie, json!({ "instance": "page", "session": session })).await;
        assert_eq!(
            (&connected["session"], &connected["resumed"], &connected["rooms"]),
            (&session, &json!(true), &json!(["chat"])),
            "visit {visit}"
        );
        page.subscribe().await;
        let got = page.data_up_to(last + 2).await;
        assert_eq!(got, (got[0]..=last + 2).collect::<Vec<_>>(), "visit {visit}");
        last += 2;
    }
    let resumed = answered(&fleet, "resumed").await;
    assert!(resumed.iter().all(|n| *n > 0), "each hub has had it: {resumed:?}");
    page.leave().await;

    // The browser is opened the next morning, with all its tabs at once, without what tabs remember.
    let all_are_open = Barrier::new(TABS);
    let opened = join_all((0..TABS).map(|n| {
        let (cookie, all_are_open) = (&cookie, &all_are_open);
        async move {
            let claim = json!({ "instance": format!("morning-{n}") });
            let (mut tab, connected) = Tab::of(balancer, cookie, claim).await;
            let mut all_are_open = std::pin::pin!(all_are_open.wait());
            tokio::select! {
                _ = &mut all_are_open => Some((tab, connected)),
                // On a machine so busy that it did not say in time that it is there, another one has it.
                () = tab.answer_pings() => {
                    all_are_open.await;
                    None
                }
            }
        }
    }));
    let (adopted, new): (Vec<_>, Vec<_>) =
        opened.await.into_iter().flatten().partition(|(_, connected)| connected["adopted"] == true);
    assert_eq!(adopted.len(), 1, "exactly one has it");
    assert!(new.iter().all(|(_, connected)| connected["session"] != session));
    let (mut tab, connected) = adopted.into_iter().next().unwrap();
    assert_eq!((&connected["session"], &connected["rooms"]), (&session, &json!(["chat"])));
    tab.subscribe().await;
    assert_eq!(tab.data_up_to(last + 2).await, [last + 2]);
    drop((tab, new));

    // All hubs are killed at once; what was acknowledged is known to those that come after them.
    for member in &mut fleet.members {
        member.hub.kill();
    }
    for at in 0..fleet.members.len() {
        fleet.members[at].hub.start().await;
        fleet.until_ready(at).await;
        fleet.until_balanced(at).await;
    }
    let claim = json!({ "instance": "later", "session": session });
    let (mut tab, connected) = Tab::of(balancer, &cookie, claim).await;
    let is_there = connected["resumed"] == true && connected["rooms"] == json!(["chat"]);
    assert!(is_there, "{connected}");
    tab.subscribe().await;
    assert_eq!(tab.data_up_to(last + 2).await, [last + 2]);

    // Its log-out at one hub is one at all.
    let forgotten = Request::new("DELETE", "/set-cookie").header("Origin", APP).header("Cookie", &cookie);
    assert_eq!(forgotten.send_to(balancer).await.status, 204);
    for _ in 0..fleet.members.len() {
        let claim = json!({ "instance": "later", "session": connected["session"] });
        let (_, connected) = Tab::of(balancer, &cookie, claim).await;
        assert_eq!((&connected["resumed"], &connected["rooms"]), (&json!(false), &json!([])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_open_connections_are_put_back_when_redis_has_lost_them() {
    let dynamodb = tokio::task::spawn_blocking(DynamoDbLocal::start).await.unwrap();
    let table = FaultyProxy::start(dynamodb.port()).await;
    let mut fleet = Fleet::start(&Scenario::default(), 0, table).await;
    let [first, second] = [0, 1].map(|at| fleet.members[at].hub.address());
    let cookie = Request::get("/set-cookie").header("Origin", APP).send_to(first).await;
    let cookie = cookie.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    publish(first, 0).await;
    // It says nothing more from here on.
    let (mut page, connected) = Tab::of(first, &cookie, json!({ "instance": "page" })).await;
    page.subscribe().await;
    let claim = json!({ "instance": "duplicate", "session": connected["session"] });
    until_resumed(second, &cookie, &claim).await;
    tokio::task::block_in_place(|| {
        fleet.redis.kill();
        fleet.redis.restart();
    });
    until_resumed(second, &cookie, &claim).await;
}

/// Returns once a hub knows a session and its room. Whoever holds it has it saved within a few seconds, and
/// tells nobody.
async fn until_resumed(hub: SocketAddr, cookie: &str, claim: &Value) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let (_, connected) = Tab::of(hub, cookie, claim.clone()).await;
        if connected["resumed"] == true {
            assert_eq!(connected["rooms"], json!(["chat"]));
            return;
        }
        assert!(Instant::now() < give_up, "the session is not there after {PATIENCE:?}");
        sleep(PAUSE).await;
    }
}
