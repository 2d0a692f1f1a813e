//! A deterministic simulation of the hub and its clients.
//!
//! The parts are the ones that ship: the client's core; connections, rooms, committer, reader and
//! keeper of the hub; `SQLite`. They run on one thread, and a seeded scheduler decides who does the
//! next step ([`world`]). What it can't decide is taken from them: time ([`crate::clock`]), the
//! network ([`network`]), the moment of death ([`machine`]). An oracle knows what is true ([`log`]) and
//! holds every page's listeners against it ([`oracle`]).
//!
//! A crash is what `kill -9` leaves: a copy of the files as they are at some call of a store. What
//! the hub does after that, up to the end of its step, counts for nobody.
//!
//! `TWINE_SIM_SEED=7` replays one seed and says all that happens; `TWINE_SIM_SEEDS=100000` runs so
//! many.

mod faults;
mod healing;
mod hub;
mod log;
mod machine;
mod network;
mod oracle;
mod pages;
mod publisher;
mod tab;
mod world;

use world::World;

/// Steps of a world until all goes well.
const STEPS: usize = 400;
/// Worlds of each test below, where nothing else is asked for: the tests run beside each other.
const SEEDS: u64 = 500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A world from its beginning to the moment when nothing is left to come.
fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world
}

/// Every fourth seed, from `first` on.
fn live_quarter(first: u64) {
    if let Some(seed) = setting("TWINE_SIM_SEED") {
        if seed % 4 == first {
            println!("{}", live(seed).trace().join("\n"));
        }
        return;
    }
    let seeds = setting("TWINE_SIM_SEEDS").map_or(SEEDS, |seeds| seeds / 4);
    for n in 0..seeds {
        live(n * 4 + first);
    }
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice_in_worlds_0_4_8() {
    live_quarter(0);
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice_in_worlds_1_5_9() {
    live_quarter(1);
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice_in_worlds_2_6_10() {
    live_quarter(2);
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice_in_worlds_3_7_11() {
    live_quarter(3);
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..3 {
        assert_eq!(live(seed).trace(), live(seed).trace());
    }
}
