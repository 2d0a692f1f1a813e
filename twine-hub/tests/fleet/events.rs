//! What happens to a fleet.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::faulty_proxy::Fault as Trouble;
use crate::members::{Fleet, PATIENCE, PAUSE};
use crate::namespaces::Network;
use crate::publishers::Load;
use crate::scenario::{BackEnd, Event, Hubs, PacketFault};
use crate::wire::Fault;

/// Acknowledgements before something happens, at most.
pub(crate) const BETWEEN: usize = 200;
/// Acknowledgements that show that it goes on, however slowly.
const SOME: usize = 5;
/// Answers of the table that come later than this come too late for hubs.
const TOO_SLOW: u64 = 2_000;

impl Fleet {
    /// Lets it happen, and returns once it was felt, is over, and all hubs are ready again.
    pub(crate) async fn happen(&mut self, event: Event, load: &Load, draw: &mut fastrand::Rng) {
        match event {
            Event::KillHub => self.kill_one(load, draw).await,
            Event::RestartHubs => {
                for at in 0..self.members.len() {
                    self.members[at].hub.stop().await;
                    load.ledger.until_more(1).await;
                    self.members[at].hub.start().await;
                    self.until_ready(at).await;
                    self.until_balanced(at).await;
                }
            }
            Event::FlushRedis => tokio::task::block_in_place(|| self.redis.flush()),
            Event::SaveRedis => tokio::task::block_in_place(|| self.redis.save()),
            Event::RestartRedis => {
                self.redis.kill();
                self.until_felt(load).await;
                tokio::task::block_in_place(|| self.redis.restart());
            }
            Event::PauseRedis => {
                self.redis.pause();
                self.until_felt(load).await;
                self.redis.resume();
            }
            // Nothing takes a second master's place.
            Event::KillMaster
            | Event::KillMasterAheadOfReplica
            | Event::SupersedeMaster
            | Event::SplitMasters { .. }
                if !self.redis.can_fail_over() =>
            {
                println!("  {event:?}: left out, for there is no replica that could take over");
            }
            Event::KillMaster => {
                self.redis.kill();
                tokio::task::block_in_place(|| self.redis.until_succeeded());
            }
            Event::KillMasterAheadOfReplica => {
                tokio::task::block_in_place(|| self.redis.cut_replica());
                load.ledger.until_more(draw.usize(1..BETWEEN)).await;
                self.redis.kill();
                tokio::task::block_in_place(|| self.redis.until_succeeded());
            }
            Event::SupersedeMaster => {
                self.redis.pause();
                tokio::task::block_in_place(|| self.redis.until_succeeded());
                load.ledger.until_more(1).await;
                tokio::task::block_in_place(|| self.redis.resume_superseded());
            }
            Event::SplitMasters { seconds } => {
                let until = Instant::now() + Duration::from_secs(seconds);
                let unaware = self.draw(Hubs::One, draw);
                self.suffer(&unaware, BackEnd::Redis, Some(Fault::Refuse));
                tokio::task::block_in_place(|| self.redis.split());
                load.ledger.until_more(BETWEEN / 4).await;
                // Some of them by the hub that does not know, at the old master.
                self.until_published(unaware[0]).await;
                sleep_until(until).await;
                self.suffer(&unaware, BackEnd::Redis, None);
                load.ledger.until_more(SOME).await;
                self.redis.end_old_master();
            }
            Event::Table(trouble) => {
                self.table.then(Some(trouble));
                match trouble {
                    Trouble::Slow { millis: ..TOO_SLOW } => load.ledger.until_more(SOME).await,
                    _ => self.until_felt(load).await,
                }
                self.table.then(None);
            }
            Event::Between { hubs, and, fault, seconds } => {
                let until = Instant::now() + Duration::from_secs(seconds);
                let suffering = self.draw(hubs, draw);
                self.suffer(&suffering, and, Some(fault));
                let is_total = !matches!(fault, Fault::Slow { .. } | Fault::Narrow { .. });
                self.until_felt_by(&suffering, is_total, load).await;
                sleep_until(until).await;
                self.suffer(&suffering, and, None);
            }
            Event::Packets { hubs, fault, seconds } => {
                let until = Instant::now() + Duration::from_secs(seconds);
                let port = self.redis.port().expect("a Redis of one server");
                let suffering = self.draw(hubs, draw);
                let networks = || suffering.iter().map(|&at| self.members[at].network.as_ref().unwrap());
                networks().for_each(|network| network.suffer(fault, port));
                let is_total = !matches!(fault, PacketFault::Loss { .. } | PacketFault::Rate { .. });
                self.until_felt_by(&suffering, is_total, load).await;
                let give_up = Instant::now() + PATIENCE;
                while !networks().all(Network::has_suffered) {
                    assert!(Instant::now() < give_up, "{fault:?} does nothing");
                    // Nobody announces it.
                    sleep(PAUSE).await;
                }
                sleep_until(until).await;
                networks().for_each(Network::heal);
            }
        }
        for at in 0..self.members.len() {
            self.until_ready(at).await;
        }
    }

    async fn kill_one(&mut self, load: &Load, draw: &mut fastrand::Rng) {
        let at = draw.usize(..self.members.len());
        self.members[at].hub.kill();
        if self.members.iter().enumerate().any(|(other, member)| other != at && member.role != "edge") {
            load.ledger.until_more(draw.usize(..BETWEEN)).await;
        }
        self.members[at].hub.start().await;
        self.until_ready(at).await;
        self.until_balanced(at).await;
    }

    /// Returns when a hub has stored some more messages.
    async fn until_published(&self, at: usize) {
        let published = || self.members[at].hub.metric("twine_messages_published_total");
        let (before, give_up) = (published().await, Instant::now() + PATIENCE);
        while published().await < before + 3 {
            assert!(Instant::now() < give_up, "hub {at} stores nothing");
            // Nobody announces it.
            sleep(PAUSE).await;
        }
    }

    /// To whom it happens.
    fn draw(&self, hubs: Hubs, draw: &mut fastrand::Rng) -> Vec<usize> {
        match hubs {
            Hubs::One => vec![draw.usize(..self.members.len())],
            Hubs::All => (0..self.members.len()).collect(),
        }
    }

    fn suffer(&self, hubs: &[usize], to: BackEnd, fault: Option<Fault>) {
        for &at in hubs {
            self.members[at].wire(to).suffer(fault);
        }
    }

    /// Returns when publishes were refused, and every hub says that it takes no work.
    async fn until_felt(&self, load: &Load) {
        load.until_refused(1).await;
        for at in 0..self.members.len() {
            self.until_not_ready(at).await;
        }
    }

    /// Returns when each of these hubs says that it takes no work, and refuses publishes, while the
    /// others go on. What does not cut them off is felt when some publishes have come through.
    async fn until_felt_by(&self, hubs: &[usize], is_total: bool, load: &Load) {
        if !is_total {
            return load.ledger.until_more(SOME).await;
        }
        for &at in hubs {
            let member = &self.members[at];
            self.until_not_ready(at).await;
            if member.role != "edge" {
                load.until_refused_at(&member.hub.url()).await;
            }
        }
        let is_other = |at: usize| !hubs.contains(&at) && self.members[at].role != "edge";
        if (0..self.members.len()).any(is_other) {
            load.ledger.until_more(SOME).await;
        }
    }
}
