//! Carries a scenario out, and counts.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dynamodb_local::DynamoDbLocal;
use crate::events::BETWEEN;
use crate::faulty_proxy::FaultyProxy;
use crate::history::History;
use crate::ledger::{ROOMS, places};
use crate::members::Fleet;
use crate::publishers::Load;
use crate::readers::{Manners, Outages, Staying, wander};
use crate::scenario::{Event, Scenario};
use crate::scenarios::{self, torture_time};
use crate::{namespaces, random};

/// So late that only what hangs is not done by then, on whatever machine; of one event.
const PATIENCE: Duration = Duration::from_mins(3);
const N_INSISTENT: usize = 8;
/// Clients of each room that stay, where all come through the balancer.
const N_STAYING: usize = 6;
/// A publisher that is not told within this that it has failed would think of a hub that hangs.
const LONGEST_REFUSAL: Duration = Duration::from_secs(15);
/// A client whose hub is restarted behind a balancer is served again within a second or two; within
/// this also on a machine that has too much to do.
const LONGEST_OUTAGE: Duration = Duration::from_secs(10);

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// Carries scenarios out, one after the other.
pub(crate) async fn run(scenarios: &[Scenario]) {
    let seed = from_environment("TWINE_FLEET_SEED").unwrap_or_else(|| fastrand::u64(..));
    run_with(seed, scenarios).await;
}

/// Carries all scenarios out and then random ones, for as long as the environment says.
pub(crate) async fn torture() {
    let time = torture_time().expect("TWINE_FLEET_MINUTES says for how long");
    let begun = Instant::now();
    let mut draw =
        fastrand::Rng::with_seed(from_environment("TWINE_FLEET_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let mut known = scenarios::all();
    if namespaces::is_within() {
        known.extend(scenarios::packets_are_lost());
    }
    let mut known = known.into_iter();
    let mut n = 0;
    while begun.elapsed() < time {
        let scenario = known.next().unwrap_or_else(|| random::scenario(&mut draw, namespaces::is_within()));
        run_with(draw.u64(..), &[scenario]).await;
        n += 1;
    }
    println!("{n} scenarios in {:.0?}", begun.elapsed());
}

async fn run_with(seed: u64, scenarios: &[Scenario]) {
    let rounds: u32 = from_environment("TWINE_FLEET_ROUNDS").unwrap_or(1);
    let dynamodb = tokio::task::spawn_blocking(DynamoDbLocal::start).await.unwrap();
    for (n, scenario) in scenarios.iter().enumerate() {
        println!("{}", scenario.name);
        // Shown where the test fails.
        println!(
            "  again: TWINE_FLEET_SEED={seed} TWINE_FLEET_ROUNDS={rounds} TWINE_FLEET_SCENARIO='{}' \
            cargo test -p twine-hub --test fleet replay -- --ignored --nocapture",
            scenario.text()
        );
        let begun = Instant::now();
        let table = FaultyProxy::start(dynamodb.port()).await;
        let mut fleet = Fleet::start(scenario, n, table).await;
        let carried_out = fleet.carry_out(scenario, fastrand::Rng::with_seed(seed), rounds);
        let n_events = u32::try_from(scenario.events.len()).unwrap() * rounds;
        let patience = PATIENCE * (n_events + 1);
        tokio::time::timeout(patience, carried_out).await.expect("all are current again");
        println!("  it took {:.0?}", begun.elapsed());
    }
}

impl Fleet {
    async fn carry_out(&mut self, scenario: &Scenario, mut draw: fastrand::Rng, rounds: u32) {
        let (say_over, is_over) = watch::channel(false);
        let load = Load::new(&self.urls_without("edge"), scenario.balanced, is_over);

        // They are there before the first message, and so have to get all.
        let mut readers = JoinSet::new();
        let mut ends = Vec::new();
        let mut urls = self.urls_without("publish");
        let (manners, n_staying) =
            if scenario.balanced { (Manners::Patient, N_STAYING) } else { (Manners::Hurried, urls.len()) };
        for room in ROOMS {
            let (say_last, last) = watch::channel(None);
            for url in urls.iter().cycle().take(n_staying) {
                readers.spawn(Staying::subscribe(url, room, manners).await.read(last.clone()));
            }
            readers.spawn(wander(urls.clone(), room, draw.fork(), last));
            urls.rotate_left(1);
            ends.push(say_last);
        }
        let mut publishers = JoinSet::new();
        for by in 0..N_INSISTENT {
            publishers.spawn(load.clone().insist(by, draw.fork()));
        }
        publishers.spawn(load.clone().give_up_easily(draw.fork()));

        let events = async {
            for event in (0..rounds).flat_map(|_| &scenario.events) {
                load.ledger.until_more(draw.usize(..BETWEEN)).await;
                let begun = Instant::now();
                self.happen(*event, &load, &mut draw).await;
                load.ledger.until_more(1).await;
                println!("  {event:?}: over after {:.1?}", begun.elapsed());
            }
        };
        tokio::select! {
            () = events => {}
            early = readers.join_next() => panic!("a reader ended: {early:?}"),
            early = publishers.join_next() => panic!("a publisher ended: {early:?}"),
        }
        say_over.send_replace(true);
        publishers.join_all().await;
        for (at, (room, last)) in ROOMS.into_iter().zip(ends).enumerate() {
            let number = load.ledger.begin(N_INSISTENT, room);
            last.send_replace(Some(number));
            load.finish(number, room, at).await;
        }
        let read = readers.join_all().await;

        println!(
            "  {}; {} refusals, none later than after {:.1?}",
            load.ledger.summary(),
            load.refused(),
            load.longest_refusal()
        );
        assert!(load.longest_refusal() < LONGEST_REFUSAL, "{:?}", load.longest_refusal());
        check_outages(scenario, read.iter().map(|(_, outages)| *outages));
        for room in ROOMS {
            let log = places(self.members[0].hub.history(room).await);
            load.ledger.check(room, &log);
            for member in &self.members[1..] {
                assert_eq!(places(member.hub.history(room).await), log, "hubs differ about {room}");
            }
            for (history, _) in read.iter().filter(|(history, _)| history.room == room) {
                let History { reader, .. } = history;
                history
                    .check(&log, scenario.losses)
                    .unwrap_or_else(|wrong| panic!("{reader} reader of {room}: {wrong}\n{history:?}"));
            }
        }
    }
}

/// Clients lose their connections to hubs that end, and to no others.
fn check_outages(scenario: &Scenario, outages: impl Iterator<Item = Outages>) {
    let Outages { n, longest_alone, longest, .. } = outages.fold(Outages::default(), Outages::and);
    println!(
        "  {n} lost connections, none for longer than {longest_alone:.1?}, or without a message for longer \
         than {longest:.1?}"
    );
    let may_be_lost = scenario.events.iter().copied().any(Event::ends_hubs);
    assert!(n == 0 || may_be_lost, "clients lost their hubs {n} times");
    assert!(longest < LONGEST_OUTAGE || !scenario.balanced, "a client waited for {longest:?}");
}
