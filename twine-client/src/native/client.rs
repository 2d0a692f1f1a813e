//! The handle to a client's task.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use twine_protocol::RoomName;

use super::driver::{Command, Driver};
use super::endpoint::Endpoint;
use super::headers::Headers;
use super::socket::Way;
#[cfg(feature = "rustls")]
use super::tls::Tls;
use super::{Error, Subscription};
use crate::core::{ClosedReason, State, SubscribeOptions};

/// Calls that wait for the client's task to take them.
const COMMANDS_MAX: usize = 64;

/// A client of one hub, connected as long as it lives.
///
/// Clones share the connection. Dropping the last one ends it at once; [`Client::disconnect`] does so
/// properly. Use a client for each reader that may be slow on its own: one that does not read holds
/// up all rooms of its client.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    states: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// How a client is set up; see [`Client::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    url: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
    local: Option<IpAddr>,
    #[cfg(feature = "rustls")]
    roots: Vec<Vec<u8>>,
}

/// The states of a client, as they change.
#[derive(Debug, Clone)]
pub struct States(watch::Receiver<State>);

impl Client {
    /// Sets up a client of the hub at `url`: the hub's address (`http://host:port`, `https://…`), or
    /// that of its WebSocket (`ws://…`, `wss://…`). TLS needs the feature `rustls`.
    pub fn builder(url: &str) -> Builder {
        Builder {
            url: url.to_owned(),
            token: None,
            headers: Vec::new(),
            local: None,
            #[cfg(feature = "rustls")]
            roots: Vec::new(),
        }
    }

    /// Subscribes a room. Completes when the hub has agreed; while it can't be reached, or asks to
    /// come back later, this waits.
    ///
    /// # Errors
    /// [`Error::Room`] for a bad name, [`Error::AlreadySubscribed`] while another subscription of the
    /// room lives, [`Error::Call`] where the hub refuses, [`Error::Closed`] where the client has ended.
    ///
    /// # Cancel safety
    /// Dropped before it completes, it has no effect that stays.
    pub async fn subscribe(&self, room: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        let room = RoomName::new(room)?;
        self.call(|reply| Command::Subscribe { room, options, reply }).await?
    }

    /// Ends the subscription of a room, if there is one: its [`Subscription`] gives what it has
    /// queued, and then `None`. Completes when the hub has agreed, or the connection is gone.
    ///
    /// # Errors
    /// [`Error::Room`] for a bad name, [`Error::Closed`] where the client has ended.
    pub async fn unsubscribe(&self, room: &str) -> Result<(), Error> {
        let room = RoomName::new(room)?;
        self.call(|reply| Command::Unsubscribe { room, reply }).await
    }

    /// How the connection stands now.
    pub fn state(&self) -> State {
        self.shared.states.borrow().clone()
    }

    /// The connection's states from now on.
    pub fn states(&self) -> States {
        let mut states = self.shared.states.clone();
        states.mark_unchanged();
        States(states)
    }

    /// Tries to connect at once, where the client waits for its next attempt or an attempt takes long;
    /// else nothing happens. For an app that knows that the network, or the hub, is back.
    pub async fn wake(&self) {
        // A client that has ended has nothing to try.
        let _ = self.shared.commands.send(Command::Wake).await;
    }

    /// Ends the connection and waits for its end. All subscriptions end, and further calls fail with
    /// [`Error::Closed`].
    pub async fn disconnect(&self) {
        // Where the task has ended already, so has the connection.
        let _ = self.call(|reply| Command::Disconnect { reply }).await;
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        if self.shared.commands.send(command(reply)).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return Ok(answer);
        }
        Err(Error::Closed(match self.state() {
            State::Closed(reason) => reason,
            // The task was ended by force, with the runtime.
            _ => ClosedReason::Disconnected,
        }))
    }
}

impl Builder {
    /// A token for the connection, where the hub asks for one.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sends this header with every handshake, also when it comes back: a `Cookie`, or what a proxy in
    /// front of the hub asks for. Several of one name are all sent.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), twine_client::Error> {
    /// use twine_client::Client;
    ///
    /// let builder = Client::builder("https://rt.example.com");
    /// let client = builder.header("Authorization", "Basic dHdpbmU6cw==").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Connects from this address of the machine, to an address of the hub of the same kind (IPv4 or
    /// IPv6). Without it the system chooses. Each connection takes a port of that address for itself,
    /// whatever hub it goes to: Linux has some 28,000 of them.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// Trusts this certificate as well (DER): for a hub behind a certificate authority of one's own.
    #[cfg(feature = "rustls")]
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(der.into());
        self
    }

    /// Connects: completes when the hub has answered. From then on the client comes back by itself
    /// whenever its connection is lost.
    ///
    /// # Errors
    /// [`Error::Connect`] where the first attempt fails ([`Builder::start`] does not give up),
    /// [`Error::Url`], [`Error::Header`] and [`Error::Certificate`] for bad settings, [`Error::Closed`]
    /// where the hub refuses this client for good.
    pub async fn connect(self) -> Result<Client, Error> {
        let (first, attempt) = oneshot::channel();
        let client = self.spawn(Some(first))?;
        match attempt.await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(error)) => Err(error),
            // The task was ended by force, with the runtime.
            Err(_) => Err(Error::Closed(ClosedReason::Disconnected)),
        }
    }

    /// Starts connecting, and goes on trying until the hub answers. Calls wait for that.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Header`] and [`Error::Certificate`] for bad settings.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Client, Error> {
        self.spawn(None)
    }

    fn spawn(self, first: Option<oneshot::Sender<Result<(), Error>>>) -> Result<Client, Error> {
        let endpoint = Endpoint::new(&self.url)?;
        let way = Way {
            headers: Headers::new(&self.headers)?,
            local: self.local,
            #[cfg(feature = "rustls")]
            tls: if endpoint.is_tls() { Some(Tls::new(&self.roots)?) } else { None },
            endpoint,
        };
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (report, states) = watch::channel(State::Idle);
        let driver = Driver::new(way, self.token, inbox, report, first);
        let task = tokio::spawn(driver.run());
        Ok(Client { shared: Arc::new(Shared { commands, states, task }) })
    }
}

impl States {
    /// The next state; changes that follow each other faster than this is called are seen as their
    /// last. `None` when the client has ended.
    ///
    /// # Cancel safety
    /// No change is missed where this is dropped before it completes.
    pub async fn next(&mut self) -> Option<State> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret, and so may a header be.
        f.debug_struct("Builder").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Handles go from task to task.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Client>();
    shared::<Subscription>();
    shared::<Error>();
};
