//! A hub as a library: start one, ask where it is, stop it.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::accept::bind;
use crate::auth::{self, ApiKey, ApiKeys, KeyFileError, Origins, Permissions, Subscriber};
use crate::config::{BrokerKind, Config, Conflict, RedisTarget, StoreKind};
use crate::connection::Connections;
use crate::http::{self, App, Limits, Tasks};
use crate::load::{Sampler, agent};
use crate::rooms::Rooms;
use crate::seldom::Seldom;
use crate::session::Sessions;
use crate::store::StoreError;
use crate::telemetry::Telemetry;

/// The way to a running hub; see [`Hub::builder`].
#[derive(Debug)]
pub struct Hub;

/// How a hub is started.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    config: Config,
    listener: Option<TcpListener>,
    ephemeral: bool,
    permissions: Option<Permissions>,
}

/// A running hub. Dropping it ends it at once, without telling its clients; see
/// [`Running::shutdown`].
#[must_use = "dropping a hub ends it"]
pub struct Running {
    address: SocketAddr,
    agent_address: Option<SocketAddr>,
    keys: Vec<ApiKey>,
    app: Arc<App>,
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address can't be listened on: it is in use, not of this machine, or needs privileges.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Two settings exclude each other.
    #[error(transparent)]
    Config(#[from] Conflict),
    /// The API key can't be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The store can't be opened.
    #[error("the store can't be opened")]
    Store(#[from] StoreError),
    /// The operating system refused a resource: a thread, random bytes.
    #[error("a resource of the operating system is missing")]
    System(#[source] std::io::Error),
}

impl Hub {
    /// Starts from the defaults of `docs/CONFIGURATION.md`.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let hub = twine_hub::Hub::builder().ephemeral().start().await?;
    /// println!("publish to {} with the key {}", hub.url(), hub.api_key().expose());
    /// hub.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Takes this configuration in place of what was set so far.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Changes settings: `.configure(|config| config.max_data = 16 << 10)`.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// A hub for a test: on a free port of the loopback interface, with the memory store and, where
    /// none is set, a key of its own. It leaves no file behind.
    pub fn ephemeral(mut self) -> Self {
        self.config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        self.config.store = StoreKind::Memory;
        self.ephemeral = true;
        self
    }

    /// Takes connections from this listener, and leaves `listen` aside.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Asks this for each room that a client subscribes to, also where its session holds the room
    /// already; what it refuses is answered `forbidden`. It is called on the threads that deliver
    /// messages and must neither block nor panic: where panics unwind, one ends such a thread with its
    /// connections, and `/readyz` says so until the hub is started again.
    ///
    /// ```
    /// let builder = twine_hub::Hub::builder()
    ///     .permissions(|subscriber, room| !room.starts_with("staff/") || subscriber.origin == "https://staff.example");
    /// ```
    pub fn permissions(
        mut self,
        allow: impl Fn(Subscriber<'_>, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.permissions = Some(Permissions::new(allow));
        self
    }

    /// Starts the hub on the present tokio runtime. It takes connections when this returns.
    ///
    /// # Errors
    /// [`StartError`]: nothing is left running then.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { config, listener, ephemeral, permissions } = self;
        if let Some(conflict) = config.conflicts().into_iter().next() {
            return Err(conflict.into());
        }
        let agent = config.agent_listen.map(listen).transpose()?;
        let agent_address = agent.as_ref().map(|(_, address)| *address);
        let agent = agent.map(|(listener, _)| agent::acceptor(listener)).transpose();
        let agent = agent.map_err(StartError::System)?;
        let (listener, address) = match listener {
            Some(listener) => {
                take(listener).map_err(|source| StartError::Listen { address: config.listen, source })?
            }
            None => listen(config.listen)?,
        };
        let acceptor = http::acceptor(listener, config.max_http_connections).map_err(StartError::System)?;

        let telemetry = Arc::new(Telemetry::default());
        // A database that was not closed well is repaired when it is opened, and that may take a while.
        let rooms = if let (BrokerKind::Redis(RedisTarget(redis)), StoreKind::DynamoDb(table)) =
            (&config.broker, &config.store)
        {
            let options = config.rooms();
            Rooms::join(redis, table, config.store_retention, &options, telemetry.clone()).await?
        } else {
            let (store, options, telemetry) = (config.store(), config.rooms(), telemetry.clone());
            blocking(move || Rooms::open(&store, &options, telemetry)).await?
        };
        // After the store, which keeps a second hub out of the folder.
        let opened = if let BrokerKind::Redis(RedisTarget(redis)) = &config.broker {
            Sessions::join(redis, config.sessions(), telemetry.clone()).map_err(StartError::from)
        } else {
            let (store, options, telemetry) = (config.store(), config.sessions(), telemetry.clone());
            blocking(move || Sessions::open(&store.kind, options, telemetry)).await
        };
        let sessions = match opened {
            Ok(sessions) => sessions,
            Err(error) => {
                // The folder is free again when the error is told.
                rooms.close().await;
                return Err(error);
            }
        };
        let started = keys(&config, ephemeral).and_then(|keys| {
            let options = config.connections();
            let connections =
                Connections::start(&rooms, &sessions, permissions.as_ref(), &options, &telemetry);
            Ok((keys, connections.map_err(StartError::System)?))
        });
        let (keys, connections) = match started {
            Ok(started) => started,
            Err(error) => {
                sessions.close().await;
                rooms.close().await;
                return Err(error);
            }
        };

        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks::default();
        let (sampler, load) = Sampler::new(connections.clone(), telemetry.clone(), config.memory_limit);
        let until_draining = draining.clone();
        tasks.spawn(async move {
            until_draining.run_until_cancelled(sampler.run()).await;
        });
        let limits = Limits { header_timeout: config.header_timeout, write_timeout: config.write_timeout };
        let app = Arc::new(App {
            keys: ApiKeys::new(&keys),
            origins: Origins::new(config.allowed_origins.clone(), config.public_url.clone()),
            config,
            rooms,
            sessions,
            connections,
            telemetry,
            tasks: tasks.clone(),
            load,
            draining,
            stop: stop.clone(),
            refused_pages: Seldom::default(),
        });
        if let (Some(acceptor), Some(address)) = (agent, agent_address) {
            info!(%address, "the agent listens");
            let (asked, stop) = (app.clone(), stop.clone());
            let serving = agent::serve(acceptor, tasks.clone(), move || http::word(&asked));
            tasks.spawn(async move {
                stop.run_until_cancelled(serving).await;
            });
        }
        tasks.spawn(http::serve(acceptor, app.clone(), limits, stop));
        advise(&app.config, address);
        info!(%address, store = ?app.config.store, version = crate::VERSION, "listening");
        Ok(Running { address, agent_address, keys, app })
    }
}

/// Takes a listener that is bound already.
fn take(listener: TcpListener) -> std::io::Result<(TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Listens at an address; says at which, where its port was 0.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = |address| bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (bound, listener) = listen(address).map_err(|source| StartError::Listen { address, source })?;
    Ok((listener, bound))
}

/// Opens a store where waiting for a disk holds nobody up.
async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StartError> {
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(opened.map_err(|panicked| StartError::System(std::io::Error::other(panicked)))??)
}

/// Says what an operator may have overlooked.
fn advise(config: &Config, address: SocketAddr) {
    if config.api_key.iter().any(|key| key.expose().len() < SHORTEST_KEY) {
        warn!("an API key has fewer than {SHORTEST_KEY} characters and may be guessed: use a random one");
    }
    let unconfigured = config.allowed_origins.is_none() && config.public_url.is_none();
    if unconfigured && !address.ip().is_loopback() {
        warn!("only pages of this hub's own IP address may connect: set `allowed_origins` or `public_url`");
    }
}

/// Characters of a key that was hardly made up by a person.
const SHORTEST_KEY: usize = 16;

/// All keys of the hub, at least one.
fn keys(config: &Config, ephemeral: bool) -> Result<Vec<ApiKey>, StartError> {
    let mut keys = config.api_key.clone();
    if let Some(path) = &config.api_key_file {
        keys.extend(auth::keys_of_file(path)?);
    }
    if keys.is_empty() && ephemeral {
        keys.push(ApiKey::random().map_err(StartError::System)?);
    }
    if keys.is_empty() {
        let made = auth::key_of_folder(&config.data_dir)?;
        info!(path = %made.path.display(), "no `api_key` is set: publish with the one in this file");
        if made.exposed {
            warn!(path = %made.path.display(), "others may read the API key: set the file's mode to 0600");
        }
        keys.push(made.key);
    }
    Ok(keys)
}

impl Running {
    /// Where the hub listens; with the port that was free where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the hub answers HAProxy's agent checks; `None` without `agent_listen`.
    pub fn agent_address(&self) -> Option<SocketAddr> {
        self.agent_address
    }

    /// The hub's address as a URL, for clients on this machine: `http://127.0.0.1:7070`.
    pub fn url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    /// A key that publishes here: the first one configured, or the one that was made.
    // `keys` gives at least one key or an error.
    #[allow(clippy::expect_used)]
    pub fn api_key(&self) -> &ApiKey {
        self.keys.first().expect("a hub has a key")
    }

    /// Stops the hub, in this order: it is no longer ready and takes no more WebSocket connections;
    /// clients are told to come back, over `drain_window`, and their connections end; the listeners
    /// close; requests under way are answered; the store finishes and closes. What is not done within `shutdown_grace` is ended by force.
    pub async fn shutdown(self) {
        let App { config, rooms, sessions, connections, tasks, draining, stop, .. } = &*self.app;
        let grace = config.shutdown_grace;
        let deadline = tokio::time::Instant::now() + grace;
        let window = config.drain_window.min(grace);
        info!(phase = "drain connections", ?window, ?grace, "shutting down");
        draining.cancel();
        // Also where nobody is connected: until its end balancers may send requests, and are told.
        tokio::join!(connections.drain(window, grace), tokio::time::sleep(window));
        info!(phase = "stop accepting", "shutting down");
        stop.cancel();
        info!(phase = "finish requests", "shutting down");
        if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
            warn!("requests were still under way at the end of `shutdown_grace`: ended by force");
            tasks.end();
            tasks.wait().await;
        }
        info!(phase = "close store", "shutting down");
        sessions.close().await;
        rooms.close().await;
        info!("shut down");
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.app.draining.cancel();
        self.app.stop.cancel();
        // Not with its last handle: a publisher whom a shard looks after has one.
        self.app.connections.end();
        self.app.tasks.end();
    }
}

/// An address that a client on this machine can connect to, where `listen` may say "all".
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], listen.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, listen.port()).into()
        }
        _ => listen,
    }
}
