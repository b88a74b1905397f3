//! What was sent, how well, and whether the sender was itself the bottleneck.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::feed::FeedReport;
use super::material::PesPackets;
use super::worker::{Shared, WorkerReport};
use super::{SendArguments, SendError};
use crate::shard::net::impairment::ImpairmentStatistics;

/// By how much the rate may fall short.
const RATE_TOLERANCE: f64 = 0.005;

/// Lines while it runs.
pub struct Progress {
    feeds: u64,
    told_at: Instant,
    told: (u64, u64),
}

impl Progress {
    /// Begins now.
    pub fn new(feeds: u64) -> Self {
        Self { feeds, told_at: Instant::now(), told: (0, 0) }
    }

    /// A line when a second has passed since the last.
    pub fn tell(&mut self, shared: &Shared) {
        let elapsed = self.told_at.elapsed();
        if elapsed < Duration::from_secs(1) {
            return;
        }
        let now = (shared.datagrams.load(Ordering::Relaxed), shared.bytes.load(Ordering::Relaxed));
        let seconds = elapsed.as_secs_f64();
        eprintln!(
            "{}/{} feeds, {:.0} packets/s, {:.2} Mbit/s, {} retransmitted, {} µs late at worst",
            shared.ready.load(Ordering::Relaxed),
            self.feeds,
            (now.0 - self.told.0) as f64 / seconds,
            (now.1 - self.told.1) as f64 * 8.0 / seconds / 1e6,
            shared.retransmitted.load(Ordering::Relaxed),
            shared.worst_lateness_us.load(Ordering::Relaxed),
        );
        self.told = now;
        self.told_at = Instant::now();
    }
}

/// How late packets were handed over, in µs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Lateness {
    /// Half of them at most this.
    pub p50: u64,
    /// 99 of 100 at most this.
    pub p99: u64,
    /// 999 of 1,000 at most this.
    pub p999: u64,
    /// The latest.
    pub max: u64,
}

/// What the sockets would not take.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SocketDrops {
    /// Socket buffer or device queue full.
    pub no_buffer: u64,
    /// More on their way out than there are slots for.
    pub no_slot: u64,
    /// Nobody listens there.
    pub refused: u64,
    /// No way to the peer.
    pub unreachable: u64,
    /// Not allowed, too long, or anything else.
    pub other: u64,
}

impl SocketDrops {
    const fn total(&self) -> u64 {
        self.no_buffer + self.no_slot + self.refused + self.unreachable + self.other
    }
}

/// What the bad network did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ImpairmentReport {
    /// Its counts.
    #[serde(flatten)]
    pub counts: ImpairmentStatistics,
    /// Datagrams that its memory was too small for.
    pub no_memory: u64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct SendReport {
    /// Feeds asked for.
    pub feeds: usize,
    /// Of them, those that were ready.
    pub connected: usize,
    /// Datagrams of media, each once.
    pub datagrams: u64,
    /// Bytes of transport stream in them.
    pub bytes: u64,
    /// PES packets begun in them.
    pub pes_packets: PesPackets,
    /// Repetitions.
    pub retransmitted: u64,
    /// All datagrams handed to the sockets, control packets included.
    pub datagrams_out: u64,
    /// Bytes of them, without IP and UDP headers.
    pub bytes_out: u64,
    /// How long media flowed.
    pub seconds: f64,
    /// How long it should have.
    pub seconds_scheduled: f64,
    /// Rate that was scheduled, all feeds together, in bits per second of transport stream.
    pub rate_scheduled_bps: f64,
    /// Rate that came of it.
    pub rate_achieved_bps: f64,
    /// How late packets (with GSO: aggregates) left.
    pub lateness_us: Lateness,
    /// What 99 % of them had to keep, in µs.
    pub lateness_bound_us: u64,
    /// CPU time of the sending threads, as a share of one core. On loopback much of it is the receiver's work in the kernel.
    pub cpu_share: f64,
    /// Share of the time in which sending threads were ready and had no core, because others ran there.
    pub waited_share: f64,
    /// CPU time per datagram that left, in ns.
    pub cpu_ns_per_datagram: f64,
    /// What the sockets would not take.
    pub socket_drops: SocketDrops,
    /// What the bad network did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impairment: Option<ImpairmentReport>,
    /// The record is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_error: Option<String>,
    /// Each feed.
    pub per_feed: Vec<FeedReport>,
    /// Why the schedule counts as not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
}

/// How the schedule was missed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shortfall(String);

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SendReport {
    /// Adds up what the threads did.
    pub fn new(arguments: &SendArguments, workers: Vec<WorkerReport>) -> Self {
        let mut lateness = Histogram::<u64>::new(3).expect("bounds that make sense");
        let mut report = Self {
            feeds: arguments.feeds as usize,
            connected: 0,
            datagrams: 0,
            bytes: 0,
            pes_packets: PesPackets::default(),
            retransmitted: 0,
            datagrams_out: 0,
            bytes_out: 0,
            seconds: 0.0,
            seconds_scheduled: 0.0,
            rate_scheduled_bps: 0.0,
            rate_achieved_bps: 0.0,
            lateness_us: Lateness::default(),
            lateness_bound_us: arguments.max_lateness.as_micros() as u64,
            cpu_share: 0.0,
            waited_share: 0.0,
            cpu_ns_per_datagram: 0.0,
            socket_drops: SocketDrops::default(),
            impairment: None,
            record_error: None,
            per_feed: Vec::new(),
            shortfall: None,
        };
        let mut cpu = Duration::ZERO;
        for worker in workers {
            report.seconds = report.seconds.max(worker.media.as_secs_f64());
            report.seconds_scheduled = report.seconds_scheduled.max(worker.scheduled.as_secs_f64());
            cpu += worker.cpu;
            report.cpu_share += worker.cpu.as_secs_f64() / worker.elapsed.as_secs_f64().max(1e-9);
            report.waited_share += worker.waited.as_secs_f64() / worker.elapsed.as_secs_f64().max(1e-9);
            report.datagrams_out += worker.outlet.datagrams;
            report.bytes_out += worker.outlet.bytes;
            let sends = worker.ring.sends;
            report.socket_drops.no_buffer += sends.no_buffer;
            report.socket_drops.no_slot += sends.arena_full;
            // Whoever calls the kernel first gets its word: the sending or the receiving side.
            let heard_refused = worker.ring.last_receive_errno == rustix::io::Errno::CONNREFUSED.raw_os_error();
            report.socket_drops.refused += sends.refused + if heard_refused { worker.ring.receive_errors } else { 0 };
            report.socket_drops.unreachable += sends.unreachable;
            report.socket_drops.other += sends.denied + sends.too_long + sends.other;
            if let Some((counts, no_memory)) = worker.impairment {
                let sum =
                    report.impairment.get_or_insert(ImpairmentReport { counts: Default::default(), no_memory: 0 });
                sum.counts.add(&counts);
                sum.no_memory += no_memory;
            }
            report.record_error = report.record_error.or(worker.record_error.map(|error| error.to_string()));
            // Both grow by themselves, so nothing is out of range.
            let _ = lateness.add(&worker.lateness_us);
            report.per_feed.extend(worker.feeds);
        }
        for feed in &report.per_feed {
            report.connected += usize::from(feed.connected);
            report.datagrams += feed.datagrams;
            report.bytes += feed.bytes;
            report.pes_packets.video += feed.pes_packets.video;
            report.pes_packets.audio += feed.pes_packets.audio;
            report.retransmitted += feed.srt.as_ref().map_or(0, |srt| srt.retransmitted);
        }
        let at = |quantile| lateness.value_at_quantile(quantile);
        report.lateness_us = Lateness { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: lateness.max() };
        report.cpu_ns_per_datagram = cpu.as_nanos() as f64 / report.datagrams_out.max(1) as f64;
        if report.seconds > 0.0 {
            report.rate_achieved_bps = report.bytes as f64 * 8.0 / report.seconds;
            report.rate_scheduled_bps = report.bytes as f64 * 8.0 / report.seconds_scheduled;
        }
        report.shortfall = report.judge();
        report
    }

    /// Whether the sender was itself too slow, and how that shows.
    fn judge(&self) -> Option<Shortfall> {
        let mut faults = Vec::new();
        let Lateness { p99, max, .. } = self.lateness_us;
        if p99 > self.lateness_bound_us {
            faults.push(format!(
                "1 % of packets left {p99} µs or more too late (bound {} µs, worst {max} µs)",
                self.lateness_bound_us
            ));
        }
        // In a short run, or at a low rate, one late packet at the end is much of the rate; that is what the bound is for.
        let behind_us = (self.seconds - self.seconds_scheduled) * 1e6;
        let is_short = self.rate_achieved_bps < self.rate_scheduled_bps * (1.0 - RATE_TOLERANCE);
        if is_short && behind_us > self.lateness_bound_us as f64 {
            let (achieved, scheduled) = (self.rate_achieved_bps / 1e6, self.rate_scheduled_bps / 1e6);
            faults.push(format!("{achieved:.2} Mbit/s instead of {scheduled:.2} Mbit/s"));
        }
        let SocketDrops { no_buffer, no_slot, .. } = self.socket_drops;
        if no_buffer + no_slot > 0 {
            faults.push(format!("the sockets did not take {} datagrams", no_buffer + no_slot));
        }
        let no_memory = self.impairment.map_or(0, |impairment| impairment.no_memory);
        if no_memory > 0 {
            faults.push(format!("the bad network had no memory for {no_memory} datagrams"));
        }
        if faults.is_empty() {
            return None;
        }
        let blocked_ms = self.per_feed.iter().map(|feed| feed.blocked_ms).max().unwrap_or(0);
        if blocked_ms > 0 {
            faults.push(format!(
                "send buffers were full for up to {blocked_ms} ms: peers acknowledged too slowly for it"
            ));
        }
        let (used, waited) = (self.cpu_share * 100.0, self.waited_share * 100.0);
        faults.push(if waited > 5.0 {
            format!("it used {used:.0} % of a core and waited {waited:.0} % of the time for one that others were using")
        } else {
            format!("it used {used:.0} % of a core: this sender, or the network before it, is the bottleneck")
        });
        Some(Shortfall(faults.join("; ")))
    }

    /// Whether all went as it should.
    ///
    /// # Errors
    /// Feeds that failed, before a schedule that was not kept.
    pub fn verdict(&self) -> Result<(), SendError> {
        let failed: Vec<String> = self
            .per_feed
            .iter()
            .filter_map(|feed| feed.error.as_ref().map(|error| format!("{}: {error}", feed.name)))
            .collect();
        if let Some(first) = failed.first() {
            let refused = self.connected == 0 && self.socket_drops.refused > 0;
            let hint = if refused { " (the host says that nobody listens on that port)" } else { "" };
            return Err(SendError::Feeds { failed: failed.len(), feeds: self.feeds, first: format!("{first}{hint}") });
        }
        if let Some(error) = &self.record_error {
            return Err(SendError::System { what: "--record".to_owned(), error: std::io::Error::other(error.clone()) });
        }
        match &self.shortfall {
            Some(shortfall) => Err(SendError::Schedule(shortfall.clone())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lateness { p50, p99, p999, max } = self.lateness_us;
        writeln!(f, "feeds        {} of {} connected", self.connected, self.feeds)?;
        writeln!(
            f,
            "media        {} packets, {} bytes, {} video and {} audio PES packets in {:.3} s: {:.3} Mbit/s ({:.3} scheduled)",
            self.datagrams,
            self.bytes,
            self.pes_packets.video,
            self.pes_packets.audio,
            self.seconds,
            self.rate_achieved_bps / 1e6,
            self.rate_scheduled_bps / 1e6,
        )?;
        writeln!(
            f,
            "network      {} datagrams, {} bytes, of them {} retransmissions",
            self.datagrams_out, self.bytes_out, self.retransmitted
        )?;
        writeln!(f, "late by      {p50} µs half, {p99} µs 99 %, {p999} µs 99.9 %, {max} µs at worst")?;
        writeln!(
            f,
            "cpu          {:.1} % of a core (and {:.1} % waited for one), {:.0} ns per datagram",
            self.cpu_share * 100.0,
            self.waited_share * 100.0,
            self.cpu_ns_per_datagram
        )?;
        let drops = self.socket_drops;
        if drops.total() > 0 {
            writeln!(
                f,
                "not taken    {} buffer full, {} no slot, {} refused (nobody listens), {} unreachable, {} other",
                drops.no_buffer, drops.no_slot, drops.refused, drops.unreachable, drops.other
            )?;
        }
        if let Some(ImpairmentReport { counts, no_memory }) = self.impairment {
            writeln!(
                f,
                "bad network  {} of {} lost ({} random, {} in {} bursts, {} blackout, {} queue), {} reordered, {} doubled, {} without memory",
                counts.lost(),
                counts.datagrams,
                counts.lost_random,
                counts.lost_burst,
                counts.bursts,
                counts.lost_blackout,
                counts.lost_queue,
                counts.reordered,
                counts.duplicated,
                no_memory,
            )?;
        }
        for feed in &self.per_feed {
            if let Some(srt) = &feed.srt {
                if srt.handshake_version == 4 {
                    let lost = if srt.is_stream_id_lost { ", which carries no Stream ID" } else { "" };
                    writeln!(
                        f,
                        "{:12} the peer is SRT {} and speaks version 4 of the handshake{lost}",
                        feed.name, srt.peer_version
                    )?;
                }
                writeln!(
                    f,
                    "{:12} rtt {:.2} ms, latency {} ms, {} loss reports for {} packets, {} retransmitted, {} given up",
                    feed.name,
                    srt.rtt_ms,
                    srt.latency_ms,
                    srt.loss_reports,
                    srt.reported_lost,
                    srt.retransmitted,
                    srt.dropped_too_late
                )?;
            }
            if let Some(error) = &feed.error {
                writeln!(f, "{:12} {error}", feed.name)?;
            }
        }
        Ok(())
    }
}
