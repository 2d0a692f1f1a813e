use crate::hub::Hub;
use crate::run::command;

/// What it ends with, and what it says on standard error.
fn refused(arguments: &[&str], key: Option<&str>) -> (Option<i32>, String) {
    let mut command = command(arguments);
    if let Some(key) = key {
        command.env("TWINE_API_KEY", key);
    }
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_wrong_key_is_told_before_anybody_connects() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let url = hub.url();
    let refused = tokio::task::spawn_blocking(move || refused(&["--url", &url], Some("wrong")));
    let (code, errors) = refused.await.unwrap();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("key_invalid") && errors.contains("TWINE_API_KEY"), "{errors}");
    assert_eq!(hub.metric("twine_session_attaches_total").await, 0);
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    // Bound, so that nobody else gets the port, and without ears.
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap().as_socket().unwrap());
    let (code, errors) = refused(&["--url", &url], None);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains(&url) && errors.contains("is a hub there"), "{errors}");
}

#[tokio::test]
async fn data_that_the_hub_does_not_take_is_told_before_anybody_connects() {
    let mut hub = Hub::new(&["--max-data", "1KiB"]);
    hub.start().await;
    let url = hub.url();
    let refused = tokio::task::spawn_blocking(move || refused(&["--url", &url, "--size", "2KiB"], None));
    let (code, errors) = refused.await.unwrap();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("data_too_big"), "{errors}");
}

#[test]
fn flags_that_do_not_fit_end_with_a_status_of_their_own() {
    for (flags, part) in [
        (&["--connections", "2", "--rooms", "3"][..], "nobody would be in some of the rooms"),
        (&["--connections", "0"], "number from 1"),
        (&["--rate", "0"], "--rate"),
        (&["--duration", "5"], "no time like 30s"),
        (&["--size", "9MiB"], "above 8MiB"),
        (&["--ramp", "soon"], "no time like 30s"),
        (&["--scenario", "storm"], "fanout"),
        (&["--url", "ftp://hub"], "http://host:port"),
        (&["--source", "here"], "--source"),
        (&["--connections", "100000", "--processes", "1000"], "--processes"),
    ] {
        let (code, errors) = refused(flags, None);
        assert_eq!(code, Some(2), "{flags:?}: {errors}");
        assert!(errors.contains(part), "{flags:?}: {errors}");
    }
}

#[test]
fn help_names_a_small_run_and_hides_its_processes() {
    let output = command(&["--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--connections 100 --rooms 10 --duration 5s --ramp 1s"), "{help}");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_twine-hub")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("bench") && !help.contains("bench-worker"), "{help}");
}
