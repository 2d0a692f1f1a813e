//! What bounds cost.

use super::*;
use crate::telemetry;

/// How many sessions a bound has cost.
fn dropped(desk: &Desk, bound: &'static str) -> u64 {
    desk.telemetry.sessions_dropped.get_or_create(&telemetry::Bound { bound }).get()
}

#[test]
fn a_cookie_keeps_so_many_sessions() {
    Desk::on_each(&Options { max_per_cookie: 3, ..options() }, |desk| {
        let new = |n: u64| (claim(1, &n.to_string()).anew(), rooms(&[("chat", n)]));
        let stored = |n, desk: &mut Desk| {
            let (claim, rooms) = new(n);
            desk.later(SECOND);
            desk.stored(claim, rooms)
        };
        let sessions: Vec<_> = (0..3).map(|n| stored(n, desk)).collect();
        for n in [2, 1] {
            desk.later(SECOND);
            desk.detach(&sessions[n], rooms(&[("chat", 9)]));
        }
        let ids = |desk: &mut Desk| -> Vec<_> {
            desk.in_store(cookie(1)).into_iter().map(|session| session.id).collect()
        };
        // First the detached one that has waited longest, then the other, then the oldest live one.
        let fourth = stored(3, desk).session;
        assert_eq!(ids(desk), [&sessions[0].session, &sessions[1].session, &fourth].map(Clone::clone));
        let fifth = stored(4, desk).session;
        assert_eq!(ids(desk), [&sessions[0].session, &fourth, &fifth].map(Clone::clone));
        assert_eq!(desk.told(), []);
        let sixth = stored(5, desk).session;
        assert_eq!(ids(desk), [fourth, fifth, sixth]);
        assert_eq!(desk.told(), [Told::Lost(sessions[0].ticket, Lost::Forgotten)]);
        assert_eq!(dropped(desk, "cookie"), 3);
        desk.detach(&sessions[0], rooms(&[("chat", 99)]));
        assert_eq!(ids(desk).len(), 3, "it does not come back");
    });
}

#[test]
fn a_cookie_has_so_many_sessions_without_rooms() {
    Desk::on_each(&Options { max_per_cookie: 3, ..options() }, |desk| {
        let all: Vec<_> = (0..5).map(|n| desk.attach(claim(1, &n.to_string()).anew())).collect();
        let lost: Vec<_> = all[..2].iter().map(|old| Told::Lost(old.ticket, Lost::Forgotten)).collect();
        assert_eq!(desk.told(), lost);
        assert_eq!(desk.attach(claim(1, "again").naming(&all[1])).how, How::New);
    });
}

#[test]
fn a_hub_keeps_so_many_sessions() {
    Desk::on_each(&Options { max_sessions: 2, ..options() }, |desk| {
        let old = desk.detached(claim(1, "a"), rooms(&[("chat", 1)]));
        desk.stored(claim(2, "a"), rooms(&[("chat", 2)]));
        let third = desk.stored(claim(3, "a"), rooms(&[("chat", 3)]));
        assert_eq!(desk.in_store(cookie(1)), [], "the one that was detached longest went");
        assert_eq!(dropped(desk, "hub"), 1);
        // Where all are live nobody loses one, and who comes later may have more luck next time.
        let fourth = desk.stored(claim(4, "a"), rooms(&[("chat", 4)]));
        assert_eq!((desk.in_store(cookie(4)), dropped(desk, "hub")), (vec![], 1));
        desk.detach(&third, rooms(&[("chat", 3)]));
        desk.save(&fourth, rooms(&[("chat", 5)]));
        assert_eq!(desk.saved(cookie(4), &fourth.session), Some(rooms(&[("chat", 5)])));
        let fifth = desk.attach(claim(5, "a"));
        desk.detach(&fifth, rooms(&[("chat", 5)]));
        assert_eq!((desk.in_store(cookie(5)), dropped(desk, "hub")), (vec![], 3));
        assert_eq!(desk.attach(claim(1, "a").naming(&old)).how, How::New);
    });
}

#[test]
fn an_address_has_so_many_new_sessions_stored_a_minute() {
    Desk::on_each(&Options { max_new_per_minute: 2, ..options() }, |desk| {
        let all: Vec<_> = (0..4).map(|n| desk.stored(claim(n, "a"), rooms(&[("chat", 1)]))).collect();
        let stored = |desk: &mut Desk| (0..4).map(|n| desk.in_store(cookie(n)).len()).collect::<Vec<_>>();
        assert_eq!(stored(desk), [1, 1, 0, 0]);
        // One that was stored is no newcomer when it comes back, has no room for a while, or is saved.
        desk.save(&all[0], vec![]);
        desk.save(&all[0], rooms(&[("chat", 2)]));
        desk.detach(&all[1], rooms(&[("chat", 2)]));
        desk.attach(claim(1, "a").naming(&all[1]));
        assert_eq!(stored(desk), [1, 1, 0, 0]);
        desk.detach(&all[2], rooms(&[("chat", 2)]));
        assert_eq!((stored(desk), dropped(desk, "address")), (vec![1, 1, 0, 0], 1));
        desk.later(MINUTE);
        desk.save(&all[3], rooms(&[("chat", 2)]));
        assert_eq!(stored(desk), [1, 1, 0, 1]);
    });
}
