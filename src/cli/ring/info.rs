//! `headworks ring info`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{RingError, Target, hexadecimal};
use crate::cli::arguments::Exit;
use crate::cli::streams::{heartbeat_age, state_name};
use crate::cli::table::printable;
use crate::cli::tap::codec_name;
use crate::output::reader::bell::BellReader;
use crate::output::reader::layout::{FEATURE_PAYLOAD_CRC, MAJOR};
use crate::output::reader::reader::inspection::{HotWords, Inspection, SlotFacts};
use crate::output::reader::reader::{DEAD_AFTER, OpenError, Reader};
use crate::shard::clock::Clock;

#[derive(Serialize)]
struct Info {
    stream: String,
    directory: PathBuf,
    bell: Option<Bell>,
    rings: Vec<Ring>,
}

#[derive(Serialize)]
struct Bell {
    state: &'static str,
    epoch: u32,
    stream_head: u64,
    tracks_generation: u32,
    heartbeat_age_ms: Option<u64>,
}

#[derive(Serialize)]
struct Ring {
    track: String,
    /// Why it cannot be opened; nothing else is known of it then.
    error: Option<String>,
    #[serde(flatten)]
    facts: Option<Facts>,
}

#[derive(Serialize)]
struct Facts {
    header: Header,
    pages: Option<Pages>,
    writer: WriterView,
    hot: Hot,
    reader: ReaderView,
    configurations: Vec<Configuration>,
}

#[derive(Serialize)]
struct Header {
    version: String,
    features_required: u64,
    features_optional: u64,
    crc: bool,
    ring_uuid: String,
    boot_id: String,
    kind: String,
    codec: String,
    clock_rate: u32,
    slots: u32,
    capacity: u64,
    frame_size_max: u32,
    config_blocks: u32,
    config_size: u32,
    numa_node: Option<i32>,
    backing_page_size: u32,
}

#[derive(Serialize)]
struct Pages {
    page_size: u64,
    mapped: u64,
    huge: u64,
}

#[derive(Serialize)]
struct WriterView {
    state: &'static str,
    alive: bool,
    epoch: u32,
    heartbeat_count: u64,
    heartbeat_age_ms: Option<u64>,
}

#[derive(Serialize)]
struct Hot {
    data_reserve: u64,
    head_seq: u64,
    head_pos: u64,
    last_key_seq: Option<u64>,
    futex: u32,
    config_generation: u32,
    frames: u64,
    bytes: u64,
    damaged: u64,
    discontinuities: u64,
}

/// What a reader that opens the ring now may have.
#[derive(Default, Serialize)]
struct ReaderView {
    frames: u64,
    bytes: u64,
    seconds: Option<f64>,
    oldest_seq: Option<u64>,
    newest_seq: Option<u64>,
    last_key_seq: Option<u64>,
    keys: u64,
}

#[derive(Serialize)]
struct Configuration {
    generation: u32,
    len: Option<usize>,
    crc32c: Option<String>,
    bytes: Option<String>,
    error: Option<String>,
}

pub(super) fn run(target: &Target) -> Result<Exit, RingError> {
    let opened = target.open()?;
    let now_ns = Clock::now().as_nanos();
    let bell = BellReader::open(&opened.directory).ok().map(|bell| Bell {
        state: state_name(bell.state()),
        epoch: bell.epoch(),
        stream_head: bell.stream_head(),
        tracks_generation: bell.tracks_generation(),
        heartbeat_age_ms: age_ms(bell.heartbeat_monotonic_ns(), now_ns),
    });
    let look = |(track, ring): (String, Result<Reader, OpenError>)| match ring {
        Ok(ring) => Ring { track, error: None, facts: Some(look_at(&ring, now_ns)) },
        Err(error) => Ring { track, error: Some(error.to_string()), facts: None },
    };
    let rings: Vec<Ring> = opened.rings.into_iter().map(look).collect();
    let all_opened = rings.iter().all(|ring| ring.error.is_none());
    let info = Info { stream: opened.stream, directory: opened.directory, bell, rings };
    target.print(&info, || for_people(&info))?;
    Ok(if all_opened { Exit::Done } else { Exit::Failed })
}

fn age_ms(heartbeat_ns: u64, now_ns: u64) -> Option<u64> {
    heartbeat_age(heartbeat_ns, now_ns).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn look_at(ring: &Reader, now_ns: u64) -> Facts {
    let header = ring.header();
    let hot = ring.hot_words();
    let heartbeat_age = heartbeat_age(hot.heartbeat_monotonic_ns, now_ns);
    Facts {
        header: Header {
            version: format!("{MAJOR}.{}", header.minor),
            features_required: header.features_required,
            features_optional: header.features_optional,
            crc: header.features_optional & FEATURE_PAYLOAD_CRC != 0,
            ring_uuid: hexadecimal(&header.ring_uuid),
            boot_id: hexadecimal(&header.boot_id),
            kind: format!("{:?}", header.kind).to_lowercase(),
            codec: codec_name(header.codec),
            clock_rate: header.clock_rate,
            slots: header.slot_count,
            capacity: header.data_capacity,
            frame_size_max: header.frame_size_max,
            config_blocks: header.config_count,
            config_size: header.config_size,
            numa_node: Some(header.numa_node).filter(|&node| node >= 0),
            backing_page_size: header.backing_page_size,
        },
        pages: ring.backing().ok().map(|pages| Pages {
            page_size: pages.page_size,
            mapped: pages.mapped,
            huge: pages.huge,
        }),
        writer: WriterView {
            state: state_name(hot.state),
            alive: heartbeat_age.is_some_and(|age| age < DEAD_AFTER),
            epoch: hot.writer_epoch,
            heartbeat_count: hot.heartbeat_count,
            heartbeat_age_ms: age_ms(hot.heartbeat_monotonic_ns, now_ns),
        },
        reader: reader_view(ring, &hot),
        hot: Hot {
            data_reserve: hot.data_reserve,
            head_seq: hot.head_seq,
            head_pos: hot.head_pos,
            last_key_seq: hot.last_key_seq,
            futex: hot.futex,
            config_generation: hot.config_generation,
            frames: hot.totals.frames,
            bytes: hot.totals.bytes,
            damaged: hot.totals.damaged,
            discontinuities: hot.totals.discontinuities,
        },
        configurations: ring
            .configurations()
            .into_iter()
            .map(|(generation, bytes)| Configuration {
                generation,
                len: bytes.as_ref().ok().map(Vec::len),
                crc32c: bytes.as_ref().ok().map(|bytes| format!("{:08x}", crc32c::crc32c(bytes))),
                error: bytes.as_ref().err().map(ToString::to_string),
                bytes: bytes.ok().map(|bytes| hexadecimal(&bytes)),
            })
            .collect(),
    }
}

fn reader_view(ring: &Reader, hot: &HotWords) -> ReaderView {
    let mut view = ReaderView::default();
    let mut ends: Option<(SlotFacts, SlotFacts)> = None;
    for seq in ring.slots_in_ring() {
        let Inspection::Whole(slot) = ring.inspect(seq) else { continue };
        view.frames += 1;
        view.bytes += u64::from(slot.length);
        view.oldest_seq.get_or_insert(seq);
        view.newest_seq = Some(seq);
        if slot.descriptor.key {
            view.keys += 1;
        }
        ends = Some(ends.map_or((slot, slot), |(first, _)| (first, slot)));
    }
    view.last_key_seq = hot.last_key_seq.filter(|&key| view.oldest_seq.is_some_and(|oldest| key >= oldest));
    view.seconds = ends.map(|(first, last)| {
        let of_last_ns =
            i64::from(last.descriptor.duration) * 1_000_000_000 / i64::from(ring.header().clock_rate.max(1));
        let span_ns =
            last.descriptor.timeline_ns.saturating_sub(first.descriptor.timeline_ns).saturating_add(of_last_ns);
        (span_ns as f64 / 1e9 * 1e3).round() / 1e3
    });
    view
}

fn for_people(info: &Info) -> String {
    let mut text = String::new();
    let age = |ms: Option<u64>| ms.map_or("no heartbeat".to_owned(), |ms| format!("heartbeat {ms} ms ago"));
    let or_none = |seq: Option<u64>| seq.map_or("none".to_owned(), |seq| seq.to_string());
    if let Some(bell) = &info.bell {
        let _ = writeln!(
            text,
            "{}: {}, epoch {}, stream_head {}, {}",
            printable(&info.stream),
            bell.state,
            bell.epoch,
            bell.stream_head,
            age(bell.heartbeat_age_ms)
        );
    }
    for Ring { track, error, facts } in &info.rings {
        let _ = writeln!(text, "\n{}/{}", printable(&info.stream), printable(track));
        if let Some(error) = error {
            let _ = writeln!(text, "  {:<8} {}", "error", printable(error));
        }
        let Some(Facts { header, pages, writer, hot, reader, configurations }) = facts else { continue };
        let node = header.numa_node.map_or("any node".to_owned(), |node| format!("node {node}"));
        let crc = if header.crc { "CRC32C of every payload" } else { "no checksums" };
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<8} {value}");
        };
        line(
            "header",
            format!(
                "layout {}, {} {}, {} ticks/s, {} slots, {} KiB of data, frames up to {} KiB, {crc}",
                header.version,
                header.kind,
                printable(&header.codec),
                header.clock_rate,
                header.slots,
                header.capacity >> 10,
                header.frame_size_max >> 10
            ),
        );
        line("uuid", format!("{}, made in boot {}", header.ring_uuid, header.boot_id));
        line(
            "pages",
            pages.as_ref().map_or("unknown".to_owned(), |pages| {
                format!(
                    "of {} KiB on {node}; {} of {} KiB mapped by huge pages",
                    header.backing_page_size >> 10,
                    pages.huge >> 10,
                    pages.mapped >> 10
                )
            }),
        );
        let alive = if writer.alive { "alive" } else { "dead" };
        line("writer", format!("{} ({alive}), epoch {}, {}", writer.state, writer.epoch, age(writer.heartbeat_age_ms)));
        line(
            "hot",
            format!(
                "reserve {}, head_seq {}, head_pos {}, last key {}, futex {}, totals: {} frames, {} bytes, {} damaged, {} discontinuities",
                hot.data_reserve,
                hot.head_seq,
                hot.head_pos,
                or_none(hot.last_key_seq),
                hot.futex,
                hot.frames,
                hot.bytes,
                hot.damaged,
                hot.discontinuities
            ),
        );
        line(
            "reader",
            match (reader.oldest_seq, reader.newest_seq) {
                (Some(oldest), Some(newest)) => format!(
                    "{} frames, {} s, {} bytes, seq {oldest} to {newest}, {} keys, the last one {}",
                    reader.frames,
                    reader.seconds.unwrap_or(0.0),
                    reader.bytes,
                    reader.keys,
                    or_none(reader.last_key_seq)
                ),
                _ => "no frames".to_owned(),
            },
        );
        if configurations.is_empty() {
            line("config", "none".to_owned());
        }
        for configuration in configurations {
            let what = match (&configuration.error, configuration.len, &configuration.crc32c) {
                (None, Some(len), Some(crc)) => format!("{len} bytes, crc32c {crc}"),
                (error, ..) => error.clone().unwrap_or_default(),
            };
            line("config", format!("generation {}: {what}", configuration.generation));
        }
    }
    text
}
