//! Servers that die, hang, and come back.

use super::server::{self, Server};
use super::*;

#[tokio::test]
async fn a_server_that_comes_back_is_another_one_with_its_data_or_without() {
    for args in [&[][..], &["--appendonly", "yes", "--appendfsync", "always"]] {
        let mut server = Server::with(args);
        let mut hub = Hub::at(&server.url());
        let room = room("restart");
        let first = hub.rotate(&room, "1").await;
        hub.link.watch(&room).await.unwrap();
        hub.assign(&room, "a").await;
        server.kill();
        until("the loss is noticed", async || hub.link.state() != State::Connected).await;
        assert!(hub.publish(&room, "b").await.is_err());
        server.restart();
        // The subscription is back in force by itself.
        hub.next_interruption().await;
        until("it heals", async || hub.link.state() == State::Connected).await;
        let Published::Rotate(rotate) = hub.publish(&room, "b").await.unwrap() else {
            panic!("goes on where it may have lost something");
        };
        let last = (!args.is_empty()).then(|| position(&first, 1));
        assert_eq!(rotate.last, last);
        let epoch = hub.rotate(&room, "2").await;
        assert_eq!(hub.assign(&room, "b").await.get(), 1);
        hub.commit(&room, &epoch, &[1]).await;
        assert_eq!(hub.next_messages().await, [(1, "b".to_owned())]);
    }
}

#[tokio::test]
async fn a_paused_server_fails_commands_by_the_deadline_and_heals() {
    let server = Server::start();
    let (mut hub, room) = (Hub::hasty(&server.url()), room("pause"));
    until("connected", async || hub.link.state() == State::Connected).await;
    until("the room is known", async || {
        let Ok(looked) = hub.link.look(&room).await else { return false };
        match looked {
            Looked::Known { .. } => true,
            Looked::Rotate(rotate) => {
                let epoch = Epoch::new("1").unwrap();
                // The next look tells.
                let _or_again = hub.link.install(&room, &rotate.server, &epoch, 0).await;
                false
            }
        }
    })
    .await;
    until("watched", async || hub.link.watch(&room).await.is_ok()).await;
    server.pause();
    let error = hub.publish(&room, "a").await.unwrap_err();
    assert!(matches!(
        error,
        RedisError::Deadline { .. } | RedisError::Ended { .. } | RedisError::Unreachable { .. }
    ));
    // Nothing tells that a silent server is gone; the hub finds out, and fails at once then.
    until("the silence is noticed", async || {
        matches!(hub.publish(&room, "a").await, Err(RedisError::Unreachable { .. }))
    })
    .await;
    let State::Disconnected { reason, .. } = hub.link.state() else { panic!("still ready") };
    assert!(reason.contains("redis at 127.0.0.1"), "{reason}");
    server.resume();
    hub.next_interruption().await;
    // Published once, whatever became of the attempts before.
    let mut places = Vec::new();
    until("it heals", async || match hub.publish(&room, "a").await {
        Ok(Published::Assigned { position, .. } | Published::Duplicate { position, .. }) => {
            places.push(position.offset.get());
            true
        }
        _ => false,
    })
    .await;
    assert_eq!(places, [1]);
}

#[tokio::test]
async fn without_a_server_commands_fail_at_once_and_say_why() {
    let mut server = Server::start();
    server.kill();
    let hub = Hub::at(&server.url());
    let error = hub.publish(&room("none"), "a").await.unwrap_err();
    assert!(matches!(error, RedisError::Unreachable { .. }), "{error}");
    assert!(matches!(hub.link.state(), State::Disconnected { .. }));
}

#[tokio::test]
async fn a_replica_is_not_used() {
    let master = Server::start();
    let replica = Server::with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let hub = Hub::at(&replica.url());
    let error = hub.link.look(&room("replica")).await.unwrap_err();
    assert!(error.to_string().contains("it is a replica"), "{error}");
    // It is promoted: the hub notices by itself.
    replica.admin::<()>(&["REPLICAOF", "NO", "ONE"]);
    until("it is used", async || hub.link.look(&room("replica")).await.is_ok()).await;
}

#[tokio::test]
async fn a_master_that_is_demoted_while_connected_is_not_used_any_more() {
    let (other, server) = (Server::start(), Server::start());
    let (hub, room) = (Hub::at(&server.url()), room("demoted"));
    hub.rotate(&room, "1").await;
    server.admin::<()>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    assert!(hub.publish(&room, "a").await.is_err());
    until("not ready", async || hub.link.state() != State::Connected).await;
}

#[tokio::test]
async fn a_password_is_needed_and_not_shown() {
    let server = Server::start();
    server.admin::<()>(&["ACL", "SETUSER", "hub", "on", ">s3cret", "~*", "&*", "+@all"]);
    let at = format!("127.0.0.1:{}", server.port);
    let hub = Hub::at(&format!("redis://hub:s3cret@{at}"));
    hub.link.look(&room("acl")).await.unwrap();
    let refused = Hub::at(&format!("redis://hub:wr0ng@{at}")).link.look(&room("acl")).await.unwrap_err();
    assert!(matches!(refused, RedisError::Unreachable { .. }), "{refused}");
    assert!(!refused.to_string().contains("wr0ng"), "{refused}");
}

#[tokio::test]
async fn tls_is_spoken_to_who_proves_to_be_the_server() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls_port = server::free_port().to_string();
    let _server = Server::with(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]);
    let mut target = Target::parse(&format!("rediss://localhost:{tls_port}")).unwrap();
    let limits = Limits { deadline: PATIENCE, connect: PATIENCE, ..Limits::default() };
    let (stranger, _bus) = Link::start(&target, limits).unwrap();
    let error = stranger.look(&room("tls")).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    target.authorities.push(made.cert.der().clone());
    let (link, _bus) = Link::start(&target, limits).unwrap();
    assert!(matches!(link.look(&room("tls")).await.unwrap(), Looked::Rotate(_)));
}
