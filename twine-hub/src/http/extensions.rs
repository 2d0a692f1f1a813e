//! What a WebSocket handshake negotiates of compression (RFC 7692).

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};

/// Each message stands for itself, in both directions: see [`crate::deflate`].
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// The same for a client that names the window, which has to be named in return.
const ANSWER_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";
/// The window of what the hub compresses.
const WINDOW_BITS: u8 = 15;

/// The answer to the first offer of `permessage-deflate` that can be met, if there is one.
pub(super) fn deflate(headers: &HeaderMap) -> Option<HeaderValue> {
    headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(answer)
        .map(HeaderValue::from_static)
}

/// The answer to one offer; `None` where it is of something else, or is not as the RFC has it, or can't be met.
fn answer(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut seen = Vec::new();
    let mut answer = ANSWER;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value.map(bits)) {
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            )
            | ("client_max_window_bits", Some(Some(_))) => {}
            ("server_max_window_bits", Some(Some(WINDOW_BITS))) => answer = ANSWER_WITH_WINDOW,
            _ => return None,
        }
    }
    Some(answer)
}

/// The size of a window: 8 to 15, without leading zeros; it may be quoted.
fn bits(value: &str) -> Option<u8> {
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let bits = unquoted.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (!unquoted.starts_with(['0', '+'])).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(offers: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, offer.parse().unwrap());
        }
        deflate(&headers).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn offers_of_browsers_are_met_without_context_takeover() {
        // Chromium and Firefox; Safari; with everything.
        for offer in [
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate",
            "x-webkit-deflate-frame, Permessage-Deflate ;client_max_window_bits = \"10\";server_no_context_takeover; \
             client_no_context_takeover",
        ] {
            assert_eq!(answered(&[offer]).as_deref(), Some(ANSWER), "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_met_is() {
        let small = "permessage-deflate; server_max_window_bits=10";
        let fallback = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(answered(&[&format!("{small}, {fallback}")]).as_deref(), Some(ANSWER_WITH_WINDOW));
        assert_eq!(answered(&[small, "permessage-deflate"]).as_deref(), Some(ANSWER));
        assert_eq!(answered(&[small]), None);
        assert_eq!(answered(&[]), None);
    }

    #[test]
    fn what_the_rfc_does_not_know_is_declined() {
        for offer in [
            "permessage-bzip2",
            "permessage-deflate; mystery",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; server_max_window_bits=+15",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=\"9",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ] {
            assert_eq!(answered(&[offer]), None, "{offer}");
        }
    }
}
