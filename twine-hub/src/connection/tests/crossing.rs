//! A room goes on in a new epoch while it is watched, at whatever moment.
//!
//! The second epoch is a real one: the database is opened once more.

use super::by_hand::{ByHand, Visitor, subscribe};
use super::*;
use crate::rounds::Rounds as _;

#[test]
fn who_is_live_gets_the_rest_of_the_epoch_the_crossing_and_what_is_new_without_a_seam() {
    for tail_bytes in [usize::MAX, 0] {
        let mut hub = ByHand::new(tail_bytes);
        let mut clients = [hub.live(1), hub.live(2)];
        hub.publish("1");
        for client in &mut clients {
            client.gets(&mut hub, &["1"]);
        }
        // The shard has not come to send it.
        let last = hub.publish("2");
        let epoch = hub.cross();
        let first = hub.publish("3");
        assert_eq!(first, Position { epoch: epoch.clone(), offset: last.offset.min(first.offset) });
        for client in &mut clients {
            client.gets(&mut hub, &["2"]);
            let Frame::Epoch(crossing) = client.next(&mut hub) else { panic!("no crossing") };
            assert_eq!((&crossing.epoch, &crossing.prev), (&epoch, &last));
            client.gets(&mut hub, &["3"]);
        }
        hub.publish("4");
        // Another, and one before anything was published after that.
        hub.cross();
        hub.work();
        hub.cross();
        hub.publish("5");
        for client in &mut clients {
            client.gets(&mut hub, &["4", "over 2", "over 0", "5"]);
        }
    }
}

#[test]
fn who_is_behind_gets_what_it_misses_of_either_epoch() {
    let mut hub = ByHand::new(0);
    let all: Vec<_> = (1..=1_500).map(|n| n.to_string()).collect();
    let first = hub.publish_all(&all);
    let mut client = hub.subscriber(Some(&first));
    // It has one page, of the end that the room had then, and asks for the next.
    let subscribed = client.subscribed(&mut hub);
    assert_eq!((subscribed.head.offset.get(), subscribed.recovered), (1_500, Some(true)));
    hub.cross();
    hub.publish("1501");
    client.gets(&mut hub, &all[1..].iter().map(String::as_str).collect::<Vec<_>>());
    client.gets(&mut hub, &["over 1500", "1501"]);
}

/// How far the hub is with a subscribe when the room crosses: in turns.
#[test]
fn a_subscription_that_begins_at_a_crossing_misses_nothing() {
    for turns in 0..6 {
        let mut hub = ByHand::new(usize::MAX);
        let first = hub.publish("1");
        hub.publish("2");
        let mut fresh = hub.subscriber(None);
        let mut back = hub.subscriber(Some(&first));
        for turn in 0..turns {
            if turn % 2 == 0 {
                hub.shard.turn();
            } else {
                hub.committer.round();
            }
        }
        hub.cross();
        // Before the shard has seen the crossing, somebody comes from one that has.
        let latest = hub.publish("3");
        let mut ahead = hub.subscriber(Some(&latest));
        let subscribed = back.subscribed(&mut hub);
        assert_eq!(
            (&subscribed.epoch, subscribed.offset, subscribed.recovered),
            (&first.epoch, first.offset, Some(true))
        );
        back.gets(&mut hub, &["2", "over 2", "3"]);
        let subscribed = fresh.subscribed(&mut hub);
        if subscribed.epoch == first.epoch {
            assert_eq!(subscribed.offset.get(), 2);
            fresh.gets(&mut hub, &["over 2", "3"]);
        } else {
            assert_eq!((subscribed.epoch, subscribed.offset), (latest.epoch.clone(), latest.offset));
        }
        let subscribed = ahead.subscribed(&mut hub);
        assert_eq!((&subscribed.epoch, subscribed.offset), (&latest.epoch, latest.offset));
        assert_eq!(subscribed.recovered, Some(true), "{turns}");
        hub.publish("4");
        for client in [&mut fresh, &mut back, &mut ahead] {
            client.gets(&mut hub, &["4"]);
        }
    }
}

#[test]
fn a_session_goes_on_in_the_epoch_that_its_page_has_acknowledged() {
    for is_acknowledged in [false, true] {
        let mut hub = ByHand::new(usize::MAX);
        let mut client = hub.live(1);
        let old = hub.publish("1");
        client.gets(&mut hub, &["1"]);
        let acknowledge = |client: &mut Visitor, Position { epoch, offset }: &Position| {
            client.say(&format!(
                r#"{{"type":"pong","cursors":{{"chat":{{"epoch":"{epoch}","offset":{offset}}}}}}}"#
            ));
        };
        acknowledge(&mut client, &old);
        hub.cross();
        let new = hub.publish("2");
        client.gets(&mut hub, &["over 1", "2"]);
        if is_acknowledged {
            acknowledge(&mut client, &new);
        }
        // What was said is heard before what is answered.
        client.say(r#"{"type":"unsubscribe","id":2,"room":"none"}"#);
        assert!(matches!(client.next(&mut hub), Frame::Error(_)));
        drop(client);
        while hub.telemetry.connections.get() > 0 {
            hub.work();
        }
        let mut again = hub.connected(1);
        again.say(&subscribe(None));
        let subscribed = again.subscribed(&mut hub);
        let held = if is_acknowledged { &new } else { &old };
        assert_eq!((&subscribed.epoch, subscribed.offset), (&held.epoch, held.offset));
        hub.publish("3");
        let missed: &[&str] = if is_acknowledged { &["3"] } else { &["over 1", "2", "3"] };
        again.gets(&mut hub, missed);
    }
}

#[test]
fn a_cursor_later_than_the_head_is_unknown_only_once_the_room_was_refreshed() {
    let mut hub = ByHand::new(usize::MAX);
    let first = hub.publish("1");
    let second = Position { offset: first.offset.next(), ..first.clone() };
    for comes in [true, false] {
        let mut client = hub.subscriber(Some(&second));
        // It asks for the room, and for its refresh; that this is done it has not heard.
        hub.shard.hear();
        hub.shard.hear();
        if comes {
            assert_eq!(hub.publish("2"), second);
        }
        let subscribed = client.subscribed(&mut hub);
        assert_eq!((subscribed.recovered, &subscribed.offset), (Some(true), &second.offset));
    }
    let mut client = hub.subscriber(Some(&Position { offset: second.offset.next(), ..second.clone() }));
    let subscribed = client.subscribed(&mut hub);
    assert_eq!((subscribed.recovered, subscribed.reason), (Some(false), Some(GapReason::Unknown)));
    assert_eq!(subscribed.offset, second.offset);
}
