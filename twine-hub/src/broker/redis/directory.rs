//! Which server has a room: always the same one, the master that sentinels name, or a cluster's node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tracing::info;

use super::connect::{Connector, Open, Peer};
use super::target::{Address, Layout};

/// Who has which slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Map {
    /// Nobody has said yet, since then. Without a reason nobody was asked.
    Unknown { since: Instant, reason: Option<String> },
    /// One server has all.
    One(Address),
    /// First and last slot of each range, in order.
    Ranges(Vec<(u16, u16, Address)>),
}

impl Map {
    pub(super) fn address(&self, slot: u16) -> Option<&Address> {
        match self {
            Self::Unknown { .. } => None,
            Self::One(address) => Some(address),
            Self::Ranges(ranges) => {
                let at = ranges.partition_point(|(_, last, _)| *last < slot);
                ranges.get(at).filter(|(first, _, _)| *first <= slot).map(|(_, _, address)| address)
            }
        }
    }

    /// Every server that has a slot.
    pub(super) fn addresses(&self) -> Vec<&Address> {
        let mut addresses = match self {
            Self::Unknown { .. } => Vec::new(),
            Self::One(address) => vec![address],
            Self::Ranges(ranges) => ranges.iter().map(|(_, _, address)| address).collect(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// Asks who has which slots, over a connection of its own that it keeps.
pub(super) struct Directory {
    layout: Layout,
    connector: Arc<Connector>,
    open: Option<(Address, Open)>,
    /// Which of the configured servers is asked next.
    next: usize,
}

impl Directory {
    pub(super) fn new(layout: Layout, connector: Arc<Connector>) -> Self {
        Self { layout, connector, open: None, next: 0 }
    }

    /// How often to ask though nothing seems wrong; never where the answer can't change.
    pub(super) fn interval(&self) -> Option<Duration> {
        match &self.layout {
            Layout::Single(_) => None,
            // An old master that was cut off still answers: only the sentinels know.
            Layout::Sentinel { .. } => Some(Duration::from_secs(1)),
            Layout::Cluster(_) => Some(Duration::from_secs(5)),
        }
    }

    /// Asks the next of those who may know, until one does. Not the one that was asked last if `doubted`:
    /// what it said turned out not to work.
    pub(super) async fn ask(&mut self, doubted: bool, known: &Map) -> Result<Map, String> {
        let mut command = Cmd::new();
        let (peer, candidates) = match &self.layout {
            Layout::Single(address) => return Ok(Map::One(address.clone())),
            Layout::Sentinel { sentinels, master } => {
                command.arg("SENTINEL").arg("get-master-addr-by-name").arg(master);
                (Peer::Sentinel, sentinels.clone())
            }
            Layout::Cluster(seeds) => {
                command.arg("CLUSTER").arg("SLOTS");
                (Peer::Server, seeds.iter().chain(known.addresses()).cloned().collect())
            }
        };
        if doubted {
            self.open = None;
        }
        let mut reasons = Vec::new();
        for _ in 0..=candidates.len() {
            let (address, open) = match self.open.take() {
                Some(open) => open,
                None => match self.open_next(peer, &candidates).await {
                    Ok(open) => open,
                    Err(reason) => {
                        reasons.push(reason);
                        continue;
                    }
                },
            };
            let answer = self.connector.ask(&open.connection, &command).await;
            match answer.and_then(|answer| parse(peer, answer, &address)) {
                Ok(map) => {
                    if map != *known {
                        info!(by = %address, servers = map.addresses().len(), "learnt which redis serves");
                    }
                    self.open = Some((address, open));
                    return Ok(map);
                }
                Err(reason) => reasons.push(format!("{address}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// Connects to the candidate after the last one.
    async fn open_next(&mut self, peer: Peer, candidates: &[Address]) -> Result<(Address, Open), String> {
        let next = candidates.get(self.next % candidates.len().max(1));
        let address = next.ok_or("no server is configured")?.clone();
        self.next = self.next.wrapping_add(1);
        match self.connector.open(&address, peer, None).await {
            Ok(open) => Ok((address, open)),
            Err(reason) => Err(format!("{address}: {reason}")),
        }
    }
}

fn parse(peer: Peer, answer: Value, asked: &Address) -> Result<Map, String> {
    match peer {
        Peer::Sentinel => {
            let found: Option<(String, u16)> =
                redis::from_redis_value(answer).map_err(|error| error.to_string())?;
            let (host, port) = found.ok_or("it knows no master of this name")?;
            Ok(Map::One(Address { host, port }))
        }
        Peer::Server => {
            let Value::Array(rows) = answer else { return Err("its table of slots is none".to_owned()) };
            let mut ranges = rows.into_iter().map(|row| range(row, asked)).collect::<Option<Vec<_>>>();
            let ranges = ranges.as_mut().ok_or("its table of slots is none")?;
            if ranges.is_empty() {
                return Err("it serves no slots".to_owned());
            }
            ranges.sort_unstable();
            Ok(Map::Ranges(std::mem::take(ranges)))
        }
    }
}

/// A row of `CLUSTER SLOTS`: first slot, last slot, the master, its replicas.
fn range(row: Value, asked: &Address) -> Option<(u16, u16, Address)> {
    let Value::Array(row) = row else { return None };
    let mut row = row.into_iter();
    let first = redis::from_redis_value(row.next()?).ok()?;
    let last = redis::from_redis_value(row.next()?).ok()?;
    let Value::Array(master) = row.next()? else { return None };
    let mut master = master.into_iter();
    let host: Option<String> = redis::from_redis_value(master.next()?).ok()?;
    let port: u16 = redis::from_redis_value(master.next()?).ok()?;
    let address = Address::of_server(&format!("{}:{port}", host.unwrap_or_default()), asked)?;
    Some((first, last, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "h".to_owned(), port }
    }

    #[test]
    fn a_slot_is_found_in_its_range_only() {
        let map = Map::Ranges(vec![(0, 9, address(1)), (20, 29, address(2)), (30, 30, address(1))]);
        for (slot, port) in [(0, Some(1)), (9, Some(1)), (10, None), (20, Some(2)), (30, Some(1)), (31, None)]
        {
            assert_eq!(map.address(slot).map(|address| address.port), port, "{slot}");
        }
        assert_eq!(map.addresses(), [&address(1), &address(2)]);
    }
}
