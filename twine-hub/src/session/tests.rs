//! The handle and its thread: what waits is saved at the end, and whoever asks is answered.

use tokio::sync::oneshot;
use twine_protocol::Position;

use super::*;
use crate::rooms::locked;
use crate::rounds::Rounds as _;

fn options() -> Options {
    Options {
        lifetime: Duration::from_hours(1),
        max_sessions: 10,
        max_per_cookie: 10,
        max_rooms: 10,
        max_new_per_minute: 0,
    }
}

#[test]
fn ids_are_in_the_order_of_their_time_and_never_the_same() {
    let at = |unix_millis| {
        clock::manual::set(Some(clock::manual::Set { now: std::time::Instant::now(), unix_millis }));
        mint().unwrap()
    };
    let ids = [at(1), at(1), at(1_700_000_000_000), at(1_700_000_000_001), at((1 << 48) - 1)];
    clock::manual::set(None);
    assert!(ids[0] != ids[1]);
    assert!(ids.windows(2).skip(1).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert!(ids.iter().all(|id| id.as_str().len() == 32), "{ids:?}");
    assert!(ids[2].as_str().starts_with("018bcfe56800"), "{ids:?}");
}

fn claim(session: Option<SessionId>) -> Claim {
    let visitor = Visitor {
        cookie: CookieHash([1; 16]),
        origin: "https://app.example.com".into(),
        address: [192, 0, 2, 1].into(),
    };
    let identity = Identity { visitor, subject: None, scope: "/".into() };
    Claim { identity, session, instance: None, prev: None }
}

fn rooms(offset: u64) -> Cursors {
    vec![("chat".parse().unwrap(), Position::new("0000018bcfe56800-7f3a", offset).unwrap())]
}

fn save(of: &Attached, offset: u64) -> Save {
    Save { session: of.session.clone(), ticket: of.ticket, rooms: rooms(offset) }
}

/// Nobody's connections.
struct Nobody;

impl Holder for Nobody {
    fn lose(&self, _: Key, _: Ticket, _: Lost) {}

    fn probe(&self, _: Key, _: Ticket) {}

    fn refresh(&self, _: Key, _: Ticket) {}
}

/// Asks for a session; the receiver has the answer.
fn attach(sessions: &Sessions, session: Option<SessionId>) -> oneshot::Receiver<Option<Attached>> {
    let (done, attached) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    sessions.attach(claim(session), Arc::new(Nobody), Key::of_slot(1), done);
    attached
}

fn local(sessions: &Sessions) -> &LocalSessions {
    match sessions {
        Sessions::Local(local) => local,
        Sessions::Fleet(_) => panic!("these are none of a fleet"),
    }
}

/// Has the keeper panic.
pub(crate) fn end_by_panic(sessions: &Sessions) {
    let done = Box::new(|_| panic!("a test wants the keeper to panic"));
    sessions.attach(claim(None), Arc::new(Nobody), Key::of_slot(1), done);
}

#[tokio::test]
async fn closing_saves_what_waits_and_then_every_question_has_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let open = || Sessions::open(&kind, options(), Arc::default()).unwrap();
    let sessions = open();
    let attached = attach(&sessions, None).await.unwrap().unwrap();
    sessions.save(vec![save(&attached, 7)]);
    sessions.close().await;
    assert!(sessions.health().is_ok(), "the end of the hub is none of a fault");
    assert!(attach(&sessions, None).await.unwrap().is_none());
    sessions.save(vec![save(&attached, 8)]);
    sessions.detach(save(&attached, 8));
    let refused = sessions.forget(CookieHash([1; 16])).await.unwrap_err();
    assert!(matches!(*refused, StoreError::Closed), "{refused}");
    sessions.close().await;

    let sessions = open();
    let again = attach(&sessions, Some(attached.session)).await.unwrap().unwrap();
    assert_eq!((again.how, again.rooms), (How::Resumed, rooms(7)));
    sessions.close().await;
}

#[test]
fn of_the_saves_of_an_attachment_the_latest_waits() {
    let store = store::open(&Kind::Memory { max_bytes: 0 }, 0).unwrap();
    let (sessions, mut keeping) = Sessions::new(store, options(), Arc::default());
    let mut answer = attach(&sessions, None);
    keeping.round();
    let attached = answer.try_recv().unwrap().unwrap();
    for offset in 1..=3 {
        sessions.save(vec![save(&attached, offset)]);
    }
    assert_eq!(locked(local(&sessions).saves()).len(), 1);
    // Made before what was asked for after it, though the other way leads there.
    let mut answer = attach(&sessions, Some(attached.session.clone()));
    keeping.round();
    let copy = answer.try_recv().unwrap().unwrap();
    assert_eq!((copy.how, copy.rooms), (How::Copied, rooms(3)));
    assert!(locked(local(&sessions).saves()).is_empty());
}

#[tokio::test]
async fn a_keeper_that_panicked_answers_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let sessions = Sessions::open(&kind, options(), Arc::default()).unwrap();
    assert!(sessions.health().is_ok());
    end_by_panic(&sessions);
    // It waits in the queue, or finds that nobody takes from it any more.
    assert!(attach(&sessions, None).await.is_ok_and(|attached| attached.is_none()));
    let refused = sessions.forget(CookieHash([1; 16])).await.unwrap_err();
    assert!(matches!(*refused, StoreError::Ended), "{refused}");
    sessions.close().await;
}
