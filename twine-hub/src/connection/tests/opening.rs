//! Rooms that are not in memory yet.

use super::by_hand::ByHand;

#[test]
fn who_asks_again_and_again_for_a_room_that_is_being_opened_waits_for_it() {
    const ASKED: usize = 200;
    let mut hub = ByHand::new(usize::MAX);
    let mut client = hub.connected(1);
    for id in 0..ASKED {
        client.say(&format!(r#"{{"type":"subscribe","id":{id},"room":"slow"}}"#));
        client.say(&format!(r#"{{"type":"unsubscribe","id":{id},"room":"slow"}}"#));
    }
    let mut answered = 0;
    for _ in 0..1_000 {
        hub.shard.turn();
        answered += std::iter::from_fn(|| client.poll()).count();
        std::thread::yield_now();
    }
    assert!(answered < ASKED, "{answered} answers to what is not done yet");
    while answered < 2 * ASKED {
        hub.work();
        answered += std::iter::from_fn(|| client.poll()).count();
        std::thread::yield_now();
    }
}
