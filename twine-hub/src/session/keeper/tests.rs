//! The rules of sessions, each on both stores.

use std::time::Duration;

use rusqlite::Connection;
use twine_protocol::{InstanceId, SessionId};

use super::desk::{Desk, START, Told, claim, cookie, options, rooms};
use crate::session::store;
use crate::session::{Attached, Claim, Cursors, How, Lost, Options};
use crate::store::Kind;
use crate::telemetry;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

fn on_each(test: impl Fn(&mut Desk)) {
    Desk::on_each(&options(), test);
}

#[track_caller]
fn assert_is(attached: &Attached, how: How, session: &SessionId, of: &Cursors) {
    assert_eq!((attached.how, &attached.session, &attached.rooms), (how, session, of));
}

#[test]
fn a_session_that_is_named_goes_on_where_it_was() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7), ("news", 1)]);
        let first = desk.detached(claim(1, "a"), chat.clone());
        assert_eq!((first.how, first.rooms), (How::New, vec![]));
        let again = desk.attach(Claim { session: Some(first.session.clone()), ..claim(1, "b") });
        assert_is(&again, How::Resumed, &first.session, &chat);
        assert!(again.ticket > first.ticket);
        assert_eq!(desk.told(), []);
    });
}

#[test]
fn a_page_takes_over_its_own_connection() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let first = desk.stored(claim(1, "a"), chat.clone());
        let again = desk.attach(claim(1, "a").naming(&first));
        assert_is(&again, How::Resumed, &first.session, &chat);
        assert_eq!(desk.told(), [Told::Lost(first.ticket, Lost::TakenOver)]);
        // After a reload the page is another object, and knows which one it was.
        let prev = InstanceId::new("a").unwrap();
        let reloaded = desk.attach(Claim { prev: Some(prev), ..claim(1, "b") }.naming(&first));
        assert_is(&reloaded, How::Resumed, &first.session, &chat);
        assert_eq!(desk.told(), [Told::Lost(again.ticket, Lost::TakenOver)]);
        // What the connections before still say is too late.
        desk.save(&first, rooms(&[("chat", 1)]));
        desk.detach(&again, rooms(&[("chat", 2)]));
        assert_eq!(desk.saved(cookie(1), &first.session), Some(chat.clone()));
        desk.save(&reloaded, rooms(&[("chat", 9)]));
        assert_eq!(desk.saved(cookie(1), &first.session), Some(rooms(&[("chat", 9)])));
    });
}

#[test]
fn a_session_without_rooms_is_taken_over_as_well() {
    on_each(|desk| {
        let first = desk.attach(claim(1, "a"));
        let again = desk.attach(claim(1, "a").naming(&first));
        assert_is(&again, How::Resumed, &first.session, &vec![]);
        assert_eq!(desk.told(), [Told::Lost(first.ticket, Lost::TakenOver)]);
        desk.detach(&first, rooms(&[("chat", 1)]));
        assert_eq!(desk.in_store(cookie(1)), []);
        desk.detach(&again, rooms(&[("chat", 2)]));
        assert_eq!(desk.saved(cookie(1), &first.session), Some(rooms(&[("chat", 2)])));
    });
}

#[test]
fn another_page_gets_a_copy_of_a_live_session() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let first = desk.stored(claim(1, "a"), chat.clone());
        // A client that doesn't say which object it is may be any.
        for instance in [InstanceId::new("b").ok(), None] {
            let copy = desk.attach(Claim { instance, ..claim(1, "a") }.naming(&first));
            assert_eq!((copy.how, &copy.rooms), (How::Copied, &chat));
            assert_ne!(copy.session, first.session);
            assert_eq!(desk.told(), []);
            assert_eq!(desk.saved(cookie(1), &copy.session), None, "it is stored once it is saved");
            desk.save(&copy, rooms(&[("chat", 8)]));
            assert_eq!(desk.saved(cookie(1), &copy.session), Some(rooms(&[("chat", 8)])));
            assert_eq!(desk.saved(cookie(1), &first.session), Some(chat.clone()));
        }
    });
}

#[test]
fn nobody_gets_the_session_of_another() {
    on_each(|desk| {
        let secret = rooms(&[("secret", 7)]);
        let detached = desk.detached(claim(1, "a"), secret.clone());
        let live = desk.stored(claim(1, "b").anew(), secret.clone());
        let fresh = desk.attach(claim(1, "c").anew());
        let thieves: [fn(&mut Claim); 4] = [
            |claim| claim.identity.visitor.cookie = cookie(2),
            |claim| claim.identity.visitor.origin = "https://evil.example".into(),
            |claim| claim.identity.subject = Some("alice".into()),
            |claim| claim.identity.scope = "/other".into(),
        ];
        for (n, change) in thieves.into_iter().enumerate() {
            // By its id, by its instance, by waiting for it: nothing is told from an id that never was.
            for victim in [&detached, &live, &fresh] {
                for instance in ["a", "b", "c", "thief"] {
                    let mut theft = claim(1, instance).naming(victim);
                    theft.prev = InstanceId::new("b").ok();
                    change(&mut theft);
                    let got = desk.attach(theft.clone());
                    assert_eq!((got.how, got.rooms), (How::New, vec![]), "thief {n}");
                    assert_ne!(got.session, victim.session);
                    let unknown = Claim { session: SessionId::new("unknown").ok(), ..theft.clone() };
                    assert_eq!(desk.attach(unknown).how, How::New);
                    let got = desk.attach(Claim { session: None, ..theft });
                    assert_eq!((got.how, got.rooms), (How::New, vec![]), "thief {n}");
                }
            }
            // A cursor goes from one scope of a user to another, and no further.
            let mut theft = claim(1, "thief");
            change(&mut theft);
            let inherits = theft.identity.scope.as_ref() == "/other";
            let expected = if inherits { secret.clone() } else { vec![] };
            assert_eq!(desk.attach(theft).inherited, expected, "thief {n}");
        }
        let told = desk.told();
        for victim in [detached, live, fresh] {
            assert!(!told.contains(&Told::Lost(victim.ticket, Lost::TakenOver)));
            assert!(!told.contains(&Told::Probed(victim.ticket)));
        }
        // And the other way round: one with a subject is not for those without.
        let mut of_alice = claim(3, "a");
        of_alice.identity.subject = Some("alice".into());
        let of_alice = desk.detached(of_alice, secret);
        assert_eq!(desk.attach(claim(3, "b").naming(&of_alice)).how, How::New);
        assert_eq!(desk.attach(claim(3, "b")).inherited, vec![]);
    });
}

#[test]
fn a_browser_without_a_session_adopts_the_one_detached_last() {
    on_each(|desk| {
        desk.detached(claim(1, "a"), rooms(&[("chat", 7)]));
        desk.later(SECOND);
        let later = desk.stored(claim(1, "b").anew(), rooms(&[("chat", 8)]));
        let last = desk.stored(claim(1, "c").anew(), rooms(&[("chat", 9)]));
        desk.detach(&last, rooms(&[("chat", 9)]));
        desk.later(SECOND);
        desk.detach(&later, rooms(&[("chat", 8)]));
        let adopted = desk.attach(claim(1, "d"));
        assert_is(&adopted, How::Adopted, &later.session, &rooms(&[("chat", 8)]));
        // A second browser at the same time gets another one, however fast.
        let (one, two) = (desk.ask_attach(claim(1, "e")), desk.ask_attach(claim(1, "f")));
        desk.round();
        desk.alive(&adopted);
        let (one, two) = (one.take().unwrap(), two.take().unwrap());
        assert_is(&one, How::Adopted, &last.session, &rooms(&[("chat", 9)]));
        assert_eq!((two.how, two.rooms), (How::Adopted, rooms(&[("chat", 7)])));
    });
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let before = desk.detached(claim(1, "a"), chat.clone());
        let adopted = desk.attach(claim(1, "b"));
        let again = desk.attach(claim(1, "b"));
        assert_is(&again, How::Adopted, &before.session, &chat);
        assert_eq!(desk.told(), [Told::Lost(adopted.ticket, Lost::TakenOver)]);
        // Also where the connection that never got its answer has ended meanwhile.
        desk.detach(&again, chat.clone());
        let other = desk.detached(claim(1, "other").anew(), rooms(&[("chat", 8)]));
        let again = desk.attach(claim(1, "b"));
        assert_is(&again, How::Adopted, &before.session, &chat);
        let next = desk.start_attach(claim(1, "c"));
        desk.alive(&again);
        assert_eq!(next.take().unwrap().session, other.session);

        let new = desk.attach(claim(2, "a"));
        let again = desk.attach(claim(2, "a"));
        assert_is(&again, How::New, &new.session, &vec![]);
    });
}

#[test]
fn who_finds_only_live_sessions_waits_for_a_sign_of_life() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let one = desk.stored(claim(1, "a"), chat.clone());
        let two = desk.stored(claim(1, "b").anew(), chat.clone());
        // Of a visitor that is another, and one that has no room: not asked.
        desk.stored(claim(2, "a"), chat.clone());
        desk.attach(claim(1, "c").anew());
        let answer = desk.start_attach(claim(1, "d"));
        assert_eq!(desk.told(), [Told::Probed(one.ticket), Told::Probed(two.ticket)]);
        desk.alive(&two);
        assert!(!answer.is_there());
        desk.alive(&one);
        let new = answer.take().unwrap();
        assert_eq!((new.how, new.rooms), (How::New, vec![]));
        assert_eq!(desk.told(), []);
        desk.later(MINUTE);
        assert_eq!(desk.told(), [], "nobody is late");
    });
}

#[test]
fn a_silent_connection_counts_as_gone() {
    on_each(|desk| {
        let silent = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let live = desk.stored(claim(1, "b").anew(), rooms(&[("chat", 8)]));
        let answer = desk.start_attach(claim(1, "c"));
        desk.alive(&live);
        desk.later(Duration::from_millis(1_999));
        assert!(!answer.is_there());
        desk.told();
        desk.later(Duration::from_millis(1));
        assert_is(&answer.take().unwrap(), How::Adopted, &silent.session, &rooms(&[("chat", 7)]));
        assert_eq!(desk.told(), [Told::Lost(silent.ticket, Lost::TakenOver)]);
    });
}

/// It went unnoticed: a page of another scope began at the head of what the silent one had held.
#[test]
fn what_a_silent_connection_of_another_scope_held_is_inherited() {
    on_each(|desk| {
        let elsewhere = |instance: &str| {
            let mut claim = claim(1, instance);
            claim.identity.scope = "/inbox".into();
            claim
        };
        let silent = desk.stored(elsewhere("a"), rooms(&[("mail", 7)]));
        let live = desk.stored(elsewhere("b").anew(), rooms(&[("mail", 99)]));
        let mine = desk.detached(claim(1, "c").anew(), rooms(&[("chat", 8)]));
        let (adopts, new) = (desk.ask_attach(claim(1, "d")), desk.ask_attach(claim(1, "e")));
        desk.round();
        assert_eq!(desk.told(), [&silent, &live, &silent, &live].map(|asked| Told::Probed(asked.ticket)));
        desk.alive(&live);
        assert!(!adopts.is_there() && !new.is_there());
        desk.later(2 * SECOND);
        let (adopted, new) = (adopts.take().unwrap(), new.take().unwrap());
        assert_is(&adopted, How::Adopted, &mine.session, &rooms(&[("chat", 8)]));
        assert_eq!((new.how, &new.rooms), (How::New, &vec![]));
        for attached in [&adopted, &new] {
            assert_eq!(attached.inherited, rooms(&[("mail", 7)]));
        }
        // It is to come back by itself, if it is there after all.
        assert_eq!(desk.told(), [Told::Lost(silent.ticket, Lost::TakenOver)]);
        assert_eq!(desk.attach(elsewhere("a").naming(&silent)).how, How::Resumed);
    });
}

#[test]
fn a_connection_that_ends_meanwhile_leaves_its_session() {
    on_each(|desk| {
        let ending = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let (first, second) = (desk.ask_attach(claim(1, "b")), desk.ask_attach(claim(1, "c")));
        desk.round();
        desk.detach(&ending, rooms(&[("chat", 9)]));
        // The one who came first; for the other there is nothing left, and nobody to ask but the first.
        assert_is(&first.take().unwrap(), How::Adopted, &ending.session, &rooms(&[("chat", 9)]));
        let second = second.take().unwrap();
        assert_eq!((second.how, second.inherited), (How::New, vec![]));
    });
}

#[test]
fn two_who_wait_for_one_silent_session_do_not_share_it() {
    on_each(|desk| {
        let silent = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let (first, second) = (desk.ask_attach(claim(1, "b")), desk.ask_attach(claim(1, "c")));
        desk.round();
        desk.later(2 * SECOND);
        let (first, second) = (first.take().unwrap(), second.take().unwrap());
        assert_is(&first, How::Adopted, &silent.session, &rooms(&[("chat", 7)]));
        assert_eq!(second.how, How::New);
    });
}

#[test]
fn no_more_than_eight_are_asked_the_latest() {
    on_each(|desk| {
        let all: Vec<_> =
            (0..10).map(|n| desk.stored(claim(1, &n.to_string()).anew(), rooms(&[("chat", n)]))).collect();
        let answer = desk.start_attach(claim(1, "new"));
        let asked: Vec<_> = all.iter().skip(2).map(|live| Told::Probed(live.ticket)).collect();
        assert_eq!(desk.told(), asked);
        all.iter().skip(2).for_each(|live| desk.alive(live));
        assert_eq!(answer.take().unwrap().how, How::New);
    });
}

#[test]
fn a_session_is_stored_while_it_has_rooms() {
    on_each(|desk| {
        let session = desk.attach(claim(1, "a"));
        desk.save(&session, vec![]);
        assert_eq!(desk.in_store(cookie(1)), []);
        desk.save(&session, rooms(&[("chat", 7)]));
        desk.save(&session, rooms(&[("chat", 8), ("news", 1)]));
        assert_eq!(desk.saved(cookie(1), &session.session), Some(rooms(&[("chat", 8), ("news", 1)])));
        desk.save(&session, vec![]);
        assert_eq!(desk.in_store(cookie(1)), []);
        desk.save(&session, rooms(&[("chat", 9)]));
        assert_eq!(desk.saved(cookie(1), &session.session), Some(rooms(&[("chat", 9)])));
        desk.detach(&session, vec![]);
        assert_eq!(desk.in_store(cookie(1)), []);
        let gone = desk.attach(claim(1, "b").naming(&session));
        assert_eq!(gone.how, How::New);
        desk.detach(&gone, vec![]);
        assert_eq!(desk.in_store(cookie(1)), []);
    });
}

#[test]
fn much_may_happen_to_a_session_in_one_round() {
    on_each(|desk| {
        let session = desk.attach(claim(1, "a"));
        desk.ask_save(&session, rooms(&[("chat", 7)]));
        desk.ask_save(&session, vec![]);
        desk.ask_save(&session, rooms(&[("chat", 8)]));
        desk.ask_detach(&session, rooms(&[("chat", 9)]));
        let adopted = desk.ask_attach(claim(1, "b"));
        let again = desk.ask_attach(claim(1, "b"));
        desk.round();
        let (adopted, again) = (adopted.take().unwrap(), again.take().unwrap());
        for attached in [&adopted, &again] {
            assert_is(attached, How::Adopted, &session.session, &rooms(&[("chat", 9)]));
        }
        assert_eq!(desk.told(), [Told::Lost(adopted.ticket, Lost::TakenOver)]);
    });
}

#[test]
fn unknown_rooms_start_at_the_latest_cursor_of_detached_sessions() {
    on_each(|desk| {
        let scope = |scope: &str, instance: &str| {
            let mut claim = claim(1, instance).anew();
            claim.identity.scope = scope.into();
            claim
        };
        desk.detached(scope("/a", "a"), rooms(&[("chat", 7), ("news", 5)]));
        desk.later(SECOND);
        desk.detached(scope("/b", "b"), rooms(&[("chat", 6), ("own", 9)]));
        desk.stored(scope("/live", "c"), rooms(&[("chat", 99), ("live", 1)]));
        let own = desk.detached(scope("/own", "d"), rooms(&[("own", 3)]));
        let mut expected = rooms(&[("chat", 7), ("news", 5)]);
        let mut resumed = desk.attach(scope("/own", "d").naming(&own));
        resumed.inherited.sort();
        expected.sort();
        assert_eq!((resumed.how, resumed.inherited), (How::Resumed, expected));
        // A new one has them all; those of a live session stay with it.
        let mut new = desk.attach(scope("/new", "e"));
        new.inherited.sort();
        assert_eq!(new.inherited, rooms(&[("chat", 7), ("news", 5), ("own", 9)]));
    });
}

#[test]
fn no_more_is_inherited_than_a_session_may_hold() {
    Desk::on_each(&Options { max_rooms: 2, ..options() }, |desk| {
        desk.detached(claim(1, "a").anew(), rooms(&[("a", 1), ("b", 9)]));
        desk.later(SECOND);
        desk.detached(claim(1, "b").anew(), rooms(&[("b", 2), ("c", 3)]));
        let new = desk.attach(claim(1, "c").anew());
        assert_eq!(new.inherited, rooms(&[("b", 2), ("c", 3)]), "of the one detached last");
    });
}

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

#[test]
fn forgetting_leaves_nothing_of_a_cookie() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let detached = desk.detached(claim(1, "a"), chat.clone());
        let live = desk.stored(claim(1, "b").anew(), chat.clone());
        let fresh = desk.attach(claim(1, "c").anew());
        let other = desk.stored(claim(2, "a"), chat.clone());
        let waits = desk.start_attach(claim(2, "b"));
        desk.told();
        let mut forgotten = desk.ask_forget(cookie(1));
        desk.round();
        assert!(matches!(forgotten.try_recv(), Ok(Ok(()))));
        let lost = [&live, &fresh].map(|attached| Told::Lost(attached.ticket, Lost::Forgotten));
        assert_eq!(desk.told(), lost);
        assert_eq!(desk.in_store(cookie(1)), []);
        // What is still said of them comes too late.
        desk.save(&fresh, chat.clone());
        desk.detach(&live, chat.clone());
        assert_eq!(desk.in_store(cookie(1)), []);
        for gone in [&detached, &live, &fresh] {
            let new = desk.attach(claim(1, "a").naming(gone));
            assert_eq!((new.how, new.rooms, new.inherited), (How::New, vec![], vec![]));
        }
        assert!(!waits.is_there());
        assert_eq!(desk.saved(cookie(2), &other.session), Some(chat));
    });
}

#[test]
fn who_waits_for_a_session_that_is_forgotten_gets_a_new_one() {
    on_each(|desk| {
        desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let waits = desk.start_attach(claim(1, "b"));
        let _forgotten = desk.ask_forget(cookie(1));
        desk.round();
        let new = waits.take().unwrap();
        assert_eq!((new.how, new.rooms, new.inherited), (How::New, vec![], vec![]));
    });
}

#[test]
fn a_session_is_kept_for_its_lifetime_and_no_longer() {
    on_each(|desk| {
        let session = desk.detached(claim(1, "a"), rooms(&[("chat", 7)]));
        desk.later(DAY);
        let resumed = desk.attach(claim(1, "a").naming(&session));
        assert_eq!(resumed.how, How::Resumed);
        // A live one has no age.
        desk.later(3 * DAY);
        desk.detach(&resumed, rooms(&[("chat", 8)]));
        desk.later(DAY + Duration::from_millis(1));
        let new = desk.attach(claim(1, "a").naming(&session));
        assert_eq!((new.how, new.inherited), (How::New, vec![]), "also where it is not removed yet");
        assert_eq!(desk.attach(claim(1, "b")).how, How::New);
        desk.later(MINUTE);
        assert_eq!(desk.in_store(cookie(1)), []);
    });
}

#[test]
fn many_old_sessions_are_removed_in_batches() {
    Desk::on_each(&Options { max_new_per_minute: 0, ..options() }, |desk| {
        let cookies = (0..600).map(|n| u8::try_from(n % 60).unwrap());
        let all: Vec<_> = cookies.map(|n| desk.ask_attach(claim(n, "a").anew())).collect();
        desk.round();
        for attached in all {
            desk.ask_detach(&attached.take().unwrap(), rooms(&[("chat", 7)]));
        }
        desk.round();
        assert_eq!(desk.in_store(cookie(1)).len(), 10);
        desk.later(DAY + 2 * MINUTE);
        assert!((0..60).all(|n| desk.in_store(cookie(n)).is_empty()));
    });
}

#[test]
fn a_killed_hub_gives_back_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let mut desk = Desk::new(store::open(&kind, START).unwrap(), options());
    let chat = rooms(&[("chat", 7)]);
    let live = desk.stored(claim(1, "a"), chat.clone());
    let fresh = desk.attach(claim(2, "a"));
    drop(desk);
    let mut desk = Desk::new(store::open(&kind, START + 1).unwrap(), options());
    // Tickets of the hub before are nobody's, and none of its connections is held against anyone.
    desk.detach(&live, rooms(&[("chat", 1)]));
    let resumed = desk.attach(claim(1, "other").naming(&live));
    assert_is(&resumed, How::Resumed, &live.session, &chat);
    assert_eq!(desk.attach(claim(2, "a").naming(&fresh)).how, How::New);
    assert_eq!(desk.told(), []);
}

/// A desk whose store fails while somebody else has locked it.
fn lockable(test: impl Fn(&mut Desk, &Connection)) {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(store::open_impatient(folder.path(), START), options());
    let other = Connection::open(folder.path().join("sessions.db")).unwrap();
    test(&mut desk, &other);
}

#[test]
fn a_store_that_fails_costs_sessions_but_no_connection_and_heals() {
    lockable(|desk, other| {
        let chat = rooms(&[("chat", 7)]);
        let live = desk.stored(claim(1, "a"), chat.clone());
        let ending = desk.stored(claim(2, "a"), chat.clone());
        let fresh = desk.attach(claim(3, "a"));
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // A claim of each kind is answered, without a session.
        for claim in [claim(1, "a").naming(&live), claim(2, "b"), claim(4, "a")] {
            assert!(desk.start_attach(claim).take().is_none());
        }
        desk.save(&live, rooms(&[("chat", 8)]));
        desk.save(&fresh, rooms(&[("chat", 8)]));
        desk.detach(&ending, rooms(&[("chat", 8)]));
        let mut forgotten = desk.ask_forget(cookie(1));
        desk.round();
        assert!(matches!(forgotten.try_recv(), Ok(Err(_))), "who logs out learns that it failed");
        other.execute_batch("COMMIT").unwrap();
        // What was saved meanwhile is, without being sent again; and what ended has.
        desk.later(SECOND);
        let later = rooms(&[("chat", 8)]);
        assert_eq!(desk.saved(cookie(3), &fresh.session), Some(later.clone()));
        assert_eq!(desk.saved(cookie(1), &live.session), Some(later.clone()));
        let adopted = desk.attach(claim(2, "c"));
        assert_is(&adopted, How::Adopted, &ending.session, &later);
        assert_eq!(desk.told(), [], "nobody has lost anything");
    });
}

#[test]
fn of_what_could_not_be_saved_the_latest_is() {
    lockable(|desk, other| {
        let live = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let fresh = desk.attach(claim(2, "a"));
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        for offset in 8..=9 {
            desk.save(&live, rooms(&[("chat", offset)]));
            desk.save(&fresh, rooms(&[("chat", offset)]));
        }
        // It was never stored, and its connection has ended: nobody but the keeper has it.
        desk.detach(&fresh, rooms(&[("chat", 10)]));
        other.execute_batch("COMMIT").unwrap();
        // Before anything else.
        let again = desk.attach(claim(1, "a").naming(&live));
        assert_is(&again, How::Resumed, &live.session, &rooms(&[("chat", 9)]));
        let again = desk.attach(claim(2, "b"));
        assert_is(&again, How::Adopted, &fresh.session, &rooms(&[("chat", 10)]));
        // Once only.
        desk.save(&again, rooms(&[("chat", 11)]));
        desk.later(2 * SECOND);
        assert_eq!(desk.saved(cookie(2), &again.session), Some(rooms(&[("chat", 11)])));
    });
}

#[test]
fn a_store_that_fails_is_tried_in_peace() {
    lockable(|desk, other| {
        let chat = rooms(&[("chat", 7)]);
        let live = desk.stored(claim(1, "a"), chat.clone());
        let waits = desk.start_attach(claim(1, "b"));
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // Nothing is due over and over again: this came to no end once. Who waits is not forgotten.
        desk.later(2 * MINUTE);
        assert!(waits.take().is_none());
        other.execute_batch("COMMIT").unwrap();
        desk.detach(&live, rooms(&[("chat", 8)]));
        assert_eq!(desk.saved(cookie(1), &live.session), Some(rooms(&[("chat", 8)])));
    });
}

#[test]
fn a_round_that_fails_at_its_commit_is_undone_whole() {
    lockable(|desk, other| {
        let chat = rooms(&[("chat", 7)]);
        let detached = desk.detached(claim(1, "a"), chat.clone());
        let live = desk.stored(claim(2, "a"), chat.clone());
        let fresh = desk.attach(claim(3, "a"));
        // The commit alone fails: a constraint that is looked at then.
        other
            .execute_batch(
                "CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER orphan AFTER UPDATE ON sessions BEGIN INSERT INTO child VALUES (1); END;",
            )
            .unwrap();
        let adopts = desk.ask_attach(claim(1, "b"));
        let takes_over = desk.ask_attach(claim(2, "a").naming(&live));
        desk.ask_save(&fresh, chat.clone());
        desk.round();
        assert!(adopts.take().is_none() && takes_over.take().is_none());
        assert_eq!(desk.told(), []);
        assert_eq!(desk.in_store(cookie(3)), []);
        other.execute_batch("DROP TRIGGER orphan").unwrap();
        let adopted = desk.attach(claim(1, "b"));
        assert_is(&adopted, How::Adopted, &detached.session, &chat);
        let resumed = desk.attach(claim(2, "a").naming(&live));
        assert_is(&resumed, How::Resumed, &live.session, &chat);
        assert_eq!(desk.told(), [Told::Lost(live.ticket, Lost::TakenOver)]);
        assert_eq!(desk.saved(cookie(3), &fresh.session), Some(chat));
    });
}

#[test]
fn a_session_that_lost_its_rooms_in_a_round_that_failed_goes_with_its_connection() {
    lockable(|desk, other| {
        let live = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        other
            .execute_batch(
                "CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER orphan AFTER DELETE ON sessions BEGIN INSERT INTO child VALUES (1); END;",
            )
            .unwrap();
        // It leaves its only room; the commit fails.
        desk.save(&live, vec![]);
        assert_eq!(desk.in_store(cookie(1)).len(), 1);
        other.execute_batch("DROP TRIGGER orphan").unwrap();
        desk.round();
        assert_eq!(desk.in_store(cookie(1)), []);
        desk.detach(&live, vec![]);
        desk.later(3 * DAY);
        assert_eq!(desk.in_store(cookie(1)), [], "attached to nobody, for ever");
    });
}

#[test]
fn a_sign_of_life_counts_in_a_round_that_fails() {
    lockable(|desk, other| {
        let live = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let waits = desk.start_attach(claim(1, "b"));
        desk.told();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        desk.alive(&live);
        other.execute_batch("COMMIT").unwrap();
        assert!(waits.take().is_none());
        desk.later(MINUTE);
        assert_eq!(desk.told(), [], "it is not taken for gone");
    });
}

#[test]
fn a_row_that_can_not_be_read_costs_nobody_else() {
    lockable(|desk, other| {
        desk.detached(claim(1, "a"), rooms(&[("chat", 7)]));
        let live = desk.stored(claim(3, "a"), rooms(&[("chat", 7)]));
        let fine = desk.detached(claim(2, "a"), rooms(&[("chat", 7)]));
        let spoil = "UPDATE sessions SET rooms = 'x' WHERE seq = 1";
        assert_eq!(other.execute(spoil, []).unwrap(), 1);
        let new = desk.ask_attach(claim(1, "b"));
        let resumed = desk.ask_attach(claim(2, "a").naming(&fine));
        desk.ask_save(&live, rooms(&[("chat", 8)]));
        desk.round();
        assert_is(&resumed.take().unwrap(), How::Resumed, &fine.session, &rooms(&[("chat", 7)]));
        assert_eq!(new.take().unwrap().how, How::New);
        assert_eq!(desk.saved(cookie(3), &live.session), Some(rooms(&[("chat", 8)])));
        assert_eq!(desk.in_store(cookie(1)), []);
        // A live one that can't be read is no longer its connection's.
        assert_eq!(other.execute("UPDATE sessions SET rooms = 'x' WHERE detached IS NULL", []).unwrap(), 2);
        let copy = desk.attach(claim(3, "b").naming(&live));
        assert_eq!((copy.how, desk.told()), (How::New, vec![Told::Lost(live.ticket, Lost::Forgotten)]));
    });
}
