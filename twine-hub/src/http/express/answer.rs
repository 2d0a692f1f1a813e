//! The answers of [`super`], as bytes of HTTP/1.1.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};

/// Adds an answer with a body of JSON.
pub(super) fn put_json(output: &mut Vec<u8>, body: &[u8], is_last: bool) {
    output.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n");
    put_rest(output, body, is_last);
}

/// Adds an answer with a body.
pub(super) fn put(output: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, body: &[u8], is_last: bool) {
    put_head(output, status, headers);
    put_rest(output, body, is_last);
}

/// Adds a status line and headers, and not what ends them.
pub(super) fn put_head(output: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    let reason = status.canonical_reason().unwrap_or("-");
    put_text(output, format_args!("HTTP/1.1 {} {reason}\r\n", status.as_u16()));
    for (name, value) in headers {
        output.extend_from_slice(name.as_str().as_bytes());
        output.extend_from_slice(b": ");
        output.extend_from_slice(value.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

fn put_rest(output: &mut Vec<u8>, body: &[u8], is_last: bool) {
    put_text(output, format_args!("content-length: {}\r\n", body.len()));
    if is_last {
        output.extend_from_slice(b"connection: close\r\n");
    }
    output.extend_from_slice(b"date: ");
    put_date(output);
    output.extend_from_slice(b"\r\n\r\n");
    output.extend_from_slice(body);
}

fn put_text(output: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Memory takes all that is written to it.
    let _ = output.write_fmt(text);
}

/// The date of the second, which is worded once.
fn put_date(output: &mut Vec<u8>) {
    thread_local!(static WORDED: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    WORDED.with_borrow_mut(|(second, text)| {
        if *second != now || text.is_empty() {
            *second = now;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        }
        output.extend_from_slice(text.as_bytes());
    });
}
