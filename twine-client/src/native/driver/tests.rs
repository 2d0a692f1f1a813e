//! What the driver does between sockets. The rest is tested against a real hub, in `tests/native`.

use twine_protocol::{Gap, GapReason, Position};

use super::*;
use crate::native::endpoint::Endpoint;
use crate::native::headers::Headers;

fn driver() -> Driver {
    let way = Way {
        endpoint: Endpoint::new("http://localhost").unwrap(),
        headers: Headers::new(&[]).unwrap(),
        local: None,
        #[cfg(feature = "rustls")]
        tls: None,
    };
    let (_, commands) = mpsc::channel(1);
    let (states, _) = watch::channel(State::Idle);
    Driver::new(way, None, commands, states, None)
}

fn loss(room: &RoomName) -> Event {
    let (from, to) = (Position::new("e1", 1).unwrap(), Position::new("e1", 2).unwrap());
    Event::Gap(Gap { room: room.clone(), from, to, count: None, reason: GapReason::Expired })
}

#[tokio::test(start_paused = true)]
async fn time_stands_still_while_a_reader_is_waited_for() {
    let mut driver = driver();
    let room = RoomName::new("chat").unwrap();
    let (events, mut read) = mpsc::channel(1);
    let reader = Reader { generation: Generation(1), events, ended: Ended::default() };
    driver.readers.insert(room.clone(), reader);
    tokio::time::advance(Duration::from_secs(1)).await;
    driver.hand_over(room.clone(), loss(&room), None);
    driver.hand_over(room.clone(), loss(&room), None);

    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(driver.now(), 1_000);
    read.recv().await.unwrap();
    driver.unblock();
    assert!(driver.blocked.is_none());
    assert_eq!(driver.now(), 1_000);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(driver.now(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_when_the_reader_is_forgotten() {
    let mut driver = driver();
    let room = RoomName::new("chat").unwrap();
    let (events, _read) = mpsc::channel(1);
    let reader = Reader { generation: Generation(1), events, ended: Ended::default() };
    driver.readers.insert(room.clone(), reader);
    driver.hand_over(room.clone(), loss(&room), None);
    driver.hand_over(room.clone(), loss(&room), None);

    tokio::time::advance(Duration::from_secs(60)).await;
    driver.forget(&room);
    assert_eq!(driver.now(), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(driver.now(), 1_000);
}
