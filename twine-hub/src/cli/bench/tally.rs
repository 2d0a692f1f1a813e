//! What is counted. Tallies of several processes, and of one after the other, add up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Times;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Connections that were made, and their room subscribed.
    pub(super) connected: u64,
    /// Connections that could not be made.
    pub(super) failed: u64,
    /// Attempts to make one that were followed by another.
    pub(super) retries: u64,
    /// Connections that were lost and came back.
    pub(super) reconnects: u64,
    /// Of the first failure, for people.
    pub(super) connect_problem: Option<String>,
    /// Subscriptions that the hub has ended.
    pub(super) ended: u64,
    pub(super) end_problem: Option<String>,
    /// From when a connection was due until the room is subscribed.
    pub(super) connect: Times,

    pub(super) acknowledged: u64,
    /// Publishes that failed for good.
    pub(super) refused: u64,
    /// Publishes that were given up, because one before them failed.
    pub(super) given_up: u64,
    /// Publishes that left later than they should have.
    pub(super) late: u64,
    pub(super) publish_problem: Option<String>,
    /// From a batch's leaving until the hub's answer.
    pub(super) publish: Times,
    /// From when a message was due until it left.
    pub(super) lateness: Times,

    /// Messages that subscribers should have, where it is known already.
    pub(super) expected: u64,
    pub(super) received: u64,
    /// Messages that are missing before others that came; in the end all that did not come. It falls
    /// where one comes after all.
    pub(super) lost: i64,
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
    /// Losses that the hub has told of itself.
    pub(super) gaps: u64,
    /// Subscribers that have not seen their room's last message.
    pub(super) unfinished: u64,
    /// From when a message was due until its subscriber has it.
    pub(super) delivery: Times,

    /// Processor time of the processes.
    pub(super) cpu: Duration,
    /// The busiest that one of the processes was, in cores, as of one report.
    pub(super) busiest: f64,
}

impl Tally {
    pub(super) fn merge(&mut self, more: Self) {
        self.connected += more.connected;
        self.failed += more.failed;
        self.retries += more.retries;
        self.reconnects += more.reconnects;
        self.connect_problem = self.connect_problem.take().or(more.connect_problem);
        self.ended += more.ended;
        self.end_problem = self.end_problem.take().or(more.end_problem);
        self.connect.merge(&more.connect);
        self.acknowledged += more.acknowledged;
        self.refused += more.refused;
        self.given_up += more.given_up;
        self.late += more.late;
        self.publish_problem = self.publish_problem.take().or(more.publish_problem);
        self.publish.merge(&more.publish);
        self.lateness.merge(&more.lateness);
        self.expected += more.expected;
        self.received += more.received;
        self.lost += more.lost;
        self.repeated += more.repeated;
        self.out_of_order += more.out_of_order;
        self.gaps += more.gaps;
        self.unfinished += more.unfinished;
        self.delivery.merge(&more.delivery);
        self.cpu += more.cpu;
        self.busiest = self.busiest.max(more.busiest);
    }

    /// What is wrong with the hub or the way to it, for people; nothing where all is well.
    pub(super) fn faults(&self) -> Vec<String> {
        let counted = [
            (self.failed, "connections failed", &self.connect_problem),
            (self.ended, "subscriptions were ended by the hub", &self.end_problem),
            (self.refused, "publishes failed", &self.publish_problem),
            (self.given_up, "publishes were given up after that", &None),
            (u64::try_from(self.lost).unwrap_or(0), "deliveries lost", &None),
            (self.repeated, "deliveries repeated", &None),
            (self.out_of_order, "deliveries out of order", &None),
            (self.unfinished, "subscribers have not seen their room's last message", &None),
        ];
        let found = counted.into_iter().filter(|(n, ..)| *n > 0);
        found
            .map(|(n, what, problem)| match problem {
                Some(problem) => format!("{n} {what} (the first: {problem})"),
                None => format!("{n} {what}"),
            })
            .collect()
    }

    /// What a run that was not stopped has not counted at all, for people: a fault of this command.
    pub(super) fn uncounted(&self, connections: u64, messages: u64) -> Vec<String> {
        let sums = [
            (self.connected + self.failed, connections, "connections"),
            (self.acknowledged + self.refused + self.given_up, messages, "publishes"),
        ];
        let wrong = sums.into_iter().filter(|(counted, asked, _)| counted != asked);
        wrong
            .map(|(counted, asked, what)| format!("{counted} of {asked} {what} were accounted for"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_also_over_a_pipe() {
        let one = Tally {
            connected: 3,
            lost: 2,
            busiest: 0.5,
            connect_problem: Some("first".to_owned()),
            ..Tally::default()
        };
        let mut other = Tally {
            connected: 4,
            lost: -2,
            busiest: 0.25,
            cpu: Duration::from_millis(7),
            connect_problem: Some("second".to_owned()),
            ..Tally::default()
        };
        other.delivery.record(Duration::from_millis(1));
        let mut sum = Tally::default();
        for part in [&one, &other] {
            sum.merge(serde_json::from_str(&serde_json::to_string(part).unwrap()).unwrap());
        }
        assert_eq!((sum.connected, sum.lost, sum.cpu), (7, 0, Duration::from_millis(7)));
        assert_eq!(
            (sum.connect_problem.as_deref(), sum.busiest.to_string()),
            (Some("first"), "0.5".to_owned())
        );
        assert!(sum.delivery.percentiles().is_some() && sum.connect.percentiles().is_none());
    }

    #[test]
    fn what_was_counted_nowhere_is_a_fault() {
        let all =
            Tally { connected: 3, failed: 1, acknowledged: 5, refused: 2, given_up: 1, ..Tally::default() };
        assert!(all.uncounted(4, 8).is_empty());
        assert_eq!(
            all.uncounted(5, 9).join("; "),
            "4 of 5 connections were accounted for; 8 of 9 publishes were accounted for"
        );
    }

    #[test]
    fn faults_have_their_counts_and_reconnects_are_none() {
        let well = Tally { connected: 1, reconnects: 5, retries: 2, late: 9, gaps: 0, ..Tally::default() };
        assert!(well.faults().is_empty());
        let bad = Tally {
            failed: 2,
            connect_problem: Some("no route".to_owned()),
            ended: 1,
            end_problem: Some("forbidden".to_owned()),
            lost: 3,
            repeated: 4,
            out_of_order: 5,
            unfinished: 6,
            ..Tally::default()
        };
        assert_eq!(
            bad.faults().join("; "),
            "2 connections failed (the first: no route); 1 subscriptions were ended by the hub (the first: \
             forbidden); 3 deliveries lost; 4 deliveries repeated; \
             5 deliveries out of order; 6 subscribers have not seen their room's last message"
        );
    }
}
