//! Clients that come to another hub.

use super::*;

#[tokio::test]
async fn a_client_that_comes_to_another_hub_goes_on_with_its_session() {
    let redis = Server::start();
    goes_on(&redis.url()).await;
}

#[tokio::test]
async fn so_it_is_on_a_cluster() {
    let nodes = tokio::task::spawn_blocking(server::cluster).await.unwrap();
    let hosts: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    goes_on(&format!("redis-cluster://{}", hosts.join(","))).await;
}

async fn goes_on(url: &str) {
    let (first, second) = (Hub::lively(url).await, Hub::lively(url).await);
    // Several cookies are in several buckets, and so on several servers of a cluster.
    for of in 0..8 {
        let new = first.attach(claim(of, "page")).await;
        assert_eq!((new.how, new.rooms.len()), (How::New, 0));
        assert_eq!(first.n_stored(of).await, 0, "without a room it is nowhere but there");
        first.save(&new, rooms(&[("chat", 7), ("news", 1)])).await;

        // The first has not noticed that its connection is gone.
        let moved = second.attach(naming(claim(of, "page"), &new)).await;
        assert_eq!((&moved.session, moved.how), (&new.session, How::Resumed));
        assert_eq!(moved.rooms, rooms(&[("chat", 7), ("news", 1)]));
        first.was_told(Told::Lost(new.ticket, Lost::TakenOver)).await;

        second.detach(&moved, rooms(&[("chat", 9)])).await;
        let back = first.attach(naming(claim(of, "page"), &new)).await;
        assert_eq!((back.how, back.rooms), (How::Resumed, rooms(&[("chat", 9)])));
    }
}

#[tokio::test]
async fn a_browser_that_comes_back_to_any_hub_adopts_its_session_exactly_once() {
    let redis = Server::start();
    let hubs =
        [Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await];
    for of in 0..4 {
        let left = hubs[0].attach(claim(of, "yesterday")).await;
        hubs[0].detach(&left, rooms(&[("chat", 7)])).await;
        let claims: Vec<_> =
            (0..12).map(|n| hubs[n % 3].start_attach(claim(of, &format!("tab-{n}")))).collect();
        let mut adopted = 0;
        for answer in claims {
            let attached = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
            if attached.how == How::Adopted {
                adopted += 1;
                assert_eq!((attached.session, attached.rooms), (left.session.clone(), rooms(&[("chat", 7)])));
            } else {
                assert_eq!(attached.how, How::New);
            }
        }
        assert_eq!(adopted, 1);
    }
}

#[tokio::test]
async fn whoever_did_not_hear_the_answer_gets_the_same_session_from_another_hub() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let left = first.attach(claim(1, "yesterday")).await;
    first.detach(&left, rooms(&[("chat", 7)])).await;
    let adopted = first.attach(claim(1, "today")).await;
    assert_eq!(adopted.how, How::Adopted);
    let again = second.attach(claim(1, "today")).await;
    assert_eq!((again.session, again.how), (left.session, How::Adopted));
    first.was_told(Told::Lost(adopted.ticket, Lost::TakenOver)).await;
}

#[tokio::test]
async fn another_page_gets_a_copy_from_another_hub() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let original = first.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    let copy = second.attach(naming(claim(1, "duplicate"), &original)).await;
    assert_eq!((copy.how, &copy.rooms), (How::Copied, &rooms(&[("chat", 7)])));
    assert_ne!(copy.session, original.session);
    second.save(&copy, rooms(&[("chat", 8)])).await;
    assert_eq!(first.stored(1, &original.session).await, Some(rooms(&[("chat", 7)])));
    assert_eq!(first.told(), []);
    // Its reload is the page itself.
    let reload = Claim { prev: InstanceId::new("page").ok(), ..naming(claim(1, "reload"), &original) };
    let reloaded = second.attach(reload).await;
    assert_eq!((reloaded.how, reloaded.session), (How::Resumed, original.session));
}

#[tokio::test]
async fn all_four_have_to_be_equal() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let left = first.attach(claim(1, "page")).await;
    first.detach(&left, rooms(&[("chat", 7)])).await;
    let mut others = [claim(2, "page"), claim(1, "page"), claim(1, "page"), claim(1, "page")];
    others[1].identity.visitor.origin = "https://evil.example.com".into();
    others[2].identity.subject = Some("mallory".into());
    others[3].identity.scope = "/other".into();
    for (n, other) in others.into_iter().enumerate() {
        for claim in [naming(other.clone(), &left), other] {
            let attached = second.attach(claim).await;
            assert_eq!((attached.how, attached.rooms.len()), (How::New, 0), "{n}");
            // Only the scope may differ where a room starts.
            let inherited = if n == 3 { rooms(&[("chat", 7)]) } else { Cursors::new() };
            assert_eq!(attached.inherited, inherited, "{n}");
            second.detach(&attached, Cursors::new()).await;
        }
    }
    assert_eq!(second.attach(naming(claim(1, "page"), &left)).await.how, How::Resumed);
}

#[tokio::test]
async fn what_one_hub_has_forgotten_all_have() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let here = first.shared(claim(1, "here"), rooms(&[("chat", 7)])).await;
    let there = second.shared(naming(claim(1, "there"), &here), rooms(&[("chat", 7)])).await;
    let other = second.shared(claim(2, "other"), rooms(&[("chat", 7)])).await;
    first.sessions.forget(cookie(1)).await.unwrap();
    first.was_told(Told::Lost(here.ticket, Lost::Forgotten)).await;
    second.was_told(Told::Lost(there.ticket, Lost::Forgotten)).await;
    assert_eq!(first.attach(naming(claim(1, "here"), &here)).await.how, How::New);
    assert_eq!(second.n_stored(2).await, 1);
    assert!(!second.told().contains(&Told::Lost(other.ticket, Lost::Forgotten)));
}

#[tokio::test]
async fn a_log_out_at_one_hub_reaches_what_is_only_at_another() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let fresh = second.attach(claim(1, "no-room-yet")).await;
    let other = second.attach(claim(2, "somebody-else")).await;
    first.sessions.forget(cookie(1)).await.unwrap();
    second.was_told(Told::Lost(fresh.ticket, Lost::Forgotten)).await;
    assert_eq!(second.told(), [Told::Lost(fresh.ticket, Lost::Forgotten)], "and nobody else");
    second.save(&other, rooms(&[("chat", 1)])).await;
    assert_eq!(second.n_stored(2).await, 1);
}

#[tokio::test]
async fn a_hub_that_did_not_hear_of_it_does_not_put_back_what_was_forgotten() {
    let redis = Server::start();
    let hub = Hub::join(&redis.url()).await;
    let held = hub.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    hub.is_deaf();
    let other = Hub::join(&redis.url()).await;
    other.sessions.forget(cookie(1)).await.unwrap();
    hub.save_deaf(&held, rooms(&[("chat", 8)]));
    hub.was_told(Told::Lost(held.ticket, Lost::Forgotten)).await;
    assert_eq!(other.n_stored(1).await, 0);
    // Nor a new one of the same cookie.
    let late = Hub::join(&redis.url()).await;
    let new = late.attach(claim(1, "page")).await;
    late.save(&new, rooms(&[("chat", 9)])).await;
    late.was_told(Told::Lost(new.ticket, Lost::Forgotten)).await;
    assert_eq!(late.n_stored(1).await, 0);
}

#[tokio::test]
async fn closing_saves_what_waits_and_lets_others_have_it() {
    let redis = Server::start();
    let (first, second) = (Hub::join(&redis.url()).await, Hub::join(&redis.url()).await);
    let held = first.attach(claim(1, "page")).await;
    let save = |n| Save { session: held.session.clone(), ticket: held.ticket, rooms: rooms(&[("chat", n)]) };
    first.sessions.save(vec![save(6)]);
    first.sessions.detach(save(7));
    first.sessions.close().await;
    let adopted = second.attach(claim(1, "tomorrow")).await;
    assert_eq!((adopted.how, adopted.rooms), (How::Adopted, rooms(&[("chat", 7)])));
    assert!(first.try_attach(claim(1, "late")).await.is_none(), "it is closed");
    assert!(!second.fleet().shelf.lives(&first.fleet().hub).await.unwrap());
}
