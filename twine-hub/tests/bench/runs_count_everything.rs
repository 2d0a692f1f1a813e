use crate::hub::Hub;
use crate::run::{Run, command, counts, delivered};

#[tokio::test]
async fn a_run_over_several_servers_and_processes_counts_what_it_should() {
    let (mut one, mut two) = (Hub::new(&[]), Hub::new(&[]));
    one.start().await;
    two.start().await;
    let run = Run::start(&[
        "--url",
        &one.url(),
        "--url",
        &two.url(),
        "--processes",
        "3",
        "--connections",
        "30",
        "--rooms",
        "10",
        "--rate",
        "10",
        "--duration",
        "1s",
        "--ramp",
        "100ms",
        "--size",
        "256",
    ]);
    let report = tokio::task::spawn_blocking(|| run.end()).await.unwrap().report(0);
    let names = ["asked", "made", "failed", "retries", "reconnects"];
    assert_eq!(counts(&report["connections"], names), [30, 30, 0, 0, 0]);
    assert_eq!(counts(&report["publishes"], ["acknowledged", "failed", "given_up"]), [100, 0, 0]);
    let names = ["expected", "received", "lost", "repeated", "out_of_order", "gaps", "unfinished"];
    assert_eq!(counts(&report["deliveries"], names), [300, 300, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&report["generator"], ["processes"]), [3]);
    assert!(report["deliveries"]["latency"]["p99.9"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!((&report["passed"], &report["stopped"]), (&true.into(), &false.into()));
    // Beside the rooms' messages, which are shared evenly, each had one that was tried out before.
    for hub in [&one, &two] {
        assert_eq!(hub.metric("twine_messages_published_total ").await, 51);
        assert_eq!(hub.metric("twine_messages_delivered_total ").await, 150);
    }
}

#[tokio::test]
async fn without_json_the_report_is_for_people() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let url = hub.url();
    let output = tokio::task::spawn_blocking(move || {
        let flags = ["--scenario", "ramp", "--connections", "5", "--duration", "100ms", "--ramp", "0s"];
        command(&flags).env("TWINE_URL", url).output().unwrap()
    });
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = String::from_utf8(output.stdout).unwrap();
    for part in ["5 of 5 made, 0 failed", "5 acknowledged", "5 of 5, 0 lost", "p99.9", "verdict       passed"]
    {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
}

#[tokio::test]
async fn a_hub_that_is_killed_meanwhile_loses_nothing() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let run = Run::start(&[
        "--url",
        &hub.url(),
        "--processes",
        "2",
        "--connections",
        "20",
        "--rate",
        "10",
        "--duration",
        "3s",
        "--ramp",
        "0s",
    ]);
    let delivered = delivered(&hub, 20).await;
    hub.kill();
    assert!(delivered < 600, "{delivered}: all was over before it was killed");
    hub.start().await;
    let report = tokio::task::spawn_blocking(|| run.end()).await.unwrap().report(0);
    assert!(report["connections"]["reconnects"].as_u64().unwrap() >= 20, "{report}");
    assert_eq!(counts(&report["publishes"], ["acknowledged", "failed"]), [600, 0]);
    let names = ["expected", "received", "lost", "repeated", "out_of_order", "gaps"];
    assert_eq!(counts(&report["deliveries"], names), [600, 600, 0, 0, 0, 0]);
}
