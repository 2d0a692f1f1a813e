//! What a client says together with its handshake (PROTOCOL.md, "Early frames").

use percent_encoding::percent_decode_str;
use twine_protocol::{EARLY_PARAMETER, ErrorCode};

use super::problem::Refusal;
use crate::connection::put_frame;

/// The frames in a handshake's query, as they would come from the socket; empty where there are none.
///
/// # Errors
/// [`Refusal`] where there is more than one list of them, or it is not UTF-8.
pub(super) fn frames(query: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let mut lists = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == EARLY_PARAMETER)
        .map(|(_, value)| value);
    let Some(list) = lists.next() else { return Ok(Vec::new()) };
    let refused = |detail: &str| Refusal::new(ErrorCode::BadRequest, format!("`{EARLY_PARAMETER}` {detail}"));
    if lists.next().is_some() {
        return Err(refused("is there more than once; put each frame on a line of one"));
    }
    let list = percent_decode_str(list).decode_utf8().map_err(|_| refused("is not percent-encoded UTF-8"))?;
    let mut frames = Vec::with_capacity(list.len() + 32);
    for frame in list.lines().filter(|line| !line.is_empty()) {
        put_frame(&mut frames, frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Option<Vec<u8>> {
        frames(Some(query)).ok()
    }

    fn framed(all: &[&str]) -> Vec<u8> {
        let mut frames = Vec::new();
        for frame in all {
            put_frame(&mut frames, frame);
        }
        frames
    }

    #[test]
    fn each_line_is_a_frame() {
        assert_eq!(of("early=%7B%22a%22:1%7D").unwrap(), framed(&[r#"{"a":1}"#]));
        assert_eq!(of("x=y&early={}%0A{+}%0D%0A%0A&z").unwrap(), framed(&["{}", "{+}"]));
        let long = format!("{:?}", "\u{fc}".repeat(40_000));
        assert_eq!(of(&format!("early={long}")).unwrap(), framed(&[&long]));
    }

    #[test]
    fn without_them_there_are_none() {
        assert!(frames(None).unwrap().is_empty());
        for query in ["", "early", "early=", "early=%0A", "x=y", "xearly={}", "Early={}"] {
            assert!(of(query).unwrap().is_empty(), "{query}");
        }
    }

    #[test]
    fn what_is_no_text_or_there_twice_is_refused() {
        for query in ["early=%ff", "early={}&early={}", "early=&early="] {
            assert!(of(query).is_none(), "{query}");
        }
    }
}
