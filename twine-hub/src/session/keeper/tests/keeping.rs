//! What is stored of a session, and for how long.

use super::*;

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
