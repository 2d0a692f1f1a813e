//! What a handshake says beside what it has to.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE,
};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

use super::Error;

/// Headers of an app, checked.
#[derive(Clone)]
pub(super) struct Headers(Arc<[(HeaderName, HeaderValue)]>);

impl Headers {
    pub(super) fn new(headers: &[(String, String)]) -> Result<Self, Error> {
        let checked = headers.iter().map(|(name, value)| {
            let wrong = |problem| Error::Header { name: name.clone(), problem };
            let name = HeaderName::try_from(name).map_err(|_| wrong("that is not the name of a header"))?;
            if [CONNECTION, HOST, UPGRADE].contains(&name) || name.as_str().starts_with("sec-websocket-") {
                return Err(wrong("the handshake has it already"));
            }
            // A server would take the first frames for it.
            if [CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                return Err(wrong("a handshake has no body"));
            }
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| wrong("its value holds a character that no header has"))?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &*self.0 {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, value: &str) -> Result<HeaderMap, Error> {
        let mut map = HeaderMap::new();
        let given = [(name.to_owned(), value.to_owned()), ("x-more".to_owned(), "1".to_owned())];
        Headers::new(&given)?.add_to(&mut map);
        Ok(map)
    }

    #[test]
    fn headers_are_sent_as_they_are_given() {
        let map = headers("Cookie", "twineid=1; a=b").unwrap();
        assert_eq!(
            (&map["cookie"], &map["x-more"]),
            (&"twineid=1; a=b".parse().unwrap(), &"1".parse().unwrap())
        );
        assert_eq!(headers("X-More", "2").unwrap().get_all("x-more").iter().count(), 2);
    }

    #[test]
    fn what_can_not_be_sent_is_refused_by_its_name() {
        for (bad, value) in [
            ("a b", "1"),
            ("", "1"),
            ("x", "1\r\ny: 2"),
            ("Host", "h"),
            ("Sec-WebSocket-Key", "k"),
            ("upgrade", "h2c"),
            ("content-length", "1"),
            ("Transfer-Encoding", "chunked"),
        ] {
            assert!(matches!(headers(bad, value), Err(Error::Header { name, .. }) if name == bad), "{bad}");
        }
    }
}
