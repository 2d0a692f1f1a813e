//! A shard's guests, and when they are read.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Instant;

use super::by_hand::ByHand;
use crate::connection::Guest;
use crate::rooms::locked;
use crate::telemetry::Telemetry;

/// Notes what was delivered by the time that it is read.
struct Reader {
    telemetry: Arc<Telemetry>,
    delivered: Arc<Mutex<Vec<u64>>>,
    output: Vec<u8>,
}

impl Guest for Reader {
    fn turn(&mut self, _: &[u8], _: &mut Context<'_>) -> bool {
        locked(&self.delivered).push(self.telemetry.delivered.get());
        true
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn is_late(&self, _: Instant) -> bool {
        false
    }

    fn leave(self: Box<Self>, _: TcpStream) {}
}

#[test]
fn what_is_committed_is_delivered_before_guests_are_read() {
    let mut hub = ByHand::new(usize::MAX);
    let mut client = hub.live(1);
    let delivered = Arc::<Mutex<Vec<_>>>::default();
    let reader =
        Reader { telemetry: hub.telemetry.clone(), delivered: delivered.clone(), output: Vec::new() };
    let mut guest = hub.host(Box::new(reader));
    for n in 1..=20 {
        hub.publish(&n.to_string());
        guest.write_all(b"x").unwrap();
        while locked(&delivered).len() < n {
            hub.work();
        }
        client.gets(&mut hub, &[&n.to_string()]);
    }
    assert_eq!(*locked(&delivered), (1..=20).collect::<Vec<_>>());
}
