//! As much of HTTP/1.1 as it takes to see where a message ends.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A request or an answer, as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Exchanged {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Exchanged {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        format!("{}{}", self.head, self.body).into_bytes()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Reads one message whose body has a `Content-Length`; `None` where the connection ends before it is whole.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Exchanged> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut message = Exchanged { head: String::from_utf8(head).unwrap(), body: String::new() };
    let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    message.body = String::from_utf8(body).unwrap();
    Some(message)
}

/// Sends a request and reads its answer; `None` where there is none.
pub(crate) async fn exchange(server: SocketAddr, request: &Exchanged) -> Option<Exchanged> {
    let mut stream = BufReader::new(TcpStream::connect(server).await.ok()?);
    stream.write_all(&request.to_bytes()).await.ok()?;
    read(&mut stream).await
}
