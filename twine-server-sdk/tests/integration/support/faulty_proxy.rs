//! A proxy before a hub that fails as told; without a hub, a server that answers as told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::http::{self, Exchanged};

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// It goes to the hub, and the hub's answer goes back.
    Pass,
    /// It is answered here, and the hub does not hear of it.
    Answer(String),
    /// It is answered here by the first so many bytes, and then the connection is cut.
    AnswerInPart(String, usize),
    /// It goes to the hub; of the hub's answer so many bytes go back, and then the connection is cut.
    PassThenCut(usize),
    /// It is read, and then nothing happens.
    Hang,
    /// It is read, and then the connection is cut.
    Cut,
}

/// Listens on a port of its own until it is dropped.
pub(crate) struct FaultyProxy {
    addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    steps: Mutex<VecDeque<Step>>,
    /// What happens after the last step.
    rest: Mutex<Step>,
    hub: Mutex<Option<SocketAddr>>,
    requests: watch::Sender<Vec<Exchanged>>,
    n_connections: AtomicUsize,
}

impl FaultyProxy {
    /// Takes one step a request, and after the last one passes on what comes; see [`Self::set_rest`].
    pub(crate) async fn start(hub: Option<SocketAddr>, steps: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            steps: Mutex::new(steps.into_iter().collect()),
            rest: Mutex::new(Step::Pass),
            hub: Mutex::new(hub),
            requests: watch::Sender::new(Vec::new()),
            n_connections: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { addr, state, task }
    }

    /// Answers as told, without a hub.
    pub(crate) async fn scripted(answers: impl IntoIterator<Item = String>) -> Self {
        Self::start(None, answers.into_iter().map(Step::Answer)).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What happens to each request that no step is left for.
    pub(crate) fn set_rest(&self, rest: Step) {
        *self.state.rest.lock().unwrap() = rest;
    }

    /// Passes on to this hub from now on.
    pub(crate) fn set_hub(&self, hub: SocketAddr) {
        *self.state.hub.lock().unwrap() = Some(hub);
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Exchanged> {
        self.state.requests.borrow().clone()
    }

    /// How many connections were made so far.
    pub(crate) fn n_connections(&self) -> usize {
        self.state.n_connections.load(Ordering::Relaxed)
    }

    /// The bodies of what came so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.body).collect()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until_requests(&self, n_requests: usize) {
        let mut requests = self.state.requests.subscribe();
        requests.wait_for(|requests| requests.len() >= n_requests).await.unwrap();
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Owns the connections, and so ends them with itself.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.n_connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = http::read(&mut stream).await {
        let step = state.steps.lock().unwrap().pop_front();
        let step = step.unwrap_or_else(|| state.rest.lock().unwrap().clone());
        let hub = *state.hub.lock().unwrap();
        state.requests.send_modify(|requests| requests.push(request.clone()));
        let (answer, n_bytes) = match step {
            Step::Pass => (ask(hub, &request).await, usize::MAX),
            Step::PassThenCut(n_bytes) => (ask(hub, &request).await, n_bytes),
            Step::Answer(answer) => (Some(answer.into_bytes()), usize::MAX),
            Step::AnswerInPart(answer, n_bytes) => (Some(answer.into_bytes()), n_bytes),
            Step::Hang => return std::future::pending().await,
            Step::Cut => return,
        };
        let Some(answer) = answer else { return };
        let whole = n_bytes >= answer.len();
        let sent = stream.write_all(&answer[..n_bytes.min(answer.len())]).await;
        if !whole || sent.is_err() {
            return;
        }
    }
}

/// The hub's whole answer, or `None` where it gives none.
async fn ask(hub: Option<SocketAddr>, request: &Exchanged) -> Option<Vec<u8>> {
    let answer = http::exchange(hub?, request).await?;
    Some(answer.to_bytes())
}
