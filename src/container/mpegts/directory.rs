//! PAT and PMT as they apply: which programmes and tracks there are, and when each begins and ends.

use super::packet::{FIRST_FREE_PID, NULL_PID};
use super::statistics::Statistics;
use super::tables::{self, Carriage, PatEntry, PatSection, PmtEntry, PmtSection, Subtitling, TableHeader, Teletext};
use crate::media::Codec;

/// How much a transport stream may ask for; what is beyond is refused and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Programmes; at most 255 are ever used.
    pub programmes: usize,
    /// Tracks of all programmes together; at most 8,192 are ever used.
    pub tracks: usize,
    /// Bytes of a section, table or private (H.222.0 §2.4.4.11: 4,096 at most); each PID that carries sections has a
    /// buffer of this size.
    pub section_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { programmes: 64, tracks: 256, section_bytes: 4096 }
    }
}

/// Names a programme until it leaves the PAT; may name another one after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgrammeIndex(pub u8);

/// Names a track until it ends; may name another one after that, with another [`Track::serial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackIndex(pub u16);

impl ProgrammeIndex {
    /// As an array index.
    #[inline]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl TrackIndex {
    /// As an array index, below [`Limits::tracks`].
    #[inline]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A programme of the PAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programme {
    /// `program_number`.
    pub number: u16,
    /// PID of its PMT.
    pub pmt_pid: u16,
    /// PID of its PCRs; `None` before the first PMT, and when it has none.
    pub pcr_pid: Option<u16>,
    /// `version_number` of the PMT in force.
    pub version: Option<u8>,
    /// `format_identifier` of its registration descriptor.
    pub registration: Option<[u8; 4]>,
    /// Its tracks in the order of the PMT.
    pub tracks: Vec<TrackIndex>,
}

/// What makes a track the same track over PMT changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackKey {
    /// `program_number`.
    pub programme: u16,
    /// Its PID.
    pub pid: u16,
    /// What it is coded with.
    pub codec: Codec,
}

/// A track as the PMT describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Which one it is.
    pub key: TrackKey,
    /// Counts all tracks of the demultiplexer's life, from 0: never used twice.
    pub serial: u32,
    /// The programme it belongs to.
    pub programme: ProgrammeIndex,
    /// `stream_type` as written.
    pub stream_type: u8,
    /// In PES packets or sections.
    pub carriage: Carriage,
    /// Language, three letters of ISO 639-2, as written.
    pub language: Option<[u8; 3]>,
    /// `component_tag` of the stream identifier descriptor.
    pub component_tag: Option<u8>,
    /// `format_identifier` of the registration descriptor.
    pub registration: Option<[u8; 4]>,
    /// `channel_config_code` of Opus.
    pub opus_channel_config: Option<u8>,
    /// First service of the teletext descriptor.
    pub teletext: Option<Teletext>,
    /// First service of the subtitling descriptor.
    pub subtitling: Option<Subtitling>,
    /// All descriptors, as written.
    pub descriptors: Vec<u8>,
}

/// Sections of one table until there are all of them.
///
/// A table is known by its CRCs: an encoder that starts anew with other content often starts with the same version number.
#[derive(Clone, Debug)]
struct Collector<T> {
    identity: Option<(u16, u8, u8)>,
    crcs: Vec<Option<u32>>,
    entries: Vec<(u8, T)>,
}

impl<T> Collector<T> {
    const fn new() -> Self {
        Self { identity: None, crcs: Vec::new(), entries: Vec::new() }
    }

    /// Whether the section is new; then its entries are to be added.
    fn wants(&mut self, header: &TableHeader) -> bool {
        let identity = Some((header.extension, header.version, header.last_section_number));
        let number = usize::from(header.section_number);
        if self.identity != identity || self.crcs[number].is_some_and(|crc| crc != header.crc) {
            self.identity = identity;
            self.crcs.clear();
            self.crcs.resize(usize::from(header.last_section_number) + 1, None);
            self.entries.clear();
        }
        self.crcs[number].replace(header.crc).is_none()
    }

    fn is_complete(&self) -> bool {
        self.crcs.iter().all(Option::is_some)
    }

    /// The entries in the order of the table.
    fn take(&mut self) -> impl Iterator<Item = T> {
        self.entries.sort_by_key(|(section_number, _)| *section_number);
        std::mem::take(&mut self.entries).into_iter().map(|(_, entry)| entry)
    }

    fn forget(&mut self) {
        self.identity = None;
    }
}

#[derive(Debug)]
struct ProgrammeEntry {
    programme: Programme,
    pmt: Collector<Track>,
    /// Of the sections being collected.
    pcr_pid: u16,
    registration: Option<[u8; 4]>,
    /// A stream of its PMT could not become a track because its PID was taken: the PMT is looked at again when PIDs may
    /// have become free.
    unsatisfied: bool,
}

/// The programmes and tracks in force.
#[derive(Debug)]
pub(super) struct Directory {
    limits: Limits,
    transport_stream_id: Option<u16>,
    programmes: Vec<Option<ProgrammeEntry>>,
    tracks: Vec<Option<Track>>,
    pat: Collector<PatEntry>,
    next_serial: u32,
}

/// What a table changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// Nothing: it is the one in force, or not complete yet, or was refused.
    Nothing,
    /// Programmes or tracks are not what they were, or the version is new.
    Changed,
}

impl Directory {
    pub(super) fn new(limits: Limits) -> Self {
        let limits = Limits {
            programmes: limits.programmes.min(usize::from(u8::MAX)),
            tracks: limits.tracks.min(usize::from(NULL_PID)),
            ..limits
        };
        Self {
            limits,
            transport_stream_id: None,
            programmes: Vec::with_capacity(limits.programmes),
            tracks: Vec::with_capacity(limits.tracks),
            pat: Collector::new(),
            next_serial: 0,
        }
    }

    pub(super) fn transport_stream_id(&self) -> Option<u16> {
        self.transport_stream_id
    }

    pub(super) fn programmes(&self) -> impl Iterator<Item = (ProgrammeIndex, &Programme)> {
        self.programmes
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((ProgrammeIndex(index as u8), &entry.as_ref()?.programme)))
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = (TrackIndex, &Track)> {
        self.tracks.iter().enumerate().filter_map(|(index, track)| Some((TrackIndex(index as u16), track.as_ref()?)))
    }

    pub(super) fn programme(&self, index: ProgrammeIndex) -> Option<&Programme> {
        Some(&self.programmes.get(index.get())?.as_ref()?.programme)
    }

    pub(super) fn track(&self, index: TrackIndex) -> Option<&Track> {
        self.tracks.get(index.get())?.as_ref()
    }

    /// The next programme from `from` on whose PCRs are on this PID.
    pub(super) fn next_programme_of_pcr(&self, pid: u16, from: usize) -> Option<ProgrammeIndex> {
        self.programmes()
            .skip_while(|(index, _)| index.get() < from)
            .find_map(|(index, programme)| (programme.pcr_pid == Some(pid)).then_some(index))
    }

    /// Takes a section from the PID of the PAT.
    pub(super) fn pat_section(&mut self, section: &[u8], statistics: &mut Statistics) -> Applied {
        let Ok(section) = PatSection::judge(section) else {
            statistics.table_errors += 1;
            return Applied::Nothing;
        };
        if !section.header.current {
            statistics.tables_not_current += 1;
            return Applied::Nothing;
        }
        if !self.pat.wants(&section.header) {
            return Applied::Nothing;
        }
        for entry in section.entries() {
            if self.pat.entries.len() < self.limits.programmes {
                self.pat.entries.push((section.header.section_number, entry));
            } else {
                statistics.limit_refusals += 1;
            }
        }
        if !self.pat.is_complete() {
            return Applied::Nothing;
        }
        self.transport_stream_id = Some(section.header.extension);
        self.apply_pat(statistics);
        Applied::Changed
    }

    fn apply_pat(&mut self, statistics: &mut Statistics) {
        let mut listed: Vec<PatEntry> = Vec::with_capacity(self.limits.programmes);
        for entry in self.pat.take() {
            let reserved = entry.pmt_pid < FIRST_FREE_PID || entry.pmt_pid == NULL_PID;
            if reserved || listed.iter().any(|other| other.number == entry.number) {
                statistics.pid_conflicts += 1;
            } else {
                listed.push(entry);
            }
        }
        for slot in &mut self.programmes {
            let Some(entry) = slot else { continue };
            match listed.iter().find(|listed| listed.number == entry.programme.number) {
                Some(listed) => entry.programme.pmt_pid = listed.pmt_pid,
                None => {
                    for index in &entry.programme.tracks {
                        self.tracks[index.get()] = None;
                    }
                    *slot = None;
                }
            }
        }
        for PatEntry { number, pmt_pid } in listed {
            if self.programmes().any(|(_, programme)| programme.number == number) {
                continue;
            }
            let entry = ProgrammeEntry {
                programme: Programme {
                    number,
                    pmt_pid,
                    pcr_pid: None,
                    version: None,
                    registration: None,
                    tracks: Vec::new(),
                },
                pmt: Collector::new(),
                pcr_pid: NULL_PID,
                registration: None,
                unsatisfied: false,
            };
            let placed = place(&mut self.programmes, self.limits.programmes, entry);
            assert!(placed.is_some(), "the PAT was held to the limit of programmes when it was collected");
        }
        self.end_tracks_on_table_pids(statistics);
        self.reconsider_unsatisfied();
    }

    /// A PID that the PAT gives to a PMT carries no track any more.
    fn end_tracks_on_table_pids(&mut self, statistics: &mut Statistics) {
        for index in 0..self.tracks.len() {
            let Some(track) = &self.tracks[index] else { continue };
            let (pid, programme) = (track.key.pid, track.programme);
            if self.is_table_pid(pid) {
                statistics.pid_conflicts += 1;
                self.tracks[index] = None;
                let owner = self.programmes[programme.get()].as_mut().expect("a track's programme is in force");
                owner.programme.tracks.retain(|track| track.get() != index);
                owner.unsatisfied = true;
            }
        }
    }

    fn is_table_pid(&self, pid: u16) -> bool {
        self.programmes().any(|(_, programme)| programme.pmt_pid == pid)
    }

    fn reconsider_unsatisfied(&mut self) {
        for entry in self.programmes.iter_mut().flatten().filter(|entry| entry.unsatisfied) {
            entry.pmt.forget();
        }
    }

    /// Takes a section from the PID of one or several PMTs.
    pub(super) fn pmt_section(&mut self, pid: u16, section: &[u8], statistics: &mut Statistics) -> Applied {
        let Ok(section) = PmtSection::judge(section) else {
            statistics.table_errors += 1;
            return Applied::Nothing;
        };
        if !section.header.current {
            statistics.tables_not_current += 1;
            return Applied::Nothing;
        }
        let number = section.header.extension;
        let found = self.programmes.iter_mut().enumerate().find_map(|(index, entry)| {
            let entry = entry.as_mut()?;
            (entry.programme.number == number && entry.programme.pmt_pid == pid).then_some((index, entry))
        });
        let Some((index, entry)) = found else {
            statistics.table_errors += 1;
            return Applied::Nothing;
        };
        if !entry.pmt.wants(&section.header) {
            return Applied::Nothing;
        }
        let index = ProgrammeIndex(index as u8);
        entry.pcr_pid = section.pcr_pid;
        if section.header.section_number == 0 {
            entry.registration = section.descriptors.registration();
        }
        for stream in section.entries() {
            if entry.pmt.entries.len() < self.limits.tracks {
                let track = describe(&stream, number, index, entry.registration);
                entry.pmt.entries.push((section.header.section_number, track));
            } else {
                statistics.limit_refusals += 1;
            }
        }
        if !entry.pmt.is_complete() {
            return Applied::Nothing;
        }
        self.apply_pmt(index, section.header.version, statistics)
    }

    fn apply_pmt(&mut self, index: ProgrammeIndex, version: u8, statistics: &mut Statistics) -> Applied {
        let entry = self.programmes[index.get()].as_mut().expect("the programme whose PMT this is");
        let listed: Vec<Track> = entry.pmt.take().collect();
        let before = entry.programme.clone();
        entry.programme.version = Some(version);
        entry.programme.pcr_pid = (entry.pcr_pid != NULL_PID).then_some(entry.pcr_pid);
        entry.programme.registration = entry.registration;
        entry.unsatisfied = false;

        // Tracks end before others begin, so that their places and PIDs are free.
        let mut ended = false;
        for track in &before.tracks {
            let slot = &mut self.tracks[track.get()];
            let key = slot.as_ref().map(|track| track.key);
            if !listed.iter().any(|listed| Some(listed.key) == key) {
                *slot = None;
                ended = true;
            }
        }
        let mut order = Vec::with_capacity(listed.len());
        let mut begun = false;
        let mut described_anew = false;
        let mut unsatisfied = false;
        for track in listed {
            let pid = track.key.pid;
            if pid < FIRST_FREE_PID || pid == NULL_PID {
                statistics.pid_conflicts += 1;
                continue;
            }
            let holder = self.tracks().find(|(_, other)| other.key.pid == pid).map(|(at, other)| (at, other.key));
            match holder {
                Some((at, key)) if key == track.key && !order.contains(&at) => {
                    let kept = self.tracks[at.get()].as_mut().expect("just found");
                    let track = Track { serial: kept.serial, ..track };
                    described_anew |= *kept != track;
                    *kept = track;
                    order.push(at);
                }
                Some((_, key)) => {
                    statistics.pid_conflicts += 1;
                    unsatisfied |= key.programme != track.key.programme;
                }
                None if self.is_table_pid(pid) => {
                    statistics.pid_conflicts += 1;
                    unsatisfied = true;
                }
                None => {
                    let track = Track { serial: self.next_serial, ..track };
                    match place(&mut self.tracks, self.limits.tracks, track) {
                        Some(at) => {
                            self.next_serial += 1;
                            begun = true;
                            order.push(TrackIndex(at as u16));
                        }
                        None => statistics.limit_refusals += 1,
                    }
                }
            }
        }
        let entry = self.programmes[index.get()].as_mut().expect("looked at above");
        entry.programme.tracks = order;
        entry.unsatisfied = unsatisfied;
        let changed = ended || begun || described_anew || entry.programme != before;
        if ended {
            self.reconsider_unsatisfied();
        }
        if changed { Applied::Changed } else { Applied::Nothing }
    }
}

/// Puts a value into the first free place and gives its index.
fn place<T>(places: &mut Vec<Option<T>>, limit: usize, value: T) -> Option<usize> {
    if let Some(free) = places.iter().position(Option::is_none) {
        places[free] = Some(value);
        return Some(free);
    }
    (places.len() < limit).then(|| {
        places.push(Some(value));
        places.len() - 1
    })
}

fn describe(stream: &PmtEntry<'_>, number: u16, programme: ProgrammeIndex, registration: Option<[u8; 4]>) -> Track {
    let descriptors = stream.descriptors;
    let codec = tables::codec(stream.stream_type, registration, descriptors);
    Track {
        key: TrackKey { programme: number, pid: stream.pid, codec },
        serial: 0,
        programme,
        stream_type: stream.stream_type,
        carriage: tables::carriage(stream.stream_type, codec),
        language: descriptors.language(),
        component_tag: descriptors.component_tag(),
        registration: descriptors.registration(),
        opus_channel_config: descriptors.opus_channel_config(),
        teletext: descriptors.teletext(),
        subtitling: descriptors.subtitling(),
        descriptors: descriptors.0.to_vec(),
    }
}
