//! What lies between a hub and a server that it needs: a TCP proxy that can go wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes that are carried at once.
const CHUNK: usize = 16 << 10;
/// Chunks that may be on their way in one direction of a connection; then its sender is held up.
const CHUNKS: usize = 64;

/// What is wrong with a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// All arrives so much later.
    Slow { millis: u64 },
    /// No more than so many bytes a second get through, of each connection and each way.
    Narrow { bytes: u64 },
    /// Nothing gets through, though connections stay open and new ones are taken. What was held up
    /// arrives when it is over.
    Stall,
    /// Connections are reset, new ones as soon as they are made.
    Cut,
    /// Connections are reset, and nobody listens.
    Refuse,
    /// The client is told that nothing more comes; what it sends still arrives.
    HalfClose,
}

/// A proxy to one address; ends when dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    fault: watch::Sender<Option<Fault>>,
    task: JoinHandle<()>,
    /// Holds the port while nobody listens.
    _port: Socket,
}

/// What a connection knows of what is wrong. The wire's end ends its task, and with it all connections.
type Faults = watch::Receiver<Option<Fault>>;

impl Wire {
    /// A wire that is sound, with an address here.
    pub(crate) fn start(here: Ipv4Addr, to: SocketAddr) -> Self {
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Then one that listens may bind it as well.
        port.set_reuse_address(true).unwrap();
        port.bind(&SocketAddr::from((here, 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let (fault, faults) = watch::channel(None);
        // It listens from now on.
        let listener = listen(address);
        let task = tokio::spawn(serve(listener, to, faults));
        Self { address, fault, task, _port: port }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is wrong from now on, or nothing.
    pub(crate) fn suffer(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

async fn serve(mut listener: TcpListener, to: SocketAddr, faults: Faults) {
    let address = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    let mut refusals = faults.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                connections.spawn(carry(client, to, faults.clone()));
            }
            _ = until(&mut refusals, |fault| fault == Some(Fault::Refuse)) => {
                drop(listener);
                until(&mut refusals, |fault| fault != Some(Fault::Refuse)).await;
                listener = listen(address);
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Waits until what is wrong is so.
async fn until(faults: &mut Faults, is_so: impl Fn(Option<Fault>) -> bool) -> Option<Fault> {
    let found = faults.wait_for(|fault| is_so(*fault)).await.map(|fault| *fault);
    match found {
        Ok(fault) => fault,
        // The wire is about to end, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut faults: Faults) {
    // A client that is held up does not know whether it has come through.
    until(&mut faults, |fault| fault != Some(Fault::Stall)).await;
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut cuts = faults.clone();
    let both = async {
        tokio::join!(
            pump(from_client, to_server, faults.clone(), None),
            pump(from_server, to_client, faults.clone(), Some(Fault::HalfClose)),
        )
    };
    let is_cut = tokio::select! {
        _ = both => false,
        _ = until(&mut cuts, |fault| matches!(fault, Some(Fault::Cut | Fault::Refuse))) => true,
    };
    if is_cut {
        for socket in [&client, &server] {
            // It may be reset already, by who is behind it.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Carries one way, which ends early under a certain fault.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: Faults, ends_by: Option<Fault>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            // What comes after an early end goes nowhere, and is read all the same.
            let _ = sender.send((Instant::now(), buffer[..n].to_vec())).await;
        }
    };
    let mut ends = faults.clone();
    let write = async move {
        loop {
            let next = tokio::select! {
                next = chunks.recv() => next,
                _ = until(&mut ends, |fault| fault.is_some() && fault == ends_by) => None,
            };
            let Some((read_at, chunk)) = next else { break };
            match until(&mut faults, |fault| fault != Some(Fault::Stall)).await {
                Some(Fault::Slow { millis }) => sleep_until(read_at + Duration::from_millis(millis)).await,
                Some(Fault::Narrow { bytes }) => {
                    sleep(Duration::from_micros(chunk.len() as u64 * 1_000_000 / bytes)).await;
                }
                _ => {}
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side may have gone before.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A server that sends back what it gets, and a wire to it.
    async fn echo() -> (Wire, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wire = Wire::start(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut from, mut to) = socket.split();
                    // It fails where the wire is cut.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (wire, server)
    }

    async fn say(socket: &mut TcpStream, word: &[u8]) {
        socket.write_all(word).await.unwrap();
    }

    async fn hear(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut heard = [0; 4];
        socket.read_exact(&mut heard).await.map(|_| heard.to_vec())
    }

    #[tokio::test]
    async fn a_wire_carries_both_ways_and_ends_as_its_client_does() {
        let (wire, _server) = echo().await;
        let mut socket = TcpStream::connect(wire.address()).await.unwrap();
        for fault in [None, Some(Fault::Slow { millis: 1 }), Some(Fault::Narrow { bytes: 10_000 })] {
            wire.suffer(fault);
            say(&mut socket, b"ping").await;
            assert_eq!(hear(&mut socket).await.unwrap(), b"ping");
        }
        say(&mut socket, b"last").await;
        socket.shutdown().await.unwrap();
        assert_eq!(hear(&mut socket).await.unwrap(), b"last");
        assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_wire_held_up_arrives_when_it_goes_on() {
        let (wire, _server) = echo().await;
        let mut before = TcpStream::connect(wire.address()).await.unwrap();
        say(&mut before, b"one ").await;
        assert_eq!(hear(&mut before).await.unwrap(), b"one ");
        wire.suffer(Some(Fault::Stall));
        let mut meanwhile = TcpStream::connect(wire.address()).await.unwrap();
        say(&mut before, b"two ").await;
        say(&mut meanwhile, b"new ").await;
        // Another wire carries the same to and fro, which takes as long.
        let (other, _other_server) = echo().await;
        let mut other = TcpStream::connect(other.address()).await.unwrap();
        say(&mut other, b"ping").await;
        hear(&mut other).await.unwrap();
        let nothing = before.try_read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        wire.suffer(None);
        assert_eq!(hear(&mut before).await.unwrap(), b"two ");
        assert_eq!(hear(&mut meanwhile).await.unwrap(), b"new ");
    }

    #[tokio::test]
    async fn a_wire_that_is_cut_or_refuses_is_there_again_afterwards() {
        let (wire, _server) = echo().await;
        for fault in [Fault::Cut, Fault::Refuse] {
            let mut socket = TcpStream::connect(wire.address()).await.unwrap();
            say(&mut socket, b"ping").await;
            assert_eq!(hear(&mut socket).await.unwrap(), b"ping");
            wire.suffer(Some(fault));
            assert_eq!(hear(&mut socket).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            match TcpStream::connect(wire.address()).await {
                Ok(mut accepted) => assert!(hear(&mut accepted).await.is_err(), "{fault:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{fault:?}"),
            }
            wire.suffer(None);
            // It may not listen yet.
            let mut socket = loop {
                match TcpStream::connect(wire.address()).await {
                    Ok(socket) => break socket,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            say(&mut socket, b"back").await;
            assert_eq!(hear(&mut socket).await.unwrap(), b"back");
        }
    }

    #[tokio::test]
    async fn a_wire_that_is_half_closed_tells_the_client_alone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wire = Wire::start(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap());
        let mut client = TcpStream::connect(wire.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        wire.suffer(Some(Fault::HalfClose));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        say(&mut client, b"ping").await;
        assert_eq!(hear(&mut server).await.unwrap(), b"ping");
    }
}
