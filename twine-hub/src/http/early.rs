//! What a client says together with its handshake (PROTOCOL.md, "Early frames").

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use twine_protocol::{EARLY_PARAMETER, ErrorCode};

use super::problem::Refusal;
use crate::connection::put_frame;

/// With or without the signs that fill it up.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The frames in a handshake's query, as they would come from the socket; empty where there are none.
///
/// # Errors
/// [`Refusal`] where there is more than one list of them, or it is no text.
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
    // Where it is filled up, the signs for that may be encoded once more.
    let list: Cow<'_, [u8]> = percent_decode_str(list).into();
    let text = BASE64.decode(list).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| refused("is not base64url of UTF-8"))?;
    let mut frames = Vec::with_capacity(text.len() + 32);
    for frame in text.lines().filter(|line| !line.is_empty()) {
        put_frame(&mut frames, frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the query that has this text.
    fn of(text: &str) -> Vec<u8> {
        frames(Some(&format!("x=y&early={}&z", BASE64.encode(text)))).unwrap()
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
        assert_eq!(of(r#"{"a":1}"#), framed(&[r#"{"a":1}"#]));
        assert_eq!(of("{}\n\"ü?>\"\r\n\n"), framed(&["{}", "\"ü?>\""]));
        for len in [125, 126, 65_535, 65_536] {
            let long = "x".repeat(len);
            assert_eq!(of(&long), framed(&[&long]), "{len} bytes");
        }
        // With and without what fills it up.
        for query in ["early=e30", "early=e30=", "early=e30%3D", "early=e30%3d"] {
            assert_eq!(frames(Some(query)).unwrap(), framed(&["{}"]), "{query}");
        }
    }

    #[test]
    fn without_them_there_are_none() {
        assert!(frames(None).unwrap().is_empty());
        for query in ["", "early", "early=", "early=Cg", "x=y", "xearly=e30", "Early=e30"] {
            assert!(frames(Some(query)).unwrap().is_empty(), "{query}");
        }
    }

    #[test]
    fn what_is_no_text_or_there_twice_is_refused() {
        // Of the last two one is a byte that no UTF-8 has, and one standard base64.
        for query in [
            "early=e30&early=e30",
            "early=&early=",
            "early=e3",
            "early={}",
            "early=e%3",
            "early=_w",
            "early=w78/",
        ] {
            assert!(frames(Some(query)).is_err(), "{query}");
        }
    }
}
