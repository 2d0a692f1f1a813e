//! What a scenario says.

use crate::faulty_proxy::Fault as Trouble;

/// Who takes part in a fleet, what happens to them, and what may come of it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The role of each hub.
    pub(crate) roles: &'static [&'static str],
    pub(crate) redis: Layout,
    /// What happens, one after the other; each time under load, and until it was felt.
    pub(crate) events: &'static [Event],
    pub(crate) losses: Losses,
}

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One server that keeps nothing on its disk.
    Alone,
    /// A master, a replica, and a sentinel that decides which is which.
    Sentinel,
    /// Three masters that share the rooms.
    Cluster,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// One of the hubs is killed amid its work, and later started again.
    KillHub,
    /// Each hub is asked to stop, and started again, while the others go on.
    RestartHubs,
    /// `FLUSHALL`.
    FlushRedis,
    /// Redis is killed, and starts with nothing once publishes were refused.
    RestartRedis,
    /// Redis stops (`SIGSTOP`) and keeps its connections, until publishes were refused.
    PauseRedis,
    /// The master is killed for good.
    KillMaster,
    /// All requests to the table go wrong, until publishes were refused.
    Table(Trouble),
}

/// What subscribers may be told that they can't get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Losses {
    Never,
    /// Places that were given out, for which no publisher was told that its message is stored.
    OfWhatWasNotAcknowledged,
}
