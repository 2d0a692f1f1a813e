//! A proxy that changes the numbers of messages, within frames that are as the hub wrote them: offsets
//! stay dense, so that no client can notice.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What stands in place of what: texts of the same length.
pub(crate) type Swaps = &'static [(&'static str, &'static str)];

/// A proxy before a hub; ends when dropped.
pub(crate) struct Tampering {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Tampering {
    pub(crate) async fn start(hub: SocketAddr, swaps: Swaps) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // How a connection ends is its ends' business.
                connections.spawn(async move { pass(client, hub, swaps).await.unwrap_or_default() });
            }
        });
        Self { address, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn pass(client: TcpStream, hub: SocketAddr, swaps: Swaps) -> std::io::Result<()> {
    let (mut client, mut hub) = (BufReader::new(client), BufReader::new(TcpStream::connect(hub).await?));
    let asked = head(&mut client).await?;
    hub.write_all(asked.as_bytes()).await?;
    if !asked.starts_with("GET /ws") {
        tokio::io::copy_bidirectional(&mut client, &mut hub).await?;
        return Ok(());
    }
    let answered = head(&mut hub).await?;
    client.write_all(answered.as_bytes()).await?;
    let ((mut from_client, mut to_client), (mut from_hub, mut to_hub)) =
        (tokio::io::split(client), tokio::io::split(hub));
    let frames = async {
        loop {
            let frame = tampered(frame(&mut from_hub).await?, swaps);
            to_client.write_all(&frame).await?;
        }
    };
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_hub) => copied.map(|_| ()),
        ended = frames => ended,
    }
}

async fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// A frame of the hub, which masks nothing.
async fn frame(hub: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    hub.read_exact(&mut frame).await?;
    let len = if frame[1] < 126 {
        usize::from(frame[1])
    } else {
        let more = frame.len()..frame.len() + if frame[1] == 126 { 2 } else { 8 };
        frame.resize(more.end, 0);
        hub.read_exact(&mut frame[more.clone()]).await?;
        frame[more].iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
    };
    let payload = frame.len();
    frame.resize(payload + len, 0);
    hub.read_exact(&mut frame[payload..]).await?;
    Ok(frame)
}

fn tampered(mut frame: Vec<u8>, swaps: Swaps) -> Vec<u8> {
    for (from, to) in swaps {
        assert_eq!(from.len(), to.len());
        if let Some(place) = frame.windows(from.len()).position(|part| part == from.as_bytes()) {
            frame[place..place + to.len()].copy_from_slice(to.as_bytes());
            break;
        }
    }
    frame
}
