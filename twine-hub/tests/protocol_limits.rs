//! The limits that `docs/PROTOCOL.md` names are the ones this hub starts with.

// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use twine_hub::Config;
use twine_hub::config::Retention;

#[test]
fn the_page_has_the_defaults_of_the_code() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| setting | default |")).skip(2);
    let in_page: BTreeMap<String, u128> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), number(cells[2]))
        })
        .collect();

    let config = Config::default();
    let Retention::For(retention) = config.store_retention else { panic!("kept forever") };
    let time = |time: Duration| time.as_millis();
    let in_code = [
        ("max_connections", config.max_connections as u128),
        ("max_waiting", config.max_waiting as u128),
        ("max_http_connections", config.max_http_connections as u128),
        ("max_rooms_per_connection", config.max_rooms_per_connection as u128),
        ("max_frame", config.max_frame as u128),
        ("max_history", config.max_history.into()),
        ("recovery_max_messages", config.recovery_max_messages.into()),
        ("recovery_max_age", time(config.recovery_max_age)),
        ("max_data", config.max_data as u128),
        ("max_body", config.max_body as u128),
        ("max_batch", config.max_batch as u128),
        ("max_pending_bytes", config.max_pending_bytes as u128),
        ("max_sessions", config.max_sessions as u128),
        ("max_sessions_per_cookie", config.max_sessions_per_cookie as u128),
        ("max_rooms_per_session", config.max_rooms_per_session as u128),
        ("max_new_sessions", config.max_new_sessions.into()),
        ("session_lifetime", time(config.session_lifetime)),
        ("connect_timeout", time(config.connect_timeout)),
        ("heartbeat", time(config.heartbeat)),
        ("write_timeout", time(config.write_timeout)),
        ("header_timeout", time(config.header_timeout)),
        ("request_timeout", time(config.request_timeout)),
        ("store_retention", time(retention)),
        ("idempotency_window", time(config.idempotency_window)),
    ];
    assert_eq!(in_page, in_code.map(|(name, value)| (name.to_owned(), value)).into());
}

/// `64 KiB` in bytes, `30 s` in milliseconds, `1,000` as it is.
fn number(text: &str) -> u128 {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let unit = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        other => panic!("no unit is called {other}"),
    };
    digits.replace(',', "").parse::<u128>().unwrap() * unit
}
