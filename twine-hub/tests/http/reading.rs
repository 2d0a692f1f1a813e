//! `/api/rooms…`: rooms in use, and history.

use serde_json::json;

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
