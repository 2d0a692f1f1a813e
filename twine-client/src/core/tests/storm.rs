//! Ten thousand clients lose the hub in the same moment: when do they come back?

use super::*;

const CLIENTS: usize = 10_000;
const LOST: u64 = 1_000_000;

/// When each client connects for the first time from `back` on, where it is refused before. A hub
/// that ends well says `hint` to all.
fn arrivals(hint: Option<u64>, back: u64) -> Vec<u64> {
    let arrival = |seed| {
        let mut bench =
            Bench { core: Core::new(Config { seed, ..Config::default() }), now: LOST, ..Bench::new() };
        bench.core.connect(LOST);
        let mut socket = bench.get_online();
        if let Some(retry) = hint {
            let code = ErrorCode::Draining;
            bench.core.frame(LOST, socket, ServerFrame::Disconnect(Disconnect { code, retry }));
        } else {
            bench.core.closed(LOST, socket, 1006, "");
        }
        loop {
            bench.wait_for_retry();
            if bench.now >= LOST + back {
                return bench.now - LOST;
            }
            socket = opened_socket(&bench.effects());
            bench.core.closed(bench.now, socket, 1006, "");
        }
    };
    (0..CLIENTS as u64).map(arrival).collect()
}

/// How many of them come in each tenth of a second.
fn by_tenths(arrivals: &[u64]) -> Vec<usize> {
    let last = arrivals.iter().max().unwrap() / 100;
    (0..=last).map(|tenth| arrivals.iter().filter(|at| *at / 100 == tenth).count()).collect()
}

#[test]
fn they_are_spread_evenly_over_a_second() {
    let tenths = by_tenths(&arrivals(None, 0));
    assert_eq!(tenths.len(), 10);
    assert!(tenths.iter().all(|n| (900..1_100).contains(n)), "{tenths:?}");
}

#[test]
fn a_hub_that_says_when_shifts_them_and_leaves_them_spread() {
    let tenths = by_tenths(&arrivals(Some(2_000), 0));
    assert_eq!(tenths.iter().position(|n| *n > 0), Some(20));
    assert!(tenths[20..].iter().all(|n| (900..1_100).contains(n)), "{tenths:?}");
}

/// The longer the hub is away, the further apart they are when it is there again.
#[test]
fn a_restart_does_not_bring_them_in_lockstep() {
    for (back, most) in [(500, 1_500), (2_000, 800), (5_000, 400), (20_000, 150), (120_000, 150)] {
        let tenths = by_tenths(&arrivals(None, back));
        assert!(tenths.iter().all(|n| *n < most), "{back} ms: {:?} of {tenths:?}", tenths.iter().max());
    }
}
