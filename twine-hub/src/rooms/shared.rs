//! One read for many: pages that subscriptions coming back at the same time have in common.
//!
//! After a restart thousands of clients ask for nearly the same run of a room. While requests wait,
//! the pages just read are kept; whoever's cursor lies in one of them is served from it, with
//! frames that were encoded once. A log never changes behind its head, so a page is never wrong,
//! and it is forgotten as soon as nobody waits.

use std::collections::VecDeque;
use std::sync::Arc;

use twine_protocol::{Position, RoomName};

use super::reading::{PageRequest, Step, Steps};
use crate::store::page::Start;

/// Pages kept at most, each of at most what one subscription asks for at once.
const PAGES: usize = 8;

/// The pages read last.
#[derive(Default)]
pub(super) struct SharedPages(VecDeque<Page>);

struct Page {
    room: RoomName,
    /// The cursor that the steps come after.
    start: Position,
    /// The end that was asked for.
    until: Position,
    /// Whether a recovery began with it: from `start` to `until` is no more than that may bring.
    is_bounded: bool,
    steps: Arc<[Step]>,
}

impl SharedPages {
    /// What a request asks for, where a page has it.
    pub(super) fn find(&self, request: &PageRequest) -> Option<Steps> {
        let Start::After(start) = &request.start else { return None };
        self.0.iter().filter(|page| page.room == request.room).find_map(|page| page.after(start, request))
    }

    /// Keeps a page for those who ask next.
    pub(super) fn keep(&mut self, request: PageRequest, steps: &Steps) {
        if steps.page.is_empty() {
            return;
        }
        if self.0.len() == PAGES {
            self.0.pop_front();
        }
        let PageRequest { room, start: asked, until, recovery, .. } = request;
        // History is bounded by what was asked for, not by what may be recovered.
        let is_bounded = recovery.is_some() && matches!(asked, Start::After(_));
        let (start, steps) = (steps.start.clone(), steps.page.clone());
        self.0.push_back(Page { room, start, until, is_bounded, steps });
    }

    /// Forgets all pages: nobody waits for one.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Page {
    fn after(&self, start: &Position, request: &PageRequest) -> Option<Steps> {
        if request.recovery.is_some() && !(self.is_bounded && request.until <= self.until) {
            return None;
        }
        let from = if *start == self.start {
            0
        } else {
            // The cursors of a page ascend.
            self.steps.binary_search_by(|step| step.cursor.cmp(start)).ok()? + 1
        };
        let to = self.steps.partition_point(|step| step.cursor <= request.until);
        // One that brings nothing would be asked for again.
        (from < to).then(|| Steps {
            start: start.clone(),
            loss: None,
            page: self.steps.clone(),
            range: from..to,
        })
    }
}
