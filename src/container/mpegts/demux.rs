//! The demultiplexer: transport stream bytes in, PES pieces, sections and PCRs out.
//!
//! Nearly all packets continue a PES packet and have nothing but payload: [`Demux::push`] hands those on straight from the
//! input, and [`Demux::plain_run`] shows several of them at a time. All others are copied once (188 bytes) and worked off step by step, because one packet can tell several things.

mod run;

pub use run::Run;

use super::directory::{Applied, Directory, Limits, Programme, ProgrammeIndex, Track, TrackIndex};
use super::event::{DiscontinuityCause, Event};
use super::packet::{AdaptationField, Header, NULL_PID, PACKET_LEN, Parts};
use super::pes::{PADDING_STREAM, PesHeader};
use super::pids::{NO_COUNTER, PesState, Pids, Role, UNLISTED};
use super::section::{self, Progress};
use super::statistics::{Statistics, TrackStatistics};
use super::synchroniser::Synchroniser;

/// More packets than a continuity counter can prove not to be missing.
const BEYOND_PROOF: u32 = 16;
/// What is left of a PES packet without length: never reached.
const UNBOUNDED: u64 = u64::MAX / 2;

/// Where the work on the held packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Discontinuity,
    Pcr,
    Payload,
    PesHeader,
    PesBody,
    PesTail,
    Sections,
}

/// The held packet and what is still to be told of it.
#[derive(Debug)]
struct Work {
    packet: [u8; PACKET_LEN],
    stage: Stage,
    slot: usize,
    /// Where the payload that is not worked off begins.
    at: usize,
    unit_start: bool,
    random_access: bool,
    stuffed: bool,
    discontinuity: Option<DiscontinuityCause>,
    pcr_27mhz: Option<u64>,
    next_programme: usize,
    /// Where the first section that begins in this packet begins.
    sections_begin: usize,
}

/// What one step on the held packet gives: an event, or where its bytes are.
enum Step {
    Tell(Event<'static>),
    Data { track: TrackIndex, from: usize, to: usize },
    Section { track: TrackIndex },
}

/// Takes a transport stream apart. Allocates when programmes or tracks change, never per packet.
#[derive(Debug)]
pub struct Demux {
    /// The next byte of input is a packet's first, and no packet is held.
    quick: bool,
    state: State,
    synchroniser: Synchroniser,
}

/// Everything but the cut into packets.
#[derive(Debug)]
struct State {
    pids: Pids,
    work: Work,
    directory: Directory,
    statistics: Statistics,
}

impl Demux {
    /// Knows nothing of any stream yet.
    pub fn new(limits: Limits) -> Self {
        Self { quick: false, state: State::new(limits), synchroniser: Synchroniser::new() }
    }

    /// Takes bytes off the front of `input` and gives the next event; `None` when all of `input` has been taken.
    /// Packets may be cut anywhere between one input and the next.
    #[inline]
    pub fn push<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Event<'s>> {
        if self.quick
            && let Some(event) = self.state.take_plain(input)
        {
            return Some(event);
        }
        self.push_any(input)
    }

    fn push_any<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Event<'s>> {
        loop {
            if let Some(step) = self.state.step() {
                self.quick = false;
                return Some(self.state.event(step));
            }
            self.quick = self.synchroniser.is_bypassable();
            if self.quick
                && let Some(event) = self.state.take_plain(input)
            {
                return Some(event);
            }
            match self.synchroniser.take(input) {
                Some(packet) => self.state.accept(packet),
                None => {
                    self.quick = self.synchroniser.is_bypassable();
                    return None;
                }
            }
        }
    }

    /// Datagrams are missing between the last push and the next: every PID must prove itself by its continuity counter.
    ///
    /// `packets` is how many transport packets are missing, by the best upper estimate there is (datagrams missing × packets
    /// per datagram), 0 when unknown. Below 16 a continuity counter that follows proves that its PID lost nothing.
    pub fn gap(&mut self, packets: u32) {
        self.synchroniser.gap();
        let lost = if packets == 0 { BEYOND_PROOF } else { packets };
        for (hot, slot) in self.state.pids.hot.iter_mut().zip(&mut self.state.pids.slots) {
            slot.lost = slot.lost.saturating_add(lost);
            hot.gate = NO_COUNTER;
        }
        self.quick &= self.synchroniser.is_bypassable();
    }

    /// The programmes of the PAT in force.
    pub fn programmes(&self) -> impl Iterator<Item = (ProgrammeIndex, &Programme)> {
        self.state.directory.programmes()
    }

    /// The tracks of the PMTs in force, by index; [`Programme::tracks`] has their order.
    pub fn tracks(&self) -> impl Iterator<Item = (TrackIndex, &Track)> {
        self.state.directory.tracks()
    }

    /// One programme.
    pub fn programme(&self, index: ProgrammeIndex) -> Option<&Programme> {
        self.state.directory.programme(index)
    }

    /// One track.
    pub fn track(&self, index: TrackIndex) -> Option<&Track> {
        self.state.directory.track(index)
    }

    /// `transport_stream_id` of the PAT in force.
    pub fn transport_stream_id(&self) -> Option<u16> {
        self.state.directory.transport_stream_id()
    }

    /// Distance of packets in bytes: 188, 192 or 204; `None` before it is known.
    pub fn packet_stride(&self) -> Option<usize> {
        self.synchroniser.stride()
    }

    /// Counters of the whole stream.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            skipped_bytes: self.synchroniser.skipped_bytes,
            synchronisation_losses: self.synchroniser.losses,
            ..self.state.statistics
        }
    }

    /// Counters of one track since it began.
    pub fn track_statistics(&self, index: TrackIndex) -> Option<TrackStatistics> {
        let pids = &self.state.pids;
        let slot = pids.slot_of(self.track(index)?.key.pid);
        Some(TrackStatistics { packets: pids.hot[slot].packets, ..pids.slots[slot].statistics })
    }
}

impl State {
    fn new(limits: Limits) -> Self {
        Self {
            pids: Pids::new(limits),
            work: Work {
                packet: [0; PACKET_LEN],
                stage: Stage::Idle,
                slot: UNLISTED,
                at: PACKET_LEN,
                unit_start: false,
                random_access: false,
                stuffed: false,
                discontinuity: None,
                pcr_27mhz: None,
                next_programme: 0,
                sections_begin: PACKET_LEN,
            },
            directory: Directory::new(limits),
            statistics: Statistics::default(),
        }
    }

    /// The quick path: a packet at the front of the input that continues a PES packet, not its last one, and nothing else.
    #[inline]
    fn take_plain<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        const PAYLOAD_LEN: u64 = PACKET_LEN as u64 - 4;
        let bytes: &'a [u8] = input;
        let (packet, rest) = bytes.split_first_chunk::<PACKET_LEN>()?;
        let header = Header::of(packet);
        let slot = self.pids.slot_of(header.pid());
        let hot = &mut self.pids.hot[slot];
        if !header.is_plain() || hot.gate != header.continuity_counter() || hot.left <= PAYLOAD_LEN {
            return None;
        }
        let data = &packet[4..];
        hot.next_counter = (hot.gate + 1) & 0x0f;
        hot.gate = hot.next_counter;
        hot.left -= PAYLOAD_LEN;
        hot.packets += 1;
        hot.fingerprint = fingerprint(data);
        self.statistics.packets += 1;
        *input = rest;
        Some(Event::PesData { track: hot.track, data })
    }

    /// Judges a packet and, when there is something to tell of it, holds it.
    fn accept(&mut self, packet: &[u8; PACKET_LEN]) {
        debug_assert!(self.work.stage == Stage::Idle);
        self.statistics.packets += 1;
        let header = Header::of(packet);
        let index = self.pids.slot_of(header.pid());
        let (hot, slot) = (&mut self.pids.hot[index], &mut self.pids.slots[index]);
        self.work.slot = index;
        self.work.discontinuity = None;
        self.work.pcr_27mhz = None;
        self.work.at = PACKET_LEN;
        if header.transport_error() {
            self.statistics.transport_errors += 1;
            if index != UNLISTED {
                // The packet may be another PID's: then the next one's continuity counter tells.
                if header.has_payload() && header.continuity_counter() == hot.next_counter {
                    hot.next_counter = (hot.next_counter + 1) & 0x0f;
                }
                slot.statistics.transport_errors += 1;
                self.discontinue(DiscontinuityCause::TransportError);
            }
            return;
        }
        if index == UNLISTED {
            let null = header.pid() == NULL_PID;
            self.statistics.null_packets += u64::from(null);
            self.statistics.unlisted_packets += u64::from(!null);
            return;
        }
        let Ok(parts) = Parts::judge(packet) else {
            self.statistics.malformed_packets += 1;
            return;
        };
        let payload = &packet[parts.payload..];
        let mut cause = None;
        if header.has_payload() && !matches!(slot.role, Role::PcrOnly) {
            let print = fingerprint(payload);
            let counter = header.continuity_counter();
            if hot.next_counter == NO_COUNTER || counter == hot.next_counter {
                if slot.lost >= BEYOND_PROOF && hot.next_counter != NO_COUNTER {
                    cause = Some(DiscontinuityCause::Gap { unproven: true });
                }
            } else if (counter + 1) & 0x0f == hot.next_counter && print == hot.fingerprint {
                self.statistics.duplicates += 1;
                self.statistics.excess_duplicates += u64::from(slot.repeated_at == hot.packets);
                slot.statistics.duplicates += 1;
                slot.repeated_at = hot.packets;
                return;
            } else if parts.adaptation.discontinuity {
                cause = Some(DiscontinuityCause::Signalled);
            } else if slot.lost > 0 {
                cause = Some(DiscontinuityCause::Gap { unproven: false });
            } else {
                cause = Some(DiscontinuityCause::Continuity);
            }
            slot.lost = 0;
            hot.next_counter = (counter + 1) & 0x0f;
            hot.fingerprint = print;
            hot.packets += 1;
            self.work.at = parts.payload;
        }
        if header.scrambled() {
            self.work.at = PACKET_LEN;
            self.statistics.scrambled_packets += 1;
            slot.statistics.scrambled_packets += 1;
            if !slot.scrambled {
                cause = Some(DiscontinuityCause::Scrambled);
            }
        }
        if header.has_payload() {
            slot.scrambled = header.scrambled();
        }
        self.work.packet = *packet;
        self.work.unit_start = header.payload_unit_start();
        self.work.random_access = parts.adaptation.random_access;
        self.work.stuffed = parts.adaptation.stuffed;
        self.work.stage = Stage::Pcr;
        self.accept_clock(&parts.adaptation);
        if let Some(cause) = cause {
            self.discontinue(cause);
        }
    }

    fn accept_clock(&mut self, adaptation: &AdaptationField) {
        let slot = &mut self.pids.slots[self.work.slot];
        slot.clock_discontinuity |= adaptation.discontinuity;
        self.statistics.pcr_errors += u64::from(adaptation.pcr_malformed);
        if slot.carries_pcr {
            self.work.pcr_27mhz = adaptation.pcr_27mhz;
            self.work.next_programme = 0;
        }
    }

    /// Counts a discontinuity of the PID at work, gives up what it breaks, and has it told first.
    fn discontinue(&mut self, cause: DiscontinuityCause) {
        let slot = &mut self.pids.slots[self.work.slot];
        let (all, own) = (&mut self.statistics, &mut slot.statistics);
        let counters = match cause {
            DiscontinuityCause::Continuity => Some((&mut all.continuity_errors, &mut own.continuity_errors)),
            DiscontinuityCause::Signalled => {
                Some((&mut all.signalled_discontinuities, &mut own.signalled_discontinuities))
            }
            DiscontinuityCause::Gap { unproven: true } => Some((&mut all.unproven_gaps, &mut own.unproven_gaps)),
            DiscontinuityCause::Gap { unproven: false } => {
                Some((&mut all.gap_discontinuities, &mut own.gap_discontinuities))
            }
            // Counted where they are seen, packet by packet.
            DiscontinuityCause::TransportError | DiscontinuityCause::Scrambled | DiscontinuityCause::PesHeader => None,
        };
        if let Some((all, own)) = counters {
            *all += 1;
            *own += 1;
        }
        let unproven = cause == DiscontinuityCause::Gap { unproven: true };
        let told = match &mut slot.role {
            Role::Pat(assembler) | Role::Pmt(assembler) | Role::Sections(assembler) => {
                // A section that lost its middle without the counter showing it has a wrong CRC.
                if !unproven && assembler.abandon() {
                    self.statistics.truncated_sections += 1;
                    slot.statistics.section_errors += 1;
                }
                matches!(slot.role, Role::Sections(_))
            }
            Role::Pes(track) => {
                if !unproven {
                    let hot = &mut self.pids.hot[self.work.slot];
                    track.bounded = false;
                    hot.left = UNBOUNDED;
                    match track.state {
                        PesState::Header => track.state = PesState::Waiting,
                        // What was lost may have been the start of another one.
                        PesState::Ended | PesState::Padding => track.state = PesState::Data,
                        PesState::Waiting | PesState::Data => {}
                    }
                }
                self.pids.hot[self.work.slot].gate = NO_COUNTER;
                track.started
            }
            Role::PcrOnly | Role::Free => false,
        };
        if told {
            self.work.discontinuity = Some(cause);
        }
        self.work.stage = Stage::Discontinuity;
    }

    /// Works the held packet off up to the next thing to tell.
    fn step(&mut self) -> Option<Step> {
        loop {
            match self.work.stage {
                Stage::Idle => return None,
                Stage::Discontinuity => {
                    self.work.stage = Stage::Pcr;
                    if let Some(cause) = self.work.discontinuity.take() {
                        let track = self.pids.hot[self.work.slot].track;
                        return Some(Step::Tell(Event::Discontinuity { track, cause }));
                    }
                }
                Stage::Pcr => {
                    if let Some(event) = self.step_pcr() {
                        return Some(Step::Tell(event));
                    }
                }
                Stage::Payload => self.begin_payload(),
                Stage::PesHeader | Stage::PesBody | Stage::PesTail => {
                    if let Some(step) = self.step_pes() {
                        return Some(step);
                    }
                }
                Stage::Sections => {
                    if let Some(step) = self.step_sections() {
                        return Some(step);
                    }
                }
            }
        }
    }

    /// Gives a step its bytes.
    fn event(&self, step: Step) -> Event<'_> {
        match step {
            Step::Tell(event) => event,
            Step::Data { track, from, to } => Event::PesData { track, data: &self.work.packet[from..to] },
            Step::Section { track } => match &self.pids.slots[self.work.slot].role {
                Role::Sections(assembler) => Event::Section { track, data: assembler.section() },
                _ => unreachable!("sections are told of tracks that have them"),
            },
        }
    }

    fn step_pcr(&mut self) -> Option<Event<'static>> {
        let slot = &mut self.pids.slots[self.work.slot];
        if let Some(pcr_27mhz) = self.work.pcr_27mhz {
            if let Some(programme) = self.directory.next_programme_of_pcr(slot.pid, self.work.next_programme) {
                self.work.next_programme = programme.get() + 1;
                return Some(Event::Pcr { programme, pcr_27mhz, discontinuity: slot.clock_discontinuity });
            }
            slot.clock_discontinuity = false;
            self.work.pcr_27mhz = None;
        }
        self.work.stage = Stage::Payload;
        None
    }

    fn begin_payload(&mut self) {
        if self.work.at == PACKET_LEN {
            self.finish_packet();
            return;
        }
        let slot = &mut self.pids.slots[self.work.slot];
        match &mut slot.role {
            Role::Pes(track) if self.work.unit_start => {
                let left = self.pids.hot[self.work.slot].left;
                if track.state == PesState::Data && track.bounded && left > 0 {
                    self.statistics.truncated_pes += 1;
                    slot.statistics.truncated_pes += 1;
                }
                if track.state == PesState::Header {
                    self.statistics.pes_header_errors += 1;
                    slot.statistics.pes_header_errors += 1;
                }
                track.state = PesState::Header;
                track.header.restart();
                track.random_access = self.work.random_access;
                self.work.stage = Stage::PesHeader;
            }
            Role::Pes(track) => match track.state {
                PesState::Header => self.work.stage = Stage::PesHeader,
                PesState::Data | PesState::Ended => self.work.stage = Stage::PesBody,
                PesState::Padding => self.finish_packet(),
                PesState::Waiting => {
                    self.statistics.packets_without_pes += 1;
                    slot.statistics.packets_without_pes += 1;
                    self.finish_packet();
                }
            },
            Role::Pat(_) | Role::Pmt(_) | Role::Sections(_) => {
                let pointer = usize::from(self.work.packet[self.work.at]);
                self.work.sections_begin = PACKET_LEN;
                if self.work.unit_start {
                    self.work.at += 1;
                    self.work.sections_begin = (self.work.at + pointer).min(PACKET_LEN);
                }
                self.work.stage = Stage::Sections;
            }
            Role::PcrOnly | Role::Free => self.finish_packet(),
        }
    }

    /// The held packet is worked off: sets the gate for the next one.
    fn finish_packet(&mut self) {
        self.work.stage = Stage::Idle;
        let index = self.work.slot;
        let (hot, slot) = (&mut self.pids.hot[index], &self.pids.slots[index]);
        let open = matches!(&slot.role, Role::Pes(track) if track.state == PesState::Data);
        hot.gate = if open && slot.lost == 0 && !slot.scrambled { hot.next_counter } else { NO_COUNTER };
    }

    fn step_pes(&mut self) -> Option<Step> {
        let index = self.work.slot;
        let (hot, slot) = (&mut self.pids.hot[index], &mut self.pids.slots[index]);
        let Role::Pes(pes) = &mut slot.role else { unreachable!("the stage is a PES track's") };
        let track = hot.track;
        let from = self.work.at;
        let there = PACKET_LEN - from;
        match self.work.stage {
            Stage::PesHeader => {
                let (taken, header) = pes.header.feed(&self.work.packet[from..]);
                self.work.at += taken;
                match header {
                    Ok(Some(header)) => return self.begin_pes(&header),
                    Ok(None) => self.finish_packet(),
                    Err(_) => {
                        self.statistics.pes_header_errors += 1;
                        slot.statistics.pes_header_errors += 1;
                        pes.state = PesState::Waiting;
                        let started = pes.started;
                        self.finish_packet();
                        let cause = DiscontinuityCause::PesHeader;
                        return started.then_some(Step::Tell(Event::Discontinuity { track, cause }));
                    }
                }
            }
            Stage::PesBody if pes.state == PesState::Ended => {
                let rest = &self.work.packet[from..];
                let padding = rest.iter().all(|byte| *byte == 0xff);
                let counter = if padding {
                    &mut self.statistics.pes_padding_bytes
                } else {
                    &mut self.statistics.pes_overrun_bytes
                };
                *counter += there as u64;
                self.finish_packet();
                return (!padding && there > 0).then_some(Step::Data { track, from, to: PACKET_LEN });
            }
            Stage::PesBody => {
                let length = hot.left.min(there as u64) as usize;
                hot.left -= length as u64;
                self.work.at += length;
                self.work.stage = Stage::PesTail;
                return (length > 0).then_some(Step::Data { track, from, to: from + length });
            }
            _ => {
                if pes.bounded && hot.left == 0 {
                    pes.state = PesState::Ended;
                    self.work.stage = Stage::PesBody;
                    return Some(Step::Tell(Event::PesEnd { track }));
                }
                let hint = !pes.bounded && self.work.stuffed;
                self.finish_packet();
                return hint.then_some(Step::Tell(Event::PesEndHint { track }));
            }
        }
        None
    }

    fn begin_pes(&mut self, header: &PesHeader) -> Option<Step> {
        let index = self.work.slot;
        let (hot, slot) = (&mut self.pids.hot[index], &mut self.pids.slots[index]);
        let Role::Pes(pes) = &mut slot.role else { unreachable!("the stage is a PES track's") };
        self.statistics.time_stamp_errors += u64::from(header.time_stamp_errors);
        slot.statistics.time_stamp_errors += u64::from(header.time_stamp_errors);
        if header.stream_id == PADDING_STREAM {
            pes.state = PesState::Padding;
            self.finish_packet();
            return None;
        }
        slot.statistics.pes_packets += 1;
        pes.state = PesState::Data;
        pes.started = true;
        pes.bounded = header.length.is_some();
        hot.left = header.length.map_or(UNBOUNDED, u64::from);
        self.work.stage = Stage::PesBody;
        Some(Step::Tell(Event::PesStart {
            track: hot.track,
            stream_id: header.stream_id,
            pts: header.pts,
            dts: header.dts,
            data_alignment: header.data_alignment,
            random_access: pes.random_access,
            length: header.length,
        }))
    }

    fn step_sections(&mut self) -> Option<Step> {
        let index = self.work.slot;
        loop {
            let slot = &mut self.pids.slots[index];
            let (Role::Pat(assembler) | Role::Pmt(assembler) | Role::Sections(assembler)) = &mut slot.role else {
                unreachable!("the stage is one of sections")
            };
            // What comes before the pointer's target ends an earlier section.
            let before = self.work.at < self.work.sections_begin && self.work.unit_start;
            if self.work.unit_start && self.work.at == self.work.sections_begin && assembler.abandon() {
                self.statistics.truncated_sections += 1;
                slot.statistics.section_errors += 1;
            }
            if !assembler.is_open() {
                if before {
                    self.work.at = self.work.sections_begin;
                    continue;
                }
                let begins = self.work.unit_start && self.work.at < PACKET_LEN;
                if !begins || self.work.packet[self.work.at] == section::STUFFING {
                    self.finish_packet();
                    return None;
                }
                assembler.begin();
            }
            let to = if before { self.work.sections_begin } else { PACKET_LEN };
            let (taken, progress) = assembler.feed(&self.work.packet[self.work.at..to]);
            self.work.at += taken;
            match progress {
                Progress::Open if to == PACKET_LEN => {
                    self.finish_packet();
                    return None;
                }
                Progress::Open => {}
                Progress::TooLong => {
                    self.statistics.section_length_errors += 1;
                    slot.statistics.section_errors += 1;
                    if to == PACKET_LEN {
                        // Where the next one begins is told by the next pointer.
                        self.finish_packet();
                        return None;
                    }
                }
                Progress::Complete => {
                    if let Some(step) = self.take_section() {
                        return Some(step);
                    }
                }
            }
        }
    }

    /// A section of the PID at work is complete.
    fn take_section(&mut self) -> Option<Step> {
        let index = self.work.slot;
        let slot = &mut self.pids.slots[index];
        let (Role::Pat(assembler) | Role::Pmt(assembler) | Role::Sections(assembler)) = &slot.role else {
            unreachable!("the stage is one of sections")
        };
        let section = assembler.section();
        if !section::crc_holds(section) {
            self.statistics.section_crc_errors += 1;
            slot.statistics.section_errors += 1;
            return None;
        }
        self.statistics.sections += 1;
        let applied = match &slot.role {
            Role::Pat(_) => self.directory.pat_section(section, &mut self.statistics),
            Role::Pmt(_) => self.directory.pmt_section(slot.pid, section, &mut self.statistics),
            _ => {
                slot.statistics.sections += 1;
                return Some(Step::Section { track: self.pids.hot[index].track });
            }
        };
        if applied == Applied::Nothing {
            return None;
        }
        self.pids.follow(&self.directory);
        Some(Step::Tell(Event::Tables))
    }
}

/// Tells a packet's payload from another's, well enough where continuity counters agree: a few words spread over it.
#[inline]
fn fingerprint(payload: &[u8]) -> u64 {
    let word =
        |at: usize| payload.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word));
    let length = payload.len();
    if length < 8 {
        return payload.iter().fold(length as u64, |print, byte| print << 8 | u64::from(*byte));
    }
    word(0) ^ word(length / 3).rotate_left(13) ^ word(length / 3 * 2).rotate_left(29) ^ word(length - 8).rotate_left(47)
}
