//! What is looked at before a run: that hubs are there and take clients and publishes, and the ways to
//! them. One problem is told here, rather than by each of 40,000 connections.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use twine_server_sdk::Message;
use twine_server_sdk::reqwest::Url;

use super::cookie::Visitor;
use super::error::BenchError;
use super::pace::unix_micros;
use super::payload::Padding;
use super::plan::Plan;
use super::publisher::publisher;
use super::sources::{PORTS, places, sources};

/// How long a hub may take to take a message: someone is waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at each hub, and completes the plan with the addresses to come from.
///
/// # Errors
/// [`BenchError::Url`], [`BenchError::Cookie`] or [`BenchError::Publish`], of the first hub that has one.
pub(super) async fn check(plan: &mut Plan, given: &[IpAddr], run: &str, key: &str) -> Result<(), BenchError> {
    let mut servers = Vec::new();
    for url in &plan.urls {
        servers.push(addresses(url).await?);
    }
    plan.sources = sources(given, &servers, plan.connections);
    let places = places(plan.sources.len(), plan.urls.len());
    if plan.connections > places {
        eprintln!(
            "there are ports for some {places} connections, {PORTS} to each server, or from each --source: \
             more addresses of this machine may be given by --source"
        );
    }
    for url in &plan.urls {
        let cookie = |source| BenchError::Cookie { url: url.clone(), source };
        let visitor = Visitor::new(plan.sources.first().copied()).map_err(cookie)?;
        visitor.cookie(url).await.map_err(cookie)?;
        let publish = |source| BenchError::Publish { url: url.clone(), source };
        let data = Padding::new(plan.size);
        let message =
            Message::new(format!("bench-{run}-check"), &data.fill(1, unix_micros())).map_err(publish)?;
        let twine = publisher(url, key, PATIENCE).map_err(publish)?;
        twine.publish_message(&message).await.map_err(publish)?;
    }
    Ok(())
}

/// The addresses that a URL stands for; none where its host has no name, which shows when it is asked.
async fn addresses(url: &str) -> Result<Vec<SocketAddr>, BenchError> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(parsed) = parsed else { return Err(BenchError::Url { url: url.to_owned() }) };
    let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port_or_known_default().unwrap_or_default();
    Ok(lookup_host((host, port)).await.map(Iterator::collect).unwrap_or_default())
}
