//! Redis goes back to an earlier state, or does later what it was told before.

use super::*;

/// What Redis has of a cookie, as it may be after a failover.
struct State(Vec<(String, Vec<u8>)>);

impl State {
    fn keep(redis: &Server) -> Self {
        let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*"]);
        Self(keys.into_iter().map(|key| (key.clone(), redis.admin(&["DUMP", &key]))).collect())
    }

    fn bring_back(&self, redis: &Server) {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        for (key, dump) in &self.0 {
            redis::cmd("RESTORE")
                .arg(key)
                .arg(600_000)
                .arg(dump)
                .arg("REPLACE")
                .exec(&mut connection)
                .unwrap();
        }
    }
}

fn saved(of: &Attached, rooms: Cursors) -> Save {
    Save { session: of.session.clone(), ticket: of.ticket, rooms }
}

#[tokio::test]
async fn of_two_that_believe_to_hold_a_session_the_later_one_does() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let before = first.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    let early = State::keep(&redis);
    first.is_deaf();
    let now = second.attach(naming(claim(1, "page"), &before)).await;
    second.save(&now, rooms(&[("chat", 5), ("new room", 1)])).await;

    // A replica that was behind is the master now.
    early.bring_back(&redis);
    second.save(&now, rooms(&[("chat", 6), ("new room", 2)])).await;
    let all = rooms(&[("chat", 6), ("new room", 2)]);
    assert_eq!(second.stored(1, &before.session).await, Some(all.clone()));
    first.save_deaf(&before, rooms(&[("chat", 2)]));
    first.was_told(Told::Lost(before.ticket, Lost::TakenOver)).await;
    assert_eq!(second.stored(1, &before.session).await, Some(all.clone()));
    assert_eq!(second.told(), []);

    // It starts empty, and the one that lost the session is the first to put it back.
    let (first, second) = (Hub::lively(&redis.url()).await, second);
    let stolen = Claim { prev: InstanceId::new("page").ok(), ..naming(claim(1, "reload"), &now) };
    let later = first.attach(stolen).await;
    assert_eq!((later.how, &later.rooms), (How::Resumed, &all));
    // It has not heard of it.
    locked(&second.fleet().held).insert(older(&second, &now, &before));
    redis.admin::<redis::Value>(&["FLUSHALL"]);
    second.save(&now, rooms(&[("chat", 6)])).await;
    first.save(&later, rooms(&[("chat", 7), ("new room", 3)])).await;
    assert_eq!(second.stored(1, &now.session).await, Some(rooms(&[("chat", 7), ("new room", 3)])));
    second.save(&now, rooms(&[("chat", 6)])).await;
    assert_eq!(second.stored(1, &now.session).await, Some(rooms(&[("chat", 7), ("new room", 3)])));
}

/// The attachment of a hub that was not told that it is over.
fn older(hub: &Hub, of: &Attached, first: &Attached) -> Attachment {
    held::Attachment {
        ticket: of.ticket,
        generation: 2,
        holder: hub.record.clone(),
        key: Key::of_slot(1),
        about: Arc::new(row::About {
            session: Session::begin(first.session.clone(), &claim(1, "page")),
            prev: None,
            created: 1,
        }),
        kept: Kept::Shared,
        asked_by: Vec::new(),
        saved: Instant::now(),
    }
}

#[tokio::test]
async fn what_was_stored_though_the_answer_was_lost_is_not_stored_over_whoever_has_it_now() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let new = first.attach(claim(1, "page")).await;
    let attachment = locked(&first.fleet().held).remove(&new.session).unwrap();
    let entry =
        first.fleet().entry(&attachment, rooms(&[("chat", 1)]), Some(Ended { kept: attachment.kept }));
    assert!(matches!(first.fleet().add(&entry).await.unwrap(), shelf::Decided::Done { .. }));
    // As it is tried again.
    assert!(matches!(first.fleet().add(&entry).await.unwrap(), shelf::Decided::Done { .. }));
    let adopted = second.attach(claim(1, "another")).await;
    assert_eq!((adopted.how, &adopted.session), (How::Adopted, &new.session));
    second.save(&adopted, rooms(&[("chat", 2), ("news", 1)])).await;
    assert!(matches!(first.fleet().add(&entry).await.unwrap(), shelf::Decided::Taken));
    second.save(&adopted, rooms(&[("chat", 3), ("news", 1)])).await;
    assert_eq!(second.stored(1, &new.session).await, Some(rooms(&[("chat", 3), ("news", 1)])));
    assert!(!second.told().iter().any(|told| matches!(told, Told::Lost(..))));
}

#[tokio::test]
async fn a_save_that_comes_after_a_later_one_changes_nothing() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    let fleet = hub.fleet();
    for late in [rooms(&[("chat", 2)]), Cursors::new()] {
        let late = {
            let mut attachments = locked(&fleet.held);
            let attachment = attachments.current(&held.session, held.ticket).unwrap();
            fleet.entry(attachment, late, None)
        };
        hub.save(&held, rooms(&[("chat", 3), ("news", 1)])).await;
        locked(&fleet.owed).put(late);
        fleet.is_due.notify_one();
        hub.is_saved().await;
        assert_eq!(hub.stored(1, &held.session).await, Some(rooms(&[("chat", 3), ("news", 1)])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_saved_of_one_cookie_is_of_all_others() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    // Cookies of one bucket are saved together.
    let bucket = |n: u8| shelf::bucket(cookie(n));
    let pairs = (0..=255_u8).flat_map(|one| (0..one).map(move |other| (one, other)));
    let (bad, good) = pairs.into_iter().find(|(one, other)| bucket(*one) == bucket(*other)).unwrap();
    let held = [hub.shared(claim(bad, "bad"), rooms(&[("chat", 1)])).await];
    let keys: Vec<String> = redis.admin(&["KEYS", "twine:sessions:*:rooms"]);
    let good_one = hub.shared(claim(good, "good"), rooms(&[("chat", 1)])).await;
    redis.admin::<redis::Value>(&["SET", &keys[0], "no hash"]);
    let mut rounds = hub.fleet().rounds.subscribe();
    hub.sessions.save(vec![saved(&held[0], rooms(&[("chat", 2)])), saved(&good_one, rooms(&[("chat", 2)]))]);
    let waits = async {
        while hub.stored(good, &good_one.session).await != Some(rooms(&[("chat", 2)])) {
            rounds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the other one is saved");
    // Whoever claims the bad one is answered, without it: what it has acknowledged is not there.
    assert!(hub.try_attach(naming(claim(bad, "bad"), &held[0])).await.is_none());
    redis.admin::<redis::Value>(&["DEL", &keys[0]]);
    hub.is_saved().await;
    assert_eq!(hub.stored(bad, &held[0].session).await, Some(rooms(&[("chat", 2)])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_answers_whoever_waits() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    redis.pause();
    hub.sessions.detach(saved(&held, rooms(&[("chat", 2)])));
    let answers: Vec<_> = (0..20).map(|n| hub.start_attach(claim(1, &format!("tab-{n}")))).collect();
    let closing = tokio::time::timeout(PATIENCE, hub.sessions.close());
    closing.await.expect("it is bounded, however many wait");
    for answer in answers {
        assert!(answer.await.unwrap().is_none());
    }
    redis.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_server_of_a_cluster_was_away_sessions_are_saved_once_more() {
    let mut nodes = tokio::task::spawn_blocking(server::cluster).await.unwrap();
    let hosts: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let hub = Hub::join(&format!("redis-cluster://{}", hosts.join(","))).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 1)])).await;
    for node in &mut nodes {
        hub.record.told.send_modify(Vec::clear);
        tokio::task::block_in_place(|| {
            node.kill();
            node.restart();
        });
        hub.was_told(Told::Refresh(held.ticket)).await;
    }
    hub.save(&held, rooms(&[("chat", 2)])).await;
    hub.is_saved().await;
    assert_eq!(hub.stored(1, &held.session).await, Some(rooms(&[("chat", 2)])));
}
