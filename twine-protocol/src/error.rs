//! Error and close codes: one table for the wire, HTTP and WebSocket (PROTOCOL.md, "Errors").

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $status:literal, $close:expr, $retryable:literal, $remedy:literal;)*) => {
        /// What went wrong, for programs. Stable: a code's meaning never changes.
        ///
        /// ```
        /// use twine_protocol::ErrorCode;
        ///
        /// assert_eq!(ErrorCode::BadRoom.as_str(), "bad_room");
        /// assert_eq!(ErrorCode::BadRoom.http_status(), 400);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code of a later version that this one does not know.
            Other,
        }

        impl ErrorCode {
            /// Every code the wire knows, in the order of PROTOCOL.md's table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as the wire spells it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Other => "other",
                }
            }

            /// The HTTP status a request is answered with.
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other => 500,
                }
            }

            /// The WebSocket close code, where this error ends a connection.
            pub const fn close_code(self) -> Option<CloseCode> {
                match self {
                    $(Self::$name => $close,)*
                    Self::Other => None,
                }
            }

            /// Whether the same request may succeed later, unchanged.
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)*
                    Self::Other => false,
                }
            }

            /// What to do about it first.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)*
                    Self::Other => "see the message",
                }
            }
        }
    };
}

use CloseCode as C;

codes! {
    /// A frame that is no JSON object, lacks a field, has one of a wrong kind, or came out of turn.
    BadFrame = "bad_frame", 400, Some(C::BadFrame), false, "send frames as PROTOCOL.md has them, `connect` first";
    /// A frame of a type that this hub does not know.
    UnknownFrame = "unknown_frame", 400, None, false, "use a frame type of this protocol version";
    /// A frame over the hub's limit.
    FrameTooBig = "frame_too_big", 413, Some(C::TooBig), false, "send smaller frames";
    /// No `connect` frame in time.
    ConnectTimeout = "connect_timeout", 408, Some(C::ConnectTimeout), true, "send a `connect` frame first, within 10 s";
    /// Nothing was heard from the client for too long.
    HeartbeatTimeout = "heartbeat_timeout", 408, Some(C::Restart), true, "answer each `ping` with a `pong`";
    /// The text is not the name of a room.
    BadRoom = "bad_room", 400, None, false, "use 1 to 255 bytes of UTF-8 without control characters";
    /// The connection holds no subscription to that room.
    NotSubscribed = "not_subscribed", 404, None, false, "subscribe before unsubscribing";
    /// More rooms on one connection than the hub allows.
    TooManyRooms = "too_many_rooms", 429, None, false, "unsubscribe rooms first, or raise `max_rooms_per_connection`";
    /// Too many requests or frames.
    TooMany = "too_many", 429, Some(C::TooMany), true, "slow down, and retry later";
    /// The token does not allow this.
    Forbidden = "forbidden", 403, None, false, "ask for a token that allows it";
    /// The token is not valid, or no longer.
    BadToken = "bad_token", 401, Some(C::BadToken), false, "get a new token";
    /// The page's origin may not use this hub.
    OriginNotAllowed = "origin_not_allowed", 403, None, false, "add the origin to `allowed_origins`";
    /// The request carries no API key.
    KeyMissing = "key_missing", 401, None, false, "send `Authorization: Bearer KEY`";
    /// The API key is none of the hub's.
    KeyInvalid = "key_invalid", 401, None, false, "use a key from the hub's `api_key`";
    /// The body is not JSON.
    BadJson = "bad_json", 400, None, false, "send valid JSON";
    /// The request lacks something, or has something that it may not have.
    BadRequest = "bad_request", 400, None, false, "see the message";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, None, false, "send `Content-Type: application/json`";
    /// The body is over the hub's limit.
    BodyTooBig = "body_too_big", 413, None, false, "send less at once, or raise `max_body`";
    /// A message's `data` is over the hub's limit.
    DataTooBig = "data_too_big", 413, None, false, "send less data, or raise `max_data`";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, None, true, "send the whole request at once";
    /// Nothing is at this address.
    NotFound = "not_found", 404, None, false, "see PROTOCOL.md for the paths";
    /// The address does not take this method.
    MethodNotAllowed = "method_not_allowed", 405, None, false, "see the `Allow` header";
    /// The hub's role is another than this request asks for.
    WrongRole = "wrong_role", 421, None, false, "ask a hub whose `role` does this";
    /// The request is no WebSocket handshake.
    UpgradeRequired = "upgrade_required", 426, None, false, "connect with a WebSocket client";
    /// The hub holds as many connections as it may, or as many wait for it.
    Full = "full", 503, Some(C::Full), true, "retry later, or raise `max_connections` or `max_waiting`";
    /// The hub is shutting down.
    Draining = "draining", 503, Some(C::Restart), true, "connect again, to another hub or later";
    /// The reader took nothing for too long. It is cut off without a close frame, which it could not read.
    TooSlow = "too_slow", 503, None, true, "connect again and resume";
    /// The store can't be reached or refuses to write.
    Unavailable = "unavailable", 503, None, true, "retry with the same `id`";
    /// The store has no room left.
    StoreFull = "store_full", 507, None, true, "free disk space; then retry with the same `id`";
    /// A fault of the hub's own.
    Internal = "internal", 500, None, true, "retry; if it stays, report it with the hub's log";
}

impl ErrorCode {
    /// The code that the wire spells so; [`ErrorCode::Other`] for one of a later version.
    pub fn from_wire(text: &str) -> Self {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(Self::Other)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_wire(&String::deserialize(deserializer)?))
    }
}

/// How a WebSocket ends (PROTOCOL.md, "Closing").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: done.
    Normal,
    /// 1009: a frame over the limit.
    TooBig,
    /// 1012: the hub restarts, or wants this client to resume; connect again.
    Restart,
    /// 1013: the hub is full; connect again later.
    Full,
    /// 4400: a frame that breaks the protocol.
    BadFrame,
    /// 4401: the token is not valid, or no longer.
    BadToken,
    /// 4408: no `connect` frame in time.
    ConnectTimeout,
    /// 4429: too many frames.
    TooMany,
}

impl CloseCode {
    /// Every close code of this protocol.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::TooBig,
        Self::Restart,
        Self::Full,
        Self::BadFrame,
        Self::BadToken,
        Self::ConnectTimeout,
        Self::TooMany,
    ];

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::Full => 1013,
            Self::BadFrame => 4400,
            Self::BadToken => 4401,
            Self::ConnectTimeout => 4408,
            Self::TooMany => 4429,
        }
    }

    /// Whether a client should connect again by itself.
    ///
    /// Not after a frame that broke the protocol or was too big: the same would happen again.
    pub const fn is_retryable(code: u16) -> bool {
        !matches!(code, 1009 | 4400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_found_by_their_spelling() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.as_str()), *code);
        }
        assert_eq!(ErrorCode::from_wire("of_tomorrow"), ErrorCode::Other);
    }
}
