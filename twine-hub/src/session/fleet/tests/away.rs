//! Redis is away, or has lost everything.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_there_are_no_sessions_and_what_is_owed_is_saved_later() {
    let mut redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let [stays, ends] = [claim(1, "stays"), claim(2, "ends")];
    let (stays, ends) =
        (hub.shared(stays, rooms(&[("chat", 1)])).await, hub.shared(ends, rooms(&[("chat", 1)])).await);
    let new = hub.attach(claim(3, "new")).await;
    redis.kill();
    assert!(hub.try_attach(claim(4, "late")).await.is_none());
    assert!(hub.sessions.forget(cookie(1)).await.is_err());
    let save = |of: &Attached, n| Save {
        session: of.session.clone(),
        ticket: of.ticket,
        rooms: rooms(&[("chat", n)]),
    };
    hub.sessions.save(vec![save(&stays, 2), save(&new, 5)]);
    hub.sessions.save(vec![save(&stays, 3)]);
    hub.sessions.detach(save(&ends, 4));
    // It comes back empty, so that all of them have to be put back.
    tokio::task::block_in_place(|| redis.restart());
    hub.is_saved().await;
    assert_eq!(hub.stored(1, &stays.session).await, Some(rooms(&[("chat", 3)])));
    assert_eq!(hub.stored(3, &new.session).await, Some(rooms(&[("chat", 5)])));
    let adopted = hub.attach(claim(2, "again")).await;
    assert_eq!((adopted.session, adopted.how), (ends.session, How::Adopted));
    assert_eq!(adopted.rooms, rooms(&[("chat", 4)]));
    assert_eq!(hub.told().iter().filter(|told| matches!(told, Told::Lost(..))).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_holds_nobody_up() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    redis.pause();
    assert!(hub.try_attach(claim(2, "new")).await.is_none());
    hub.sessions.save(vec![Save {
        session: held.session.clone(),
        ticket: held.ticket,
        rooms: rooms(&[("chat", 2)]),
    }]);
    redis.resume();
    hub.is_saved().await;
    assert_eq!(hub.stored(1, &held.session).await, Some(rooms(&[("chat", 2)])));
    assert_eq!(hub.attach(claim(2, "new")).await.how, How::New);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_finds_what_was_given_back_before_it_also_where_that_had_to_wait() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    redis.pause();
    let mut rounds = hub.fleet().rounds.subscribe();
    hub.sessions.detach(Save { session: held.session.clone(), ticket: held.ticket, rooms: rooms_at(2) });
    rounds.changed().await.unwrap();
    assert!(!locked(&hub.fleet().owed).is_settled(), "it could not be saved");
    redis.resume();
    let again = hub.attach(naming(claim(1, "page"), &held)).await;
    assert_eq!((again.how, again.rooms), (How::Resumed, rooms_at(2)));
}

fn rooms_at(offset: u64) -> Cursors {
    rooms(&[("chat", offset)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_cut_off_has_its_sessions_saved_once_more() {
    let mut redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    let fresh = hub.attach(claim(2, "fresh")).await;
    redis.kill();
    tokio::task::block_in_place(|| redis.restart());
    hub.was_told(Told::Refresh(held.ticket)).await;
    assert!(!hub.told().contains(&Told::Refresh(fresh.ticket)), "it has nothing to save");
    hub.save(&held, rooms(&[("chat", 1)])).await;
    hub.is_saved().await;
    assert_eq!(hub.stored(1, &held.session).await, Some(rooms(&[("chat", 1)])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_read_costs_nobody_else_anything() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let bad_rooms = first.attach(claim(1, "one")).await;
    first.detach(&bad_rooms, rooms(&[("chat", 1)])).await;
    let anew = Claim { session: SessionId::new("gone").ok(), ..claim(1, "two") };
    let bad_row = first.attach(anew).await;
    first.detach(&bad_row, rooms(&[("news", 1)])).await;
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*:*"]);
    let rows = keys.iter().find(|key| !key.ends_with(":rooms")).unwrap();
    redis.admin::<redis::Value>(&["HSET", &format!("{rows}:rooms"), bad_rooms.session.as_str(), "{damaged"]);
    redis.admin::<redis::Value>(&["HSET", rows, bad_row.session.as_str(), "damaged"]);
    // It is as if they were not there.
    let attached = second.attach(naming(claim(1, "one"), &bad_rooms)).await;
    assert_eq!((attached.how, attached.rooms.len(), attached.inherited.len()), (How::New, 0, 0));
    let attached = second.attach(naming(claim(1, "two"), &bad_row)).await;
    assert_eq!(attached.how, How::New);
    assert_eq!(second.n_stored(1).await, 0);
}
