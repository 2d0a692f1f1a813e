//! The hub is killed while everyone publishes and reads.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hub::Hub;
use crate::ledger::{Ledger, ROOMS, is_dense, places, write};
use crate::network::Network;
use crate::publishers::{Signals, give_up_easily, insist};
use crate::readers::{Progress, Sequence, Slow, Staying, Surroundings, come_and_go};

/// How often the hub is killed, where nothing else is asked for.
const ROUNDS: u32 = 20;
/// So late that only what hangs is not done by then, on whatever machine.
const PATIENCE: Duration = Duration::from_mins(20);
const N_INSISTENT: usize = 4;
const N_WEAK: usize = 2;

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

#[tokio::test]
async fn what_was_acknowledged_reaches_everyone_once_and_in_order() {
    let seed = from_environment("TWINE_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = from_environment("TWINE_TORTURE_ROUNDS").unwrap_or(ROUNDS);
    // Shown where the test fails.
    println!("TWINE_TORTURE_SEED={seed} TWINE_TORTURE_ROUNDS={rounds} draws the same again");
    let torture = torture(fastrand::Rng::with_seed(seed), rounds);
    tokio::time::timeout(PATIENCE, torture).await.expect("something happens, and comes to an end");
}

async fn torture(mut draw: fastrand::Rng, rounds: u32) {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let network = Network::unsteady(hub.address(), draw.fork());
    let ledger = Ledger::new();
    let (say_up, is_up) = watch::channel(true);
    let (say_over, is_over) = watch::channel(false);
    let (say_last, last) = watch::channel(None);
    let surroundings =
        Surroundings { is_up: is_up.clone(), ledger: ledger.clone(), progress: Progress::default(), last };

    // They are there before the first message, and so have to get all.
    let mut readers = JoinSet::new();
    for (name, url) in
        [("staying", hub.url()), ("staying", hub.url()), ("cut", network.url()), ("cut", network.url())]
    {
        readers.spawn(Staying::subscribe(name, &url, surroundings.clone()).await.read());
    }
    for room in ROOMS {
        for url in [hub.url(), network.url()] {
            readers.spawn(come_and_go(url, room, draw.fork(), surroundings.clone()));
        }
        readers.spawn(Slow::subscribe(&network.url(), room, surroundings.clone()).await.read());
    }

    let mut publishers = JoinSet::new();
    let signals = Signals { is_up, is_over, progress: surroundings.progress.clone() };
    for publisher in 0..N_INSISTENT + N_WEAK {
        let (twine, ledger, draw, signals) = (hub.twine(), ledger.clone(), draw.fork(), signals.clone());
        if publisher < N_INSISTENT {
            publishers.spawn(insist(publisher, twine, ledger, draw, signals));
        } else {
            publishers.spawn(give_up_easily(publisher, twine, ledger, draw, signals));
        }
    }

    let kills = async {
        for _ in 0..rounds {
            ledger.until_more(draw.usize(..200)).await;
            if draw.bool() {
                surroundings.progress.until(&ledger.heads()).await;
            }
            say_up.send_replace(false);
            hub.kill();
            while draw.u8(..) < 64 {
                // Somewhere in its start. Nobody waits for this time; it is drawn like everything else.
                let listening = hub.spawn();
                let _ = tokio::time::timeout(Duration::from_millis(draw.u64(..60)), listening).await;
                hub.kill();
            }
            hub.start().await;
            say_up.send_replace(true);
        }
    };
    tokio::select! {
        () = kills => {}
        early = readers.join_next() => panic!("a reader ended: {early:?}"),
        early = publishers.join_next() => panic!("a publisher ended: {early:?}"),
    }

    say_over.send_replace(true);
    publishers.join_all().await;
    network.heal();
    let twine = hub.twine().build().unwrap();
    let mut numbers = [0; ROOMS.len()];
    for (room, number) in ROOMS.into_iter().zip(&mut numbers) {
        *number = ledger.begin(N_INSISTENT + N_WEAK, room);
    }
    say_last.send_replace(Some(numbers));
    for (room, number) in ROOMS.into_iter().zip(numbers) {
        ledger.acknowledge(number, &twine.publish(room, &write(number)).await.unwrap());
    }
    let sequences: Vec<Sequence> = readers.join_all().await.into_iter().flatten().collect();

    println!("{}", ledger.summary());
    for room in ROOMS {
        let log = places(hub.history(room).await);
        is_dense(&log);
        ledger.check(room, &log);
        for sequence in sequences.iter().filter(|sequence| sequence.room == room) {
            sequence.check(&log);
        }
    }
    hub.end();
}
