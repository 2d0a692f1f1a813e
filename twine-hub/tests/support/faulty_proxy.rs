//! An HTTP proxy before a back end that answers as DynamoDB does in trouble.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// It is refused, for there are too many.
    Throttle,
    /// It fails inside DynamoDB.
    Error,
    /// The connection is cut before anything is done.
    Cut,
    /// It is done, and the connection cut before the answer.
    LoseAnswer,
    /// Nothing is done, and no answer comes.
    Hang,
    /// It is done, and the answer comes so late.
    Slow { millis: u64 },
}

/// A proxy; ends when dropped.
pub(crate) struct FaultyProxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    back_end: SocketAddr,
    faults: Mutex<Faults>,
    requests: watch::Sender<usize>,
}

#[derive(Default)]
struct Faults {
    next: VecDeque<Fault>,
    then: Option<Fault>,
    decide: Option<Decide>,
}

/// Says what happens to a request.
type Decide = Box<dyn FnMut() -> Option<Fault> + Send>;

/// That a connection ends without an answer.
type Broken = Box<dyn std::error::Error + Send + Sync>;

impl FaultyProxy {
    /// Starts one before what listens on a port of this machine. At first it does no harm.
    pub(crate) async fn start(back_end: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let back_end = (Ipv4Addr::LOCALHOST, back_end).into();
        let shared = Arc::new(Shared { back_end, faults: Mutex::default(), requests: watch::Sender::new(0) });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Self { port, shared, task }
    }

    /// Where it answers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What happens to the next requests, one each.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().next.extend(faults);
    }

    /// What happens to all requests after those, until it is called again.
    pub(crate) fn then(&self, fault: Option<Fault>) {
        self.shared.faults.lock().unwrap().then = fault;
    }

    /// Has somebody say what happens to each request, where nothing else is said.
    #[allow(dead_code, reason = "not all that share this file need it")]
    pub(crate) fn decide(&self, decide: impl FnMut() -> Option<Fault> + Send + 'static) {
        self.shared.faults.lock().unwrap().decide = Some(Box::new(decide));
    }

    /// Waits until so many requests have come in all.
    pub(crate) async fn wait_for_requests(&self, n: usize) {
        let mut requests = self.shared.requests.subscribe();
        requests.wait_for(|requests| *requests >= n).await.expect("the proxy is there");
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(&shared, request));
            // It fails where a fault wants it to.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, Full::new(body.collect().await?.to_bytes()));
    let fault = {
        let mut faults = shared.faults.lock().unwrap();
        let said = faults.next.pop_front().or(faults.then);
        said.or_else(|| faults.decide.as_mut().and_then(|decide| decide()))
    };
    shared.requests.send_modify(|requests| *requests += 1);
    match fault {
        None => forward(shared, request).await,
        Some(Fault::Throttle) => {
            Ok(refusal(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"))
        }
        Some(Fault::Error) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")),
        Some(Fault::Cut) => Err("cut".into()),
        Some(Fault::LoseAnswer) => {
            forward(shared, request).await?;
            Err("cut".into())
        }
        Some(Fault::Slow { millis }) => {
            let answer = forward(shared, request).await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            answer
        }
        Some(Fault::Hang) => match std::future::pending::<Infallible>().await {},
    }
}

async fn forward(shared: &Shared, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Broken> {
    let socket = TcpStream::connect(shared.back_end).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        drop(sender);
        Ok::<_, Broken>(Response::from_parts(head, Full::new(body)))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

fn refusal(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let body =
        format!("{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{code}\",\"message\":\"as a test wants\"}}");
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/x-amz-json-1.0"));
    answer
}
