//! How a hub starts and ends.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use twine_hub::{Hub, Running, StartError};

use crate::support::{Request, answer, hub, hub_in, hub_with};

#[tokio::test]
async fn a_hub_takes_a_listener_that_is_bound_already() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hub = Hub::builder().ephemeral().listener(listener).start().await.unwrap();
    assert_eq!(hub.address(), address);
    assert_eq!(Request::get("/healthz").send(&hub).await.status, 200);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error =
        Hub::builder().ephemeral().configure(|config| config.listen = address).start().await.unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("can't listen on {address}"));
}

#[tokio::test]
async fn two_hubs_can_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Hub::builder().configure(|config| {
            config.listen = ([127, 0, 0, 1], 0).into();
            config.data_dir = folder.path().to_owned();
        })
    };
    let first = start().start().await.unwrap();
    assert!(matches!(start().start().await, Err(StartError::Store(_))));
    let key = first.api_key().expose().to_owned();
    first.shutdown().await;
    let again = start().start().await.unwrap();
    assert_eq!(again.api_key().expose(), key);
    again.shutdown().await;
}

#[tokio::test]
async fn a_hub_that_did_not_start_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let builder = Hub::builder().configure(|config| {
        config.listen = ([127, 0, 0, 1], 0).into();
        folder.path().clone_into(&mut config.data_dir);
        config.api_key_file = Some(missing);
    });
    assert!(matches!(builder.start().await, Err(StartError::Key(_))));
    hub_in(folder.path()).await.shutdown().await;
}

#[tokio::test]
async fn what_a_hub_keeps_is_for_its_own_user_only() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let hub = hub_in(&data_dir).await;
    publish_and_read(&hub).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.contains(&data_dir.join("twine.db-wal")), "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    hub.shutdown().await;
}

#[tokio::test]
async fn a_hub_that_was_shut_down_leaves_whole_databases() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_in(folder.path()).await;
    publish_and_read(&hub).await;
    hub.shutdown().await;
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["lock", "sessions.db", "twine.db"]);
}

/// Has both connections of the store used.
async fn publish_and_read(hub: &Running) {
    assert_eq!(Request::publish(r#"{"room":"chat","data":1}"#).send(hub).await.status, 200);
    let history = Request::get("/api/rooms/chat/messages").with_key().send(hub).await;
    assert_eq!(history.json()["messages"][0]["data"], 1);
}

#[tokio::test]
async fn a_key_file_is_read_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "from-the-file\n").unwrap();
    let file = path.clone();
    let hub = hub_with(|config| config.api_key_file = Some(file)).await;
    for key in ["from-the-file", crate::support::KEY] {
        let answer =
            Request::get("/api/rooms").header("Authorization", &format!("Bearer {key}")).send(&hub).await;
        assert_eq!(answer.status, 200);
    }
    let missing = folder.path().join("missing");
    let builder = Hub::builder().ephemeral().configure(|config| config.api_key_file = Some(missing));
    assert!(matches!(builder.start().await, Err(StartError::Key(_))));
}

#[tokio::test]
async fn a_stopping_hub_answers_what_it_has_begun_and_tells_its_clients() {
    let hub = hub().await;
    let address = hub.address();
    let (mut subscriber, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await.unwrap();
    subscriber.send(Message::text(r#"{"type":"connect"}"#)).await.unwrap();
    subscriber.next().await.unwrap().unwrap();

    let bytes = Request::publish(r#"{"room":"chat","data":1}"#).bytes(address);
    let (begun, rest) = bytes.split_at(bytes.len() - 5);
    let mut publisher = TcpStream::connect(address).await.unwrap();
    publisher.write_all(begun).await.unwrap();
    // An answer on a later connection shows that the hub has taken the earlier one.
    assert_eq!(Request::get("/healthz").send(&hub).await.status, 200);

    let stopping = tokio::spawn(hub.shutdown());
    let said = subscriber.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(said.starts_with(r#"{"type":"disconnect","code":"draining""#), "{said}");
    publisher.write_all(rest).await.unwrap();
    assert_eq!(answer(&mut publisher).await.unwrap().status, 200);
    stopping.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn requests_that_do_not_end_are_ended_by_force() {
    let hub = hub_with(|config| config.shutdown_grace = std::time::Duration::from_millis(50)).await;
    let mut publisher = TcpStream::connect(hub.address()).await.unwrap();
    let bytes = Request::publish(r#"{"room":"chat","data":1}"#).bytes(hub.address());
    publisher.write_all(&bytes[..bytes.len() - 5]).await.unwrap();
    assert_eq!(Request::get("/healthz").send(&hub).await.status, 200);
    hub.shutdown().await;
    assert!(answer(&mut publisher).await.is_none());
}

#[tokio::test]
async fn a_dropped_hub_leaves_nothing_behind() {
    let hub = hub().await;
    let address = hub.address();
    let (mut subscriber, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await.unwrap();
    drop(hub);
    while subscriber.next().await.is_some_and(|frame| frame.is_ok()) {}
    // The listener is closed by its task, which has to be run for that.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_thread_that_panics_shows_with_what_to_do_and_the_others_go_on() {
    let builder = Hub::builder().ephemeral().configure(|config| config.shards = 2);
    let builder = builder
        .permissions(|_, room| if room == "bad" { panic!("a test wants a shard to panic") } else { true });
    let hub = builder.start().await.unwrap();
    let url = format!("ws://{}/ws", hub.address());
    // Each shard in turn gets a connection.
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (mut client, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        client.send(Message::text(r#"{"type":"connect"}"#)).await.unwrap();
        client.next().await.unwrap().unwrap();
        clients.push(client);
    }
    let [first, second] = &mut clients[..] else { panic!("two clients") };
    assert_eq!(Request::get("/readyz").send(&hub).await.status, 200);

    first.send(Message::text(r#"{"type":"subscribe","id":1,"room":"bad"}"#)).await.unwrap();
    while first.next().await.is_some_and(|frame| frame.is_ok()) {}
    // The connection ends while the thread unwinds, which takes it a little longer.
    let shown = loop {
        let answer = Request::get("/readyz").send(&hub).await;
        if answer.status == 503 {
            break answer.json();
        }
    };
    assert_eq!((&shown["ready"], &shown["store"]["ok"]), (&false.into(), &true.into()));
    let error = shown["connections"]["error"].as_str().unwrap();
    assert!(error.contains("restart the hub"), "{error}");

    // Whoever comes to the thread that has ended is cut, and may try again.
    assert!(tokio_tungstenite::connect_async(&url).await.is_err());
    second.send(Message::text(r#"{"type":"subscribe","id":1,"room":"good"}"#)).await.unwrap();
    assert!(second.next().await.unwrap().unwrap().to_string().contains("subscribed"));
    hub.shutdown().await;
}
