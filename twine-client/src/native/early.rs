//! What is said before the socket is open: with its handshake, as far as that has room for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use twine_protocol::{ClientFrame, Connect, EARLY_PARAMETER, Subscribe};

/// Bytes of frames at most: as base64, and with what proxies add, a request's head stays below what servers take.
const MAX: usize = 1_536;

/// Frames for a socket that is not open, in their order.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Those that go with the handshake, each a line.
    lines: String,
    /// Those that have to wait.
    rest: Vec<String>,
    /// Whether none may go with it any more.
    is_over: bool,
}

impl Early {
    /// `may_be_early` where something may go with the handshake at all.
    pub(super) fn new(may_be_early: bool) -> Self {
        Self { is_over: !may_be_early, ..Self::default() }
    }

    /// Takes the next frame. One with a token is not put into an address, which servers write into their logs.
    pub(super) fn push(&mut self, frame: &ClientFrame) {
        let text = frame.to_json();
        let has_token = matches!(
            frame,
            ClientFrame::Connect(Connect { token: Some(_), .. })
                | ClientFrame::Subscribe(Subscribe { token: Some(_), .. })
        );
        self.is_over |= has_token || self.lines.len() + text.len() >= MAX;
        if self.is_over {
            self.rest.push(text);
        } else {
            self.lines.push_str(&text);
            self.lines.push('\n');
        }
    }

    /// The query, empty where there is none, and what has to wait.
    pub(super) fn into_parts(self) -> (String, Vec<String>) {
        let query = if self.lines.is_empty() {
            String::new()
        } else {
            format!("{EARLY_PARAMETER}={}", BASE64.encode(&self.lines))
        };
        (query, self.rest)
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
        let mut early = Early::new(true);
        for frame in frames {
            early.push(frame);
        }
        early.into_parts()
    }

    fn lines(query: &str) -> Vec<String> {
        let text = query.strip_prefix("early=").map(|text| BASE64.decode(text).unwrap()).unwrap_or_default();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn frames_are_lines_of_a_parameter() {
        let frames = [ClientFrame::Connect(Connect::default()), subscribe("a&b+\u{fc}", None)];
        let (query, rest) = early(&frames);
        assert!(query.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=-_".contains(&byte)), "{query}");
        assert_eq!(lines(&query), frames.each_ref().map(ClientFrame::to_json));
        assert!(rest.is_empty());
        assert_eq!(early(&[]), (String::new(), Vec::new()));
    }

    #[test]
    fn what_does_not_fit_waits_and_all_behind_it() {
        let long = subscribe(&"b".repeat(255), None);
        let many: Vec<_> = std::iter::repeat_n(long, 10).chain([subscribe("c", None)]).collect();
        let (query, rest) = early(&many);
        assert!(query.len() <= 2_054 && query.len() > 1_500, "{}", query.len());
        let all: Vec<_> = lines(&query).into_iter().chain(rest).collect();
        assert_eq!(all, many.iter().map(ClientFrame::to_json).collect::<Vec<_>>());
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
        assert_eq!((lines(&query).len(), rest.len()), (1, 2));
    }

    #[test]
    fn where_nothing_may_be_early_all_waits() {
        let mut early = Early::new(false);
        let connect = ClientFrame::Connect(Connect::default());
        early.push(&connect);
        assert_eq!(early.into_parts(), (String::new(), vec![connect.to_json()]));
    }
}
