//! `headworks ring verify`.

use std::fmt::Write;

use serde::Serialize;

use super::{RingError, Target};
use crate::cli::arguments::Exit;
use crate::cli::table::printable;
use crate::output::reader::descriptor::Discontinuity;
use crate::output::reader::layout::{
    FEATURE_PAYLOAD_CRC, FLAG_DAMAGED, FLAG_DISCONTINUITY, FLAG_KEY, FRAME_ALIGN, NONE,
};
use crate::output::reader::reader::inspection::{Inspection, SlotFacts};
use crate::output::reader::reader::{ConfigurationError, OpenError, Reader};

/// A ring that is wrong through and through needs no thousand lines.
const FAULTS_MAX: usize = 100;

#[derive(Serialize)]
struct Report {
    stream: String,
    sound: bool,
    rings: Vec<RingReport>,
}

#[derive(Serialize)]
struct RingReport {
    track: String,
    /// Why it cannot be opened; nothing was checked then.
    error: Option<String>,
    frames: u64,
    bytes: u64,
    crc: bool,
    checksums: u64,
    overtaken: u64,
    configurations: usize,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Fault {
    /// The frame whose slot it is; none for the ring as a whole.
    seq: Option<u64>,
    what: String,
}

pub(super) fn run(target: &Target) -> Result<Exit, RingError> {
    let opened = target.open()?;
    let look = |(track, ring): (String, Result<Reader, OpenError>)| match ring {
        Ok(ring) => verify(track, ring),
        Err(error) => RingReport { error: Some(error.to_string()), ..RingReport::new(track) },
    };
    let rings: Vec<RingReport> = opened.rings.into_iter().map(look).collect();
    let sound = rings.iter().all(|ring| ring.error.is_none() && ring.faults.is_empty());
    let report = Report { stream: opened.stream, sound, rings };
    target.print(&report, || for_people(&report))?;
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

fn verify(track: String, mut ring: Reader) -> RingReport {
    let crc = ring.header().features_optional & FEATURE_PAYLOAD_CRC != 0;
    let mut report = RingReport { crc, ..RingReport::new(track) };
    verify_configurations(&ring, &mut report);
    let mut before: Option<SlotFacts> = None;
    for seq in ring.slots_in_ring() {
        let slot = match ring.inspect(seq) {
            Inspection::Whole(slot) => slot,
            Inspection::Overtaken => {
                report.overtaken += 1;
                continue;
            }
            Inspection::Wrong(fault) => {
                report.fault(Some(seq), fault.to_string());
                continue;
            }
        };
        for what in faults_of(&slot, before.as_ref(), &ring) {
            report.fault(Some(seq), format!("frame {seq}: {what}"));
        }
        before = Some(slot);
        match ring.inspect_payload(&slot) {
            Ok(Some(payload)) => {
                report.frames += 1;
                report.bytes += payload.len() as u64;
                report.checksums += u64::from(slot.descriptor.crc32c.is_some());
                if report.crc && slot.descriptor.crc32c.is_none() {
                    report.fault(Some(seq), format!("frame {seq}: no checksum, in a ring that has them"));
                }
            }
            Ok(None) => report.overtaken += 1,
            Err(error) => report.fault(Some(seq), error.to_string()),
        }
    }
    verify_hot_words(&ring, &mut report);
    report
}

fn verify_configurations(ring: &Reader, report: &mut RingReport) {
    for (generation, bytes) in ring.configurations() {
        match bytes {
            Ok(_) => report.configurations += 1,
            // Overwritten since we looked which there are.
            Err(ConfigurationError::Gone) => {}
            Err(error) => report.fault(None, format!("configuration {generation}: {error}")),
        }
    }
}

/// What a frame's own words, and those of the frame before it, say against it.
fn faults_of(slot: &SlotFacts, before: Option<&SlotFacts>, ring: &Reader) -> Vec<String> {
    let descriptor = &slot.descriptor;
    let is_discontinuity = descriptor.discontinuity != Discontinuity::None;
    let mut faults = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    check(slot.position.is_multiple_of(FRAME_ALIGN), "it does not start at a multiple of 64");
    check((slot.flags & FLAG_KEY != 0) == descriptor.key, "flag and descriptor differ about key");
    check((slot.flags & FLAG_DAMAGED != 0) == descriptor.damaged, "flag and descriptor differ about damaged");
    check((slot.flags & FLAG_DISCONTINUITY != 0) == is_discontinuity, "flag and descriptor differ about discontinuity");
    check(descriptor.key_seq == NONE || descriptor.key_seq <= descriptor.seq, "key_seq is that of a later frame");
    check(!descriptor.key || descriptor.key_seq == descriptor.seq, "it is a key, and key_seq is another one");
    // Gone, it cannot be looked at.
    let key = (!descriptor.key && descriptor.key_seq < descriptor.seq).then(|| ring.inspect(descriptor.key_seq));
    check(
        !matches!(key, Some(Inspection::Whole(key)) if !key.descriptor.key),
        &format!("key_seq {} is no key", descriptor.key_seq),
    );
    let newest = ring.configuration_generation();
    check(
        descriptor.config_generation <= newest,
        &format!("configuration {} does not exist, the newest is {newest}", descriptor.config_generation),
    );
    if let Some(before) = before {
        let last = &before.descriptor;
        check(
            slot.stream_seq > before.stream_seq,
            &format!("stream_seq {} after {}", slot.stream_seq, before.stream_seq),
        );
        check(
            slot.position >= before.position + u64::from(before.extent),
            "its bytes overlap those of the frame before",
        );
        check(
            descriptor.config_generation >= last.config_generation,
            &format!("configuration {} after {}", descriptor.config_generation, last.config_generation),
        );
        if let (Some(dts), Some(last_dts)) = (descriptor.dts, last.dts)
            && descriptor.segment == last.segment
            && !is_discontinuity
        {
            check(dts >= last_dts, &format!("dts {dts} after {last_dts}, and no discontinuity"));
        }
    }
    faults
}

/// The words beside the slots, looked at again: the writer may have gone on meanwhile.
fn verify_hot_words(ring: &Reader, report: &mut RingReport) {
    let hot = ring.hot_words();
    // The second look comes later, and neither reserve nor head ever goes back.
    let later = ring.hot_words();
    if hot.head_pos > later.data_reserve {
        report.fault(None, format!("head_pos {} lies beyond the reserve {}", hot.head_pos, later.data_reserve));
    }
    let Some(key) = hot.last_key_seq else { return };
    if key >= later.head_seq {
        report.fault(None, format!("last_key_seq {key} lies beyond the head {}", later.head_seq));
    } else if let Inspection::Whole(slot) = ring.inspect(key)
        && !slot.descriptor.key
    {
        report.fault(Some(key), format!("frame {key}: last_key_seq names it, and it is no key"));
    }
}

impl RingReport {
    /// Nothing has been looked at.
    fn new(track: String) -> Self {
        Self {
            track,
            error: None,
            frames: 0,
            bytes: 0,
            crc: false,
            checksums: 0,
            overtaken: 0,
            configurations: 0,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, seq: Option<u64>, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { seq, what });
        }
    }
}

fn for_people(report: &Report) -> String {
    let mut text = String::new();
    for ring in &report.rings {
        let name = format!("{}/{}", printable(&report.stream), printable(&ring.track));
        if let Some(error) = &ring.error {
            let _ = writeln!(text, "{name}: CANNOT BE OPENED: {}", printable(error));
            continue;
        }
        let checksums = if ring.crc {
            format!("{} checksums match", ring.checksums)
        } else {
            "checksums are off (output.crc)".to_owned()
        };
        let verdict = if ring.faults.is_empty() { "sound" } else { "WRONG" };
        let _ = writeln!(
            text,
            "{name}: {verdict}; {} frames, {} bytes, {checksums}; {} configurations; {} overtaken meanwhile",
            ring.frames, ring.bytes, ring.configurations, ring.overtaken
        );
        for fault in &ring.faults {
            let _ = writeln!(text, "  {}", fault.what);
        }
        if ring.faults.len() == FAULTS_MAX {
            let _ = writeln!(text, "  and perhaps more");
        }
    }
    text
}
