//! Scenarios that nobody thought of.

use crate::faulty_proxy::Fault as Trouble;
use crate::scenario::{BackEnd, Event, Hubs, Layout, Losses, PacketFault, Scenario, roles};
use crate::wire::Fault;

/// The longest fault whose end is not waited for otherwise, in seconds.
const LONGEST: u64 = 15;

/// Draws a scenario; one with networks of its own only where there may be some.
pub(crate) fn scenario(draw: &mut fastrand::Rng, may_be_apart: bool) -> Scenario {
    let redis = pick(
        draw,
        &[
            Layout::Alone,
            Layout::Alone,
            Layout::Durable,
            Layout::Sentinel,
            Layout::Cluster,
            Layout::ClusterWithReplica,
        ],
    );
    let is_one = matches!(redis, Layout::Alone | Layout::Durable);
    let apart = may_be_apart && is_one && draw.u8(..4) == 0;
    let balanced = !apart && draw.u8(..4) == 0;
    let of_one_role = [&["all", "all"][..], &["all", "all", "all"]];
    let of_any =
        [&["publish", "edge", "edge"][..], &["publish", "publish", "edge"], &["all", "publish", "edge"]];
    let roles = roles(if balanced || draw.bool() { pick(draw, &of_one_role) } else { pick(draw, &of_any) });
    let wrong = |draw: &mut fastrand::Rng| pick(draw, &[-300, -60, 0, 60, 300]);
    let clocks = if draw.u8(..4) == 0 { roles.iter().map(|_| wrong(draw)).collect() } else { Vec::new() };
    let mut events: Vec<_> = (0..draw.usize(2..7)).map(|_| event(draw, redis, apart)).collect();
    if matches!(redis, Layout::Sentinel | Layout::ClusterWithReplica) {
        // Once is all that it can bear, at any time.
        let split = Event::SplitMasters { seconds: draw.u64(..LONGEST) };
        let once = [Event::KillMaster, Event::KillMasterAheadOfReplica, Event::SupersedeMaster, split];
        // Only sentinels can be told so.
        let once = if redis == Layout::Sentinel { &once[..] } else { &once[..3] };
        events.insert(draw.usize(..=events.len()), pick(draw, once));
    }
    let is_lossy = events.iter().any(|event| event.loses_redis());
    let losses = if is_lossy { Losses::OfWhatWasNotAcknowledged } else { Losses::Never };
    Scenario { name: "a random one".to_owned(), roles, clocks, redis, balanced, apart, events, losses }
}

fn event(draw: &mut fastrand::Rng, redis: Layout, apart: bool) -> Event {
    let has_replica = matches!(redis, Layout::Sentinel | Layout::ClusterWithReplica);
    let is_one = matches!(redis, Layout::Alone | Layout::Durable);
    loop {
        let hubs = pick(draw, &[Hubs::One, Hubs::One, Hubs::All]);
        let seconds = draw.u64(..LONGEST);
        return match draw.u8(..9) {
            0 => Event::KillHub,
            1 => Event::RestartHubs,
            2 => Event::FlushRedis,
            3 => Event::SaveRedis,
            // Its replica would take its place, or not, as it happens.
            4 | 5 if has_replica => continue,
            4 => Event::RestartRedis,
            5 => Event::PauseRedis,
            6 => Event::Table(trouble(draw)),
            7 if is_one && apart => Event::Packets { hubs, fault: packets(draw), seconds },
            7 if is_one => Event::Between { hubs, and: BackEnd::Redis, fault: fault(draw), seconds },
            7 => continue,
            _ => Event::Between { hubs, and: BackEnd::Table, fault: fault(draw), seconds },
        };
    }
}

fn trouble(draw: &mut fastrand::Rng) -> Trouble {
    let slow = Trouble::Slow { millis: draw.u64(..6_000) };
    pick(draw, &[Trouble::Throttle, Trouble::Error, Trouble::Cut, Trouble::LoseAnswer, Trouble::Hang, slow])
}

fn fault(draw: &mut fastrand::Rng) -> Fault {
    let slow = Fault::Slow { millis: draw.u64(..500) };
    let narrow = Fault::Narrow { bytes: draw.u64(200_000..1_000_000) };
    pick(draw, &[Fault::Stall, Fault::Stall, Fault::Cut, Fault::Refuse, Fault::HalfClose, slow, narrow])
}

fn packets(draw: &mut fastrand::Rng) -> PacketFault {
    let loss = PacketFault::Loss { percent: draw.u8(1..25) };
    let rate = PacketFault::Rate { kbit: draw.u32(2_000..10_000) };
    pick(draw, &[PacketFault::Partition, PacketFault::Unheard, PacketFault::Deaf, loss, rate])
}

fn pick<T: Copy>(draw: &mut fastrand::Rng, of: &[T]) -> T {
    of[draw.usize(..of.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_scenario_again_and_its_text_says_it_all() {
        for seed in 0..1_000 {
            let drawn = |may| scenario(&mut fastrand::Rng::with_seed(seed), may);
            assert_eq!(drawn(true), drawn(true));
            assert_eq!(Scenario::read(&drawn(true).text()), drawn(true));
            assert!(!drawn(false).apart);
        }
    }
}
