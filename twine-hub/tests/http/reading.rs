//! `/api/rooms…`: rooms in use, and history.

use serde_json::json;
use twine_hub::Running;

use crate::support::{Request, hub, hub_with, refusal};

#[tokio::test]
async fn a_room_is_found_by_its_encoded_name() {
    let hub = hub().await;
    Request::publish(r#"{"room":"a/b ü%","data":1}"#).send(&hub).await;
    let room = Request::get("/api/rooms/a%2Fb%20%C3%BC%25").with_key().send(&hub).await.json();
    assert_eq!((&room["room"], &room["head"]["offset"]), (&json!("a/b ü%"), &json!(1)));
    let history = Request::get("/api/rooms/a%2Fb%20%C3%BC%25/messages").with_key().send(&hub).await.json();
    assert_eq!(history["messages"][0]["data"], json!(1));
}

#[tokio::test]
async fn a_bad_name_in_a_path_has_the_code_of_a_bad_room() {
    let hub = hub().await;
    let long = "x".repeat(256);
    for name in ["%0A", "%FF", "%00", long.as_str()] {
        for path in [format!("/api/rooms/{name}"), format!("/api/rooms/{name}/messages")] {
            assert_eq!(
                refusal(&hub, Request::get(&path).with_key()).await,
                (400, "bad_room".into()),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn rooms_come_by_name_in_pages() {
    let hub = hub().await;
    Request::publish(r#"{"rooms":["c","a","b"],"data":1}"#).send(&hub).await;
    let first = Request::get("/api/rooms?limit=2").with_key().send(&hub).await.json();
    assert_eq!((&first["rooms"][0]["room"], &first["rooms"][1]["room"]), (&json!("a"), &json!("b")));
    assert_eq!(first["next"], json!("b"));
    let second = Request::get("/api/rooms?limit=2&after=b").with_key().send(&hub).await.json();
    assert_eq!(second["rooms"][0]["room"], json!("c"));
    assert_eq!(second.get("next"), None);
}

#[tokio::test]
async fn history_is_read_on_from_a_position() {
    let hub = hub().await;
    let mut epoch = String::new();
    for n in 1..=5 {
        let answer = Request::publish(&format!(r#"{{"room":"chat","data":{n}}}"#)).send(&hub).await.json();
        answer["epoch"].as_str().unwrap().clone_into(&mut epoch);
    }
    let path = format!("/api/rooms/chat/messages?epoch={epoch}&after=2&limit=2");
    let page = Request::get(&path).with_key().send(&hub).await.json();
    assert_eq!((&page["epoch"], &page["offset"]), (&json!(epoch), &json!(5)));
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["data"].clone()).collect();
    assert_eq!(data, [json!(3), json!(4)]);
}

#[tokio::test]
async fn history_after_a_position_that_never_was_starts_with_what_is_kept() {
    let hub = hub().await;
    for n in 1..=3 {
        Request::publish(&format!(r#"{{"room":"chat","data":{n}}}"#)).send(&hub).await;
    }
    let path = "/api/rooms/chat/messages?epoch=&after=0&limit=2";
    let page = Request::get(path).with_key().send(&hub).await.json();
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(2)]);
}

/// Follows `next` from the first page that `query` gives; the data of each page.
async fn pages(hub: &Running, query: &str) -> Vec<Vec<u64>> {
    let cursor = if query.contains("backwards") || query.contains("until") { "before" } else { "after" };
    let mut pages = Vec::new();
    let mut path = format!("/api/rooms/chat/messages?{query}");
    loop {
        let page = Request::get(&path).with_key().send(hub).await.json();
        let messages = page["messages"].as_array().unwrap();
        pages.push(messages.iter().map(|message| message["data"].as_u64().unwrap()).collect());
        let Some(next) = page.get("next") else { return pages };
        let (epoch, offset) = (next["epoch"].as_str().unwrap(), &next["offset"]);
        path = format!("/api/rooms/chat/messages?{query}&epoch={epoch}&{cursor}={offset}");
    }
}

#[tokio::test]
async fn history_comes_in_pages_forwards_and_backwards() {
    let hub = hub().await;
    for n in 1..=5 {
        Request::publish(&format!(r#"{{"room":"chat","data":{n}}}"#)).send(&hub).await;
    }
    assert_eq!(pages(&hub, "limit=2&direction=forwards").await, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(pages(&hub, "limit=2&direction=backwards").await, [vec![4, 5], vec![2, 3], vec![1]]);
    assert_eq!(pages(&hub, "limit=5&direction=forwards").await, [[1, 2, 3, 4, 5]]);
    assert_eq!(pages(&hub, "direction=backwards").await, [[1, 2, 3, 4, 5]]);
    let first = Request::get("/api/rooms/chat/messages?limit=2").with_key().send(&hub).await.json();
    assert_eq!(first["messages"][0]["data"], json!(4), "without bounds it is read from its end");
    let empty = Request::get("/api/rooms/nowhere/messages").with_key().send(&hub).await.json();
    assert_eq!((&empty["messages"], empty.get("next")), (&json!([]), None));
}

#[tokio::test]
async fn history_is_read_by_time() {
    let hub = hub().await;
    let mut times = Vec::new();
    for n in 1..=4 {
        Request::publish(&format!(r#"{{"room":"chat","data":{n}}}"#)).send(&hub).await;
        let newest = Request::get("/api/rooms/chat/messages?limit=1").with_key().send(&hub).await.json();
        times.push(newest["messages"][0]["time"].as_u64().unwrap());
        // The next message has a later time once the clock has moved.
        while unix_time() <= times[n - 1] {
            tokio::task::yield_now().await;
        }
    }
    let [_, second, _, fourth] = times[..] else { panic!("{times:?}") };
    assert_eq!(pages(&hub, &format!("since={second}&limit=2")).await, [vec![2, 3], vec![4]]);
    assert_eq!(pages(&hub, &format!("until={fourth}&limit=2")).await, [vec![2, 3], vec![1]]);
    let between = format!("since={second}&until={fourth}&direction=backwards&limit=1");
    assert_eq!(pages(&hub, &between).await, [[3], [2]]);
    assert_eq!(pages(&hub, &format!("since={}", fourth + 1)).await, [[0; 0]]);
    assert_eq!(pages(&hub, "until=1").await, [[0; 0]]);
}

fn unix_time() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// However many are asked for, a page of large messages ends after some megabytes, on the side that
/// the next page goes on from.
#[tokio::test]
async fn a_page_of_large_messages_is_shorter_and_the_next_one_goes_on() {
    let hub = hub_with(|config| config.store_memory = 1 << 30).await;
    let filler = "x".repeat(60_000);
    for n in 0..100 {
        let body = format!(r#"{{"room":"chat","data":[{n},"{filler}"]}}"#);
        assert_eq!(Request::publish(&body).send(&hub).await.status, 200);
    }
    for (direction, first, last) in [("forwards", Some(0), None), ("backwards", None, Some(99))] {
        let path = format!("/api/rooms/chat/messages?limit=100&direction={direction}");
        let answer = Request::get(&path).with_key().send(&hub).await;
        assert!(answer.body.len() < 5 << 20);
        let messages = answer.json()["messages"].as_array().unwrap().clone();
        assert!((50..100).contains(&messages.len()), "{}", messages.len());
        for (message, expected) in [(messages.first(), first), (messages.last(), last)] {
            let expected = expected.map(|n| json!(n));
            assert!(expected.is_none_or(|expected| message.unwrap()["data"][0] == expected), "{direction}");
        }
        assert!(answer.json()["next"].is_object());
    }
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let hub = hub().await;
    for (query, named) in [
        ("limit=1001", "`limit`"),
        ("limit=x", "limit"),
        ("since=x", "since"),
        ("direction=up", "up"),
        ("epoch=a", "`after` or `before`"),
        ("form=1", "form"),
    ] {
        let path = format!("/api/rooms/chat/messages?{query}");
        let problem = Request::get(&path).with_key().send(&hub).await.json();
        assert!(problem["detail"].as_str().unwrap().contains(named), "{query}: {problem}");
    }
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let hub = hub_with(|config| config.max_history = 50).await;
    for query in [
        "limit=0",
        "limit=51",
        "limit=x",
        "limit=-1",
        "after=1",
        "epoch=a",
        "epoch=a%20b&after=1",
        "epoch=a&after=9007199254740992",
        "epoch=a&after=x",
        "before=1",
        "epoch=a&before=x",
        "epoch=a&after=1&before=2",
        "epoch=a&after=1&direction=backwards",
        "epoch=a&before=1&direction=forwards",
        "direction=up",
        "since=x",
        "until=-1",
        "since=2&until=2",
        "form=1",
        "limit=1&limit=2",
    ] {
        let path = format!("/api/rooms/chat/messages?{query}");
        assert_eq!(
            refusal(&hub, Request::get(&path).with_key()).await,
            (400, "bad_request".into()),
            "{query}"
        );
    }
    for query in ["limit=0", "limit=1001", "limit=x", "before=1"] {
        let path = format!("/api/rooms?{query}");
        assert_eq!(
            refusal(&hub, Request::get(&path).with_key()).await,
            (400, "bad_request".into()),
            "{query}"
        );
    }
    assert_eq!(refusal(&hub, Request::get("/api/rooms?after=").with_key()).await, (400, "bad_room".into()));
}
