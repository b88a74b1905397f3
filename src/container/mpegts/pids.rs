//! What each PID is for, and how far it has come: two flat tables, one small and dense for the quick path.

use crate::base::prefetch;

use super::directory::{Directory, Limits, TrackIndex};
use super::packet::{NULL_PID, PAT_PID};
use super::pes::HeaderCollector;
use super::section::Assembler;
use super::statistics::TrackStatistics;
use super::tables::Carriage;

/// Continuity counter values that no packet has: "nothing seen yet", and "not by the quick path".
pub(super) const NO_COUNTER: u8 = 0xff;

/// Index into the slots of the PIDs in use. [`UNLISTED`] stands for all others.
type SlotIndex = u16;
/// Slot of the PIDs that no table lists.
pub(super) const UNLISTED: usize = 0;

/// What the quick path looks at, for one PID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    /// Payload bytes that the open PES packet still lacks.
    pub(super) left: u64,
    /// Tells repeated packets.
    pub(super) fingerprint: u64,
    /// Packets with payload, repetitions not counted.
    pub(super) packets: u64,
    pub(super) track: TrackIndex,
    /// Continuity counter that the next packet must have.
    pub(super) next_counter: u8,
    /// The same when the quick path may take that packet, [`NO_COUNTER`] otherwise.
    pub(super) gate: u8,
}

/// The rest that is known of one PID.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pid: u16,
    pub(super) role: Role,
    /// [`super::Track::serial`] of its track.
    serial: u32,
    /// Packets that were lost since the last one of this PID, as far as known.
    pub(super) lost: u32,
    /// A programme has its PCRs here.
    pub(super) carries_pcr: bool,
    /// `discontinuity_indicator` was seen and no PCR since.
    pub(super) clock_discontinuity: bool,
    /// Its last payload was scrambled.
    pub(super) scrambled: bool,
    /// Value of [`Hot::packets`] when a packet was repeated last.
    pub(super) repeated_at: u64,
    pub(super) statistics: TrackStatistics,
}

/// What a PID is for.
#[derive(Debug)]
pub(super) enum Role {
    /// Nothing: the place is free.
    Free,
    Pat(Assembler),
    Pmt(Assembler),
    Pes(PesTrack),
    Sections(Assembler),
    PcrOnly,
}

/// How far the PES packets of a track have come.
#[derive(Debug)]
pub(super) struct PesTrack {
    pub(super) state: PesState,
    pub(super) header: HeaderCollector,
    /// `random_access_indicator` of the packet in which the header began.
    pub(super) random_access: bool,
    /// The open PES packet has a length, and no byte of it is known to be missing.
    pub(super) bounded: bool,
    /// A PES packet has begun since the track did.
    pub(super) started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PesState {
    /// Nothing usable before the next unit start.
    Waiting,
    Header,
    Data,
    /// Its length is fulfilled.
    Ended,
    /// A padding stream: nothing to deliver.
    Padding,
}

/// The PIDs in use.
#[derive(Debug)]
pub(super) struct Pids {
    slot_of: Box<[SlotIndex; 8192]>,
    pub(super) hot: Vec<Hot>,
    pub(super) slots: Vec<Slot>,
    section_bytes: usize,
    /// PID and slot of the packets that were last taken at one go.
    recent: (u16, usize),
}

impl Hot {
    const fn new(track: TrackIndex) -> Self {
        Self { left: 0, fingerprint: 0, packets: 0, track, next_counter: NO_COUNTER, gate: NO_COUNTER }
    }
}

impl Slot {
    fn new(pid: u16, serial: u32, role: Role) -> Self {
        Self {
            pid,
            role,
            serial,
            lost: 0,
            carries_pcr: false,
            clock_discontinuity: false,
            scrambled: false,
            repeated_at: u64::MAX,
            statistics: TrackStatistics::default(),
        }
    }
}

impl PesTrack {
    const fn new() -> Self {
        Self {
            state: PesState::Waiting,
            header: HeaderCollector::new(),
            random_access: false,
            bounded: false,
            started: false,
        }
    }
}

impl Pids {
    pub(super) fn new(limits: Limits) -> Self {
        let most = 2 + 2 * limits.programmes.min(255) + limits.tracks.min(8192);
        let mut pids = Self {
            slot_of: Box::new([UNLISTED as SlotIndex; 8192]),
            hot: Vec::with_capacity(most),
            slots: Vec::with_capacity(most),
            section_bytes: limits.section_bytes,
            recent: (PAT_PID, 0),
        };
        pids.hot.push(Hot::new(TrackIndex(0)));
        pids.slots.push(Slot::new(NULL_PID, 0, Role::PcrOnly));
        pids.assign(PAT_PID, TrackIndex(0), 0, Role::Pat(Assembler::new(limits.section_bytes)));
        pids
    }

    /// Slot of a PID (13 bits), [`UNLISTED`] when no table lists it.
    #[inline]
    pub(super) fn slot_of(&self, pid: u16) -> usize {
        usize::from(self.slot_of[usize::from(pid & NULL_PID)])
    }

    /// Takes note of what the next packets are likely to be like.
    #[inline]
    pub(super) fn remember(&mut self, pid: u16, slot: usize) {
        self.recent = (pid, slot);
    }

    /// Asks the processor for what packets like the last ones are judged by.
    #[inline]
    pub(super) fn prefetch(&self) {
        let (pid, slot) = self.recent;
        prefetch(&self.slot_of[usize::from(pid)]);
        prefetch(&self.hot[slot]);
    }

    fn assign(&mut self, pid: u16, track: TrackIndex, serial: u32, role: Role) {
        debug_assert!(self.slot_of(pid) == UNLISTED);
        let (hot, slot) = (Hot::new(track), Slot::new(pid, serial, role));
        let free = self.slots.iter().position(|slot| matches!(slot.role, Role::Free));
        let index = free.unwrap_or(self.slots.len());
        if free.is_some() {
            self.hot[index] = hot;
            self.slots[index] = slot;
        } else {
            self.hot.push(hot);
            self.slots.push(slot);
        }
        self.slot_of[usize::from(pid)] = index as SlotIndex;
    }

    /// Brings the PIDs into line with the tables in force. What continues keeps its slot: so does the PID whose table has
    /// just come, because a PAT does not move itself, and a PMT ends no PMT.
    pub(super) fn follow(&mut self, directory: &Directory) {
        let carries_pcr = |pid: u16| directory.next_programme_of_pcr(pid, 0).is_some();
        let carries_pmt = |pid: u16| directory.programmes().any(|(_, programme)| programme.pmt_pid == pid);
        for index in UNLISTED + 1..self.slots.len() {
            let (hot, slot) = (&mut self.hot[index], &mut self.slots[index]);
            let kept = match slot.role {
                Role::Pat(_) => true,
                Role::Pmt(_) => carries_pmt(slot.pid),
                Role::Pes(_) | Role::Sections(_) => {
                    directory.track(hot.track).is_some_and(|track| track.serial == slot.serial)
                }
                // Given anew below, unless a table or track has come to the PID.
                Role::PcrOnly => false,
                Role::Free => continue,
            };
            if !kept {
                self.slot_of[usize::from(slot.pid)] = UNLISTED as SlotIndex;
                *hot = Hot::new(TrackIndex(0));
                slot.role = Role::Free;
            }
        }
        for (_, programme) in directory.programmes() {
            if self.slot_of(programme.pmt_pid) == UNLISTED {
                let assembler = Assembler::new(self.section_bytes);
                self.assign(programme.pmt_pid, TrackIndex(0), 0, Role::Pmt(assembler));
            }
        }
        for (index, track) in directory.tracks() {
            if self.slot_of(track.key.pid) == UNLISTED {
                let role = match track.carriage {
                    Carriage::Pes => Role::Pes(PesTrack::new()),
                    Carriage::Sections => Role::Sections(Assembler::new(self.section_bytes)),
                };
                self.assign(track.key.pid, index, track.serial, role);
            }
        }
        for (_, programme) in directory.programmes() {
            if let Some(pid) = programme.pcr_pid
                && self.slot_of(pid) == UNLISTED
            {
                self.assign(pid, TrackIndex(0), 0, Role::PcrOnly);
            }
        }
        for slot in &mut self.slots[UNLISTED + 1..] {
            slot.carries_pcr = carries_pcr(slot.pid);
        }
    }
}
