//! Whatever clients and hubs do, a session is one attachment's.

use super::*;

/// What a tab knows.
struct Tab {
    hub: usize,
    of: u8,
    attached: Attached,
    /// What it has acknowledged.
    offset: u64,
}

/// Tabs of a few browsers come to any of three hubs, go, come back, and are duplicated; hubs are told in any
/// order. Then each session that is held is held once, with what its holder saved last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_connections_hold_one_session() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut draw = fastrand::Rng::with_seed(seed);
    let redis = Server::start();
    let mut hubs = Vec::new();
    for _ in 0..3 {
        hubs.push(Hub::lively(&redis.url()).await);
    }
    let mut tabs: Vec<Tab> = Vec::new();
    let mut offset = 0;
    for n in 0..400 {
        offset += 1;
        let (hub, of) = (draw.usize(..3), draw.u8(..3));
        match draw.u8(..10) {
            // Several come at the same moment.
            0..=3 => {
                let mut answers = Vec::new();
                for at in 0..=draw.usize(..3) {
                    let new = claim(of, &format!("tab-{n}-{at}"));
                    let known: Vec<_> = tabs.iter().filter(|tab| tab.of == of).collect();
                    let claim = match draw.choice(&known) {
                        Some(tab) if draw.bool() => naming(new, &tab.attached),
                        _ => new,
                    };
                    let hub = draw.usize(..3);
                    answers.push((hub, hubs[hub].start_attach(claim)));
                }
                for (hub, answer) in answers {
                    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
                    let Some(attached) = answer else { continue };
                    let known = attached.rooms.first().map_or(0, |(_, at)| at.offset.get());
                    assert!(known < offset);
                    tabs.push(Tab { hub, of, attached, offset: known });
                }
            }
            4..=6 if !tabs.is_empty() => {
                let tab = draw.usize(..tabs.len());
                let tab = &mut tabs[tab];
                tab.offset = offset;
                hubs[tab.hub].save(&tab.attached, rooms(&[("chat", offset)])).await;
            }
            7..=8 if !tabs.is_empty() => {
                let Tab { hub, attached, offset, .. } = tabs.swap_remove(draw.usize(..tabs.len()));
                let rooms = if offset == 0 { Cursors::new() } else { rooms(&[("chat", offset)]) };
                hubs[hub].detach(&attached, rooms).await;
            }
            _ => {
                hubs[hub].sessions.forget(cookie(of)).await.unwrap();
                redis.admin::<redis::Value>(&["FLUSHALL"]);
                for hub in &hubs {
                    hub.fleet().shelf.renew(&hub.fleet().hub, LEASE).await.unwrap();
                }
            }
        }
    }
    for hub in &hubs {
        hub.is_saved().await;
    }
    for of in 0..3 {
        let book = hubs[0].fleet().shelf.read(cookie(of)).await.unwrap();
        for row in &book.rows {
            let id = &row.about.session.id;
            let holders: Vec<_> = hubs
                .iter()
                .filter_map(|hub| Some(hub.fleet().holding(locked(&hub.fleet().held).get(id)?.ticket)))
                .collect();
            assert_eq!(holders, Vec::from_iter(row.held_by.clone()), "{id:?}");
        }
    }
}
