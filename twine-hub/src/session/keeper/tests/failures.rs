//! A store that fails, wholly or at single rows.

use rusqlite::Connection;

use super::*;

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

#[test]
fn what_can_never_be_saved_stops_nobody_else() {
    lockable(|desk, other| {
        let all: Vec<_> = (0..12).map(|n| desk.stored(claim(n, "a"), rooms(&[("chat", 1)]))).collect();
        let saved = |desk: &mut Desk, n: u8| -> u64 {
            desk.saved(cookie(n), &all[usize::from(n)].session).unwrap()[0].1.offset.get()
        };
        let bad = 0..9;
        other
            .execute_batch(
                "CREATE TRIGGER bad BEFORE UPDATE ON sessions WHEN OLD.seq <= 9
                 BEGIN SELECT RAISE(ABORT, 'a bad row'); END;",
            )
            .unwrap();
        for attached in &all {
            desk.ask_save(attached, rooms(&[("chat", 2)]));
        }
        desk.round();
        assert_eq!(saved(desk, 11), 1, "a round fails as a whole");
        desk.later(4 * SECOND);
        assert!((0..12).all(|n| saved(desk, n) == if bad.contains(&n) { 1 } else { 2 }));
        // From now on they cost nobody a round, also when they are saved or end.
        desk.ask_save(&all[0], rooms(&[("chat", 3)]));
        desk.ask_detach(&all[1], rooms(&[("chat", 3)]));
        desk.ask_save(&all[11], rooms(&[("chat", 3)]));
        let new = desk.ask_attach(claim(20, "a"));
        desk.round();
        assert!(new.take().is_some());
        assert_eq!(saved(desk, 11), 3);
        desk.later(2 * MINUTE);
        other.execute_batch("DROP TRIGGER bad").unwrap();
        desk.later(SECOND);
        let latest = |n| if [0, 1, 11].contains(&n) { 3 } else { 2 };
        assert!((0..12).all(|n| saved(desk, n) == latest(n)));
        assert_eq!(desk.attach(claim(1, "b")).how, How::Adopted, "the end was owed as well");
        assert_eq!(desk.told(), []);
    });
}

#[test]
fn an_end_that_is_owed_stays_owed_where_the_round_that_ended_it_otherwise_fails() {
    lockable(|desk, other| {
        let live = desk.stored(claim(1, "a"), rooms(&[("chat", 1)]));
        let another = desk.stored(claim(2, "a"), rooms(&[("chat", 1)]));
        other
            .execute_batch(
                "CREATE TRIGGER bad BEFORE UPDATE OF rooms ON sessions BEGIN SELECT RAISE(ABORT, 'bad'); END;",
            )
            .unwrap();
        desk.save(&live, rooms(&[("chat", 2)]));
        // Taken over and at its end at once; but a save of somebody else undoes the round.
        let taken_over = desk.ask_attach(claim(1, "a").naming(&live));
        desk.ask_detach(&live, rooms(&[("chat", 3)]));
        desk.ask_save(&another, rooms(&[("chat", 2)]));
        desk.round();
        assert!(taken_over.take().is_none());
        other.execute_batch("DROP TRIGGER bad").unwrap();
        let adopted = desk.start_attach(claim(1, "b"));
        assert!(adopted.is_there(), "its connection is not asked, which is gone");
        assert_is(&adopted.take().unwrap(), How::Adopted, &live.session, &rooms(&[("chat", 3)]));
    });
}

#[test]
fn sessions_that_are_old_go_also_while_something_can_not_be_saved() {
    lockable(|desk, other| {
        let bad = desk.stored(claim(1, "a"), rooms(&[("chat", 1)]));
        desk.detached(claim(2, "a"), rooms(&[("chat", 1)]));
        other
            .execute_batch(
                "CREATE TRIGGER bad BEFORE UPDATE ON sessions WHEN OLD.seq = 1
                 BEGIN SELECT RAISE(ABORT, 'a bad row'); END;",
            )
            .unwrap();
        desk.save(&bad, rooms(&[("chat", 2)]));
        desk.sleep(DAY);
        // Somebody comes more often than a failure is tried again.
        for _ in 0..200 {
            desk.later(SECOND / 2);
        }
        assert_eq!(desk.in_store(cookie(2)), []);
    });
}

#[test]
fn a_claim_waits_for_all_that_it_waited_for_before_a_round_that_fails() {
    lockable(|desk, other| {
        let one = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
        let two = desk.stored(claim(1, "b").anew(), rooms(&[("chat", 8)]));
        let waits = desk.start_attach(claim(1, "c"));
        other
            .execute_batch(
                "CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER orphan AFTER UPDATE ON sessions BEGIN INSERT INTO child VALUES (1); END;",
            )
            .unwrap();
        // Its page comes back, which would be a sign of life; but it comes to nothing.
        assert!(desk.start_attach(claim(1, "a").naming(&one)).take().is_none());
        other.execute_batch("DROP TRIGGER orphan").unwrap();
        desk.alive(&two);
        assert!(!waits.is_there());
        desk.later(2 * SECOND);
        assert_is(&waits.take().unwrap(), How::Adopted, &one.session, &rooms(&[("chat", 7)]));
    });
}

#[test]
fn what_is_owed_at_the_end_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(store::open_impatient(folder.path(), START), options());
    let other = Connection::open(folder.path().join("sessions.db")).unwrap();
    let live = desk.stored(claim(1, "a"), rooms(&[("chat", 7)]));
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.detach(&live, rooms(&[("chat", 8)]));
    other.execute_batch("COMMIT").unwrap();
    desk.close();
    assert_eq!(desk.saved(cookie(1), &live.session), Some(rooms(&[("chat", 8)])));
}

#[test]
fn at_the_end_everything_is_saved_that_can_be() {
    lockable(|desk, other| {
        let all: Vec<_> = (0..6).map(|n| desk.stored(claim(n, "a"), rooms(&[("chat", 1)]))).collect();
        other
            .execute_batch(
                "CREATE TRIGGER bad BEFORE UPDATE ON sessions WHEN OLD.seq <= 5
                 BEGIN SELECT RAISE(ABORT, 'a bad row'); END;",
            )
            .unwrap();
        for attached in &all {
            desk.ask_detach(attached, rooms(&[("chat", 2)]));
        }
        desk.round();
        assert_eq!(desk.saved(cookie(5), &all[5].session), Some(rooms(&[("chat", 1)])));
        desk.close();
        assert_eq!(desk.saved(cookie(5), &all[5].session), Some(rooms(&[("chat", 2)])));
    });
}
