//! Where connections come from, and for how many there are ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections of one address of loopback.
const PER_ADDRESS: usize = 10_000;
/// Ports that Linux has for connections from one address, unless set otherwise.
pub(super) const PORTS: usize = 28_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The addresses to come from: those that are given, or where all servers are on loopback as many as it
/// takes. None leaves it to the system. Each server is all addresses that its name has.
pub(super) fn sources(given: &[IpAddr], servers: &[Vec<SocketAddr>], connections: usize) -> Vec<IpAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    // `localhost` is 127.0.0.1 and ::1: who comes from 127.0.0.2 goes to the former.
    let is_loopback = |server: &Vec<SocketAddr>| {
        server.iter().any(SocketAddr::is_ipv4) && server.iter().all(|address| address.ip().is_loopback())
    };
    // Other systems have 127.0.0.1 alone.
    if !cfg!(target_os = "linux") || servers.is_empty() || !servers.iter().all(is_loopback) {
        return Vec::new();
    }
    let addresses = u32::try_from(connections.div_ceil(PER_ADDRESS)).unwrap_or(u32::MAX);
    (0..addresses).map(|n| Ipv4Addr::from_bits(FIRST.to_bits().saturating_add(n)).into()).collect()
}

/// How many connections there are ports for. Where the system chooses the address it does so last, and a
/// port may serve once for each server; one that is bound to an address serves for one connection in all.
pub(super) fn places(sources: usize, servers: usize) -> usize {
    PORTS.saturating_mul(if sources == 0 { servers } else { sources })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(given: &[&str], servers: &[&str], connections: usize) -> Vec<String> {
        let given: Vec<_> = given.iter().map(|address| address.parse().unwrap()).collect();
        let server = |all: &&str| all.split(' ').filter_map(|address| address.parse().ok()).collect();
        let servers: Vec<_> = servers.iter().map(server).collect();
        sources(&given, &servers, connections).iter().map(ToString::to_string).collect()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn loopback_has_as_many_addresses_as_it_takes() {
        assert_eq!(addresses(&[], &["127.0.0.1:7070"], 10_000), ["127.0.0.2"]);
        assert_eq!(
            addresses(&[], &["127.0.0.1:7070", "127.0.0.9:1"], 20_001),
            ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        );
        assert_eq!(addresses(&[], &["127.0.0.1:1"], 2_600_000).last().unwrap(), "127.0.1.5");
        assert_eq!(addresses(&[], &["[::1]:7070 127.0.0.1:7070"], 1), ["127.0.0.2"]);
    }

    #[test]
    fn elsewhere_they_are_those_that_are_given() {
        assert!(addresses(&[], &["192.0.2.1:80"], 100_000).is_empty());
        assert!(addresses(&[], &["127.0.0.1:80", "[::1]:80"], 100_000).is_empty());
        assert!(addresses(&[], &["127.0.0.1:80 192.0.2.1:80"], 100_000).is_empty());
        assert!(addresses(&[], &["127.0.0.1:80", ""], 100_000).is_empty());
        assert!(addresses(&[], &[], 100_000).is_empty());
        assert_eq!(addresses(&["192.0.2.7", "::1"], &["127.0.0.1:80"], 1), ["192.0.2.7", "::1"]);
    }

    #[test]
    fn a_bound_port_serves_once_whatever_the_server() {
        assert_eq!(
            [(0, 1), (0, 3), (1, 1), (1, 3), (2, 3)].map(|(s, u)| places(s, u) / PORTS),
            [1, 3, 1, 1, 2]
        );
    }
}
