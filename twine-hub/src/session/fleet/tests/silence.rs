//! Connections and hubs that are gone without a word.

use super::*;

#[tokio::test]
async fn a_connection_of_another_hub_that_answers_keeps_its_session() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "open"), rooms(&[("chat", 7)])).await;
    assert_eq!(second.attach(claim(1, "another")).await.how, How::New);
    assert_eq!(first.told(), [Told::Probed(held.ticket)]);
}

#[tokio::test]
async fn a_connection_of_another_hub_that_does_not_answer_loses_it() {
    let redis = Server::start();
    let (first, second) = (Hub::join(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "asleep"), rooms(&[("chat", 7)])).await;
    let adopted = second.attach(claim(1, "another")).await;
    assert_eq!((adopted.session, adopted.how), (held.session, How::Adopted));
    first.was_told(Told::Lost(held.ticket, Lost::TakenOver)).await;
}

#[tokio::test]
async fn what_another_hub_does_not_hold_any_more_is_adopted() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    // As after an answer of Redis that was lost.
    drop(locked(&first.fleet().held).remove(&held.session));
    let adopted = second.attach(claim(1, "another")).await;
    assert_eq!((adopted.session, adopted.how), (held.session.clone(), How::Adopted));
    drop(locked(&second.fleet().held).remove(&held.session));
    let adopted = second.attach(claim(1, "third")).await;
    assert_eq!((adopted.session, adopted.how), (held.session, How::Adopted), "of its own as well");
}

#[tokio::test]
async fn what_a_killed_hub_held_counts_as_detached_when_it_was_last_saved() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    let mut elsewhere = claim(1, "elsewhere");
    elsewhere.identity.scope = "/elsewhere".into();
    first.kill().await;
    second.is_steady();
    first.lapse(&second).await;
    // Whoever names it gets it, and whoever does not: nobody has to wait for an answer.
    let inherits = second.attach(elsewhere).await;
    assert_eq!((inherits.how, inherits.inherited), (How::New, rooms(&[("chat", 7)])));
    let adopted = second.attach(claim(1, "another")).await;
    assert_eq!((adopted.session, adopted.how), (held.session, How::Adopted));
    assert_eq!(adopted.rooms, rooms(&[("chat", 7)]));
}

#[tokio::test]
async fn a_hub_that_was_cut_off_itself_does_not_take_others_for_dead() {
    let redis = Server::start();
    let (first, second) = (Hub::join(&redis.url()).await, Hub::join(&redis.url()).await);
    // Neither says any more that it lives.
    first.kill().await;
    second.is_deaf();
    first.lapse(&second).await;
    let fleet = second.fleet();
    let lapsed = async || fleet.lapsed([&first.fleet().hub].into()).await.len();
    *locked(&fleet.steady_since) = None;
    assert_eq!(lapsed().await, 0, "it may be that nobody could");
    second.is_steady();
    assert_eq!(lapsed().await, 1);
    // Redis has lost what it said itself, and so may have lost the other's.
    second.lapse(&second).await;
    assert_eq!(lapsed().await, 0);
}

#[tokio::test]
async fn a_hub_whose_session_went_elsewhere_can_not_write_it_any_more() {
    let redis = Server::start();
    let (first, second) = (Hub::lively(&redis.url()).await, Hub::lively(&redis.url()).await);
    let held = first.shared(claim(1, "page"), rooms(&[("chat", 7)])).await;
    // The first is alive, though nobody knows: it was cut off, and no letter reaches it.
    first.is_deaf();
    second.is_steady();
    first.lapse(&second).await;
    let adopted = second.attach(claim(1, "another")).await;
    assert_eq!(adopted.how, How::Adopted);
    second.save(&adopted, rooms(&[("chat", 9)])).await;
    first.save_deaf(&held, rooms(&[("chat", 8)]));
    first.was_told(Told::Lost(held.ticket, Lost::TakenOver)).await;
    assert_eq!(second.stored(1, &held.session).await, Some(rooms(&[("chat", 9)])));
}

#[tokio::test]
async fn a_hub_says_again_and_again_that_it_lives() {
    let redis = Server::start();
    let (first, second) = (Hub::join(&redis.url()).await, Hub::join(&redis.url()).await);
    first.lapse(&second).await;
    let renewed = async {
        while !second.fleet().shelf.lives(&first.fleet().hub).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the lease is renewed");
}
