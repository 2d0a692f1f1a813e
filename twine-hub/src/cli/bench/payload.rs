//! The data of a message.

use serde::{Deserialize, Serialize};

/// As it is published.
#[derive(Serialize)]
pub(super) struct Payload<'a> {
    /// The number of the message in its room, from 1.
    n: u32,
    /// When it was due, in microseconds since 1970-01-01 UTC.
    t: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    p: &'a str,
}

/// As it is read: the padding has no meaning.
#[derive(Deserialize)]
pub(super) struct Read {
    pub(super) n: u32,
    pub(super) t: u64,
}

/// What fills messages up to their size.
pub(super) struct Padding {
    size: usize,
    text: String,
}

impl Padding {
    /// Fills up to so many bytes of JSON.
    pub(super) fn new(size: usize) -> Self {
        Self { size, text: "x".repeat(size) }
    }

    /// A message's data; longer than asked for where number and time need more.
    pub(super) fn fill(&self, n: u32, t: u64) -> Payload<'_> {
        let digits = |number: u64| number.checked_ilog10().map_or(1, |log| log as usize + 1);
        let bare = r#"{"n":,"t":,"p":""}"#.len() + digits(n.into()) + digits(t);
        let p = self.text.get(..self.size.saturating_sub(bare)).unwrap_or_default();
        Payload { n, t, p }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_size_that_was_asked_for_and_reads_back() {
        for size in [40, 64, 1_000] {
            let padding = Padding::new(size);
            for n in [1, 10, 4_294_967_295] {
                let text = serde_json::to_string(&padding.fill(n, 1_700_000_000_000_000)).unwrap();
                let read: Read = serde_json::from_str(&text).unwrap();
                assert_eq!((read.n, read.t), (n, 1_700_000_000_000_000));
                assert!(text.len() == size || size == 40 && text.len() <= 48, "{text}");
            }
        }
        assert_eq!(serde_json::to_string(&Padding::new(1).fill(7, 0)).unwrap(), r#"{"n":7,"t":0}"#);
    }
}
