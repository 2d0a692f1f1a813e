//! What tests stand between the SDK and a hub.

mod faulty_proxy;
mod http;
mod hub;
mod tls_proxy;

use std::time::Duration;

use twine_server_sdk::{RetryPolicy, Twine, TwineBuilder};

pub(crate) use faulty_proxy::{FaultyProxy, Step};
pub(crate) use hub::TestHub;
pub(crate) use tls_proxy::{TlsProxy, tls_trusting};

pub(crate) const KEY: &str = "key-of-the-tests";

/// A publisher to `url` whose retries come quickly.
pub(crate) fn twine_at(url: &str) -> TwineBuilder {
    let quickly = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(20)).unwrap();
    Twine::builder(url, KEY).no_proxy().retry(quickly)
}

/// As the hub answers a publish.
pub(crate) fn stored(room: &str) -> String {
    answer("200 OK", "application/json", &result(room))
}

/// As the hub answers a batch.
pub(crate) fn stored_all(rooms: &[&str]) -> String {
    let results: Vec<_> = rooms.iter().map(|room| result(room)).collect();
    answer("200 OK", "application/json", &format!(r#"{{"results":[{}]}}"#, results.join(",")))
}

fn result(room: &str) -> String {
    format!(r#"{{"room":"{room}","epoch":"e","offset":1,"duplicate":false}}"#)
}

/// As the hub explains an error; `status` with its reason, as on the first line of an answer.
pub(crate) fn problem(status: &str, code: &str) -> String {
    let number = status.split(' ').next().unwrap();
    let body = format!(r#"{{"title":"","status":{number},"code":"{code}","detail":"because"}}"#);
    answer(status, "application/problem+json", &body)
}

pub(crate) fn answer(status: &str, media_type: &str, body: &str) -> String {
    let n_bytes = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {n_bytes}\r\n\r\n{body}")
}

/// The same answer with one more header.
pub(crate) fn with_header(answer: &str, header: &str) -> String {
    answer.replacen("\r\n", &format!("\r\n{header}\r\n"), 1)
}
