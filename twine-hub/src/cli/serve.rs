//! `twine-hub serve`: logs, limits of the process, signals.

use std::io::IsTerminal as _;

use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::signals::Signals;
use super::{Failure, chain};
use crate::config::{Config, Loaded, LogFormat};
use crate::hub::Hub;

/// File descriptors beside sockets: the store, the listener, the runtime's own.
const OTHER_FILES: u64 = 64;

pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    start_logs(&loaded.config);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let mut config = loaded.config;
    raise_file_limit(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("twine-http")
        .build()
        .map_err(|error| Failure::Failed(format!("can't start: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(format!("can't start: {}", chain(error)));
    // Before the start, so that no signal finds the default action, which ends the process.
    let mut signals = Signals::listen().map_err(|error| failed(&error))?;
    let hub = Hub::builder().config(config).start().await.map_err(|error| failed(&error))?;
    let name = signals.next().await;
    info!(signal = name, "stopping; a second signal ends the hub at once");
    tokio::select! {
        () = hub.shutdown() => Ok(()),
        name = signals.next() => {
            warn!(signal = name, "ended by a second signal");
            // The point is to wait for nothing, and dropping the runtime would wait for its threads.
            std::process::exit(1)
        }
    }
}

fn start_logs(config: &Config) {
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&config.log).unwrap_or_default();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Makes room for as many sockets as the configuration allows, or fewer connections where the
/// system does not: one too many is then refused with `full`, and finds the hub's files open.
fn raise_file_limit(config: &mut Config) {
    let places = |connections: usize| u64::try_from(connections).unwrap_or(u64::MAX);
    let other = places(config.max_http_connections).saturating_add(OTHER_FILES);
    let wanted = places(config.max_connections).saturating_add(other);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => {
            let left = limit.saturating_sub(other).max(1);
            config.max_connections = usize::try_from(left).unwrap_or(usize::MAX);
            warn!(
                open_files = limit,
                wanted,
                max_connections = config.max_connections,
                "this process may not open as many files as `max_connections` needs: it is lowered; raise the limit (ulimit -n)"
            );
        }
        Err(error) => warn!(error = %error, "the limit of open files is not known"),
    }
}
