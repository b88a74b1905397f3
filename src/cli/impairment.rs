//! Options that make a network bad, the same for `send` and `relay`.

use std::time::Duration;

use clap::Args;

use super::values::{percentage, rate, time};
use crate::shard::net::impairment::{Blackout, Burst, Conditions};

/// What happens to datagrams on their way.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "A bad network")]
pub struct ImpairmentArguments {
    /// Share of datagrams lost, each by itself: 1%
    #[arg(long, value_name = "SHARE", value_parser = percentage, default_value = "0%")]
    pub loss: f64,
    /// Loss in bursts: share of time, and the longest burst: 0.5%/100ms
    #[arg(long, value_name = "SHARE/TIME", value_parser = burst)]
    pub burst_loss: Option<Burst>,
    /// How long every datagram takes: 15ms (both ways: 30 ms of round trip)
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub delay: Duration,
    /// How much longer it may take, at random; the order is kept
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub jitter: Duration,
    /// Share of datagrams that others overtake
    #[arg(long, value_name = "SHARE", value_parser = percentage, default_value = "0%")]
    pub reorder: f64,
    /// How long those are held back
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2ms")]
    pub reorder_delay: Duration,
    /// Share of datagrams that come twice
    #[arg(long, value_name = "SHARE", value_parser = percentage, default_value = "0%")]
    pub duplicate: f64,
    /// Bits per second that pass, each way and for each peer; more waits
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub link_rate: Option<u64>,
    /// The longest wait for that; more is lost
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "100ms")]
    pub link_queue: Duration,
    /// Nothing passes, from some time on, for some time; may be repeated: 10s+500ms
    #[arg(long, value_name = "FROM+TIME", value_parser = blackout, value_delimiter = ',')]
    pub blackout: Vec<Blackout>,
    /// All accidents follow from it: the same seed, the same accidents
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

impl ImpairmentArguments {
    /// What they come to.
    pub fn conditions(&self) -> Conditions {
        Conditions {
            loss: self.loss,
            burst: self.burst_loss,
            delay: self.delay,
            jitter: self.jitter,
            reorder: self.reorder,
            reorder_delay: self.reorder_delay,
            duplicate: self.duplicate,
            rate_bps: self.link_rate,
            queue: self.link_queue,
            blackouts: self.blackout.clone(),
        }
    }
}

/// Why a value is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ImpairmentError {
    #[error("not a burst loss: write a share of time and the longest burst, such as 0.5%/100ms")]
    Burst,
    #[error("not a blackout: write when it begins and how long it lasts, such as 10s+500ms")]
    Blackout,
}

fn burst(text: &str) -> Result<Burst, ImpairmentError> {
    let (share, longest) = text.split_once('/').ok_or(ImpairmentError::Burst)?;
    let share = percentage(share).map_err(|_| ImpairmentError::Burst)?;
    let longest = time(longest).map_err(|_| ImpairmentError::Burst)?;
    if longest.is_zero() || share >= 1.0 { Err(ImpairmentError::Burst) } else { Ok(Burst { share, longest }) }
}

fn blackout(text: &str) -> Result<Blackout, ImpairmentError> {
    let (from, length) = text.split_once('+').ok_or(ImpairmentError::Blackout)?;
    let read = |text| time(text).map_err(|_| ImpairmentError::Blackout);
    Ok(Blackout { from: read(from)?, length: read(length)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        impairment: ImpairmentArguments,
    }

    fn conditions(arguments: &[&str]) -> Result<Conditions, clap::Error> {
        let arguments = std::iter::once("x").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).map(|command| command.impairment.conditions())
    }

    #[test]
    fn nothing_asked_for_is_a_clear_network() {
        assert!(conditions(&[]).unwrap().is_clear());
    }

    #[test]
    fn every_option_arrives_where_it_belongs() {
        let all = "--loss 1% --burst-loss 0.5%/100ms --delay 15ms --jitter 3ms --reorder 2% --reorder-delay 4ms \
                   --duplicate 3% --link-rate 60M --link-queue 50ms --blackout 10s+500ms,20s+1s";
        let conditions = conditions(&all.split_whitespace().collect::<Vec<_>>()).unwrap();
        let ms = Duration::from_millis;
        let expected = Conditions {
            loss: 0.01,
            burst: Some(Burst { share: 0.005, longest: ms(100) }),
            delay: ms(15),
            jitter: ms(3),
            reorder: 0.02,
            reorder_delay: ms(4),
            duplicate: 0.03,
            rate_bps: Some(60_000_000),
            queue: ms(50),
            blackouts: vec![
                Blackout { from: ms(10_000), length: ms(500) },
                Blackout { from: ms(20_000), length: ms(1_000) },
            ],
        };
        assert_eq!(conditions, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [["--loss", "1"], ["--burst-loss", "1%"], ["--burst-loss", "1%/0"], ["--blackout", "10s"]] {
            assert!(conditions(&wrong).is_err(), "{wrong:?}");
        }
    }
}
