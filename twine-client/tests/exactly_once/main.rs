//! Whatever the network and the hub do, a room's callback sees each message once and in order, and
//! every loss is announced: the core against a model hub, over a network that drops, delays,
//! repeats and reorders.
//!
//! A WebSocket keeps order, so that a hub's frames can only be lost from some point on, with the
//! connection. Single messages that are lost, repeated or swapped stand for a hub whose fan-out has
//! a bug: the core promises to notice that too. (Only next to messages: `message` names no epoch,
//! so that one which wanders into another epoch can't be told from its own.)

// It draws random networks with proptest, which is not built for browsers.
#![cfg(not(target_arch = "wasm32"))]
// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

mod hub;
mod oracle;
mod world;

use proptest::prelude::*;
use world::{Mood, Step, World};

fn step() -> impl Strategy<Value = Step> {
    let room = || 0..3_usize;
    prop_oneof![
        12 => (1..20_usize).prop_map(Step::Flow),
        3 => (2..6_usize).prop_map(Step::Burst),
        3 => room().prop_map(Step::Rotate),
        8 => (room(), 1..6_usize).prop_map(|(room, n)| Step::Publish(room, n)),
        4 => (0..3_000_u64).prop_map(Step::Tick),
        1 => (0..100_000_u64).prop_map(Step::Tick),
        1 => Just(Step::Tick(7 * 60 * 60 * 1_000)),
        2 => Just(Step::Cut),
        1 => Just(Step::Stall),
        1 => (0..4_usize, any::<bool>()).prop_map(|(lost, forget)| Step::Restart { lost, forget }),
        1 => Just(Step::Drain),
        1 => (room(), 0..4_usize).prop_map(|(room, keep)| Step::Delete { room, keep }),
        1 => Just(Step::Busy),
        1 => Just(Step::Unreachable),
        2 => Just(Step::Ping),
        2 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        2 => any::<prop::sample::Index>().prop_map(Step::Swap),
        4 => any::<prop::sample::Index>().prop_map(Step::Lose),
        3 => (room(), prop::option::of(0..5_u32), prop::option::of(any::<prop::sample::Index>()))
            .prop_map(|(room, history, after)| Step::Subscribe { room, history, after }),
        1 => room().prop_map(Step::Unsubscribe),
        3 => room().prop_map(Step::Attach),
        1 => room().prop_map(Step::Detach),
        1 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Wake),
        1 => Just(Step::Settle),
        2 => Just(Step::Store),
        2 => any::<bool>().prop_map(|crash| Step::Reload { crash }),
        2 => prop_oneof![
            Just(Mood::Detach), Just(Mood::Reattach), Just(Mood::Unsubscribe), Just(Mood::Disconnect), Just(Mood::Pend)
        ].prop_map(Step::Mood),
    ]
}

/// A listener leaves while a hole behind the messages that are queued for it is being filled: rare
/// enough that single steps hardly ever meet.
fn a_hole_in_a_burst() -> impl Strategy<Value = Vec<Step>> {
    (0..3_usize, 3..6_usize, any::<prop::sample::Index>()).prop_map(|(room, n, lost)| {
        vec![
            Step::Attach(room),
            Step::Subscribe { room, history: None, after: None },
            Step::Flow(20),
            Step::Publish(room, n),
            Step::Lose(lost),
            Step::Mood(Mood::Detach),
            Step::Burst(n),
            Step::Flow(2),
            Step::Attach(room),
        ]
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = prop_oneof![40 => step().prop_map(|step| vec![step]), 1 => a_hole_in_a_burst()];
    prop::collection::vec(some, 0..300).prop_map(|steps| steps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn each_message_once_and_in_order_or_announced_as_lost(
        seed: u64,
        cookie: bool,
        steps in steps(),
    ) {
        let mut world = World::new(seed, cookie);
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
    }
}
