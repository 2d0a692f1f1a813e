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
/// order, take each other for dead, and Redis loses everything. Then each session that is held is held once, with
/// what its holder saved last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_connections_hold_one_session() {
    let seed = std::env::var("TWINE_SESSIONS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TWINE_SESSIONS_SEED={seed} draws the same again");
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
            _ if draw.bool() => {
                // Another hub takes it for dead, for its lease has lapsed.
                let other = (hub + 1) % 3;
                hubs[other].is_steady();
                hubs[hub].lapse(&hubs[other]).await;
            }
            _ => {
                hubs[hub].sessions.forget(cookie(of)).await.unwrap();
                redis.admin::<redis::Value>(&["FLUSHALL"]);
            }
        }
    }
    // What each tab acknowledges last is there, if the session is still its own.
    for (n, tab) in tabs.iter().enumerate() {
        let hub = &hubs[tab.hub];
        hub.save(&tab.attached, rooms(&[("last", u64::try_from(n).unwrap() + 1)])).await;
    }
    for hub in &hubs {
        hub.is_saved().await;
    }
    let mut n_held = 0;
    for of in 0..3 {
        let book = hubs[0].fleet().shelf.read(cookie(of)).await.unwrap();
        for row in &book.rows {
            let id = &row.about.session.id;
            let holders: Vec<_> = hubs
                .iter()
                .filter_map(|hub| Some(hub.fleet().holding(locked(&hub.fleet().held).get(id)?.ticket)))
                .collect();
            assert_eq!(holders, Vec::from_iter(row.held_by.clone()), "{id:?}");
            let Some(held_by) = &row.held_by else { continue };
            let is_holder = |tab: &&Tab| hubs[tab.hub].fleet().holding(tab.attached.ticket) == *held_by;
            let n = tabs.iter().position(|tab| is_holder(&tab)).expect("a tab holds it");
            let last = rooms(&[("last", u64::try_from(n).unwrap() + 1)]);
            assert_eq!(hubs[0].stored(of, id).await, Some(last), "{id:?}");
            n_held += 1;
        }
    }
    assert!(n_held > 0 || tabs.is_empty());
}
