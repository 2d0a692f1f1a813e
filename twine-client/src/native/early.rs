//! What is said before the socket is open: with its handshake, as far as that has room for it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use twine_protocol::{ClientFrame, Connect, EARLY_PARAMETER, Subscribe};

/// Bytes of the query at most: with it, and a proxy's headers, a request's head stays below what servers take.
const MAX: usize = 2_048;
/// What stands for itself in a query, besides letters and digits.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':').remove(b',');

/// Frames for a socket that is not open, in their order.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Those that go with the handshake, as its query has them.
    query: String,
    /// Those that have to wait.
    rest: Vec<String>,
}

impl Early {
    /// Takes the next frame. One with a token is not put into an address, which servers write into their logs.
    pub(super) fn push(&mut self, frame: &ClientFrame) {
        let text = frame.to_json();
        let may_be_seen = !matches!(
            frame,
            ClientFrame::Connect(Connect { token: Some(_), .. })
                | ClientFrame::Subscribe(Subscribe { token: Some(_), .. })
        );
        if self.rest.is_empty() && may_be_seen {
            let before = if self.query.is_empty() { format!("{EARLY_PARAMETER}=") } else { "%0A".to_owned() };
            let more = format!("{before}{}", utf8_percent_encode(&text, PLAIN));
            if self.query.len() + more.len() <= MAX {
                return self.query.push_str(&more);
            }
        }
        self.rest.push(text);
    }

    /// Takes the query; what comes from now on has to wait.
    pub(super) fn into_parts(self) -> (String, Vec<String>) {
        (self.query, self.rest)
    }
}

#[cfg(test)]
mod tests {
    use twine_protocol::RoomName;

    use super::*;

    fn subscribe(room: &str, token: Option<&str>) -> ClientFrame {
        ClientFrame::Subscribe(Subscribe {
            id: 1,
            room: RoomName::new(room).unwrap(),
            after: None,
            stored: false,
            history: None,
            token: token.map(str::to_owned),
        })
    }

    fn early(frames: &[ClientFrame]) -> (String, Vec<String>) {
        let mut early = Early::default();
        for frame in frames {
            early.push(frame);
        }
        early.into_parts()
    }

    #[test]
    fn frames_are_lines_of_a_parameter() {
        let (query, rest) = early(&[ClientFrame::Connect(Connect::default()), subscribe("a&b+\u{fc}", None)]);
        assert_eq!(
            query,
            "early=%7B%22type%22:%22connect%22%7D%0A%7B%22type%22:%22subscribe%22,%22id%22:1,%22room%22:%22a%26b%2B%C3%BC%22%7D"
        );
        assert!(rest.is_empty());
        assert_eq!(early(&[]), (String::new(), Vec::new()));
    }

    #[test]
    fn what_does_not_fit_waits_and_all_behind_it() {
        let frames = [subscribe("a", None), subscribe(&"b".repeat(255), None), subscribe("c", None)];
        let many: Vec<_> = std::iter::repeat_n(frames[1].clone(), 10).chain([frames[2].clone()]).collect();
        let (query, rest) = early(&many);
        assert!(query.len() <= MAX && query.len() > MAX - 350, "{}", query.len());
        assert_eq!(query.matches("%0A").count() + 1 + rest.len(), many.len());
        assert_eq!(rest.last(), Some(&frames[2].to_json()));
    }

    #[test]
    fn tokens_are_in_no_address() {
        let connect = ClientFrame::Connect(Connect { token: Some("secret".into()), ..Connect::default() });
        let (query, rest) = early(&[connect, subscribe("a", None)]);
        assert_eq!((query.as_str(), rest.len()), ("", 2));
        let (query, rest) = early(&[
            ClientFrame::Connect(Connect::default()),
            subscribe("a", Some("secret")),
            subscribe("b", None),
        ]);
        assert!(!query.contains("secret"));
        assert_eq!(rest.len(), 2);
    }
}
