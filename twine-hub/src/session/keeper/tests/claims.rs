//! Who gets which session.

use super::*;

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
fn a_page_that_was_gone_before_its_answer_is_no_stranger_to_the_next_one() {
    on_each(|desk| {
        let chat = rooms(&[("chat", 7)]);
        let after = |prev: &str| InstanceId::new(prev).ok();
        let first = desk.stored(claim(1, "a"), chat.clone());
        // Reloaded, and again before an answer; what a page leaves is its own name once it has one.
        let unanswered = desk.attach(Claim { prev: after("a"), ..claim(1, "b") }.naming(&first));
        let third = desk.attach(Claim { prev: after("a"), ..claim(1, "c") }.naming(&first));
        assert_is(&third, How::Resumed, &first.session, &chat);
        let lost = [&first, &unanswered].map(|lost| Told::Lost(lost.ticket, Lost::TakenOver));
        assert_eq!(desk.told(), lost);
        // A duplicate has no `prev`, and others have another one.
        for prev in [None, after("z")] {
            let copy = desk.attach(Claim { prev, ..claim(1, "copy") }.naming(&first));
            assert_eq!((copy.how, copy.rooms), (How::Copied, chat.clone()));
        }
        // Nor does it serve those of another cookie.
        let stolen = desk.attach(Claim { prev: after("a"), ..claim(2, "thief") }.naming(&first));
        assert_eq!((stolen.how, stolen.rooms), (How::New, vec![]));
        assert_eq!(desk.told(), []);
        // Once answered, a client comes back by its own name; from then on so does its next page.
        desk.attach(claim(1, "c").naming(&first));
        let late = desk.attach(Claim { prev: after("a"), ..claim(1, "d") }.naming(&first));
        assert_eq!(late.how, How::Copied);
        let next = desk.attach(Claim { prev: after("c"), ..claim(1, "e") }.naming(&first));
        assert_is(&next, How::Resumed, &first.session, &chat);
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
fn time_for_a_sign_of_life_begins_when_it_is_asked_for() {
    let faults = Faults::default();
    let store = store::open(&Kind::Memory { max_bytes: 0 }, START).unwrap();
    let mut desk = Desk::new(Box::new(FaultyStore::new(store, faults.clone())), options());
    let live = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
    // The connection is asked after the commit.
    faults.slow_commits(3_000);
    let waits = desk.start_attach(claim(1, "b"));
    faults.slow_commits(0);
    desk.round();
    assert!(!waits.is_there());
    desk.alive(&live);
    assert_eq!(waits.take().unwrap().how, How::New);
    assert_eq!(desk.told(), [Told::Probed(live.ticket)]);
}

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
