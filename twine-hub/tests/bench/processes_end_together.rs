use crate::hub::Hub;
use crate::run::{Run, counts, delivered, signal};

/// A hub, and a run of two processes that has delivered some messages and would go on for an hour.
async fn long_run() -> (Hub, Run) {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let run = Run::start(&[
        "--url",
        &hub.url(),
        "--processes",
        "2",
        "--connections",
        "4",
        "--duration",
        "1h",
        "--rate",
        "20",
        "--ramp",
        "0s",
    ]);
    delivered(&hub, 8).await;
    (hub, run)
}

#[tokio::test]
async fn a_signal_ends_a_run_early_with_its_report() {
    for name in ["-INT", "-TERM"] {
        let (_hub, run) = long_run().await;
        run.signal(name);
        let report = tokio::task::spawn_blocking(|| run.end()).await.unwrap().report(0);
        assert_eq!(report["stopped"], true);
        let [expected, received, lost] = counts(&report["deliveries"], ["expected", "received", "lost"]);
        let [acknowledged] = counts(&report["publishes"], ["acknowledged"]);
        assert!((8..4 * 20 * 3600).contains(&acknowledged), "{report}");
        assert_eq!((received, expected, lost), (acknowledged, acknowledged, 0));
    }
}

#[tokio::test]
async fn a_signal_while_connecting_leaves_it_at_those_who_are_there() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let mut run = Run::start(&["--url", &hub.url(), "--connections", "1000", "--ramp", "1h"]);
    run.some_have_arrived();
    run.signal("-INT");
    let report = tokio::task::spawn_blocking(|| run.end()).await.unwrap().report(0);
    let [made, failed] = counts(&report["connections"], ["made", "failed"]);
    assert!((1..1000).contains(&made) && failed == 0, "{report}");
    assert_eq!(counts(&report["publishes"], ["acknowledged"]), [0]);
}

#[tokio::test]
async fn a_signal_before_the_hub_has_answered_ends_it_at_once() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let run = Run::start(&["--url", &format!("http://{}", deaf.local_addr().unwrap())]);
    let _open = deaf.accept().await.unwrap();
    run.signal("-INT");
    let ended = tokio::task::spawn_blocking(|| run.end()).await.unwrap();
    assert_eq!((ended.code, ended.output.as_str()), (Some(1), ""));
    assert!(ended.errors.contains("ended by a signal"), "{}", ended.errors);
}

/// The processes that a process has started.
#[cfg(target_os = "linux")]
fn children(id: u32) -> Vec<u32> {
    let of =
        std::process::Command::new("ps").args(["-o", "pid=", "--ppid", &id.to_string()]).output().unwrap();
    String::from_utf8(of.stdout).unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_dies_ends_the_run_and_is_named() {
    let (_hub, run) = long_run().await;
    let processes = children(run.id());
    assert_eq!(processes.len(), 2);
    signal(processes[1], "-KILL");
    // That it ends at all shows that the other process does.
    let ended = tokio::task::spawn_blocking(|| run.end()).await.unwrap();
    assert_eq!((ended.code, ended.output.as_str()), (Some(1), ""));
    assert!(ended.errors.contains("of the run ended before it was done (signal: 9"), "{}", ended.errors);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_hangs_does_not_keep_a_second_signal_from_ending_the_run() {
    let (_hub, mut run) = long_run().await;
    signal(children(run.id())[1], "-STOP");
    run.signal("-INT");
    run.said("a second signal");
    run.signal("-INT");
    let ended = tokio::task::spawn_blocking(|| run.end()).await.unwrap();
    assert_eq!((ended.code, ended.output.as_str()), (Some(1), ""));
    assert!(ended.errors.contains("ended by a second signal"), "{}", ended.errors);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn processes_end_with_the_one_that_has_started_them() {
    let (_hub, run) = long_run().await;
    run.signal("-KILL");
    let ended = tokio::task::spawn_blocking(|| run.end()).await.unwrap();
    assert_eq!(ended.code, None);
}
