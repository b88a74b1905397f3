//! `headworks send`: feeds at a rate, paced packet by packet, that says so when it is itself too slow.

pub mod feed;
pub mod material;
pub mod outlet;
pub mod plan;
pub mod recorder;
pub mod report;
pub mod synthetic;
pub mod target;
pub mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;

use self::report::{Progress, SendReport};
use self::worker::{Shared, WorkerError, WorkerReport};
use super::impairment::ImpairmentArguments;
use super::passphrase_file::PassphraseFile;
use super::values::{octet, rate, time};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::shard::appliance::{Signals, StartError};

const EXAMPLES: &str = "\
Examples:
  One camera, made up, at 8 Mbit/s until Ctrl-C:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --rate 8M
  A file, once, as fast as its own clock (the PCR) says:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --file clip.ts
  The same, over and over for a minute; the seams cannot be seen (counters, PCR, PTS and DTS go on):
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --file clip.ts --duration 60s
  25 cameras of 50 Mbit/s for a minute, cam0 to cam24, from core 1:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam' --feeds 25 --rate 50M --duration 60s --cores 1
  Encrypted, AES-256, with the first line of a file for the passphrase:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --passphrase-file cam1.secret --key-length 256
  Encrypted and authenticated, AES-128-GCM:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --passphrase 'correct horse' --crypto-mode gcm
  With a sum of each row of ten packets and each column of five, to rebuild lost ones from; nothing is sent again:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --packetfilter fec,cols:10,rows:5,arq:never --loss 1%
  Marked as AF41, by one interface whatever the routes say:
    headworks send --to 'srt://192.0.2.1:30000?streamid=cam1&iptos=0x88&bindtodevice=eth1' --rate 8M
  RTP to a multicast group by one interface, three hops far:
    headworks send --to rtp://239.1.1.1:5004 --interface eth1 --ttl 3 --file clip.ts
  Ten transport streams over bare UDP, to ports 6000, 6002, …:
    headworks send --to udp://127.0.0.1:6000 --feeds 10 --ports-step 2 --rate 20M
  10 Gbit/s of RTP, 45 packets to a system call (GSO), for an appliance with shards.gro=true; says so if it cannot:
    headworks send --to rtp://127.0.0.1:5004 --feeds 25 --rate 400M --gso 45 --duration 5s --cores 1
  Bursts of 2 MB every 320 ms, as of an encoder that hands over a large picture at once:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --rate 50M --window 320ms --gso 45 --max-lateness 1s
  A bad network on the way out, the same one each time:
    headworks send --to 'srt://127.0.0.1:30000?streamid=cam1' --latency 500ms --loss 1% --delay 15ms --reorder 1% --seed 7

TIME is a number with a unit (250us, 120ms, 30s, 5m, 1h), RATE is bits per second (800k, 50M, 1.5G), SHARE a percentage (0.5%).

Exit codes: 0 every feed connected, everything was sent and the schedule was kept (see --max-lateness); 1 not so; 2 usage";

/// Send feeds: SRT, RTP or UDP, from a transport stream file or made up, paced packet by packet
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SendArguments {
    /// Where to: srt://host:port?streamid=NAME, rtp://host:port or udp://host:port. SRT also takes latency (in milliseconds; ffmpeg's is in microseconds), passphrase, pbkeylen, cryptomode, packetfilter, iptos, ipttl and bindtodevice in the URL
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// A transport stream to send; without it one is made up (H.264 and AAC)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How many feeds; with more than one their numbers are added to the stream id: NAME0, NAME1, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub feeds: u32,
    /// Bits per second of each feed: 50M. A file without it goes as its PCRs say; made up feeds without it have 8M
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<u64>,
    /// Send for so long, such as 60s, and to the end of the picture that is then on its way; a file is sent over and over
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,
    /// Send it so many times, 0 for ever; without it a file once, and what is made up until --duration or Ctrl-C
    #[arg(long, value_name = "N")]
    pub loops: Option<u64>,
    /// Added to the port for each further feed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub ports_step: u16,
    /// Name of the interface to send by, or one of this host's addresses on it
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub interface: Option<String>,
    /// Time to live (hop limit) of what is sent
    #[arg(long, value_name = "N")]
    pub ttl: Option<u8>,
    /// DSCP and ECN of what is sent, as an octet such as 0x88 (AF41): IPv4's ToS, IPv6's traffic class
    #[arg(long, value_name = "OCTET", value_parser = octet)]
    pub traffic_class: Option<u8>,
    /// RTP: SSRC of the first feed, as hexadecimal digits; the others count on. Without it they are random
    #[arg(long, value_name = "HEX", value_parser = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16))]
    pub ssrc: Option<u32>,
    /// SRT: how long the peer is asked to hold packets, so that lost ones can be sent again; without it 120ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub latency: Option<Duration>,
    /// SRT: encrypt with this, 10 to 79 bytes; whoever lists processes can read it here
    #[arg(long, value_name = "TEXT", conflicts_with = "passphrase_file")]
    pub passphrase: Option<String>,
    /// Where else it may stand
    #[command(flatten)]
    pub passphrase_file: PassphraseFile,
    /// SRT: bits of the AES key; without it 128
    #[arg(long, value_name = "128|192|256", value_parser = ["128", "192", "256"])]
    pub key_length: Option<String>,
    /// SRT: encrypt with AES-CTR or AES-GCM, which libsrt has from 1.5.2 on, if it is built with it; auto is ctr
    #[arg(long, value_name = "auto|ctr|gcm", value_parser = ["auto", "ctr", "gcm"])]
    pub crypto_mode: Option<String>,
    /// SRT: send sums from which the peer rebuilds what is lost, as libsrt's SRTO_PACKETFILTER says: fec,cols:10,rows:5,layout:staircase,arq:onreq; "fec" leaves all of it to the peer
    #[arg(long, value_name = "TEXT")]
    pub packetfilter: Option<FilterConfiguration>,
    /// SRT: how long to try to connect
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    pub connect_timeout: Duration,
    /// One thread on each of these cores, such as 1,2; without it one thread on any core
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Packets due within such a time leave together, none of them before it is due; a long one makes bursts (then raise --max-lateness)
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "300us")]
    pub window: Duration,
    /// Send so many packets of a feed as one aggregate (GSO): less work, but bursts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=45))]
    pub gso: u32,
    /// The schedule counts as kept when 99 % of packets left at most so late, and the rate was kept to 0.5 %
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10ms")]
    pub max_lateness: Duration,
    /// Of a run that lasts longer, judge the lateness of what left after such a time: a receiver on the same machine makes room for its feeds at first
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0s")]
    pub settle: Duration,
    /// Write the very bytes that the first feed sends to a file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Print a line each second, on standard error
    #[arg(long)]
    pub progress: bool,
    /// Print the report as JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// The bad network that packets leave through
    #[command(flatten)]
    pub impairment: ImpairmentArguments,
}

/// Why it was not sent, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// What was asked for makes no sense.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] StartError),
    /// A thread could not be started, or the record not be made.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// A thread ended before its time.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Feeds did not do what they should; the first reason.
    #[error("{failed} of {feeds} feeds failed; {first}")]
    Feeds {
        /// How many.
        failed: usize,
        /// Of how many.
        feeds: usize,
        /// The first of them and its reason.
        first: String,
    },
    /// It was too slow.
    #[error("could not keep the schedule: {0}")]
    Schedule(report::Shortfall),
    /// The report could not be printed.
    #[error("cannot print the report: {0}")]
    Print(serde_json::Error),
}

impl SendError {
    /// Whether what was typed makes no sense.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Plan(_))
    }
}

/// Sends, reports, and judges itself.
///
/// # Errors
/// [`SendError`], one line for standard error.
pub fn run(arguments: &SendArguments) -> Result<(), SendError> {
    let signals = Signals::new()?;
    let report = send(arguments, &mut |_| signals.wait(Duration::from_millis(50)))?;
    if arguments.json {
        serde_json::to_writer_pretty(io::stdout().lock(), &report).map_err(SendError::Print)?;
        println!();
    } else {
        print!("{report}");
    }
    report.verdict()
}

/// Sends until the end, or until `interrupted`, which is asked some twenty times a second, says so.
///
/// # Errors
/// [`SendError`] when nothing could be sent; how well it went stands in the report.
pub fn send(arguments: &SendArguments, interrupted: &mut dyn FnMut(&Shared) -> bool) -> Result<SendReport, SendError> {
    let plans = plan::plan(arguments)?;
    let shared = Arc::new(Shared::default());
    let mut threads = Vec::with_capacity(plans.len());
    for (number, plan) in plans.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("send{number}"))
            .spawn(move || {
                let done = worker::run(plan, &shared);
                if done.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                done
            })
            .map_err(|error| SendError::System { what: "starting a thread".to_owned(), error })?;
        threads.push(thread);
    }
    let mut progress = Progress::new(u64::from(arguments.feeds));
    while !threads.iter().all(JoinHandle::is_finished) {
        if interrupted(&shared) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        if arguments.progress {
            progress.tell(&shared);
        }
    }
    let done: Result<Vec<WorkerReport>, WorkerError> =
        threads.into_iter().map(|thread| thread.join().expect("a sending thread does not panic")).collect();
    Ok(SendReport::new(arguments, done?))
}
