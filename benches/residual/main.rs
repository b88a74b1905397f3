//! What is lost for good next to libsrt: the same sender, the same bad network, the same latency; Headworks or libsrt 1.5.1 receiving.
//!
//! `cargo bench --bench residual -- [--rounds 10] [--seconds 15] [--points 1,2,3,4,5,6,7,8] [--json FILE]`
//!
//! In each round each receiver in turn, the other way round every second time, takes one feed at each point of loss, round trip and
//! latency, all points at once. The sender is libsrt (`benches/rivals/numbered_send.c`), so that what is asked for is sent again in the same
//! way; between them is `headworks relay`, with the seed of the round. Every packet carries its number in a PES packet of its own: what
//! counts is which numbers came to whoever reads the ring (of Headworks, as it is configured by default) or `srt_recvmsg`
//! (`benches/rivals/numbered_receive.c`), not what a receiver says of itself. *took* is from handing a packet to the sender until it is there:
//! it shows that the latency is the same.
//!
//! Of the rounds' differences in loss the mean is given with its interval of 95 % (Student's t, rounds in pairs). A point is *worse* when all of it
//! lies above zero, *better* when below. A round in which a sender was late, a receiver was held up or the relay lost by itself is not judged.
//! Exit code 0: nothing is worse, and every point was judged; 1 otherwise, also where libsrt is missing (`libsrt-openssl-dev`, `pkg-config`);
//! 2: usage.
//! Ten rounds of 15 s take seven minutes.

mod run;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::ExitCode;
use std::{fs, io};

use run::{POINTS, Programs, Receiver, measure};
use support::{libsrt, set};
use table::Rounds;

/// Packets of a feed in a second: 5 Mbit/s.
const PER_SECOND: u64 = 500;

struct Options {
    rounds: usize,
    seconds: u64,
    /// Numbers of [`POINTS`], from 0.
    points: Vec<usize>,
    json: Option<String>,
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::from(2) };
    let Some(programs) = Programs::build() else {
        eprintln!("residual: apt-get install {}", libsrt::PACKAGES);
        return ExitCode::FAILURE;
    };
    let mut rounds = Rounds::new(&options.points, options.seconds * PER_SECOND);
    for round in 0..options.rounds {
        let mut receivers = [Receiver::Headworks, Receiver::Libsrt];
        if round % 2 == 1 {
            receivers.reverse();
        }
        for receiver in receivers {
            match measure(&programs, receiver, round as u64 + 1, &options.points, options.seconds * PER_SECOND) {
                Ok(feeds) => {
                    let missing: Vec<u64> = feeds.iter().map(|feed| feed.missing).collect();
                    eprintln!("round {} of {}, {}: missing {missing:?}", round + 1, options.rounds, receiver.name());
                    rounds.add(round, receiver, feeds);
                }
                Err(error) => eprintln!("round {} of {}, {}: {error}", round + 1, options.rounds, receiver.name()),
            }
        }
    }
    let _ = fs::remove_dir_all(run::ROOT);
    let is_fine = rounds.print();
    if let Some(path) = &options.json
        && let Err(error) =
            serde_json::to_string_pretty(&rounds.json()).map_err(io::Error::from).and_then(|text| fs::write(path, text))
    {
        eprintln!("{path}: {error}");
        return ExitCode::FAILURE;
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Option<Options> {
    let mut options = Options { rounds: 10, seconds: 15, points: (0..POINTS.len()).collect(), json: None };
    for (name, value) in support::arguments() {
        let understood = match name.as_str() {
            "--rounds" => set(&mut options.rounds, &value) && options.rounds > 1,
            "--seconds" => set(&mut options.seconds, &value) && options.seconds > 0,
            "--points" => {
                let numbers =
                    value.split(',').map(|number| number.parse().ok().filter(|it| (1..=POINTS.len()).contains(it)));
                numbers
                    .map(|number| number.map(|it| it - 1))
                    .collect::<Option<_>>()
                    .map(|it| options.points = it)
                    .is_some()
            }
            "--json" => options.json.replace(value).is_none(),
            _ => false,
        };
        if !understood {
            eprintln!("residual [--rounds 2…] [--seconds N] [--points 1,…,{}] [--json FILE]", POINTS.len());
            return None;
        }
    }
    Some(options)
}
