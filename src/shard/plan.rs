//! What memory is needed, itemised, before any of it is taken; for the start and for `check`.

use std::fmt;
use std::time::Duration;

use super::net::aggregates::{AGGREGATE_CREDIT, AGGREGATE_DRAIN_LIMIT, AGGREGATE_SLOT_SIZE};
use super::net::backend::SLOT_SIZE;
use crate::config::{Config, Stream};
use crate::output::directory::OutputOptions;
use crate::protocol::srt::acknowledgement::AcknowledgementWindow;
use crate::protocol::srt::connection::{Connection, Limits};
use crate::protocol::srt::fec::decoder::Decoder;
use crate::protocol::srt::group::LEGS_MAX;
use crate::protocol::srt::loss::ReceiverLosses;

/// Round trip that buffers are sized for beside the latency: around the world by fibre, and some.
const ROUND_TRIP: Duration = Duration::from_millis(300);
/// Slots lent to the kernel per shard, with AF_XDP per queue as far as a quarter of packet memory goes: the base load's packets of
/// 17 ms.
const CREDIT: u16 = 2_048;
/// Slots of a shard that no stream is planned for: credit, batches, strangers.
const SPARE_SLOTS: usize = 4_096;
/// Slots for aggregates of a shard: credit, a batch, and as many again for what streams keep of a batch in which a gap shows.
const AGGREGATE_SLOTS: usize = 2 * (AGGREGATE_CREDIT as usize + AGGREGATE_DRAIN_LIMIT);
/// Part of the free slots that one more session may count on.
const FREE_SHARE: usize = 2;

/// What one session may have, from the configuration and its latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPlan {
    /// Bounds of an SRT connection.
    pub limits: Limits,
    /// Packets in flight that an SRT peer is told it may have.
    pub flow_window: u32,
    /// Slots of packet memory that the stream may hold.
    pub quota: usize,
}

impl SessionPlan {
    /// Buffers for `max_bandwidth` over latency and round trip, so that high rates over long distances simply work.
    pub fn new(config: &Config, latency: Duration) -> Self {
        let srt = &config.ingestion.srt;
        let packets = packets(config, latency + ROUND_TRIP);
        let receive_buffer_packets = packets.max(1_024).next_power_of_two();
        Self {
            limits: Limits {
                receive_buffer_packets,
                send_buffer_packets: 0,
                peer_idle_timeout: srt.peer_idle_timeout,
                reorder_tolerance: srt.reorder_tolerance,
            },
            flow_window: srt.flow_window.max(receive_buffer_packets as u32),
            quota: receive_buffer_packets + 4_096,
        }
    }

    /// With what is said of this stream alone.
    pub fn for_stream(mut self, stream: Option<&Stream>) -> Self {
        let limits = &mut self.limits;
        if let Some(packets) = stream.and_then(|stream| stream.reorder_tolerance) {
            limits.reorder_tolerance = packets;
        }
        if let Some(idle) = stream.and_then(|stream| stream.srt.as_ref()?.peer_idle_timeout) {
            limits.peer_idle_timeout = idle;
        }
        self
    }

    /// The most latency that another session gets with so many slots free, never less than what was planned for.
    pub fn latency_max(config: &Config, free_slots: usize) -> Duration {
        let per_second = packets(config, Duration::from_secs(1)).max(1);
        let affordable = Duration::from_secs_f64(free_slots as f64 / FREE_SHARE as f64 / per_second as f64);
        affordable.max(config.shards.planned_latency).min(config.ingestion.srt.latency_max)
    }
}

/// Packets that a stream at full rate sends in `span`.
fn packets(config: &Config, span: Duration) -> usize {
    let srt = &config.ingestion.srt;
    let per_second = srt.max_bandwidth as f64 / 8.0 / f64::from(srt.payload_size);
    (per_second * span.as_secs_f64()).ceil() as usize
}

/// Bytes that a connection within these limits takes at most beside packet memory: its ring grows as packets come further apart, the rest
/// is there from the first packet on. (The two arrays of a slot and two bits of lists are less than 64 bytes.)
const fn connection_memory(limits: Limits) -> usize {
    limits.receive_buffer_packets * 64
        + ReceiverLosses::memory_of_repeats()
        + AcknowledgementWindow::memory()
        + size_of::<Connection>()
}

/// All memory of a host, itemised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What, why, and how many bytes.
    pub items: Vec<PlanItem>,
    /// Streams it is made for.
    pub streams: usize,
    /// Slots of packet memory of each shard.
    pub slots_per_shard: usize,
    /// Slots for aggregates of each shard; 0 without `shards.gro`.
    pub aggregate_slots_per_shard: usize,
    /// Slots lent to the kernel at a time, per shard; with AF_XDP, which bounds the sum to a quarter of the slots, per queue.
    pub credit: u16,
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanItem {
    /// What the memory is for.
    pub what: &'static str,
    /// How it was reckoned.
    pub reckoning: String,
    /// Bytes.
    pub bytes: u64,
    /// When it is taken.
    pub taken: Taken,
    /// It is shared memory of rings.
    pub is_ring: bool,
}

/// When memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Before the first packet; without it there is no start.
    AtStart,
    /// After the start, ahead of the streams that will need it, while half of the file system stays free.
    Ahead,
    /// When a stream comes.
    WithStream,
    /// When a leg of its bonding group comes.
    WithLeg,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtStart => "at start",
            Self::Ahead => "ahead of streams, while half of the file system stays free",
            Self::WithStream => "as streams come",
            Self::WithLeg => "as legs come",
        })
    }
}

impl MemoryPlan {
    /// The plan for so many shards.
    pub fn new(config: &Config, shards: usize) -> Self {
        let streams = config.ingestion.buffer.pool_size.min(config.ingestion.max_connections.max(1)) as usize;
        let span = config.shards.planned_latency + ROUND_TRIP;
        let per_stream = packets(config, span);
        let streams_per_shard = streams.div_ceil(shards);
        let slots_per_shard = streams_per_shard * per_stream + SPARE_SLOTS;
        let aggregate_slots_per_shard = if config.shards.gro { AGGREGATE_SLOTS } else { 0 };
        let output = OutputOptions::from_config(config);
        let (video, audio) = (output.video_memory(), output.audio_memory());
        let connection = connection_memory(SessionPlan::new(config, config.shards.planned_latency).limits);
        let sums = Decoder::memory_max();
        let mut items = vec![
            PlanItem {
                what: "packet memory",
                reckoning: format!(
                    "{shards} shards × ({streams_per_shard} streams × {per_stream} packets ({} bit/s for {span:?} in payloads of {} bytes) + {SPARE_SLOTS}) × {SLOT_SIZE} bytes",
                    config.ingestion.srt.max_bandwidth, config.ingestion.srt.payload_size
                ),
                bytes: (shards * slots_per_shard * SLOT_SIZE) as u64,
                taken: Taken::AtStart,
                is_ring: false,
            },
            PlanItem {
                what: "sending",
                reckoning: format!("{shards} shards × 256 datagrams × {SLOT_SIZE} bytes"),
                bytes: (shards * 256 * SLOT_SIZE) as u64,
                taken: Taken::AtStart,
                is_ring: false,
            },
            PlanItem {
                what: "receive buffers",
                reckoning: format!("{streams} streams × {connection} bytes of a connection"),
                bytes: (streams * connection) as u64,
                taken: Taken::WithStream,
                is_ring: false,
            },
            PlanItem {
                what: "packet filters",
                reckoning: format!("{streams} streams × {sums} bytes of sums, the most that an SRT peer can ask for"),
                bytes: (streams * sums) as u64,
                taken: Taken::WithStream,
                is_ring: false,
            },
            PlanItem {
                what: "video rings",
                reckoning: format!("{streams} streams × {video} bytes under {}", output.root.display()),
                bytes: streams as u64 * video,
                taken: Taken::Ahead,
                is_ring: true,
            },
            PlanItem {
                what: "audio rings",
                reckoning: format!("{streams} streams × 2 × {audio} bytes under {}", output.root.display()),
                bytes: streams as u64 * 2 * audio,
                taken: Taken::WithStream,
                is_ring: true,
            },
        ];
        if config.ingestion.srt.enabled && config.ingestion.srt.bonding {
            let more = LEGS_MAX - 1;
            items.push(PlanItem {
                what: "legs of groups",
                reckoning: format!("{streams} streams × {more} more legs × {connection} bytes of a connection"),
                bytes: (streams * more * connection) as u64,
                taken: Taken::WithLeg,
                is_ring: false,
            });
        }
        if config.shards.gro {
            let aggregates = PlanItem {
                what: "aggregates",
                reckoning: format!(
                    "{shards} shards × {AGGREGATE_SLOTS} aggregates (2 × ({AGGREGATE_CREDIT} lent to the kernel + {AGGREGATE_DRAIN_LIMIT} of a batch)) × {AGGREGATE_SLOT_SIZE} bytes"
                ),
                bytes: (shards * AGGREGATE_SLOTS * AGGREGATE_SLOT_SIZE) as u64,
                taken: Taken::AtStart,
                is_ring: false,
            };
            items.insert(1, aggregates);
        }
        Self { items, streams, slots_per_shard, aggregate_slots_per_shard, credit: CREDIT }
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// Bytes without which there is no start.
    pub fn at_start(&self) -> u64 {
        self.items.iter().filter(|item| item.taken == Taken::AtStart).map(|item| item.bytes).sum()
    }

    /// What `ingestion.memory.global_limit` leaves for rings, in bytes.
    pub fn left_for_rings(&self, config: &Config) -> u64 {
        let others = self.items.iter().filter(|item| !item.is_ring).map(|item| item.bytes).sum();
        config.ingestion.memory.global_limit.saturating_sub(others)
    }

    /// Why the plan cannot be carried out under the configured limits, if it cannot.
    pub fn fault(&self, config: &Config) -> Option<String> {
        let (planned, limit) =
            (OutputOptions::from_config(config).planned_stream_size(), config.ingestion.memory.per_stream_limit);
        if planned > limit {
            return Some(format!(
                "ingestion.memory.per_stream_limit = {limit} refuses every stream, which is planned to take {planned} bytes for its rings: raise it, or lower ingestion.srt.max_bandwidth, ingestion.gop.buffer_count, ingestion.buffer.ring_size or output.history"
            ));
        }
        let limit = config.ingestion.memory.global_limit;
        (self.total() > limit).then(|| {
            let has_legs = self.items.iter().any(|item| item.taken == Taken::WithLeg);
            let bonding = if has_legs { ", or switch ingestion.srt.bonding off" } else { "" };
            format!(
                "the memory plan needs {} bytes, ingestion.memory.global_limit allows {limit}: raise it, or lower ingestion.max_connections, srt.max_bandwidth or shards.planned_latency{bonding}",
                self.total()
            )
        })
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "  {:>9}  {} ({}): {}", mebibytes(item.bytes), item.what, item.taken, item.reckoning)?;
        }
        write!(f, "  {:>9}  in all", mebibytes(self.total()))
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StreamSrt;

    #[test]
    fn a_session_has_room_for_its_rate_over_latency_and_round_trip() {
        let config = Config::default();
        let plan = SessionPlan::new(&config, Duration::from_millis(120));
        // 60 Mbit/s are 5699.1 packets of 1316 bytes per second.
        assert_eq!(plan.limits.receive_buffer_packets, 4_096);
        let plan = SessionPlan::new(&config, Duration::from_secs(8));
        assert_eq!(plan.limits.receive_buffer_packets, 65_536);
        assert_eq!(plan.flow_window, 65_536);
    }

    #[test]
    fn a_stream_goes_before_what_counts_for_all() {
        let mut config = Config::default();
        let of = |config: &Config, stream: Option<&Stream>| {
            let limits = SessionPlan::new(config, Duration::from_millis(120)).for_stream(stream).limits;
            (limits.reorder_tolerance, limits.peer_idle_timeout)
        };
        let silent = Stream::default();
        assert_eq!(of(&config, None), (0, Duration::from_secs(30)));
        config.ingestion.srt.reorder_tolerance = 16;
        assert_eq!(of(&config, Some(&silent)), (16, Duration::from_secs(30)));
        let srt = StreamSrt { peer_idle_timeout: Some(Duration::from_secs(7)), ..StreamSrt::default() };
        let stream = Stream { reorder_tolerance: Some(0), srt: Some(srt), ..Stream::default() };
        assert_eq!(of(&config, Some(&stream)), (0, Duration::from_secs(7)));
    }

    #[test]
    fn latency_is_granted_as_far_as_packet_memory_goes() {
        let config = Config::default();
        assert_eq!(SessionPlan::latency_max(&config, 0), Duration::from_secs(1));
        assert_eq!(SessionPlan::latency_max(&config, 1_000_000), Duration::from_secs(8));
        let some = SessionPlan::latency_max(&config, 45_600);
        assert!((3.9..4.1).contains(&some.as_secs_f64()), "{some:?}");
    }

    #[test]
    fn the_plan_is_the_sum_of_its_items_and_fits_the_default_limit() {
        let config = Config::default();
        let plan = MemoryPlan::new(&config, 2);
        assert_eq!(plan.total(), plan.items.iter().map(|item| item.bytes).sum::<u64>());
        assert_eq!(plan.slots_per_shard, 13 * 7_409 + SPARE_SLOTS);
        assert_eq!(plan.fault(&config), None);
        let rings = OutputOptions::from_config(&config).planned_stream_size() * 25;
        assert_eq!(plan.left_for_rings(&config), config.ingestion.memory.global_limit - (plan.total() - rings));
        assert!(
            plan.to_string()
                .contains("video rings (ahead of streams, while half of the file system stays free): 25 streams")
        );
        let buffers = plan.items.iter().find(|item| item.what == "receive buffers").expect("an item");
        let connection = 8_192 * 64 + 256 * 32 + 512 * 24 + size_of::<Connection>() as u64;
        assert_eq!(
            buffers.bytes,
            25 * connection,
            "slots, reports to be repeated, acknowledgements under way, and what is left"
        );
        let legs = plan.items.iter().find(|item| item.what == "legs of groups").expect("an item");
        assert_eq!(
            (legs.bytes, legs.taken),
            (25 * 7 * connection, Taken::WithLeg),
            "of up to eight, one is the stream's"
        );
        let mut without_groups = config.clone();
        without_groups.ingestion.srt.bonding = false;
        let smaller = MemoryPlan::new(&without_groups, 2);
        assert_eq!(plan.total() - smaller.total(), legs.bytes);
        assert_eq!(smaller.left_for_rings(&config) - plan.left_for_rings(&config), legs.bytes, "no ring is made of it");
        without_groups.ingestion.memory.global_limit = smaller.total();
        assert_eq!(smaller.fault(&without_groups), None);
        let fault = plan.fault(&without_groups).expect("legs have no room");
        assert!(fault.ends_with(", or switch ingestion.srt.bonding off"), "{fault}");
        let filters = plan.items.iter().find(|item| item.what == "packet filters").expect("an item");
        assert_eq!((filters.bytes, filters.taken), (25 * Decoder::memory_max() as u64, Taken::WithStream));
        let mut with_aggregates = config.clone();
        with_aggregates.shards.gro = true;
        let larger = MemoryPlan::new(&with_aggregates, 2);
        assert_eq!((plan.aggregate_slots_per_shard, larger.aggregate_slots_per_shard), (0, AGGREGATE_SLOTS));
        assert_eq!(larger.at_start() - plan.at_start(), 2 * 512 * 65_536);
        assert!(larger.to_string().contains("64.0 MiB  aggregates (at start): 2 shards × 512 aggregates"), "{larger}");
        let mut largest = config.clone();
        largest.ingestion.max_connections = 4_096;
        largest.ingestion.buffer.pool_size = u32::MAX;
        largest.ingestion.buffer.ring_size = 1 << 40;
        largest.ingestion.srt.max_bandwidth = 10_000_000_000;
        largest.ingestion.srt.payload_size = 188;
        largest.ingestion.gop.buffer_count = 64;
        largest.shards.planned_latency = Duration::from_secs(60);
        largest.output.history = Duration::from_secs(3_600);
        assert!(
            MemoryPlan::new(&largest, 64).fault(&largest).is_some(),
            "what the configuration allows can be added up"
        );
        let mut small = config;
        let one = rings / 25;
        small.ingestion.memory.per_stream_limit = one;
        assert_eq!(plan.fault(&small), None);
        small.ingestion.memory.per_stream_limit = one - 1;
        let fault = plan.fault(&small).unwrap();
        assert!(fault.contains(&format!("per_stream_limit = {} refuses every stream", one - 1)), "{fault}");
        assert!(fault.contains(&format!("planned to take {one} bytes")), "{fault}");
        small.ingestion.memory.per_stream_limit = one;
        small.ingestion.memory.global_limit = 1 << 20;
        assert!(plan.fault(&small).unwrap().contains("ingestion.memory.global_limit allows 1048576"));
    }
}
