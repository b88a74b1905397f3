//! All rounds become one table, and the same as JSON.

use serde_json::{Value, json};

use crate::run::{Feed, POINTS, Point, Receiver};
use crate::support::programs::package_version;

/// Two-sided 95 % of Student's t, by degrees of freedom from 1 on.
const STUDENT_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// What was measured.
pub struct Rounds {
    messages: u64,
    points: Vec<Row>,
}

/// One point over all rounds.
struct Row {
    point: usize,
    ours: Vec<(usize, Feed)>,
    theirs: Vec<(usize, Feed)>,
}

/// The mean of differences, and how sure it is.
struct Interval {
    mean: f64,
    low: f64,
    high: f64,
}

/// A point's figures over the rounds in which both count.
struct Judged {
    rounds: usize,
    sent: u64,
    ours: u64,
    theirs: u64,
    /// Ours less theirs, of a round, in packets.
    difference: Interval,
}

impl Judged {
    const fn verdict(&self) -> &'static str {
        if self.difference.low > 0.0 {
            "worse"
        } else if self.difference.high < 0.0 {
            "better"
        } else {
            "no difference shown"
        }
    }
}

impl Rounds {
    /// Of rounds with `messages` packets for each feed.
    pub fn new(points: &[usize], messages: u64) -> Self {
        let row = |&point| Row { point, ours: Vec::new(), theirs: Vec::new() };
        Self { messages, points: points.iter().map(row).collect() }
    }

    pub fn add(&mut self, round: usize, receiver: Receiver, feeds: Vec<Feed>) {
        for feed in feeds {
            let Some(row) = self.points.iter_mut().find(|row| row.point == feed.point) else { continue };
            match receiver {
                Receiver::Headworks => row.ours.push((round, feed)),
                Receiver::Libsrt => row.theirs.push((round, feed)),
            }
        }
    }

    /// Prints the table; whether every point was judged and none is worse.
    pub fn print(&self) -> bool {
        println!(
            "one sender on libsrt, {} packets a round and feed; libsrt {}\n",
            self.messages,
            package_version("libsrt1.5-openssl").unwrap_or_default()
        );
        println!(
            "{:>5} {:>5} {:>9} {:>4} {:>8}  {:>9} {:>9} {:>9}  {:<29} {:>6}  {:<21} {:<19} verdict",
            "point",
            "loss",
            "bursts",
            "RTT",
            "latency",
            "sent",
            "ours lost",
            "libsrt's",
            "ours − libsrt's, per million",
            "rounds",
            "took p50, p99 ms",
            "sent again"
        );
        self.points.iter().filter(|row| !row.print(self.messages)).count() == 0
    }

    pub fn json(&self) -> Value {
        json!({ "messages": self.messages, "points": self.points.iter().map(|row| row.json(self.messages)).collect::<Vec<_>>() })
    }
}

impl Row {
    /// The rounds in which both count.
    fn pairs(&self) -> impl Iterator<Item = (&Feed, &Feed)> {
        self.ours.iter().filter_map(|(round, ours)| {
            let (_, theirs) = self.theirs.iter().find(|(other, _)| other == round)?;
            (ours.faults.is_empty() && theirs.faults.is_empty()).then_some((ours, theirs))
        })
    }

    fn judged(&self, messages: u64) -> Option<Judged> {
        let rounds = self.pairs().count();
        let sum = |of: &dyn Fn((&Feed, &Feed)) -> u64| self.pairs().map(of).sum();
        let differences: Vec<f64> =
            self.pairs().map(|(ours, theirs)| ours.missing as f64 - theirs.missing as f64).collect();
        Some(Judged {
            rounds,
            sent: rounds as u64 * messages,
            ours: sum(&|(ours, _)| ours.missing),
            theirs: sum(&|(_, theirs)| theirs.missing),
            difference: interval(&differences)?,
        })
    }

    fn print(&self, messages: u64) -> bool {
        let Point { loss, burst_loss, round_trip_ms, latency_ms } = &POINTS[self.point];
        print!("{:>5} {loss:>5} {:>9} {round_trip_ms:>4} {latency_ms:>8}  ", self.point + 1, burst_loss.unwrap_or("-"));
        let judged = self.judged(messages);
        match &judged {
            Some(judged) => {
                let per_million = |packets: f64| packets / messages as f64 * 1e6;
                let Interval { mean, low, high } = judged.difference;
                let difference =
                    format!("{:.0} ({:.0} to {:.0})", per_million(mean), per_million(low), per_million(high));
                let took = |feeds: &[(usize, Feed)], of: &dyn Fn(&Feed) -> u64| {
                    feeds.iter().map(|(_, feed)| of(feed)).max().unwrap_or(0) / 1_000
                };
                let took = |feeds: &[(usize, Feed)]| {
                    format!("{}, {}", took(feeds, &|it| it.took_p50_us), took(feeds, &|it| it.took_p99_us))
                };
                let again = |feeds: &[(usize, Feed)]| feeds.iter().map(|(_, feed)| feed.retransmitted).sum::<u64>();
                println!(
                    "{:>9} {:>9} {:>9}  {difference:<29} {:>6}  {:<21} {:<19} {}",
                    judged.sent,
                    judged.ours,
                    judged.theirs,
                    judged.rounds,
                    format!("{} / {}", took(&self.ours), took(&self.theirs)),
                    format!("{} / {}", again(&self.ours), again(&self.theirs)),
                    judged.verdict()
                );
            }
            None => println!("not judged"),
        }
        for (receiver, feeds) in [(Receiver::Headworks, &self.ours), (Receiver::Libsrt, &self.theirs)] {
            for (round, feed) in feeds.iter().filter(|(_, feed)| !feed.faults.is_empty()) {
                println!("      round {} of {}: {}", round + 1, receiver.name(), feed.faults.join("; "));
            }
        }
        judged.is_some_and(|judged| judged.verdict() != "worse")
    }

    fn json(&self, messages: u64) -> Value {
        let Point { loss, burst_loss, round_trip_ms, latency_ms } = &POINTS[self.point];
        let rounds = |feeds: &[(usize, Feed)]| -> Vec<Value> {
            let feed = |(round, feed): &(usize, Feed)| {
                json!({ "round": round + 1, "missing": feed.missing, "took_p50_us": feed.took_p50_us,
                    "took_p99_us": feed.took_p99_us, "retransmitted": feed.retransmitted,
                    "loss_reports": feed.loss_reports, "faults": feed.faults })
            };
            feeds.iter().map(feed).collect()
        };
        let judged = self.judged(messages).map(|judged| {
            json!({ "rounds": judged.rounds, "sent": judged.sent, "headworks_lost": judged.ours, "libsrt_lost": judged.theirs,
                "difference_of_a_round": { "mean": judged.difference.mean, "low": judged.difference.low, "high": judged.difference.high },
                "verdict": judged.verdict() })
        });
        json!({ "point": self.point + 1, "loss": loss, "burst_loss": burst_loss, "round_trip_ms": round_trip_ms,
            "latency_ms": latency_ms, "judged": judged, "headworks": rounds(&self.ours), "libsrt": rounds(&self.theirs) })
    }
}

/// The mean of at least two figures, and where it lies with 95 %.
fn interval(figures: &[f64]) -> Option<Interval> {
    let count = figures.len() as f64;
    let student = STUDENT_95.get(figures.len().checked_sub(2)?).copied().unwrap_or(1.96);
    let mean = figures.iter().sum::<f64>() / count;
    let variance = figures.iter().map(|figure| (figure - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let width = student * (variance / count).sqrt();
    Some(Interval { mean, low: mean - width, high: mean + width })
}
