//! All shards of a host and the threads beside them: started in order, ended in order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use headworks_host::facts::{read_numa_node, read_numa_node_count};
use headworks_host::{
    InstanceError, InstanceLock, ServiceManager, ServiceState, Signal, SignalFd, available_cores, can_run_on,
};

use super::admission::Desk;
use super::described::{Described, DescriptionError};
use super::executor::{ExecutorError, Shell};
use super::mailbox::Shards;
use super::net::{
    Choice, Dpdk, NetError, NetOptions, PortSet, SocketRole, SocketsError, StoredSockets, Way, XdpInterfaces, choice,
    sockets,
};
use super::packet_filters::{PacketFilterError, PacketFilters};
use super::plan::MemoryPlan;
use super::turn::{Shard, ShardOptions};
use crate::config::{Config, PayloadFormat};
use crate::output::broker::BrokerError;
use crate::output::directory::DirectoryError;
use crate::output::{Broker, BrokerOptions, Housekeeping, OutputOptions, RingDirectory, Waker};
use crate::protocol::rtp::sdp::SourceFilter;
use crate::protocol::rtp::{Encoding, PayloadFormat as RtpFormat, PayloadTypes};

/// Shards that are started when no cores are named: more than one feed a core can hardly bring is rare, and each costs memory.
const SHARDS_BY_DEFAULT: usize = 2;
/// How long all shards together may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How long ending may take; systemd is told to wait longer.
const STOP_MAX: Duration = Duration::from_millis(4_500);

/// Why the appliance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// Another instance writes the same rings.
    #[error("output.root: {0}")]
    Instance(#[from] InstanceError),
    /// The rings' directory cannot be used.
    #[error("output.root: {0}")]
    Directory(#[from] DirectoryError),
    /// The broker cannot listen.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// An SDP file is of no use.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// A packet filter is none.
    #[error(transparent)]
    PacketFilter(#[from] PacketFilterError),
    /// The way that packets are to come in is not to be had.
    #[error("shards.packet_io: {0}")]
    PacketIo(NetError),
    /// A port cannot be had.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// The plan does not fit the limit.
    #[error("{0}")]
    Memory(String),
    /// A shard's thread cannot be made.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A shard has no net.
    #[error("shard {shard}: {source}")]
    Net {
        /// Which shard.
        shard: usize,
        /// Why not.
        source: NetError,
    },
    /// A shard said nothing.
    #[error("a shard did not start within {START_MAX:?}")]
    Silent,
    /// `shards.cores` names a core that is not there.
    #[error(
        "shards.cores names core {core}: there is none, or this process's cpuset leaves it out (systemd: AllowedCPUs=)"
    )]
    NoSuchCore {
        /// The core.
        core: usize,
    },
}

/// Why a shard has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ShardFailure {
    /// Its net failed for good.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A broken invariant; the panic's message stands above.
    #[error("it ended in a panic")]
    Panicked,
}

/// Tells how a shard has ended, also when it panics.
struct LastWord {
    shard: usize,
    outcome: Option<Result<(), ShardFailure>>,
    to: Sender<(usize, Result<(), ShardFailure>)>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(ShardFailure::Panicked));
        // Nobody listens any more when the start has failed.
        let _ = self.to.send((self.shard, outcome));
    }
}

/// Signals, to be received before any thread is started.
pub struct Signals(SignalFd);

impl Signals {
    /// First thing in a process that serves.
    ///
    /// # Errors
    /// [`StartError::Signals`].
    pub fn new() -> Result<Self, StartError> {
        SignalFd::new().map(Self).map_err(StartError::Signals)
    }

    /// Waits for a signal to end; `false` when none came within `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        matches!(self.0.wait(timeout), Some(Signal::Terminate | Signal::Interrupt))
    }
}

/// A running appliance.
pub struct Appliance {
    shards: Shards,
    shells: Vec<Shell>,
    outcomes: Receiver<(usize, Result<(), ShardFailure>)>,
    /// Shards that have ended already.
    ended: Cell<usize>,
    wakers: Vec<(Waker, JoinHandle<()>)>,
    housekeeping_thread: JoinHandle<()>,
    desk: Arc<Desk>,
    _ports: PortSet,
    _broker: Option<Broker>,
    _lock: InstanceLock,
    started: Started,
}

/// What is to be said once it runs.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where is listened.
    pub listening: Vec<(String, std::net::SocketAddr)>,
    /// Bytes of receive buffer per socket: asked for, granted; 0 where there are no sockets.
    pub receive_buffer: (usize, usize),
    /// The memory plan.
    pub plan: MemoryPlan,
    /// The way that packets come in, and why.
    pub packet_io: Choice,
    /// The cores that shards run on.
    pub cores: Vec<Option<usize>>,
    /// The rings' directory.
    pub root: PathBuf,
}

impl Appliance {
    /// Opens everything and starts every shard; returns when all of them turn. `announce` is called as soon as all is known that
    /// there is to say, before packet memory is taken, which may take a while.
    ///
    /// # Errors
    /// [`StartError`], one line that names what is in the way.
    pub fn start(config: Config, stored: StoredSockets, announce: impl FnOnce(&Started)) -> Result<Self, StartError> {
        let described = Described::read(&config)?;
        let config = Arc::new(described.config.clone());
        let packet_filters = PacketFilters::read(&config)?;
        let cores = choose_cores(&config)?;
        let mut packet_io = choice::choose(config.shards.packet_io).map_err(StartError::PacketIo)?;
        let plan = MemoryPlan::new(&config, cores.len());
        if let Some(fault) = plan.fault(&config) {
            return Err(StartError::Memory(fault));
        }
        let nodes = shard_nodes(&cores);
        let (waker_of_shard, wakers) = start_wakers(&nodes);
        let output = OutputOptions {
            memory_limit: plan.left_for_rings(&config),
            shard_nodes: nodes,
            ..OutputOptions::from_config(&config)
        };
        let directory = Arc::new(RingDirectory::prepare(output, waker_of_shard.clone())?);
        let lock = InstanceLock::acquire(&config.output.root.join(".lock"))?;
        directory.sweep();
        let broker = BrokerOptions::from_config(&config).map(Broker::start).transpose()?;
        let (mut xdp, mut dpdk) = (XdpInterfaces::default(), Dpdk::default());
        let mut ports = if packet_io.way == Way::Dpdk {
            let (ports, own) = sockets::own_ports(&described, stored)?;
            dpdk = Dpdk::find(&config.shards.dpdk, own, cores.len()).map_err(StartError::PacketIo)?;
            packet_io.reason = format!("{}; from {}", packet_io.reason, dpdk.describe());
            ports
        } else {
            PortSet::open(&described, cores.len(), stored)?
        };
        if packet_io.way == Way::Xdp {
            xdp =
                XdpInterfaces::attach(&config.shards.xdp_interfaces, &ports.by_shard).map_err(StartError::PacketIo)?;
            packet_io.reason = format!("{}; from {}", packet_io.reason, xdp.describe());
        }
        for section in &described.left_out {
            tracing::warn!("{section}");
        }
        let started = Started {
            listening: ports.listening.clone(),
            receive_buffer: ports.receive_buffer,
            plan,
            packet_io,
            cores,
            root: config.output.root.clone(),
        };
        announce(&started);
        let (plan, cores, way) = (&started.plan, &started.cores, started.packet_io.way);
        let payload_types = Arc::new(payload_types(&described));
        let sources: Arc<Vec<SourceFilter>> =
            Arc::new(config.streams.keys().map(|name| described.sources(name)).collect());
        let (housekeeping, housekeeping_thread) = {
            let directory = Arc::clone(&directory);
            Housekeeping::start("hw-house", move || directory.tick())
        };
        let shards = Shards::new(cores.len());
        let desk = Desk::new(Arc::clone(&config), packet_filters, shards.clone(), directory, housekeeping);
        let net = NetOptions {
            way,
            xdp,
            dpdk,
            shard: 0,
            slots: plan.slots_per_shard,
            aggregate_slots: plan.aggregate_slots_per_shard,
            huge_pages: config.output.huge_pages,
            credit: plan.credit,
            coldest_first: false,
        };
        let (outcome_sender, outcomes) = channel();
        let (ready_sender, ready) = channel();
        let (cookie_secret, address_secret) = (random_bytes(), random_bytes());
        let mut shells = Vec::with_capacity(cores.len());
        for (index, core) in cores.iter().copied().enumerate() {
            let sockets: Vec<(SocketRole, OwnedFd)> = std::mem::take(&mut ports.by_shard[index]);
            let options = ShardOptions {
                shard: index,
                core,
                config: Arc::clone(&config),
                net: NetOptions { shard: index, ..net.clone() },
                sockets,
                shards: shards.clone(),
                desk: Arc::clone(&desk),
                waker: waker_of_shard[index].clone(),
                payload_types: Arc::clone(&payload_types),
                sources: Arc::clone(&sources),
                cookie_secret,
                address_secret,
                seed: u64::from_le_bytes(random_bytes()),
            };
            let (ready, outcome) = (ready_sender.clone(), outcome_sender.clone());
            shells.push(Shell::spawn(&format!("hw-shard-{index}"), core, way, move || async move {
                let mut last_word = LastWord { shard: index, outcome: None, to: outcome };
                // Made here, because the net belongs to the thread that makes it.
                last_word.outcome = Some(match Shard::new(options) {
                    Ok(shard) => {
                        let _ = ready.send(Ok(()));
                        drop(ready);
                        shard.run().map_err(ShardFailure::from)
                    }
                    Err(source) => {
                        let _ = ready.send(Err(StartError::Net { shard: index, source }));
                        Ok(())
                    }
                });
            })?);
        }
        drop((ready_sender, outcome_sender));
        for _ in 0..cores.len() {
            match ready.recv_timeout(START_MAX) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Err(StartError::Silent),
                Err(RecvTimeoutError::Disconnected) => return Err(why_not_started(shells)),
            }
        }
        Ok(Self {
            shards,
            shells,
            outcomes,
            ended: Cell::new(0),
            wakers,
            housekeeping_thread,
            desk,
            _ports: ports,
            _broker: broker,
            _lock: lock,
            started,
        })
    }

    /// What is to be said at start.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// The mailboxes of its shards, for control.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Tells the service manager, if there is one, that the appliance is ready.
    pub fn notify_ready(&self) {
        if let Some(manager) = ServiceManager::from_environment() {
            let _ = manager.notify(ServiceState::Ready);
        }
    }

    /// Whether a shard has ended by itself, and why.
    pub fn failure(&self) -> Option<(usize, ShardFailure)> {
        let (shard, outcome) = self.outcomes.try_recv().ok()?;
        self.ended.set(self.ended.get() + 1);
        outcome.err().map(|failure| (shard, failure))
    }

    /// Ends all shards: open frames are published, peers are told, what they have sent is delivered.
    pub fn stop(self) {
        if let Some(manager) = ServiceManager::from_environment() {
            let _ = manager.notify(ServiceState::Stopping);
        }
        self.shards.stop();
        let deadline = std::time::Instant::now() + STOP_MAX;
        for _ in self.ended.get()..self.shells.len() {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if self.outcomes.recv_timeout(left).is_err() {
                tracing::error!("a shard did not end in time");
                self.desk.directory().drop_spare();
                return;
            }
        }
        for shell in self.shells {
            if let Err(error) = shell.join() {
                tracing::error!("{error}");
            }
        }
        for (waker, thread) in self.wakers {
            waker.stop();
            let _ = thread.join();
        }
        self.desk.directory().drop_spare();
        drop((self.desk, self.shards));
        // Housekeeping ends when the last one that could give it a job is gone.
        let _ = self.housekeeping_thread.join();
    }
}

/// The NUMA node of each shard's core; none on a host with one node, where there is nothing to choose.
fn shard_nodes(cores: &[Option<usize>]) -> Vec<Option<u32>> {
    let root = Path::new("/");
    if read_numa_node_count(root) < 2 {
        return vec![None; cores.len()];
    }
    let node = |core| read_numa_node(root, core).and_then(|node| u32::try_from(node).ok());
    cores.iter().map(|core| core.and_then(node)).collect()
}

/// A thread that wakes readers for each NUMA node that shards lie on: that of each shard, and all of them.
fn start_wakers(nodes: &[Option<u32>]) -> (Vec<Waker>, Vec<(Waker, JoinHandle<()>)>) {
    let mut started = BTreeMap::new();
    let name = |node: Option<u32>| node.map_or_else(|| "hw-waker".to_owned(), |node| format!("hw-waker-{node}"));
    let of_shard = |&node: &Option<u32>| started.entry(node).or_insert_with(|| Waker::start(&name(node))).0.clone();
    let by_shard = nodes.iter().map(of_shard).collect();
    (by_shard, started.into_values().collect())
}

pub(super) fn choose_cores(config: &Config) -> Result<Vec<Option<usize>>, StartError> {
    let named = &config.shards.cores;
    if named.is_empty() {
        return Ok(available_cores().into_iter().take(SHARDS_BY_DEFAULT).map(Some).collect());
    }
    match named.iter().find(|&&core| !can_run_on(core)) {
        Some(&core) => Err(StartError::NoSuchCore { core }),
        None => Ok(named.iter().copied().map(Some).collect()),
    }
}

/// What payload types mean: per configured stream, and on the shared port.
fn payload_types(described: &Described) -> (Vec<PayloadTypes>, PayloadTypes) {
    let config = &described.config;
    let add = |types: &mut PayloadTypes, configured: &std::collections::BTreeMap<u8, PayloadFormat>| {
        for (&payload_type, format) in configured {
            let encoding = match format {
                PayloadFormat::Mp2t => Encoding::Mp2t,
                PayloadFormat::H264 => Encoding::H264,
                PayloadFormat::Hevc => Encoding::Hevc,
            };
            types.set(payload_type, RtpFormat::new(encoding));
        }
    };
    let mut shared = PayloadTypes::default();
    add(&mut shared, &config.ingestion.rtp.payload_types);
    let by_stream = config
        .streams
        .iter()
        .map(|(name, stream)| {
            let mut types = shared.clone();
            if let Some(media) = described.media.get(name) {
                for (payload_type, format) in media.payload_types.iter() {
                    types.set(payload_type, format.clone());
                }
            }
            if let Some(rtp) = &stream.rtp {
                add(&mut types, &rtp.payload_types);
            }
            types
        })
        .collect();
    (by_stream, shared)
}

/// A shard has ended before it said anything: its thread knows why. Those that run are left to the end of the process.
fn why_not_started(shells: Vec<Shell>) -> StartError {
    let (sender, ended) = channel();
    for shell in shells {
        let sender = sender.clone();
        std::thread::spawn(move || {
            if let Err(error) = shell.join() {
                let _ = sender.send(error);
            }
        });
    }
    ended.recv_timeout(Duration::from_secs(1)).map_or(StartError::Silent, StartError::Executor)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_are_named_need_not_be_in_the_mask_that_was_inherited() {
        let cores = available_cores();
        let (first, last) = (cores[0], *cores.last().unwrap());
        std::thread::spawn(move || {
            headworks_host::pin_current_thread(first).unwrap();
            let mut config = Config::default();
            assert_eq!(choose_cores(&config).unwrap(), [Some(first)]);
            config.shards.cores = vec![last];
            let chosen = choose_cores(&config).unwrap();
            let (sender, ran_on) = channel();
            for way in [Way::Uring, Way::Mmsg] {
                let sender = sender.clone();
                let task = move || async move { sender.send(available_cores()).unwrap() };
                Shell::spawn("shell", chosen[0], way, task).unwrap().join().unwrap();
                assert_eq!(ran_on.recv().unwrap(), [last], "{way:?}");
            }
            config.shards.cores = vec![last, 1023];
            let refused = choose_cores(&config).unwrap_err().to_string();
            assert!(refused.starts_with("shards.cores names core 1023: there is none"), "{refused}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn readers_are_woken_by_one_thread_of_each_node_that_has_shards() {
        let names = |nodes: &[Option<u32>]| {
            let (by_shard, threads) = start_wakers(nodes);
            assert_eq!(by_shard.len(), nodes.len());
            let stop = |(waker, thread): (Waker, JoinHandle<()>)| {
                let name = thread.thread().name().unwrap().to_owned();
                waker.stop();
                thread.join().unwrap();
                name
            };
            threads.into_iter().map(stop).collect::<Vec<_>>()
        };
        assert_eq!(names(&[None, None]), ["hw-waker"], "a host with one node");
        assert_eq!(names(&[Some(1), Some(0), Some(1)]), ["hw-waker-0", "hw-waker-1"]);
    }
}
