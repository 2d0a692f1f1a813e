//! How many new sessions a public address has had stored in the present minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What is counted together.
const MINUTE: Duration = Duration::from_mins(1);
/// Addresses of one minute. Further ones may have nothing stored until it is over: whoever commands
/// so many must not push the sessions of others out.
const MAX_ADDRESSES: usize = 65_536;
/// Of these, addresses of one IPv6 network of 48 bits, which a single customer may have: it must not
/// fill the table, and so shut others out.
const MAX_OF_SITE: u32 = 256;

/// A bounded table of addresses.
pub(super) struct Newcomers {
    max: u32,
    until: Option<Instant>,
    stored: HashMap<IpAddr, u32>,
    /// How many addresses of each IPv6 network of 48 bits are in it.
    sites: HashMap<u128, u32>,
}

impl Newcomers {
    /// `max` new sessions a minute and address; 0 stands for any number.
    pub(super) fn new(max: u32) -> Self {
        Self { max, until: None, stored: HashMap::new(), sites: HashMap::new() }
    }

    /// Whether a new session of this address may be stored; counts it if so.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(address) = counted(address).filter(|_| self.max > 0) else { return true };
        if self.until.is_none_or(|until| until <= now) {
            self.until = Some(now + MINUTE);
            self.stored.clear();
            self.sites.clear();
        }
        if !self.stored.contains_key(&address) && !self.take_in(address) {
            return false;
        }
        let stored = self.stored.entry(address).or_default();
        if *stored >= self.max {
            return false;
        }
        *stored += 1;
        true
    }

    /// The session was not stored after all.
    pub(super) fn take_back(&mut self, address: IpAddr) {
        if let Some(stored) = counted(address).and_then(|address| self.stored.get_mut(&address)) {
            *stored = stored.saturating_sub(1);
        }
    }

    /// Whether there is a place in the table for one more.
    fn take_in(&mut self, address: IpAddr) -> bool {
        if self.stored.len() >= MAX_ADDRESSES {
            return false;
        }
        let IpAddr::V6(network) = address else { return true };
        let of_site = self.sites.entry(network.to_bits() >> 80).or_default();
        let has_place = *of_site < MAX_OF_SITE;
        *of_site += u32::from(has_place);
        has_place
    }
}

/// What an address counts as: an IPv6 network of 64 bits is one customer. Loopback and private
/// addresses are proxies and neighbours, behind which there may be any number of people.
fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_near = v4.is_loopback() || v4.is_private() || v4.is_link_local();
            // 100.64.0.0/10: shared by the customers of one provider, or of a cloud's network.
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            (!is_near && !is_shared).then_some(IpAddr::V4(v4))
        }
        IpAddr::V6(v6) => {
            let is_near = v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local();
            let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
            (!is_near).then_some(IpAddr::V6(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_a_minute() {
        let (mut newcomers, start) = (Newcomers::new(2), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert!(newcomers.admit(one, start));
        assert!(newcomers.admit(one, start + MINUTE / 2));
        assert!(!newcomers.admit(one, start + MINUTE / 2));
        assert!(newcomers.admit(other, start + MINUTE / 2));
        assert!(newcomers.admit(one, start + MINUTE));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let (mut newcomers, now) = (Newcomers::new(1), Instant::now());
        assert!(newcomers.admit(address("2001:db8:1:2::1"), now));
        assert!(!newcomers.admit(address("2001:db8:1:2:ffff::1"), now));
        assert!(newcomers.admit(address("2001:db8:1:3::1"), now));
        assert!(newcomers.admit(address("::ffff:192.0.2.1"), now));
        assert!(!newcomers.admit(address("192.0.2.1"), now));
    }

    #[test]
    fn a_site_does_not_fill_the_table() {
        let (mut newcomers, now) = (Newcomers::new(1), Instant::now());
        let of_site = |site: u128, n: u32| IpAddr::V6(Ipv6Addr::from_bits(site << 80 | u128::from(n) << 64));
        let (site, other) = (0x2001_0db8_0001, 0x2001_0db8_0002);
        assert!((0..MAX_OF_SITE).all(|n| newcomers.admit(of_site(site, n), now)));
        assert!(!newcomers.admit(of_site(site, MAX_OF_SITE), now));
        assert!(newcomers.admit(of_site(other, 0), now));
        assert!(newcomers.admit(of_site(site, MAX_OF_SITE), now + MINUTE));
    }

    #[test]
    fn what_is_taken_back_does_not_count() {
        let (mut newcomers, now) = (Newcomers::new(1), Instant::now());
        for _ in 0..2 {
            assert!(newcomers.admit(address("192.0.2.1"), now));
            newcomers.take_back(address("192.0.2.1"));
        }
    }

    #[test]
    fn near_addresses_are_not_counted() {
        let (mut newcomers, now) = (Newcomers::new(1), Instant::now());
        let near = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.0.1", "100.64.0.1"];
        for near in near.into_iter().chain(["::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"]) {
            assert!(newcomers.admit(address(near), now), "{near}");
            assert!(newcomers.admit(address(near), now), "{near}");
        }
        assert!(newcomers.stored.is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let (mut newcomers, now) = (Newcomers::new(0), Instant::now());
        assert!((0..5).all(|_| newcomers.admit(address("192.0.2.1"), now)));
        assert!(newcomers.stored.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut newcomers, now) = (Newcomers::new(2), Instant::now());
        for n in 0..u32::try_from(MAX_ADDRESSES).unwrap() {
            assert!(newcomers.admit(IpAddr::V4((0x0b00_0000 + n).into()), now));
        }
        assert!(!newcomers.admit(address("192.0.2.1"), now));
        assert!(newcomers.admit(address("11.0.0.1"), now), "one that is in it already");
        assert!(newcomers.admit(address("192.0.2.1"), now + MINUTE));
    }
}
