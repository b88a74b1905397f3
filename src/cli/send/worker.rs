//! One thread and its feeds: wakes when a batch is due, sends it, looks at what came back, sleeps in the ring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::feed::{Carriage, Extent, Feed, FeedReport};
use super::material::{DATAGRAM_LEN, Material};
use super::outlet::{Outlet, OutletCounts};
use super::recorder::Recorder;
use crate::base::Instant;
use crate::protocol::rtp::packet::Packetizer;
use crate::protocol::srt::caller::{Caller, CallerSettings};
use crate::shard::clock::Clock;
use crate::shard::host::{self, PinError};
use crate::shard::net::RingStatistics;
use crate::shard::net::impairment::{Conditions, ImpairmentStatistics};
use crate::shard::net::outbound::{Outbound, OutboundError, OutboundOptions, OutboundSocket};

/// Between the last handshake and the first packet of media.
const LEAD: Duration = Duration::from_millis(5);
/// How often what has been done is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// The longest sleep: acknowledgements and the end of the run are not waited for any longer.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// Slots lent to the kernel.
const CREDIT: u16 = 1_024;
/// The longest lateness that is told apart, in µs.
const LATENESS_MAX_US: u64 = 60_000_000;

/// How a feed is carried.
pub enum Plan {
    /// By SRT, with this call.
    Srt(Box<CallerSettings>),
    /// By RTP, as this source.
    Rtp(u32),
    /// Bare.
    Udp,
}

/// A feed to be sent.
pub struct FeedPlan {
    /// What it is called in reports.
    pub name: String,
    /// Its socket.
    pub socket: OutboundSocket,
    /// How it is carried.
    pub carriage: Plan,
}

/// What a thread is to do.
pub struct WorkerPlan {
    /// The core to stay on.
    pub core: Option<usize>,
    /// Its feeds.
    pub feeds: Vec<FeedPlan>,
    /// What they send.
    pub material: Arc<Material>,
    /// How much of it.
    pub extent: Extent,
    /// The least time between two turns that send media: what is due within it leaves together.
    pub window: Duration,
    /// What leaves earlier after the first packet is not judged for its lateness.
    pub settle: Duration,
    /// Datagrams that leave as one.
    pub aggregate: usize,
    /// The network in between.
    pub conditions: Conditions,
    /// What its accidents follow from.
    pub seed: u64,
    /// Takes in what the first feed sends.
    pub recorder: Option<Recorder>,
    /// By how much the first feed is behind those of other threads, so that they do not all send at once.
    pub phase: Duration,
}

/// What all threads and their caller share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The end has come.
    pub stop: AtomicBool,
    /// Feeds that are ready.
    pub ready: AtomicU64,
    /// Datagrams of media sent.
    pub datagrams: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Repetitions sent.
    pub retransmitted: AtomicU64,
    /// Worst lateness since it was last asked for, in µs.
    pub worst_lateness_us: AtomicU64,
}

/// What a thread did.
pub struct WorkerReport {
    /// Its feeds.
    pub feeds: Vec<FeedReport>,
    /// How late each datagram (or aggregate) was handed over, in µs.
    pub lateness_us: Histogram<u64>,
    /// From the first to the last datagram of media.
    pub media: Duration,
    /// The same as it was scheduled.
    pub scheduled: Duration,
    /// From there until all was over.
    pub elapsed: Duration,
    /// CPU time of the thread in that.
    pub cpu: Duration,
    /// How long it was ready in that and had no core, because others ran there.
    pub waited: Duration,
    /// What left.
    pub outlet: OutletCounts,
    /// What the ring counted.
    pub ring: RingStatistics,
    /// What the bad network did, and what its memory was too small for.
    pub impairment: Option<(ImpairmentStatistics, u64)>,
    /// What was recorded could not all be written.
    pub record_error: Option<std::io::Error>,
}

/// Why a thread did nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No such core.
    #[error(transparent)]
    Core(#[from] PinError),
    /// No way out.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// Sends the feeds of `plan` to their end.
///
/// # Errors
/// [`WorkerError`]; what goes wrong with single feeds stands in their reports.
pub fn run(mut plan: WorkerPlan, shared: &Shared) -> Result<WorkerReport, WorkerError> {
    if let Some(core) = plan.core {
        host::pin_current_thread(core)?;
    }
    let mut worker = Worker::new(&mut plan)?;
    worker.connect(&plan, shared)?;
    worker.send(&plan, shared)?;
    Ok(worker.report(&plan.material))
}

struct Worker {
    outlet: Outlet,
    feeds: Vec<Feed>,
    /// Whom each socket is connected to.
    peers: Vec<SocketAddr>,
    lateness_us: Histogram<u64>,
    recorder: Option<Recorder>,
    told: (u64, u64, u64, u64),
    media: Duration,
    scheduled: Duration,
    elapsed: Duration,
    cpu: Duration,
    waited: Duration,
}

impl Worker {
    fn new(plan: &mut WorkerPlan) -> Result<Self, WorkerError> {
        let packets_per_second = plan.material.rate_bps() / 8.0 / DATAGRAM_LEN as f64;
        let all = packets_per_second * plan.feeds.len() as f64;
        let under_way = (all * plan.conditions.longest().as_secs_f64() * 1.5) as usize;
        let delayed = if plan.conditions.is_clear() { 0 } else { under_way + 1_024 };
        let net = Outbound::new(OutboundOptions {
            slots: usize::from(CREDIT) * 2 + delayed,
            credit: CREDIT,
            aggregates: plan.aggregate > 1,
        })?;
        let mut outlet = Outlet::new(net, plan.aggregate);
        let now = Clock::now();
        let mut feeds = Vec::with_capacity(plan.feeds.len());
        let mut peers = Vec::with_capacity(plan.feeds.len());
        for feed in plan.feeds.drain(..) {
            let socket = outlet.open(&feed.socket)?;
            peers.push(feed.socket.peer.expect("feeds have peers"));
            let carriage = match feed.carriage {
                Plan::Srt(settings) => Carriage::Srt(Box::new(Caller::new(now, *settings))),
                Plan::Rtp(ssrc) => Carriage::Rtp(Packetizer::new(ssrc, 33, ssrc as u16)),
                Plan::Udp => Carriage::Udp,
            };
            feeds.push(Feed::new(feed.name, socket, carriage, plan.aggregate, plan.extent, packets_per_second));
        }
        if delayed > 0 {
            outlet.impair(&plan.conditions, plan.seed, feeds.len(), delayed, now);
        }
        Ok(Self {
            outlet,
            feeds,
            peers,
            lateness_us: Histogram::new_with_bounds(1, LATENESS_MAX_US, 3).expect("bounds that make sense"),
            recorder: plan.recorder.take(),
            told: (0, 0, 0, 0),
            media: Duration::ZERO,
            scheduled: Duration::ZERO,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            waited: Duration::ZERO,
        })
    }

    /// Until every feed is ready, or one has failed, which ends them all.
    fn connect(&mut self, plan: &WorkerPlan, shared: &Shared) -> Result<(), WorkerError> {
        while self.feeds.iter().any(Feed::is_calling) {
            let now = Clock::now();
            self.turn(now, false, plan)?;
            if self.feeds.iter().any(Feed::has_failed) || shared.stop.load(Ordering::Relaxed) {
                break;
            }
            let wake = self.wake(plan).min(now + SLEEP_MAX);
            self.outlet.wait(now, wake, true)?;
        }
        if self.feeds.iter().any(Feed::has_failed) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let ready = self.feeds.iter().filter(|feed| !feed.is_calling() && !feed.is_ended()).count();
        shared.ready.fetch_add(ready as u64, Ordering::Relaxed);
        Ok(())
    }

    fn send(&mut self, plan: &WorkerPlan, shared: &Shared) -> Result<(), WorkerError> {
        let begin = Clock::now() + LEAD + plan.phase;
        let interval_ns = DATAGRAM_LEN as f64 * 8e9 / plan.material.rate_bps() * plan.aggregate as f64;
        let feeds = self.feeds.len() as f64;
        for (number, feed) in self.feeds.iter_mut().enumerate() {
            feed.begin(begin + Duration::from_nanos((interval_ns * number as f64 / feeds) as u64));
        }
        let cpu_before = host::thread_cpu_time_ns();
        let waited_before = run_delay();
        let mut running = true;
        let mut tell_at = begin;
        let mut send_at = begin;
        let mut judge_at = begin + plan.settle;
        while running || self.outlet.is_busy() {
            let now = Clock::now();
            // A long window is slept through in parts, for peers who want an answer.
            let sends = now >= send_at;
            if sends {
                send_at = now + plan.window;
            }
            if now >= judge_at {
                judge_at = Instant::FAR_FUTURE;
                self.lateness_us.reset();
            }
            self.turn(now, sends, plan)?;
            if now >= tell_at {
                tell_at = now + PROGRESS_EVERY;
                self.tell(shared);
                if shared.stop.load(Ordering::Relaxed) {
                    self.feeds.iter_mut().for_each(|feed| feed.stop(now));
                }
            }
            running = self.feeds.iter().any(|feed| !feed.is_ended());
            let wake = self.wake(plan).max(send_at).min(now + SLEEP_MAX);
            self.outlet.wait(Clock::now(), wake, false)?;
        }
        // The shutdown of the last feed.
        self.outlet.wait(Clock::now(), Clock::now() + Duration::from_millis(1), false)?;
        self.outlet.drain(drop)?;
        self.tell(shared);
        if let Some((sent, due)) = self.feeds.iter().filter_map(Feed::last_sent).max() {
            // The last packet, too, takes its time.
            let interval = Duration::from_nanos(interval_ns as u64);
            self.media = sent.saturating_since(begin) + interval;
            self.scheduled = due.saturating_since(begin) + interval;
        }
        self.elapsed = Clock::now().saturating_since(begin);
        self.cpu = Duration::from_nanos(host::thread_cpu_time_ns() - cpu_before);
        self.waited = run_delay().saturating_sub(waited_before);
        Ok(())
    }

    fn turn(&mut self, now: Instant, sends: bool, plan: &WorkerPlan) -> Result<(), WorkerError> {
        let Self { outlet, feeds, peers, lateness_us, recorder, .. } = self;
        outlet.drain(|incoming| {
            let number = incoming.token as usize;
            feeds[number].receive(now, peers[number], incoming);
        })?;
        outlet.release(now);
        for (number, feed) in feeds.iter_mut().enumerate() {
            let recorder = recorder.as_mut().filter(|_| number == 0);
            // A batch takes its time: each feed is judged by its own moment.
            feed.turn(Clock::now(), sends, &plan.material, outlet, recorder, lateness_us);
        }
        outlet.flush_aggregate();
        Ok(())
    }

    fn wake(&self, plan: &WorkerPlan) -> Instant {
        self.feeds.iter().map(|feed| feed.next_turn(&plan.material)).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Adds what was done since the last time to what all threads have done.
    fn tell(&mut self, shared: &Shared) {
        let mut sum = (0, 0, 0);
        for feed in &self.feeds {
            let (datagrams, bytes, repeated) = feed.progress();
            sum = (sum.0 + datagrams, sum.1 + bytes, sum.2 + repeated);
        }
        shared.datagrams.fetch_add(sum.0 - self.told.0, Ordering::Relaxed);
        shared.bytes.fetch_add(sum.1 - self.told.1, Ordering::Relaxed);
        shared.retransmitted.fetch_add(sum.2 - self.told.2, Ordering::Relaxed);
        let worst = self.lateness_us.max();
        shared.worst_lateness_us.fetch_max(worst, Ordering::Relaxed);
        self.told = (sum.0, sum.1, sum.2, worst);
    }

    fn report(mut self, material: &Material) -> WorkerReport {
        WorkerReport {
            feeds: self.feeds.iter_mut().map(|feed| feed.report(material)).collect(),
            lateness_us: self.lateness_us,
            media: self.media,
            scheduled: self.scheduled,
            elapsed: self.elapsed,
            cpu: self.cpu,
            waited: self.waited,
            outlet: self.outlet.counts(),
            ring: self.outlet.net().statistics(),
            impairment: self.outlet.impairment(),
            record_error: self.recorder.and_then(|recorder| recorder.finish().err()),
        }
    }
}

/// How long this thread has been ready without a core: the second figure of `schedstat`. Zero where the kernel does not tell.
fn run_delay() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0))
}
