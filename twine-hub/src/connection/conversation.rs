//! What a client says and what it is answered (PROTOCOL.md, "Frames").

use twine_protocol::{ClientFrame, ErrorCode, json};

use super::shard::Shard;
use super::state::{Key, Phase};
use super::websocket::{self, Incoming, Violation};

impl Shard {
    /// Takes a message of the WebSocket layer.
    pub(super) fn incoming(&mut self, key: Key, incoming: Incoming) {
        match incoming {
            Incoming::Text(text) => self.text(key, &text),
            Incoming::Binary => self.end(key, ErrorCode::BadFrame, "frames are text, this one is binary"),
            Incoming::Ping(payload) => self.answer(key, websocket::pong(&payload)),
            Incoming::Pong => {}
            Incoming::Close(code) => self.close(key, code.unwrap_or(1000), ""),
        }
    }

    /// Ends a connection that breaks the WebSocket protocol.
    pub(super) fn violation(&mut self, key: Key, violation: Violation) {
        match violation {
            Violation::TooBig { limit } => {
                let message = format!("a frame is over the limit of {limit} bytes");
                self.end(key, ErrorCode::FrameTooBig, &message);
            }
            Violation::TooDense => {
                let message = "a compressed frame makes more of itself than its length allows";
                self.end(key, ErrorCode::FrameTooBig, message);
            }
            Violation::Protocol(_) | Violation::NotUtf8 | Violation::NotCompressed => {
                self.count_error(ErrorCode::BadFrame);
                self.close(key, violation.close_code(), &violation.to_string());
            }
        }
    }

    fn text(&mut self, key: Key, text: &str) {
        let Some(connection) = self.connection(key) else { return };
        let phase = connection.phase;
        match (phase, json::decode_client(text)) {
            (Phase::New, Ok(ClientFrame::Connect(request))) => self.connect(key, request),
            (Phase::New, Ok(_)) => {
                self.end(key, ErrorCode::BadFrame, "the first frame must be `connect`");
            }
            (Phase::Open, Ok(ClientFrame::Connect(_))) => {
                self.end(key, ErrorCode::BadFrame, "there was a `connect` frame already");
            }
            (Phase::Open, Ok(ClientFrame::Subscribe(request))) => self.subscribe(key, request),
            (Phase::Open, Ok(ClientFrame::Unsubscribe(request))) => self.unsubscribe(key, request),
            (Phase::Open, Ok(ClientFrame::Pong(pong))) => self.acknowledge(key, pong.cursors),
            // Other types of frames are not decoded; a connection that waits for its session is not
            // read.
            (Phase::Open, Ok(_)) | (Phase::Attaching | Phase::Closing, _) => {}
            (Phase::New, Err(error)) => self.end(key, ErrorCode::BadFrame, &error.to_string()),
            (Phase::Open, Err(error)) => match error.code() {
                ErrorCode::BadFrame => self.end(key, ErrorCode::BadFrame, &error.to_string()),
                code => self.refuse(key, error.id(), code, format!("{error}; {}", code.remedy())),
            },
        }
    }
}
