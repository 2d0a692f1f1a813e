//! One connection to one server, with a deadline on everything.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::Limits;
use super::target::{Address, Target};

/// What happens with what the server sends unasked.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// What connecting needs to know.
pub(super) struct Connector {
    info: RedisConnectionInfo,
    /// For sentinels, which know neither the servers' users nor databases.
    anonymous: RedisConnectionInfo,
    tls: Option<TlsConnector>,
    limits: Limits,
}

/// A connection. It is closed when dropped.
pub(super) struct Open {
    pub(super) connection: MultiplexedConnection,
    /// Ends with the connection.
    pub(super) driver: AbortOnDropHandle<()>,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Server,
    Sentinel,
}

impl Connector {
    pub(super) fn new(target: &Target, limits: Limits) -> Result<Self, rustls::Error> {
        let anonymous = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let mut info = anonymous.clone().set_db(i64::from(target.db));
        if let Some(username) = &target.username {
            info = info.set_username(username);
        }
        if let Some(password) = &target.password {
            info = info.set_password(password);
        }
        let tls = if target.tls { Some(tls(&target.authorities)?) } else { None };
        Ok(Self { info, anonymous, tls, limits })
    }

    /// Connects. The error says what went wrong, without secrets.
    pub(super) async fn open(
        &self,
        address: &Address,
        peer: Peer,
        on_push: Option<OnPush>,
    ) -> Result<Open, String> {
        let connecting = async {
            let stream = TcpStream::connect((address.host.as_str(), address.port))
                .await
                .map_err(|error| error.to_string())?;
            // Commands are small and waited for.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let info = match peer {
                Peer::Server => &self.info,
                Peer::Sentinel => &self.anonymous,
            };
            let mut config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(None)
                .set_pipeline_buffer_size(PIPELINE_BUFFER);
            if let Some(on_push) = on_push {
                config = config.set_push_sender(move |push| {
                    on_push(push);
                    Ok::<(), std::convert::Infallible>(())
                });
            }
            let failed = |error: redis::RedisError| error.to_string();
            match &self.tls {
                None => {
                    let (connection, driver) =
                        MultiplexedConnection::new_with_config(info, stream, config).await.map_err(failed)?;
                    Ok(Open { connection, driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
                }
                Some(tls) => {
                    let name =
                        ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
                    let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
                    let (connection, driver) =
                        MultiplexedConnection::new_with_config(info, stream, config).await.map_err(failed)?;
                    Ok(Open { connection, driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
                }
            }
        };
        tokio::time::timeout(self.limits.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {:?}", self.limits.connect)))
    }

    /// Asks the server something small, as a proof of life.
    pub(super) async fn ask(
        &self,
        connection: &MultiplexedConnection,
        command: &Cmd,
    ) -> Result<Value, String> {
        let mut connection = connection.clone();
        let answer = connection.send_packed_command(command);
        match tokio::time::timeout(self.limits.connect, answer).await {
            Ok(answer) => answer.and_then(Value::extract_error).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.limits.connect)),
        }
    }

    /// Checks that the server lives and is a master. A replica would refuse what is written and miss what
    /// is published.
    pub(super) async fn check_master(&self, connection: &MultiplexedConnection) -> Result<(), String> {
        let mut command = Cmd::new();
        command.arg("INFO").arg("replication");
        let answer = self.ask(connection, &command).await?;
        let text = match &answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.into(),
            _ => return Err("INFO gave no text".to_owned()),
        };
        if text.lines().any(|line| line.trim_end() == "role:master") {
            Ok(())
        } else {
            Err("it is a replica".to_owned())
        }
    }
}

/// Commands that wait to be written. Those that were are bounded by `Limits::in_flight`.
const PIPELINE_BUFFER: usize = 256;

/// Trusts Mozilla's list of certificate authorities, which is compiled in (a container has none of its own),
/// and `more`.
fn tls(more: &[CertificateDer<'static>]) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    for authority in more {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// How long to wait before the next attempt.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The wait, at random between a half and the whole, so that hubs don't come back all at once.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::LAST);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
