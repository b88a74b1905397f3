//! `headworks serve`: the appliance from its configuration to its end.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::arguments::{ConfigArguments, Exit};
use super::limits::Limits;
use crate::config::{Config, ConfigError, Loaded, LogFormat};
use crate::control::{self, ControlError, ControlHandle, Facts};
use crate::shard::appliance::{Appliance, ShardFailure, Signals, StartError, Started};
use crate::shard::host::{self, Severity};
use crate::shard::net::StoredSockets;
use crate::shard::watchdog::Watchdog;

/// Between two looks whether all shards still turn.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Log lines that may be under way; what comes beyond is left out.
const LOG_LINES_QUEUED: usize = 8_192;
/// The filter that overrides `log.level`.
const LOG_VARIABLE: &str = "HEADWORKS_LOG";

const HELP: &str = "\
Without a file: SRT on UDP 30000, RTP and raw MPEG-TS on UDP 5004 (RTCP on 5005), control on http://127.0.0.1:8080, rings in \
/dev/shm/headworks. README.md lists every key with its default.

Every key of the file can also be set in the environment (HEADWORKS_INGESTION__SRT__PORT=9000) and by --set; \
text is taken exactly as it stands there, and null takes back what was set before.
HEADWORKS_LOG overrides log.level (debug, or info,headworks::shard=debug). The log goes to standard error; \
when that is not read, up to 8,192 lines wait, and what comes beyond is left out and counted in /metrics.

Under systemd (systemd/headworks.service) it says when it is ready, feeds the watchdog while every shard turns, and leaves its \
sockets with the manager over a restart.

Examples:
  headworks serve
  headworks serve --config /etc/headworks.yaml --set control.listen=0.0.0.0:8080
  Encoders of cam1 must know a passphrase, and get half a second of latency at least:
    headworks serve --set streams.cam1.passphrase='correct horse battery' --set streams.cam1.latency=500ms
  A multicast feed, named cam2:
    headworks serve --set streams.cam2.rtp.address=239.1.1.1 --set streams.cam2.rtp.port=6000
  A feed that an SRT listener offers, fetched as cam3:
    headworks serve --set streams.cam3.srt.address=192.0.2.1:9000

Exit codes: 0 ended by SIGTERM or SIGINT (Ctrl-C), open frames published and peers told; 1 it cannot start, or a shard \
failed; 2 usage";

/// Run the appliance (this is what headworks does without a command)
#[derive(Args, Debug, Default)]
#[command(after_help = HELP)]
pub struct ServeArguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Why the appliance does not run, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter makes no sense.
    #[error("{place}: {filter:?} is no log filter: {reason}")]
    Log {
        /// Key or variable.
        place: &'static str,
        /// What it says.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something it needs cannot be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The HTTP endpoint cannot be had.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A shard has ended by itself.
    #[error("shard {shard}: {source}")]
    Shard {
        /// Which.
        shard: usize,
        /// Why.
        source: ShardFailure,
    },
}

/// Runs until a signal or a failure.
///
/// # Errors
/// [`ServeError`], one line that names what is in the way.
pub fn run(arguments: &ServeArguments) -> Result<Exit, ServeError> {
    // Before anything else is opened: the first numbers are those of the service manager.
    let stored = StoredSockets::take();
    // Before any thread: threads inherit which signals are blocked.
    let signals = Signals::new()?;
    let began = Instant::now();
    host::raise_descriptor_limit();
    let Loaded { config, not_yet_in_effect } = arguments.config.load()?;
    // Lines still under way are written when it goes.
    let log = start_log(&config)?;
    if !not_yet_in_effect.is_empty() {
        tracing::info!("not yet in effect: {}", not_yet_in_effect.join(", "));
    }
    if config.control.enabled && (config.control.auth.is_some() || config.control.tls.is_some()) {
        tracing::warn!("control.auth and control.tls are not yet in effect: everybody on this host may ask control");
    }
    for finding in host::judge_host(&config) {
        let cure = finding.cure.unwrap_or_default();
        match finding.severity {
            Severity::Good => {}
            Severity::Advice => {
                tracing::info!("{}: {}, wanted {}; {cure}", finding.what, finding.found, finding.wanted)
            }
            _ => tracing::warn!("{}: {}, wanted {}; {cure}", finding.what, finding.found, finding.wanted),
        }
    }
    // Nobody has to read what is printed.
    let appliance = Appliance::start(config.clone(), stored, |started| {
        let _ = writeln!(io::stdout(), "{}", Opened { started, limits: Limits::of(&config) });
    })?;
    let control = match start_control(&config, &appliance, began, log.dropped.clone()) {
        Ok(control) => control,
        Err(error) => {
            appliance.stop();
            return Err(error.into());
        }
    };
    let ready = Ready {
        started: appliance.started(),
        control: control.as_ref().map(ControlHandle::address),
        encrypted: config.ingestion.srt.passphrase.is_some(),
    };
    let _ = writeln!(io::stdout(), "{ready}");
    appliance.notify_ready();
    let mut watchdog = Watchdog::from_environment(&appliance.shards().turns());
    let look_interval = watchdog.as_ref().map_or(LOOK_INTERVAL, |watchdog| LOOK_INTERVAL.min(watchdog.interval()));
    let failure = loop {
        if signals.wait(look_interval) {
            tracing::info!("ending: open frames are published, peers are told");
            break None;
        }
        if let Some(failure) = appliance.failure() {
            break Some(failure);
        }
        if let Some(watchdog) = &mut watchdog {
            watchdog.look(&appliance.shards().turns(), Instant::now());
        }
    };
    drop(control);
    appliance.stop();
    match failure {
        None => Ok(Exit::Done),
        Some((shard, source)) => Err(ServeError::Shard { shard, source }),
    }
}

fn start_control(
    config: &Config,
    appliance: &Appliance,
    started: Instant,
    log_drops: ErrorCounter,
) -> Result<Option<ControlHandle>, ControlError> {
    if !config.control.enabled {
        return Ok(None);
    }
    let facts = Facts {
        root: config.output.root.clone(),
        started,
        log_drops: Some(log_drops),
        packet_io: appliance.started().packet_io.clone(),
    };
    control::start(config.control.listen, appliance.shards().clone(), facts).map(Some)
}

/// Log lines go to standard error, where systemd finds them and no pipe of frames is harmed. They go by a thread of their own: no
/// shard waits for a terminal that is held or a pipe that nobody reads. What does not fit its queue is left out and counted.
fn start_log(config: &Config) -> Result<Log, ServeError> {
    let (place, filter) = match std::env::var(LOG_VARIABLE) {
        Ok(filter) if !filter.is_empty() => (LOG_VARIABLE, filter),
        _ => ("log.level", config.log.level.clone()),
    };
    let parsed = EnvFilter::try_new(&filter).map_err(|error| ServeError::Log {
        place,
        filter: filter.clone(),
        reason: error.to_string(),
    })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES_QUEUED)
        .thread_name("hw-log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer).with_target(false);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(Log { dropped, _guard: guard })
}

/// The log's thread.
struct Log {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// What is printed as soon as the ports are open: where is listened, what there may be at most, and what memory is about to be taken.
struct Opened<'a> {
    started: &'a Started,
    limits: Limits,
}

impl fmt::Display for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, limits } = self;
        writeln!(f, "headworks {} starts", env!("CARGO_PKG_VERSION"))?;
        for (what, address) in &started.listening {
            writeln!(f, "  {what:<8} udp {address}")?;
        }
        writeln!(f, "  {:<8} by {}", "packets", started.packet_io)?;
        writeln!(f, "  {:<8} {} on cores {}", "shards", started.cores.len(), core_list(&started.cores))?;
        if let (asked @ 1.., granted) = started.receive_buffer {
            writeln!(f, "  {:<8} {} KiB of {} KiB asked for, per socket", "buffers", granted >> 10, asked >> 10)?;
        }
        writeln!(f, "  {:<8} {}", "rings", started.root.display())?;
        write!(f, "{limits}\nmemory plan\n{}", started.plan)
    }
}

/// What is printed once packets are taken in: what to send where, and how to see it.
struct Ready<'a> {
    started: &'a Started,
    control: Option<SocketAddr>,
    /// The SRT port asks for a passphrase.
    encrypted: bool,
}

impl fmt::Display for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.started;
        writeln!(f, "takes in")?;
        if let Some(address) = self.control {
            writeln!(f, "  {:<8} http://{address}/api/v1/streams", "control")?;
        }
        let address_of = |role: &str| {
            started.listening.iter().find(|(what, _)| what == role).map(|(_, address)| reachable(*address))
        };
        if let Some(address) = address_of("SRT") {
            let passphrase = if self.encrypted { "&passphrase=..." } else { "" };
            writeln!(f, "send a feed (latency in microseconds)")?;
            writeln!(
                f,
                "  ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine -c:v libx264 -g 50 -pix_fmt yuv420p \
                 -c:a aac -f mpegts 'srt://{address}?streamid=cam1&latency=120000{passphrase}'"
            )?;
            return self.see(f, "cam1");
        }
        if let Some(address) = address_of("RTP") {
            writeln!(f, "send a feed")?;
            writeln!(
                f,
                "  ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=25 -c:v libx264 -g 50 -pix_fmt yuv420p \
                 -f rtp_mpegts rtp://{address}"
            )?;
        }
        self.see(f, "STREAM")
    }
}

impl Ready<'_> {
    fn see(&self, f: &mut fmt::Formatter<'_>, stream: &str) -> fmt::Result {
        let root = &self.started.root;
        let is_usual = *root == Config::default().output.root;
        let root = if is_usual { String::new() } else { format!(" --root {}", root.display()) };
        // As it was called, so that the line can be pasted: `cargo run` leaves nothing in the path.
        let program = std::env::args().next().filter(|name| name.contains('/') && !cfg!(test));
        let program = program.unwrap_or_else(|| "headworks".to_owned());
        writeln!(f, "see it")?;
        writeln!(f, "  {program} streams{root}")?;
        write!(f, "  {program} tap {stream}/video0{root} --from key --out - | ffplay -f h264 -")
    }
}

/// Where a sender on this host reaches a socket.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn core_list(cores: &[Option<usize>]) -> String {
    let names: Vec<String> = cores.iter().map(|core| core.map_or("any".to_owned(), |core| core.to_string())).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::net::{Choice, Way};
    use crate::shard::plan::MemoryPlan;

    #[test]
    fn the_start_says_where_is_listened_and_then_what_to_send_where_and_how_to_see_it() {
        let started = Started {
            listening: vec![
                ("SRT".into(), "0.0.0.0:30000".parse().unwrap()),
                ("RTP".into(), "0.0.0.0:5004".parse().unwrap()),
            ],
            receive_buffer: (32 << 20, 208 << 10),
            plan: MemoryPlan::new(&Config::default(), 2),
            packet_io: Choice { way: Way::Mmsg, reason: "this kernel is built without io_uring".into() },
            cores: vec![Some(2), None],
            root: "/dev/shm/headworks".into(),
        };
        let control = Some("127.0.0.1:8080".parse().unwrap());
        let opened = Opened { started: &started, limits: Limits::of(&Config::default()) };
        let text = format!("{opened}\n{}", Ready { started: &started, control, encrypted: false });
        for line in [
            "takes in",
            "  SRT      udp 0.0.0.0:30000",
            "  control  http://127.0.0.1:8080/api/v1/streams",
            "  shards   2 on cores 2, any",
            "limits",
            "  packets  by mmsg: this kernel is built without io_uring",
            "  buffers  208 KiB of 32768 KiB asked for, per socket",
            "  headworks tap cam1/video0 --from key --out - | ffplay -f h264 -",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("-re ") && text.contains("'srt://127.0.0.1:30000?streamid=cam1&latency=120000'"));
        let elsewhere = Started { root: "/run/rings".into(), listening: started.listening[1..].to_vec(), ..started };
        let text = Ready { started: &elsewhere, control, encrypted: true }.to_string();
        assert!(
            text.contains("rtp://127.0.0.1:5004\n") && text.contains("headworks streams --root /run/rings\n"),
            "{text}"
        );
    }

    #[test]
    fn a_configured_address_is_the_one_to_send_to() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reached("[::]:1"), "[::1]:1");
        assert_eq!(reached("192.0.2.1:1"), "192.0.2.1:1");
    }
}
