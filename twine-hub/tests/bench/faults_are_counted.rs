use serde_json::Value;

use crate::hub::Hub;
use crate::run::{Run, counts};
use crate::tampering::{Swaps, Tampering};

/// Four subscribers get five messages each, through a proxy that does this to them.
async fn run(swaps: Swaps) -> (Value, String) {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let proxy = Tampering::start(hub.address(), swaps).await;
    let run = Run::start(&[
        "--url",
        &proxy.url(),
        "--processes",
        "2",
        "--connections",
        "4",
        "--rate",
        "10",
        "--duration",
        "500ms",
        "--ramp",
        "0s",
    ]);
    let ended = tokio::task::spawn_blocking(|| run.end()).await.unwrap();
    let passes = swaps.is_empty();
    let report = ended.report(i32::from(!passes));
    assert_eq!((&report["passed"], counts(&report["deliveries"], ["expected"])), (&passes.into(), [20]));
    (report["deliveries"].clone(), ended.errors)
}

const NAMES: [&str; 4] = ["received", "lost", "repeated", "out_of_order"];

#[tokio::test]
async fn a_proxy_that_changes_nothing_does_no_harm() {
    let (deliveries, _) = run(&[]).await;
    assert_eq!(counts(&deliveries, NAMES), [20, 0, 0, 0]);
}

#[tokio::test]
async fn what_is_lost_is_counted_and_fails_the_run() {
    let (deliveries, errors) = run(&[(r#"{"n":3,"#, r#"{"x":3,"#)]).await;
    assert_eq!(counts(&deliveries, NAMES), [16, 4, 0, 0]);
    assert!(errors.contains("4 deliveries lost"), "{errors}");
}

#[tokio::test]
async fn what_comes_twice_is_counted_and_fails_the_run() {
    // In place of the third message comes the second once more.
    let (deliveries, errors) = run(&[(r#"{"n":3,"#, r#"{"n":2,"#)]).await;
    assert_eq!(counts(&deliveries, NAMES), [16, 4, 4, 0]);
    assert!(errors.contains("4 deliveries repeated"), "{errors}");
}

#[tokio::test]
async fn what_comes_out_of_order_is_counted_and_fails_the_run() {
    let (deliveries, errors) = run(&[(r#"{"n":2,"#, r#"{"n":3,"#), (r#"{"n":3,"#, r#"{"n":2,"#)]).await;
    assert_eq!(counts(&deliveries, NAMES), [20, 0, 0, 4]);
    assert!(errors.contains("4 deliveries out of order") && !errors.contains("deliveries lost"), "{errors}");
}
