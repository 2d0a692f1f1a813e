//! What sessions cost Redis; for docs/SCALING.md, not a check.

use super::*;
use crate::broker::redis::tests::server::cpu;

/// Sessions, each of a browser of its own.
const N: u64 = 4_096;
/// Claims under way at once.
const AT_ONCE: usize = 256;
/// Rooms of each.
const ROOMS: u64 = 3;

fn rooms_at(offset: u64) -> Cursors {
    let names: Vec<_> = (0..ROOMS).map(|n| format!("tenant-17/room-{n}")).collect();
    rooms(&names.iter().map(|name| (name.as_str(), offset)).collect::<Vec<_>>())
}

/// A claim of each browser, naming the session it had.
fn claims(had: &[Attached]) -> Vec<Claim> {
    let of_browser = |n: u64| {
        let mut claim = claim(0, "page");
        claim.identity.visitor.cookie = CookieHash::of(Uuid::from_u128(u128::from(n)));
        claim.session = usize::try_from(n).ok().and_then(|n| Some(had.get(n)?.session.clone()));
        claim
    };
    (0..N).map(of_browser).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints what sessions cost Redis"]
async fn what_sessions_cost_redis() {
    let redis = Server::start();
    let process = redis.process();
    let hub = Hub::join(&redis.url()).await;
    let mut before = cpu(&process);
    let mut say = |what: &str, times: u64| {
        let each = (cpu(&process) - before) / (N * times);
        println!("{what}: {:.1} us of Redis' CPU each", f64::from(u32::try_from(each).unwrap()) / 1_000.0);
        before = cpu(&process);
    };
    let mut all = Vec::new();
    for some in claims(&[]).chunks(AT_ONCE) {
        let answers: Vec<_> = some.iter().map(|claim| hub.start_attach(claim.clone())).collect();
        for answer in answers {
            all.push(answer.await.unwrap().unwrap());
        }
    }
    say("a browser that is new", 1);
    let save = |of: &Attached, offset| Save {
        session: of.session.clone(),
        ticket: of.ticket,
        rooms: rooms_at(offset),
    };
    hub.sessions.save(all.iter().map(|of| save(of, 1)).collect());
    hub.is_saved().await;
    say("its session's first room", 1);
    for round in 0..10 {
        hub.sessions.save(all.iter().map(|of| save(of, 2 + round)).collect());
        hub.is_saved().await;
    }
    say("a save of what was acknowledged, with others", 10);
    for of in &all {
        hub.save(of, rooms_at(20)).await;
    }
    say("the same alone", 1);
    for of in &all {
        hub.sessions.detach(save(of, 30));
    }
    hub.is_saved().await;
    say("the end of a connection", 1);
    for some in claims(&all).chunks(AT_ONCE) {
        let answers: Vec<_> = some.iter().map(|claim| hub.start_attach(claim.clone())).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().unwrap().how, How::Resumed);
        }
    }
    say("a connection that comes back", 1);
    let memory: String = redis.admin(&["INFO", "memory"]);
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    println!(
        "{} bytes of Redis' memory a session, its fixed part included",
        used.trim().parse::<u64>().unwrap() / N
    );
}
