//! `/api/publish` and `/api/publish/batch`: good bodies and every kind of bad one.

use serde_json::json;

use crate::support::{KEY, Request, assert_works, exchange, hub, hub_with, refusal};

fn batch(body: &str) -> Request {
    Request::post("/api/publish/batch", body).header("Content-Type", "application/json")
}

#[tokio::test]
async fn a_message_gets_a_position_and_keeps_its_text() {
    let hub = hub().await;
    let answer = Request::publish(r#"{"room":"chat","data":{"a" : [1.0, 1e2]},"id":"x"}"#).send(&hub).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let (room, offset, duplicate) =
        (&answer.json()["room"], &answer.json()["offset"], &answer.json()["duplicate"]);
    assert_eq!((room, offset, duplicate), (&json!("chat"), &json!(1), &json!(false)));
    let history = Request::get("/api/rooms/chat/messages").with_key().send(&hub).await;
    assert!(history.body.contains(r#""data":{"a" : [1.0, 1e2]}"#), "{}", history.body);
}

#[tokio::test]
async fn a_repeated_id_is_stored_once() {
    let hub = hub().await;
    let publish = Request::publish(r#"{"room":"chat","data":1,"id":"order-4711"}"#);
    let first = publish.send(&hub).await.json();
    let second = publish.send(&hub).await.json();
    assert_eq!((&first["duplicate"], &second["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!((&first["epoch"], &first["offset"]), (&second["epoch"], &second["offset"]));
}

#[tokio::test]
async fn several_rooms_get_a_result_each_in_order() {
    let hub = hub().await;
    let answer = Request::publish(r#"{"rooms":["b","a"],"data":null}"#).send(&hub).await;
    let results = answer.json()["results"].clone();
    assert_eq!((&results[0]["room"], &results[1]["room"]), (&json!("b"), &json!("a")));
    assert_eq!((&results[0]["offset"], &results[1]["offset"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let hub = hub().await;
    let answer = batch(r#"{"messages":[{"room":"a","data":1},{"room":"b","data":2},{"room":"a","data":3}]}"#)
        .send(&hub)
        .await;
    let offsets: Vec<_> = (0..3).map(|n| answer.json()["results"][n]["offset"].clone()).collect();
    assert_eq!(offsets, [json!(1), json!(1), json!(2)]);
}

#[tokio::test]
async fn a_bad_body_is_refused_with_its_own_code_and_stores_nothing() {
    let hub = hub().await;
    let long = "x".repeat(256);
    let bodies = [
        (r#"{"room":"chat","data":"#, "bad_json"),
        ("", "bad_json"),
        ("hello", "bad_json"),
        (r#"{"room":"chat","data":1}x"#, "bad_json"),
        (r#"["chat",1]"#, "bad_request"),
        (r#"{"room":"chat"}"#, "bad_request"),
        (r#"{"room":7,"data":1}"#, "bad_request"),
        (r#"{"room":"chat","data":1,"dta":2}"#, "bad_request"),
        (r#"{"data":1}"#, "bad_request"),
        (r#"{"rooms":[],"data":1}"#, "bad_request"),
        (r#"{"room":"chat","rooms":["chat"],"data":1}"#, "bad_request"),
        (r#"{"room":"chat","data":1,"id":""}"#, "bad_request"),
        (&format!(r#"{{"room":"chat","data":1,"sender":"{long}"}}"#), "bad_request"),
        (r#"{"room":"","data":1}"#, "bad_room"),
        (r#"{"room":"a\nb","data":1}"#, "bad_room"),
        (&format!(r#"{{"room":"{long}","data":1}}"#), "bad_room"),
        (r#"{"rooms":["chat",""],"data":1}"#, "bad_room"),
    ];
    for (body, code) in bodies {
        assert_eq!(refusal(&hub, Request::publish(body)).await, (400, code.to_owned()), "{body}");
    }
    let not_utf8 = [b"POST /api/publish HTTP/1.1\r\nConnection: close\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 24\r\nAuthorization: Bearer ", KEY.as_bytes(), b"\r\n\r\n{\"room\":\"chat\",\"data\":\"\xff"].concat();
    assert_eq!(exchange(hub.address(), &not_utf8).await.unwrap().problem(), (400, "bad_json".into()));
    let head = Request::get("/api/rooms/chat").with_key().send(&hub).await.json()["head"]["offset"].clone();
    assert_eq!(head, json!(0));
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_batch_is_refused_as_a_whole_and_names_the_message() {
    let hub = hub_with(|config| config.max_batch = 3).await;
    let bodies = [
        (r#"{"messages":[]}"#, "bad_request", json!(null)),
        (r#"{"messages":1}"#, "bad_request", json!(null)),
        (r#"{"room":"a","data":1}"#, "bad_request", json!(null)),
        (r#"{"messages":[{"room":"a","data":1},{"room":"","data":1}]}"#, "bad_room", json!(1)),
        (r#"{"messages":[{"room":"a","data":1},{"room":"a"}]}"#, "bad_request", json!(1)),
        (r#"{"messages":[{"room":"a","data":1},{"rooms":["a"],"data":1}]}"#, "bad_request", json!(1)),
        (
            r#"{"messages":[{"room":"a","data":1},{"room":"a","data":2},{"room":"a","data":3},{"room":"a","data":4}]}"#,
            "bad_request",
            json!(null),
        ),
    ];
    for (body, code, index) in bodies {
        let answer = batch(body).send(&hub).await;
        assert_eq!(answer.problem(), (400, code.to_owned()), "{body}");
        assert_eq!(answer.json()["index"], index, "{body}");
    }
    let rooms = r#"{"rooms":["a","b","c","d"],"data":1}"#;
    assert_eq!(refusal(&hub, Request::publish(rooms)).await, (400, "bad_request".into()));
    let head = Request::get("/api/rooms/a").with_key().send(&hub).await.json()["head"]["offset"].clone();
    assert_eq!(head, json!(0), "a part of a refused batch was stored");
}

#[tokio::test]
async fn only_json_is_taken() {
    let hub = hub().await;
    let body = r#"{"room":"chat","data":1}"#;
    let refused = (415, "unsupported_media_type".to_owned());
    assert_eq!(refusal(&hub, Request::post("/api/publish", body)).await, refused);
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"]
    {
        let request = Request::post("/api/publish", body).header("Content-Type", kind);
        assert_eq!(refusal(&hub, request).await, refused, "{kind}");
    }
    let request =
        Request::post("/api/publish", body).header("Content-Type", "application/json; charset=utf-8");
    assert_eq!(request.send(&hub).await.status, 200);
}

#[tokio::test]
async fn data_and_bodies_have_limits() {
    let hub = hub_with(|config| {
        config.max_data = 100;
        config.max_body = 1_000;
    })
    .await;
    let publish = |len: usize| {
        // Two bytes are the quotes.
        Request::publish(&format!(r#"{{"room":"chat","data":"{}"}}"#, "x".repeat(len - 2)))
    };
    assert_eq!(publish(100).send(&hub).await.status, 200);
    assert_eq!(refusal(&hub, publish(101)).await, (413, "data_too_big".into()));
    assert_eq!(refusal(&hub, publish(2_000)).await, (413, "body_too_big".into()));
    let in_batch = batch(&format!(
        r#"{{"messages":[{{"room":"chat","data":1}},{{"room":"chat","data":"{}"}}]}}"#,
        "x".repeat(200)
    ));
    let answer = in_batch.send(&hub).await;
    assert_eq!(answer.problem(), (413, "data_too_big".into()));
    assert_eq!(answer.json()["index"], json!(1));
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_also_where_its_length_is_not_said() {
    let hub = hub_with(|config| {
        config.max_data = 1_000;
        config.max_body = 1_000;
    })
    .await;
    let head = Request::publish("").header("Transfer-Encoding", "chunked").bytes(hub.address());
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let bytes = [head, chunk.repeat(4).into_bytes(), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(exchange(hub.address(), &bytes).await.unwrap().problem(), (413, "body_too_big".into()));
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_refusal_arrives_also_where_much_was_sent() {
    let hub = hub_with(|config| {
        config.max_data = 1_000;
        config.max_body = 1_000_000;
    })
    .await;
    let body = "x".repeat(5_000_000);
    let kind = ("Content-Type", "application/json");
    let big = Request::post("/api/publish", &body).header(kind.0, kind.1);
    assert_eq!(refusal(&hub, big).await, (413, "body_too_big".into()));
    assert_eq!(refusal(&hub, Request::post("/api/publish", &body)).await.0, 415);
    let no_key = Request::post_without_key("/api/publish", &body).header(kind.0, kind.1);
    assert_eq!(refusal(&hub, no_key).await.0, 401);
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let hub = hub_with(|config| {
        config.max_data = 1_000;
        config.max_body = 1_000;
    })
    .await;
    // The length is announced, and no byte of it sent.
    let asking = Request::publish("").header("Expect", "100-continue").header("Content-Length", "5000");
    assert_eq!(refusal(&hub, asking).await, (413, "body_too_big".into()));
}
