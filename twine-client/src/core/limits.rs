//! Times and bounds of the core, in milliseconds where they are times.

/// How long the cookie fetch may take before the socket is opened without it.
pub const COOKIE_WAIT: u64 = 3_000;
/// How often the cookie is renewed while connected: it slides, and lives for 24 h.
pub const COOKIE_EVERY: u64 = 6 * 60 * 60 * 1_000;
/// How long a socket may take to open and the hub to answer `connect`.
pub const CONNECT_WAIT: u64 = 15_000;
/// A socket that has been opening for this long is replaced when the network may be back.
pub const WAKE_PATIENCE: u64 = 2_000;
/// How long the hub may take to answer `subscribe` or `unsubscribe` before the connection counts as
/// broken. Long, for a hub that thousands return to at once answers late.
pub const REQUEST_WAIT: u64 = 30_000;
/// Silence beyond the hub's heartbeat after which the connection is replaced.
pub const SILENCE: u64 = 10_000;
/// The first retry comes within this time; the bound doubles with each further one.
pub const RETRY_FIRST: u64 = 1_000;
/// No retry waits longer, unless the hub asks for it.
pub const RETRY_MAX: u64 = 30_000;
/// The longest wait that a hub can ask for.
pub const RETRY_HINT_MAX: u64 = 300_000;
/// A connection that held for this long was stable: the waiting times start anew.
pub const STABLE: u64 = 10_000;
/// How long an unsettled callback holds its room's acknowledged cursor back.
pub const SETTLE_WAIT: u64 = 30_000;
/// Cursors are acknowledged when none has moved for this long.
pub const ACK_QUIET: u64 = 1_000;
/// Cursors are acknowledged at least this often while they move.
pub const ACK_EVERY: u64 = 5_000;

/// Cursors that one `pong` names at most: with the longest names it stays below a hub's default for
/// the size of a frame.
pub const ACK_ROOMS: usize = 100;
/// Rooms a client may hold.
pub const ROOMS_MAX: usize = 10_000;
/// Calls of the app that may wait for an answer.
pub const CALLS_MAX: usize = 10_000;
/// Unsettled callbacks a room may have before the oldest stops holding the cursor back.
pub const UNSETTLED_MAX: usize = 1_024;
/// Times in a row that a room may be asked for anew, without any progress, before the connection
/// is replaced: what the hub sends there does not fit what it answers.
pub const SETBACKS_MAX: u32 = 4;
