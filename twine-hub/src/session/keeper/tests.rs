//! The rules of sessions, each on both stores.

mod bounds;
mod claims;
mod failures;
mod keeping;

use std::time::Duration;

use twine_protocol::{InstanceId, SessionId};

use super::desk::{Desk, START, Told, claim, cookie, options, rooms};
use super::faults::{Faults, FaultyStore};
use crate::session::store;
use crate::session::{Attached, Claim, Cursors, How, Lost, Options};
use crate::store::Kind;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

fn on_each(test: impl Fn(&mut Desk)) {
    Desk::on_each(&options(), test);
}

#[track_caller]
fn assert_is(attached: &Attached, how: How, session: &SessionId, of: &Cursors) {
    assert_eq!((attached.how, &attached.session, &attached.rooms), (how, session, of));
}
