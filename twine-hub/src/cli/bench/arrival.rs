//! How a client comes: its cookie, its WebSocket, its room; all by the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use twine_client::{Client, SubscribeOptions, Subscription};

use super::audience::Audience;
use super::cookie::Visitor;
use super::error::{ArrivalError, CookieError};
use super::orders::Job;
use super::pace::spread;
use super::subscriber::listen;
use crate::cli::chain;

/// Connections that a process makes at the same time, at most.
const UNDER_WAY: usize = 200;
/// How long one connection is tried. A hub that is full, or restarts, tells clients to come again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// The clients of a process, each with a task that reads what comes.
pub(super) struct Guests {
    job: Arc<Job>,
    audience: Arc<Audience>,
    visitors: Vec<Arc<Visitor>>,
    arriving: JoinSet<Option<Guest>>,
    clients: Vec<Client>,
    readers: JoinSet<()>,
}

struct Guest {
    /// Among the connections of this process.
    place: usize,
    client: Client,
    subscription: Subscription,
}

impl Guests {
    /// # Errors
    /// Where no HTTP client can be made.
    pub(super) fn new(job: Arc<Job>, audience: Arc<Audience>) -> Result<Self, CookieError> {
        let sources = &job.plan.sources;
        let visitors = if sources.is_empty() {
            vec![Arc::new(Visitor::new(None)?)]
        } else {
            let all = sources.iter().map(|&source| Visitor::new(Some(source)).map(Arc::new));
            all.collect::<Result<_, _>>()?
        };
        Ok(Self {
            job,
            audience,
            visitors,
            arriving: JoinSet::new(),
            clients: Vec::new(),
            readers: JoinSet::new(),
        })
    }

    /// Has all of them come, until each is there or has failed, or until `stop`.
    pub(super) async fn arrive(&mut self, stop: &CancellationToken) {
        let start = Instant::now();
        let connections = self.job.plan.connections_of(self.job.process);
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        for (place, connection) in connections.clone().enumerate() {
            let due = start + spread(place, connections.len(), self.job.plan.ramp);
            let permit = async {
                sleep_until(due).await;
                places.clone().acquire_owned().await
            };
            tokio::pin!(permit);
            let permit = loop {
                tokio::select! {
                    permit = &mut permit => break Some(permit),
                    // What comes to those who are there is read at once.
                    Some(arrived) = self.arriving.join_next() => self.seat(arrived.ok().flatten()),
                    () = stop.cancelled() => break None,
                }
            };
            let Some(permit) = permit else { break };
            let arrival = self.arrival(place, connection, due, stop.clone());
            self.arriving.spawn(async move {
                let guest = arrival.await;
                drop(permit);
                guest
            });
        }
        while let Some(arrived) = self.arriving.join_next().await {
            self.seat(arrived.ok().flatten());
        }
    }

    fn seat(&mut self, guest: Option<Guest>) {
        let Some(Guest { place, client, subscription }) = guest else { return };
        self.readers.spawn(listen(client.states(), subscription, place, Arc::clone(&self.audience)));
        self.clients.push(client);
    }

    fn arrival(
        &self,
        place: usize,
        connection: usize,
        due: Instant,
        stop: CancellationToken,
    ) -> impl Future<Output = Option<Guest>> + use<> {
        let visitor = self.visitors.get(self.job.plan.source_of(connection).unwrap_or_default()).cloned();
        let (job, audience) = (Arc::clone(&self.job), Arc::clone(&self.audience));
        async move {
            let visitor = visitor?;
            match come_at_last(&job, &visitor, connection, &audience, &stop).await {
                Ok((client, subscription)) => {
                    let mut seats = audience.lock();
                    seats.tally.connect.record(due.elapsed());
                    seats.take(place);
                    Some(Guest { place, client, subscription })
                }
                // It might have come by another try: it has not failed.
                Err(_) if stop.is_cancelled() => None,
                Err(error) => {
                    let tally = &mut audience.lock().tally;
                    tally.failed += 1;
                    tally.connect_problem.get_or_insert_with(|| chain(&error));
                    None
                }
            }
        }
    }

    /// Has all of them say goodbye, for so long at most.
    pub(super) async fn leave(self, patience: Duration) {
        let mut leaving = JoinSet::new();
        for client in self.clients {
            leaving.spawn(async move { client.disconnect().await });
        }
        // Who takes longer is cut off when the process ends.
        let _ = timeout(patience, async { while leaving.join_next().await.is_some() {} }).await;
    }
}

/// Tries until it works, or has taken too long, or until `stop`.
async fn come_at_last(
    job: &Job,
    visitor: &Visitor,
    connection: usize,
    audience: &Audience,
    stop: &CancellationToken,
) -> Result<(Client, Subscription), ArrivalError> {
    let start = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        let arrival = timeout(left, come(job, visitor, connection)).await;
        match arrival.unwrap_or(Err(ArrivalError::Timeout)) {
            Ok(arrived) => return Ok(arrived),
            Err(error) => {
                let pause = PAUSE.mul_f64(fastrand::f64());
                if start.elapsed() + pause >= PATIENCE {
                    return Err(error);
                }
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                if stop.is_cancelled() {
                    return Err(error);
                }
                audience.lock().tally.retries += 1;
            }
        }
    }
}

async fn come(
    job: &Job,
    visitor: &Visitor,
    connection: usize,
) -> Result<(Client, Subscription), ArrivalError> {
    let plan = &job.plan;
    let room = plan.room_of(connection);
    let url = plan.urls.get(plan.url_of(room)).map(String::as_str).unwrap_or_default();
    let cookie = visitor.cookie(url).await?;
    let mut builder = Client::builder(url).header("Cookie", cookie);
    if let Some(&source) = plan.source_of(connection).and_then(|place| plan.sources.get(place)) {
        builder = builder.local_address(source);
    }
    let client = builder.connect().await?;
    let subscription = client.subscribe(&job.room(room), SubscribeOptions::default()).await?;
    Ok((client, subscription))
}
