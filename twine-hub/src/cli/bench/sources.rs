//! Where connections come from: an address has ports for some 28,000 to each server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections of one address of loopback.
const PER_ADDRESS: usize = 10_000;
/// Connections from one address to one server for which Linux has ports, unless set otherwise.
pub(super) const PORTS: usize = 28_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The addresses to come from: those that are given, or of a server on loopback as many as it takes.
/// None leaves it to the system.
pub(super) fn sources(given: &[IpAddr], servers: &[SocketAddr], connections: usize) -> Vec<IpAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let is_loopback =
        |server: &SocketAddr| matches!(server.ip(), IpAddr::V4(address) if address.is_loopback());
    // Other systems have 127.0.0.1 alone.
    if !cfg!(target_os = "linux") || servers.is_empty() || !servers.iter().all(is_loopback) {
        return Vec::new();
    }
    let addresses = u32::try_from(connections.div_ceil(PER_ADDRESS)).unwrap_or(u32::MAX);
    (0..addresses).map(|n| Ipv4Addr::from_bits(FIRST.to_bits().saturating_add(n)).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(given: &[&str], servers: &[&str], connections: usize) -> Vec<String> {
        let given: Vec<_> = given.iter().map(|address| address.parse().unwrap()).collect();
        let servers: Vec<_> = servers.iter().map(|address| address.parse().unwrap()).collect();
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
    }

    #[test]
    fn elsewhere_they_are_those_that_are_given() {
        assert!(addresses(&[], &["192.0.2.1:80"], 100_000).is_empty());
        assert!(addresses(&[], &["127.0.0.1:80", "[::1]:80"], 100_000).is_empty());
        assert!(addresses(&[], &[], 100_000).is_empty());
        assert_eq!(addresses(&["192.0.2.7", "::1"], &["127.0.0.1:80"], 1), ["192.0.2.7", "::1"]);
    }
}
