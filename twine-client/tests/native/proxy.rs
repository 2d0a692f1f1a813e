//! A TCP proxy between client and hub: the network, with a hand on the plug.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that the kernel may hold between hub and client: little, so that a reader that stops is felt.
const SOCKET_BUFFER: u32 = 64 << 10;

/// An address that nobody listens on.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

pub(crate) struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    open: watch::Receiver<usize>,
    forwarded: Arc<AtomicU64>,
    /// Ends with the proxy.
    _task: JoinSet<()>,
}

/// What the connections are to do. Each knows which orders were given before it was made.
#[derive(Clone, Copy)]
struct Orders {
    hub: SocketAddr,
    n_cuts: u64,
    n_stalls: u64,
}

impl Proxy {
    pub(crate) fn start(hub: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
        socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, given) = watch::channel(Orders { hub, n_cuts: 0, n_stalls: 0 });
        let (count, open) = watch::channel(0);
        let forwarded = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, given, count, forwarded.clone()));
        Self { address, orders, open, forwarded, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.n_cuts += 1);
    }

    /// Forwards nothing more on the connections there are; later ones are well.
    pub(crate) fn stall(&self) {
        self.orders.send_modify(|orders| orders.n_stalls += 1);
    }

    /// Later connections go to this hub.
    pub(crate) fn lead_to(&self, hub: SocketAddr) {
        self.orders.send_modify(|orders| orders.hub = hub);
    }

    /// Later connections end at once, as if nobody listened.
    pub(crate) fn lead_nowhere(&self) {
        self.lead_to(NOWHERE);
    }

    /// Bytes that the client's sockets took.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Waits until so many connections are open.
    pub(crate) async fn until_open(&mut self, n: usize) {
        self.open.wait_for(|open| *open == n).await.unwrap();
    }
}

async fn accept(
    listener: TcpListener,
    orders: watch::Receiver<Orders>,
    count: watch::Sender<usize>,
    forwarded: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (orders, count, forwarded) = (orders.clone(), count.clone(), forwarded.clone());
        connections.spawn(async move {
            count.send_modify(|open| *open += 1);
            carry(client, orders, &forwarded).await;
            count.send_modify(|open| *open -= 1);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, mut orders: watch::Receiver<Orders>, forwarded: &AtomicU64) {
    let first = *orders.borrow();
    // A hub that is not there: the client's socket ends, as if nobody listened.
    let Ok(mut hub) = TcpStream::connect(first.hub).await else { return };
    let mut stalls = orders.clone();
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_hub, mut to_hub) = hub.split();
        let down = async {
            let mut buffer = vec![0; 16 << 10];
            loop {
                match from_hub.read(&mut buffer).await {
                    Ok(n) if n > 0 && to_client.write_all(&buffer[..n]).await.is_ok() => {
                        forwarded.fetch_add(n as u64, Ordering::Relaxed);
                    }
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = down => return,
            _ = tokio::io::copy(&mut from_client, &mut to_hub) => return,
            _ = orders.wait_for(|now| now.n_cuts > first.n_cuts) => return,
            _ = stalls.wait_for(|now| now.n_stalls > first.n_stalls) => {}
        }
    }
    // Stalled: both ends stay open, until the client gives up.
    let mut buffer = [0; 1024];
    tokio::select! {
        () = async { while client.read(&mut buffer).await.is_ok_and(|n| n > 0) {} } => {}
        _ = orders.wait_for(|now| now.n_cuts > first.n_cuts) => {}
    }
}
