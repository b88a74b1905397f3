//! `headworks ring dump`.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::{DumpArguments, RingError, is_standard_output};
use crate::cli::arguments::Exit;
use crate::cli::table::printable;
use crate::cli::tap::{discontinuity_name, random_access_name};
use crate::output::reader::descriptor::{ClockOrigin, WallClock, WallClockQuality};
use crate::output::reader::layout::{FLAG_DAMAGED, FLAG_DISCONTINUITY, FLAG_KEY, NONE};
use crate::output::reader::reader::inspection::{Inspection, SlotFacts};

/// A slot and its descriptor. The names are an interface.
#[derive(Serialize)]
struct Slot<'a> {
    stream: &'a str,
    track: &'a str,
    seq: u64,
    stream_seq: u64,
    key_seq: Option<u64>,
    position: u64,
    extent: u32,
    len: u32,
    flags: u32,
    config_generation: u32,
    segment: u32,
    discontinuity: Option<&'static str>,
    pts: Option<i64>,
    dts: Option<i64>,
    duration: u32,
    pts_interpolated: bool,
    dts_derived: bool,
    timeline_ns: i64,
    origin: u64,
    origin_kind: Option<&'static str>,
    first_arrival_ns: u64,
    arrival_ns: u64,
    due_ns: u64,
    commit_ns: u64,
    wall_clock_ns: i64,
    wall_clock: Option<&'static str>,
    wall_clock_quality: &'static str,
    picture_type: String,
    picture_structure: String,
    random_access: Option<&'static str>,
    recovery_count: u16,
    temporal_id: u8,
    key: bool,
    damaged: bool,
    damage_reasons: u32,
    lost: u32,
    recovered: u32,
    path_mask: u32,
    timecode: Option<String>,
    crc32c: Option<String>,
    side_data_offset: u32,
    side_data_len: u32,
}

pub(super) fn run(arguments: &DumpArguments) -> Result<Exit, RingError> {
    let standard_output = is_standard_output(arguments.payload.as_deref());
    if standard_output && arguments.target.json {
        return Err(RingError::Usage("--json and --payload - both want standard output: give --payload a file"));
    }
    let opened = arguments.target.open()?;
    if (arguments.payload.is_some() || arguments.seq.is_some()) && opened.rings.len() != 1 {
        return Err(RingError::Usage("--payload and --seq are about one track: name it, such as cam1/video0"));
    }
    let mut payloads = arguments.payload.as_deref().map(Payloads::new);
    let mut lines: Option<BufWriter<io::Stdout>> = (!standard_output).then(|| BufWriter::new(io::stdout()));
    if let Some(lines) = lines.as_mut().filter(|_| !arguments.target.json) {
        writeln!(
            lines,
            "{:<10} {:>9} {:>10} {:>14} {:>9} {:>14} {:>14} {:>4} {:>4}  crc32c    flags",
            "track", "seq", "stream_seq", "position", "bytes", "pts", "dts", "seg", "conf"
        )?;
    }
    let mut is_any_wrong = false;
    for (track, ring) in opened.rings {
        let name = printable(&format!("{}/{track}", opened.stream));
        let mut wrong = |why: &dyn Display| {
            is_any_wrong = true;
            eprintln!("{name}: {}", printable(&why.to_string()));
        };
        let mut ring = match ring {
            Ok(ring) => ring,
            Err(error) => {
                wrong(&error);
                continue;
            }
        };
        let in_ring = ring.slots_in_ring();
        let wanted = arguments.seq.map_or(in_ring.clone(), |seq| seq..seq.saturating_add(1));
        if let Some(seq) = arguments.seq.filter(|seq| !in_ring.contains(seq)) {
            let newest = in_ring.end.saturating_sub(1);
            return Err(RingError::NoFrame { track: name, oldest: in_ring.start, newest, seq });
        }
        for seq in wanted {
            let overtaken =
                || arguments.seq.map_or(Ok(()), |seq| Err(RingError::Overtaken { track: name.clone(), seq }));
            let slot = match ring.inspect(seq) {
                Inspection::Whole(slot) => slot,
                Inspection::Overtaken => {
                    overtaken()?;
                    continue;
                }
                Inspection::Wrong(fault) => {
                    wrong(&fault);
                    continue;
                }
            };
            if let Some(payloads) = &mut payloads {
                match ring.inspect_payload(&slot) {
                    Ok(Some(payload)) => payloads.write(payload)?,
                    Ok(None) => {
                        overtaken()?;
                        continue;
                    }
                    Err(error) => {
                        wrong(&error);
                        continue;
                    }
                }
            }
            let Some(lines) = &mut lines else { continue };
            if arguments.target.json {
                serde_json::to_writer(&mut *lines, &Slot::new(&opened.stream, &track, &slot))
                    .map_err(io::Error::from)?;
                lines.write_all(b"\n")?;
            } else {
                write_for_people(lines, &track, &slot)?;
            }
        }
    }
    if let Some(payloads) = payloads {
        payloads.finish()?;
    }
    lines.map_or(Ok(()), |mut lines| lines.flush())?;
    Ok(if is_any_wrong { Exit::Failed } else { Exit::Done })
}

/// Where payloads go. A file is made for the first of them, so that none is there when none is written.
struct Payloads<'a> {
    path: &'a Path,
    to: Option<Box<dyn Write>>,
}

impl<'a> Payloads<'a> {
    fn new(path: &'a Path) -> Self {
        let to = is_standard_output(Some(path)).then(|| Box::new(BufWriter::new(io::stdout())) as Box<dyn Write>);
        Self { path, to }
    }

    fn write(&mut self, payload: &[u8]) -> Result<(), RingError> {
        if self.to.is_none() {
            let create = |source| RingError::Create { path: self.path.to_owned(), source };
            self.to = Some(Box::new(BufWriter::new(File::create(self.path).map_err(create)?)));
        }
        Ok(self.to.as_mut().map_or(Ok(()), |to| to.write_all(payload))?)
    }

    fn finish(self) -> io::Result<()> {
        self.to.map_or(Ok(()), |mut to| to.flush())
    }
}

fn write_for_people(to: &mut impl Write, track: &str, slot: &SlotFacts) -> io::Result<()> {
    let descriptor = &slot.descriptor;
    let ticks = |ticks: Option<i64>| ticks.map_or("-".to_owned(), |ticks| ticks.to_string());
    let flag = |bit: u32, letter: char| if slot.flags & bit != 0 { letter } else { '-' };
    writeln!(
        to,
        "{:<10} {:>9} {:>10} {:>14} {:>9} {:>14} {:>14} {:>4} {:>4}  {:<8}  {}{}{}",
        printable(track),
        descriptor.seq,
        slot.stream_seq,
        slot.position,
        slot.length,
        ticks(descriptor.pts),
        ticks(descriptor.dts),
        descriptor.segment,
        descriptor.config_generation,
        descriptor.crc32c.map_or("-".to_owned(), |crc| format!("{crc:08x}")),
        flag(FLAG_KEY, 'K'),
        flag(FLAG_DAMAGED, 'D'),
        flag(FLAG_DISCONTINUITY, 'X'),
    )
}

impl<'a> Slot<'a> {
    fn new(stream: &'a str, track: &'a str, slot: &SlotFacts) -> Self {
        let descriptor = &slot.descriptor;
        Self {
            stream,
            track,
            seq: descriptor.seq,
            stream_seq: slot.stream_seq,
            key_seq: Some(descriptor.key_seq).filter(|&seq| seq != NONE),
            position: slot.position,
            extent: slot.extent,
            len: slot.length,
            flags: slot.flags,
            config_generation: descriptor.config_generation,
            segment: descriptor.segment,
            discontinuity: discontinuity_name(descriptor.discontinuity),
            pts: descriptor.pts,
            dts: descriptor.dts,
            duration: descriptor.duration,
            pts_interpolated: descriptor.pts_interpolated,
            dts_derived: descriptor.dts_derived,
            timeline_ns: descriptor.timeline_ns,
            origin: descriptor.origin,
            origin_kind: match descriptor.origin_kind {
                ClockOrigin::None => None,
                ClockOrigin::Pcr => Some("pcr"),
                ClockOrigin::Rtp => Some("rtp"),
            },
            first_arrival_ns: descriptor.first_arrival_ns,
            arrival_ns: descriptor.last_arrival_ns,
            due_ns: descriptor.due_ns,
            commit_ns: descriptor.commit_ns,
            wall_clock_ns: descriptor.wall_clock_ns,
            wall_clock: match descriptor.wall_clock {
                WallClock::None => None,
                WallClock::Utc => Some("utc"),
                WallClock::Tai => Some("tai"),
            },
            wall_clock_quality: match descriptor.wall_clock_quality {
                WallClockQuality::Unknown => "unknown",
                WallClockQuality::Arrival => "arrival",
                WallClockQuality::SenderReport => "sender_report",
                WallClockQuality::Ptp => "ptp",
                WallClockQuality::InBand => "in_band",
            },
            picture_type: format!("{:?}", descriptor.picture_type).to_lowercase(),
            picture_structure: format!("{:?}", descriptor.picture_structure).to_lowercase(),
            random_access: random_access_name(descriptor.random_access),
            recovery_count: descriptor.recovery_count,
            temporal_id: descriptor.temporal_id,
            key: descriptor.key,
            damaged: descriptor.damaged,
            damage_reasons: descriptor.damage_reasons,
            lost: descriptor.packets_lost,
            recovered: descriptor.packets_recovered,
            path_mask: descriptor.path_mask,
            timecode: descriptor.timecode.map(|code| {
                let colon = if code.drop_frame { ';' } else { ':' };
                format!("{:02}:{:02}:{:02}{colon}{:02}", code.hours, code.minutes, code.seconds, code.frames)
            }),
            crc32c: descriptor.crc32c.map(|crc| format!("{crc:08x}")),
            side_data_offset: descriptor.side_data_offset,
            side_data_len: descriptor.side_data_length,
        }
    }
}
