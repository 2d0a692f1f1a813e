//! What lies between clients and a hub: narrow, and cut now and then.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Bytes that the kernel may hold in each of its sockets: little, so that a reader that stops is felt.
const SOCKET_BUFFER: u32 = 64 << 10;

/// A proxy to one address.
pub(crate) struct Network {
    address: SocketAddr,
    state: Arc<State>,
    /// Ends with it.
    _task: JoinSet<()>,
}

struct State {
    hub: SocketAddr,
    /// Draws how long each connection lasts; `None` where they last.
    cuts: Option<Mutex<fastrand::Rng>>,
    is_healed: AtomicBool,
}

/// How a connection ends.
#[derive(Clone, Copy)]
struct Cut {
    /// After so many bytes of the hub's.
    after: usize,
    /// By a reset, not by a word of farewell.
    is_reset: bool,
}

impl Network {
    /// Whose connections last.
    pub(crate) fn steady(hub: SocketAddr) -> Self {
        Self::start(hub, None)
    }

    /// Whose connections are cut after some bytes, in the middle of a frame mostly.
    pub(crate) fn unsteady(hub: SocketAddr, draw: fastrand::Rng) -> Self {
        Self::start(hub, Some(draw))
    }

    fn start(hub: SocketAddr, draw: Option<fastrand::Rng>) -> Self {
        let socket = narrow();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { hub, cuts: draw.map(Mutex::new), is_healed: AtomicBool::default() });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, state.clone()));
        Self { address, state, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing is cut any more.
    pub(crate) fn heal(&self) {
        self.state.is_healed.store(true, Ordering::Relaxed);
    }
}

/// Accepted sockets have the buffers of their listener.
fn narrow() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket
}

impl State {
    fn next_cut(&self) -> Option<Cut> {
        let mut draw = self.cuts.as_ref()?.lock().unwrap();
        Some(Cut { after: draw.usize(200..200_000), is_reset: draw.bool() })
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(carry(client, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, state: Arc<State>) {
    // Without a hub the client's socket ends, as if nobody listened.
    let Ok(mut hub) = narrow().connect(state.hub).await else { return };
    let cut = state.next_cut();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_hub, mut to_hub) = hub.split();
    let down = async {
        let (mut buffer, mut forwarded) = ([0; 16 << 10], 0);
        loop {
            let Ok(n @ 1..) = from_hub.read(&mut buffer).await else { return false };
            let left = cut
                .filter(|_| !state.is_healed.load(Ordering::Relaxed))
                .map_or(n, |cut| cut.after.saturating_sub(forwarded));
            if to_client.write_all(&buffer[..n.min(left)]).await.is_err() {
                return false;
            }
            if left < n {
                return true;
            }
            forwarded += n;
        }
    };
    let is_cut = tokio::select! {
        is_cut = down => is_cut,
        _ = tokio::io::copy(&mut from_client, &mut to_hub) => false,
    };
    if is_cut && cut.is_some_and(|cut| cut.is_reset) {
        for socket in [&client, &hub] {
            SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}
