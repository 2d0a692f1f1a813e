//! What keeps sessions from growing.

use super::*;
use crate::clock::millis;

#[tokio::test]
async fn everything_in_redis_expires() {
    let redis = Server::start();
    let hub = Hub::lively(&redis.url()).await;
    for of in 0..5 {
        let held = hub.shared(claim(of, "page"), rooms(&[("chat", 1)])).await;
        let left = hub.shared(naming(claim(of, "copy"), &held), rooms(&[("chat", 1)])).await;
        hub.detach(&left, rooms(&[("chat", 2)])).await;
    }
    hub.sessions.forget(cookie(0)).await.unwrap();
    let keys: Vec<String> = redis.admin(&["KEYS", "*"]);
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let left: i64 = redis.admin(&["PTTL", &key]);
        let most = Duration::from_hours(24) + 2 * REFRESH_AFTER;
        assert!((1..=i64::try_from(most.as_millis()).unwrap()).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn a_session_is_there_for_its_lifetime_after_its_connection() {
    let redis = Server::start();
    let hub = Hub::lively(&redis.url()).await;
    let left = hub.attach(claim(1, "page")).await;
    hub.detach(&left, rooms(&[("chat", 7)])).await;
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*:*"]);
    let rows = keys.iter().find(|key| !key.ends_with(":rooms")).unwrap();
    let now = hub.fleet().shelf.read(cookie(1)).await.unwrap().now;
    // Redis' clock can't be set, but what was written by it can.
    let set_back = |by: Duration| {
        let row: String = redis.admin(&["HGET", rows, left.session.as_str()]);
        let [holder, _, what] = row.splitn(3, '\n').collect::<Vec<_>>().try_into().unwrap();
        let then = now - u64::try_from(by.as_millis()).unwrap();
        let row = format!("{holder}\n{then}\n{what}");
        redis.admin::<redis::Value>(&["HSET", rows, left.session.as_str(), &row]);
    };
    let (shorter, longer) = (Duration::from_mins(24 * 60 - 1), Duration::from_mins(24 * 60 + 1));
    set_back(shorter);
    let found = hub.attach(naming(claim(1, "page"), &left)).await;
    assert_eq!(found.how, How::Resumed);
    hub.detach(&found, rooms(&[("chat", 7)])).await;
    set_back(longer);
    assert_eq!(hub.attach(naming(claim(1, "page"), &left)).await.how, How::New);
    assert_eq!(hub.attach(claim(1, "another")).await.how, How::New);
}

#[tokio::test]
async fn of_a_cookies_sessions_those_detached_longest_go_first_wherever_they_are() {
    let redis = Server::start();
    let few = Options { max_per_cookie: 2, ..options() };
    let first = Hub::with(&redis.url(), few.clone()).await;
    let second = Hub::with(&redis.url(), few).await;
    let open = first.shared(claim(1, "open"), rooms(&[("chat", 1)])).await;
    let left = first.attach(naming(claim(1, "left"), &open)).await;
    first.detach(&left, rooms(&[("chat", 2)])).await;
    let third = second.shared(naming(claim(1, "third"), &open), rooms(&[("chat", 3)])).await;
    assert_eq!(second.n_stored(1).await, 2);
    assert_eq!(second.stored(1, &left.session).await, None);
    assert_eq!(first.told(), []);
    // Now only attached ones are left, of which the oldest goes.
    let fourth = second.shared(naming(claim(1, "fourth"), &third), rooms(&[("chat", 4)])).await;
    first.was_told(Told::Lost(open.ticket, Lost::Forgotten)).await;
    assert_eq!(second.stored(1, &third.session).await, Some(rooms(&[("chat", 3)])));
    assert_eq!(second.stored(1, &fourth.session).await, Some(rooms(&[("chat", 4)])));
    // Its connection has none now: it does not push the others out.
    first.sessions.save(vec![Save {
        session: open.session,
        ticket: open.ticket,
        rooms: rooms(&[("chat", 9)]),
    }]);
    first.is_saved().await;
    assert_eq!(second.n_stored(1).await, 2);
}

#[tokio::test]
async fn where_a_bucket_is_full_the_one_detached_longest_goes_and_none_that_is_held() {
    let redis = Server::start();
    // One for each bucket.
    let hub = Hub::with(&redis.url(), Options { max_sessions: 1, ..options() }).await;
    let bucket = |n: u8| shelf::bucket(cookie(n));
    let pairs = (0..=255_u8).flat_map(|one| (0..one).map(move |other| (one, other)));
    let (one, other) = pairs.into_iter().find(|(one, other)| bucket(*one) == bucket(*other)).unwrap();
    let held = hub.shared(claim(one, "held"), rooms(&[("chat", 1)])).await;
    let late = hub.attach(claim(other, "late")).await;
    hub.save(&late, rooms(&[("chat", 2)])).await;
    assert_eq!((hub.n_stored(one).await, hub.n_stored(other).await), (1, 0), "there is no place");
    hub.detach(&held, rooms(&[("chat", 3)])).await;
    hub.save(&late, rooms(&[("chat", 4)])).await;
    assert_eq!((hub.n_stored(one).await, hub.n_stored(other).await), (0, 1));
    assert_eq!(hub.told(), []);
}

#[tokio::test]
async fn an_address_may_have_so_many_new_sessions_stored() {
    let redis = Server::start();
    let hub = Hub::with(&redis.url(), Options { max_new_per_minute: 1, ..options() }).await;
    let first = hub.shared(claim(1, "first"), rooms(&[("chat", 1)])).await;
    let second = hub.shared(claim(2, "second"), rooms(&[("chat", 1)])).await;
    assert_eq!((hub.n_stored(1).await, hub.n_stored(2).await), (1, 0));
    hub.save(&first, rooms(&[("chat", 2)])).await;
    assert_eq!(hub.stored(1, &first.session).await, Some(rooms(&[("chat", 2)])));
    hub.detach(&second, rooms(&[("chat", 2)])).await;
    assert_eq!(hub.n_stored(2).await, 0);
}

#[tokio::test]
async fn without_rooms_a_session_leaves_redis() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    first.save(&held, Cursors::new()).await;
    assert_eq!(first.n_stored(1).await, 0);
    // Its connection has it still, and brings it back with its next room.
    first.save(&held, rooms(&[("news", 1)])).await;
    assert_eq!(second.stored(1, &held.session).await, Some(rooms(&[("news", 1)])));
    first.detach(&held, Cursors::new()).await;
    assert_eq!(second.attach(naming(claim(1, "page"), &held)).await.how, How::New);
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*"]);
    assert_eq!(keys, Vec::<String>::new(), "nothing is left of it");
}

#[tokio::test]
async fn holders_that_are_gone_do_not_keep_a_bucket_full() {
    let redis = Server::start();
    let hub = Hub::with(&redis.url(), Options { max_sessions: 256 * 20, ..options() }).await;
    let dead = Hub::with(&redis.url(), Options { max_sessions: 256 * 20, ..options() }).await;
    let held = dead.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    for n in 1..20 {
        let anew = Claim { session: SessionId::new("gone").ok(), ..claim(1, &format!("page-{n}")) };
        dead.shared(anew, rooms(&[("chat", 1)])).await;
    }
    dead.kill().await;
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*:*"]);
    let rows = keys.iter().find(|key| !key.ends_with(":rooms")).unwrap();
    let row: String = redis.admin(&["HGET", rows, held.session.as_str()]);
    let [holder, touched, what] = row.splitn(3, '\n').collect::<Vec<_>>().try_into().unwrap();
    let long_ago = touched.parse::<u64>().unwrap() - 3 * millis(REFRESH_AFTER);
    let row = format!("{holder}\n{long_ago}\n{what}");
    redis.admin::<redis::Value>(&["HSET", rows, held.session.as_str(), &row]);
    let anew = Claim { session: SessionId::new("gone").ok(), ..claim(1, "new") };
    let new = hub.shared(anew, rooms(&[("chat", 2)])).await;
    assert_eq!(hub.stored(1, &held.session).await, None, "it was not heard of for long");
    assert_eq!(hub.stored(1, &new.session).await, Some(rooms(&[("chat", 2)])));
    assert_eq!(hub.n_stored(1).await, 20);
}

#[tokio::test]
async fn log_outs_of_cookies_that_are_made_up_leave_little_and_not_for_long() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    for _ in 0..3 {
        hub.sessions.forget(cookie(1)).await.unwrap();
    }
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*"]);
    let [key] = keys.try_into().unwrap();
    assert!(redis.admin::<u64>(&["PTTL", &key]) <= 60_000);
    // One that had some is known for longer, and is not by another log-out.
    let held = hub.shared(claim(2, "page"), rooms(&[("chat", 1)])).await;
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*:*:rooms"]);
    let [rooms] = keys.try_into().unwrap();
    let rows = rooms.strip_suffix(":rooms").unwrap();
    hub.sessions.forget(cookie(2)).await.unwrap();
    hub.was_told(Told::Lost(held.ticket, Lost::Forgotten)).await;
    hub.sessions.forget(cookie(2)).await.unwrap();
    assert!(redis.admin::<u64>(&["PTTL", rows]) > millis(REFRESH_AFTER));
}

#[tokio::test]
async fn whoever_has_many_sessions_does_not_have_them_all_read_for_each_claim() {
    let redis = Server::start();
    let hub = Hub::with(&redis.url(), Options { max_rooms: 4, ..options() }).await;
    for n in 0..20 {
        let anew = Claim { session: SessionId::new("gone").ok(), ..claim(1, &format!("page-{n}")) };
        let left = hub.attach(anew).await;
        hub.detach(&left, rooms(&[("one", n + 1), ("two", n + 1)])).await;
    }
    redis.admin::<redis::Value>(&["CONFIG", "RESETSTAT"]);
    let attached = hub.attach(Claim { session: SessionId::new("gone").ok(), ..claim(1, "another") }).await;
    assert_eq!(attached.inherited, rooms(&[("one", 20), ("two", 20)]));
    let stats: String = redis.admin(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_hmget:calls=1,"), "{stats}");
}

#[tokio::test]
async fn what_is_held_is_heard_of_well_within_its_lifetime() {
    let redis = Server::start();
    let hub = Hub::with(&redis.url(), Options { lifetime: Duration::from_secs(40), ..options() }).await;
    assert_eq!(hub.fleet().refresh_after, Duration::from_secs(10));
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    let fleet = hub.fleet();
    locked(&fleet.held).current(&held.session, held.ticket).unwrap().saved =
        Instant::now().checked_sub(Duration::from_secs(11)).unwrap();
    fleet.refresh(fleet.refresh_after);
    hub.was_told(Told::Refresh(held.ticket)).await;
}
