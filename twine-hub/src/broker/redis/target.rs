//! Where Redis is: what `broker` says, parsed.

use std::fmt;

use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// A server's host and port. IPv6 without brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How the servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One server.
    Single(Address),
    /// A cluster, found by any of these.
    Cluster(Vec<Address>),
    /// The master that these sentinels know by the name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Address>,
        /// The master's name.
        master: String,
    },
}

/// Which Redis, and who the hub is there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) layout: Layout,
    /// Whether connections, to sentinels too, are encrypted.
    pub(crate) tls: bool,
    /// Certificate authorities that are trusted beside Mozilla's.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: u32,
}

/// Why a text is no address of Redis. None of these says what was given, for it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTarget {
    #[error(
        "it must start with redis://, redis-cluster:// or redis-sentinel://, or with TLS rediss://, \
         rediss-cluster:// or rediss-sentinel://"
    )]
    Scheme,
    #[error("a host is missing")]
    NoHost,
    #[error("a port must be a number from 1 to 65535")]
    Port,
    #[error("redis:// takes one server; for several, use redis-cluster:// or redis-sentinel://")]
    SeveralHosts,
    #[error("the database must be a number, as in redis://host/1")]
    Database,
    #[error("a cluster has one database only; leave out what follows the servers")]
    ClusterPath,
    #[error("the master's name is missing, as in redis-sentinel://host1,host2/mymaster")]
    NoMaster,
    #[error("user and password must be percent-encoded UTF-8")]
    Credentials,
}

impl Target {
    /// Parses `redis://[user:password@]host[:port][/db]`, `redis-cluster://host,host...` or
    /// `redis-sentinel://host,host.../MASTER[/db]`; with `rediss` for TLS. User and password are those of
    /// the servers; sentinels are asked without.
    ///
    /// # Errors
    /// [`InvalidTarget`] says which part is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidTarget::Scheme)?;
        let (redis, kind) = scheme.split_once('-').unwrap_or((scheme, ""));
        let tls = match redis {
            "redis" => false,
            "rediss" => true,
            _ => return Err(InvalidTarget::Scheme),
        };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (layout, db) = match kind {
            "" => {
                let mut hosts = addresses(hosts, DEFAULT_PORT)?;
                let first = hosts.pop().ok_or(InvalidTarget::NoHost)?;
                if !hosts.is_empty() {
                    return Err(InvalidTarget::SeveralHosts);
                }
                (Layout::Single(first), path)
            }
            "cluster" if path.is_empty() => (Layout::Cluster(addresses(hosts, DEFAULT_PORT)?), ""),
            "cluster" => return Err(InvalidTarget::ClusterPath),
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(InvalidTarget::NoMaster);
                }
                let sentinels = addresses(hosts, DEFAULT_SENTINEL_PORT)?;
                (Layout::Sentinel { sentinels, master: master.to_owned() }, db)
            }
            _ => return Err(InvalidTarget::Scheme),
        };
        let db = match db {
            "" => 0,
            db => db.parse().map_err(|_| InvalidTarget::Database)?,
        };
        let (username, password) = match credentials {
            None => (None, None),
            Some(credentials) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                (decoded(user)?, decoded(password)?)
            }
        };
        Ok(Self { layout, tls, authorities: Vec::new(), username, password, db })
    }
}

fn addresses(hosts: &str, default_port: u16) -> Result<Vec<Address>, InvalidTarget> {
    hosts.split(',').map(|host| Address::parse(host, default_port)).collect()
}

fn decoded(text: &str) -> Result<Option<String>, InvalidTarget> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| InvalidTarget::Credentials)?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

impl Address {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Self, InvalidTarget> {
        let (host, port) = match text.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or(InvalidTarget::NoHost)?;
                (host, port.strip_prefix(':'))
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(InvalidTarget::NoHost);
        }
        let port = match port {
            None => default_port,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(InvalidTarget::Port)?,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The address in a redirection or a cluster's table: `host:port`, where an IPv6 address has no
    /// brackets and a missing host means the one that was asked.
    pub(super) fn of_server(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() || host == "?" { &asked.host } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("layout", &self.layout)
            .field("tls", &self.tls)
            .field("authorities", &self.authorities.len())
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("db", &self.db)
            .finish()
    }
}

/// Without user and password, as logs and `--print-config` may show it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = if self.tls { "rediss" } else { "redis" };
        let list = |f: &mut fmt::Formatter<'_>, addresses: &[Address]| {
            addresses
                .iter()
                .enumerate()
                .try_for_each(|(i, address)| write!(f, "{}{address}", if i == 0 { "" } else { "," }))
        };
        match &self.layout {
            Layout::Single(address) => write!(f, "{redis}://{address}")?,
            Layout::Cluster(addresses) => {
                write!(f, "{redis}-cluster://")?;
                list(f, addresses)?;
            }
            Layout::Sentinel { sentinels, master } => {
                write!(f, "{redis}-sentinel://")?;
                list(f, sentinels)?;
                write!(f, "/{master}")?;
            }
        }
        if self.db == 0 { Ok(()) } else { write!(f, "/{}", self.db) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn each_layout_has_its_scheme() {
        let single = Target::parse("redis://localhost").unwrap();
        assert_eq!(single.layout, Layout::Single(address("localhost", 6379)));
        assert!(!single.tls);
        let single = Target::parse("rediss://[::1]:7000/3").unwrap();
        assert_eq!(single.layout, Layout::Single(address("::1", 7000)));
        assert!(single.tls && single.db == 3);
        let cluster = Target::parse("redis-cluster://a:1,b").unwrap();
        assert_eq!(cluster.layout, Layout::Cluster(vec![address("a", 1), address("b", 6379)]));
        let sentinel = Target::parse("redis-sentinel://a,b:2/main/4").unwrap();
        assert_eq!(
            sentinel.layout,
            Layout::Sentinel {
                sentinels: vec![address("a", 26_379), address("b", 2)],
                master: "main".to_owned()
            }
        );
        assert_eq!(sentinel.db, 4);
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let target = Target::parse("redis://me:s%40cret@host").unwrap();
        assert_eq!(target.username.as_deref(), Some("me"));
        assert_eq!(target.password.as_deref(), Some("s@cret"));
        assert!(!format!("{target:?}").contains("cret"));
        assert_eq!(target.to_string(), "redis://host:6379");
        let target = Target::parse("redis://:pw@host").unwrap();
        assert_eq!((target.username, target.password.as_deref()), (None, Some("pw")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("localhost", InvalidTarget::Scheme),
            ("http://localhost", InvalidTarget::Scheme),
            ("redis-ring://a", InvalidTarget::Scheme),
            ("redis://", InvalidTarget::NoHost),
            ("redis://[::1", InvalidTarget::NoHost),
            ("redis-cluster://a,,b", InvalidTarget::NoHost),
            ("redis://a:0", InvalidTarget::Port),
            ("redis://a:x", InvalidTarget::Port),
            ("redis://a,b", InvalidTarget::SeveralHosts),
            ("redis://a/x", InvalidTarget::Database),
            ("redis-cluster://a/1", InvalidTarget::ClusterPath),
            ("redis-sentinel://a", InvalidTarget::NoMaster),
            ("redis://%ff:x@a", InvalidTarget::Credentials),
        ] {
            assert_eq!(Target::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_redirection_without_a_host_means_the_same_host() {
        let asked = address("10.0.0.1", 7000);
        assert_eq!(Address::of_server(":7001", &asked), Some(address("10.0.0.1", 7001)));
        assert_eq!(Address::of_server("::1:7001", &asked), Some(address("::1", 7001)));
        assert_eq!(Address::of_server("nonsense", &asked), None);
    }
}
