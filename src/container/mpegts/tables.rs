//! PAT, PMT and descriptors as they are written (H.222.0 §2.4.4 and §2.6, ETSI EN 300 468 §6.2).

use super::section::{CRC_LEN, crc32};
use crate::media::Codec;

/// Bytes of a table section before its own fields.
const LONG_HEADER_LEN: usize = 8;
const PAT_TABLE_ID: u8 = 0x00;
const PMT_TABLE_ID: u8 = 0x02;

/// Why a table section is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TableError {
    #[error("another table stands on this PID")]
    TableId,
    #[error("the section is shorter than its fields")]
    Length,
    #[error("the CRC is wrong")]
    Crc,
}

/// The fields that every table section starts with (H.222.0 §2.4.4.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableHeader {
    /// `transport_stream_id` of a PAT, `program_number` of a PMT.
    pub(super) extension: u16,
    pub(super) version: u8,
    pub(super) current: bool,
    pub(super) section_number: u8,
    pub(super) last_section_number: u8,
    /// The CRC at the end, right.
    pub(super) crc: u32,
}

impl TableHeader {
    fn judge(section: &[u8], table_id: u8) -> Result<(Self, &[u8]), TableError> {
        if section.len() < LONG_HEADER_LEN + CRC_LEN {
            return Err(TableError::Length);
        }
        if section[0] != table_id || section[1] & 0x80 == 0 {
            return Err(TableError::TableId);
        }
        if crc32(section) != 0 {
            return Err(TableError::Crc);
        }
        let (body, crc) = section.split_at(section.len() - CRC_LEN);
        let header = Self {
            extension: u16::from_be_bytes([section[3], section[4]]),
            version: section[5] >> 1 & 0x1f,
            current: section[5] & 1 == 1,
            section_number: section[6],
            last_section_number: section[7],
            crc: u32::from_be_bytes([crc[0], crc[1], crc[2], crc[3]]),
        };
        if header.section_number > header.last_section_number {
            return Err(TableError::Length);
        }
        Ok((header, &body[LONG_HEADER_LEN..]))
    }
}

/// A programme as a PAT lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PatEntry {
    pub(super) number: u16,
    pub(super) pmt_pid: u16,
}

/// A section of the programme association table (H.222.0 §2.4.4.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct PatSection<'a> {
    pub(super) header: TableHeader,
    body: &'a [u8],
}

impl<'a> PatSection<'a> {
    pub(super) fn judge(section: &'a [u8]) -> Result<Self, TableError> {
        let (header, body) = TableHeader::judge(section, PAT_TABLE_ID)?;
        if !body.len().is_multiple_of(4) {
            return Err(TableError::Length);
        }
        Ok(Self { header, body })
    }

    /// The programmes; programme number 0, which names the network PID, is left out.
    pub(super) fn entries(&self) -> impl Iterator<Item = PatEntry> + use<'a> {
        self.body
            .chunks_exact(4)
            .map(|entry| PatEntry {
                number: u16::from_be_bytes([entry[0], entry[1]]),
                pmt_pid: u16::from_be_bytes([entry[2], entry[3]]) & 0x1fff,
            })
            .filter(|entry| entry.number != 0)
    }
}

/// A section of a programme map table (H.222.0 §2.4.4.9).
#[derive(Clone, Copy, Debug)]
pub(super) struct PmtSection<'a> {
    pub(super) header: TableHeader,
    pub(super) pcr_pid: u16,
    pub(super) descriptors: Descriptors<'a>,
    streams: &'a [u8],
}

/// An elementary stream as a PMT lists it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PmtEntry<'a> {
    pub(super) stream_type: u8,
    pub(super) pid: u16,
    pub(super) descriptors: Descriptors<'a>,
}

impl<'a> PmtSection<'a> {
    pub(super) fn judge(section: &'a [u8]) -> Result<Self, TableError> {
        let (header, body) = TableHeader::judge(section, PMT_TABLE_ID)?;
        let (fixed, rest) = body.split_first_chunk::<4>().ok_or(TableError::Length)?;
        let pcr_pid = u16::from_be_bytes([fixed[0], fixed[1]]) & 0x1fff;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]) & 0x0fff);
        let (descriptors, streams) = rest.split_at_checked(length).ok_or(TableError::Length)?;
        let section = Self { header, pcr_pid, descriptors: Descriptors(descriptors), streams };
        // Judged as a whole, so that a table is taken or refused as a whole.
        let listed: usize = section.entries().map(|entry| 5 + entry.descriptors.0.len()).sum();
        if listed == streams.len() { Ok(section) } else { Err(TableError::Length) }
    }

    /// The elementary streams, in the order of the table.
    pub(super) fn entries(&self) -> impl Iterator<Item = PmtEntry<'a>> + use<'a> {
        let mut rest = self.streams;
        std::iter::from_fn(move || {
            let (fixed, after) = rest.split_first_chunk::<5>()?;
            let length = usize::from(u16::from_be_bytes([fixed[3], fixed[4]]) & 0x0fff);
            let (descriptors, after) = after.split_at_checked(length)?;
            rest = after;
            Some(PmtEntry {
                stream_type: fixed[0],
                pid: u16::from_be_bytes([fixed[1], fixed[2]]) & 0x1fff,
                descriptors: Descriptors(descriptors),
            })
        })
    }
}

/// A loop of descriptors. One that is cut short ends the loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors<'a>(pub(super) &'a [u8]);

impl<'a> Descriptors<'a> {
    /// `descriptor_tag` and content of each.
    pub(super) fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&[tag, length], after) = rest.split_first_chunk::<2>()?;
            let (content, after) = after.split_at_checked(usize::from(length))?;
            rest = after;
            Some((tag, content))
        })
    }

    fn find(self, tag: u8) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    pub(super) fn has(self, tag: u8) -> bool {
        self.find(tag).is_some()
    }

    /// `format_identifier` of the first registration descriptor (H.222.0 §2.6.8).
    pub(super) fn registration(self) -> Option<[u8; 4]> {
        self.find(tag::REGISTRATION)?.first_chunk().copied()
    }

    /// Three letters of ISO 639-2: from the language, teletext or subtitling descriptor.
    pub(super) fn language(self) -> Option<[u8; 3]> {
        let languages = [tag::ISO_639_LANGUAGE, tag::TELETEXT, tag::SUBTITLING];
        languages.into_iter().find_map(|tag| self.find(tag)?.first_chunk().copied())
    }

    /// `component_tag` of the stream identifier descriptor (EN 300 468 §6.2.39).
    pub(super) fn component_tag(self) -> Option<u8> {
        self.find(tag::STREAM_IDENTIFIER)?.first().copied()
    }

    /// `channel_config_code` of the Opus audio descriptor (extension descriptor, tag extension 0x80).
    pub(super) fn opus_channel_config(self) -> Option<u8> {
        self.iter().find_map(|(tag, content)| match (tag, content) {
            (tag::EXTENSION, [OPUS_TAG_EXTENSION, code, ..]) => Some(*code),
            _ => None,
        })
    }

    /// First service of the teletext descriptor (EN 300 468 §6.2.43).
    pub(super) fn teletext(self) -> Option<Teletext> {
        let service: &[u8; 5] = self.find(tag::TELETEXT)?.first_chunk()?;
        Some(Teletext { kind: service[3] >> 3, magazine: service[3] & 7, page: service[4] })
    }

    /// First service of the subtitling descriptor (EN 300 468 §6.2.41).
    pub(super) fn subtitling(self) -> Option<Subtitling> {
        let service: &[u8; 8] = self.find(tag::SUBTITLING)?.first_chunk()?;
        Some(Subtitling {
            kind: service[3],
            composition_page: u16::from_be_bytes([service[4], service[5]]),
            ancillary_page: u16::from_be_bytes([service[6], service[7]]),
        })
    }
}

/// Descriptor tags.
pub(super) mod tag {
    pub(in super::super) const REGISTRATION: u8 = 0x05;
    pub(in super::super) const ISO_639_LANGUAGE: u8 = 0x0a;
    pub(in super::super) const METADATA: u8 = 0x26;
    pub(in super::super) const STREAM_IDENTIFIER: u8 = 0x52;
    pub(in super::super) const TELETEXT: u8 = 0x56;
    pub(in super::super) const SUBTITLING: u8 = 0x59;
    pub(in super::super) const AC3: u8 = 0x6a;
    pub(in super::super) const ENHANCED_AC3: u8 = 0x7a;
    pub(in super::super) const EXTENSION: u8 = 0x7f;
}

/// `descriptor_tag_extension` of the Opus audio descriptor.
pub(super) const OPUS_TAG_EXTENSION: u8 = 0x80;

/// A teletext service (EN 300 468 §6.2.43).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Teletext {
    /// `teletext_type`: 1 initial page, 2 subtitles, 5 subtitles for the hard of hearing.
    pub kind: u8,
    /// `teletext_magazine_number`; 0 stands for 8.
    pub magazine: u8,
    /// `teletext_page_number`, two BCD digits.
    pub page: u8,
}

/// A DVB subtitling service (EN 300 468 §6.2.41).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subtitling {
    /// `subtitling_type`.
    pub kind: u8,
    /// `composition_page_id`.
    pub composition_page: u16,
    /// `ancillary_page_id`.
    pub ancillary_page: u16,
}

/// How a track's bytes lie in transport packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// In PES packets.
    Pes,
    /// In private sections.
    Sections,
}

/// What a stream is coded with, by `stream_type` (H.222.0 table 2-34, ATSC A/53 part 3, SCTE-35) and, where that leaves it
/// open, by the stream's descriptors and the programme's registration.
pub(super) fn codec(stream_type: u8, programme: Option<[u8; 4]>, descriptors: Descriptors<'_>) -> Codec {
    let blu_ray = programme == Some(*b"HDMV") || descriptors.registration() == Some(*b"HDMV");
    match stream_type {
        0x01 | 0x02 => Codec::Mpeg2Video,
        0x03 | 0x04 => Codec::Mp2,
        0x06 => private_codec(descriptors),
        0x0f => Codec::AacAdts,
        0x11 => Codec::AacLatm,
        0x15 if descriptors.registration() == Some(*b"KLVA") || descriptors.has_klv_metadata() => Codec::Klv,
        0x1b => Codec::H264,
        0x24 => Codec::Hevc,
        0x81 => Codec::Ac3,
        // On Blu-ray discs the number stands for DTS.
        0x86 if !blu_ray => Codec::Scte35,
        0x87 => Codec::Eac3,
        _ => Codec::PrivateData(stream_type),
    }
}

/// PES private data (`stream_type` 0x06), which only descriptors tell apart.
fn private_codec(descriptors: Descriptors<'_>) -> Codec {
    match descriptors.registration().as_ref() {
        Some(b"Opus") => return Codec::Opus,
        Some(b"KLVA") => return Codec::Klv,
        Some(b"BSSD") => return Codec::Smpte302m,
        Some(b"HEVC") => return Codec::Hevc,
        Some(b"AC-3") => return Codec::Ac3,
        Some(b"EAC3") => return Codec::Eac3,
        _ => {}
    }
    let named = [
        (tag::AC3, Codec::Ac3),
        (tag::ENHANCED_AC3, Codec::Eac3),
        (tag::TELETEXT, Codec::Teletext),
        (tag::SUBTITLING, Codec::DvbSubtitle),
    ];
    named.into_iter().find(|(tag, _)| descriptors.has(*tag)).map_or(Codec::PrivateData(0x06), |(_, codec)| codec)
}

impl Descriptors<'_> {
    /// A metadata descriptor whose `metadata_format_identifier` is KLVA (H.222.0 §2.6.60, SMPTE RP 217).
    fn has_klv_metadata(self) -> bool {
        self.find(tag::METADATA).is_some_and(|content| content.windows(4).any(|window| window == b"KLVA"))
    }
}

/// How a stream's bytes are carried (H.222.0 table 2-34; SCTE-35 §8.1).
pub(super) fn carriage(stream_type: u8, codec: Codec) -> Carriage {
    match (stream_type, codec) {
        // Private sections, DSM-CC in its four types, metadata sections.
        (0x05 | 0x0a..=0x0d | 0x14 | 0x16, _) | (_, Codec::Scte35) => Carriage::Sections,
        _ => Carriage::Pes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut section: Vec<u8>) -> Vec<u8> {
        let length = section.len() + CRC_LEN - 3;
        section[1] = 0xb0 | (length >> 8) as u8;
        section[2] = length as u8;
        section.extend(crc32(&section).to_be_bytes());
        section
    }

    fn pmt(streams: &[u8]) -> Vec<u8> {
        let mut section = vec![2, 0, 0, 0, 1, 0xc7, 0, 0, 0xe1, 0x00, 0xf0, 6, 5, 4, b'C', b'U', b'E', b'I'];
        section.extend(streams);
        sealed(section)
    }

    #[test]
    fn a_pat_lists_programmes_and_not_the_network() {
        let section = sealed(vec![0, 0, 0, 0x12, 0x34, 0xc3, 0, 0, 0, 0, 0xe0, 0x10, 0, 7, 0xf0, 0x00]);
        let pat = PatSection::judge(&section).unwrap();
        assert_eq!((pat.header.extension, pat.header.version, pat.header.current), (0x1234, 1, true));
        assert_eq!(pat.entries().collect::<Vec<_>>(), [PatEntry { number: 7, pmt_pid: 0x1000 }]);
    }

    #[test]
    fn a_pmt_lists_streams_with_their_descriptors() {
        let section = pmt(&[0x1b, 0xe1, 0x00, 0xf0, 0, 0x0f, 0xe1, 0x01, 0xf0, 6, 0x0a, 4, b'd', b'e', b'u', 0]);
        let pmt = PmtSection::judge(&section).unwrap();
        assert_eq!((pmt.pcr_pid, pmt.header.version), (0x100, 3));
        assert_eq!(pmt.descriptors.registration(), Some(*b"CUEI"));
        let entries: Vec<_> = pmt.entries().collect();
        assert_eq!((entries[0].stream_type, entries[0].pid), (0x1b, 0x100));
        assert_eq!((entries[1].stream_type, entries[1].pid), (0x0f, 0x101));
        assert_eq!(entries[1].descriptors.language(), Some(*b"deu"));
    }

    #[test]
    fn a_table_whose_lengths_do_not_add_up_is_refused_whole() {
        let refused = |streams: &[u8]| PmtSection::judge(&pmt(streams)).map(|_| ()).unwrap_err();
        assert_eq!(refused(&[0x1b, 0xe1, 0x00, 0xf0]), TableError::Length);
        assert_eq!(refused(&[0x1b, 0xe1, 0x00, 0xf0, 1]), TableError::Length);
        let mut wrong = pmt(&[]);
        wrong[4] ^= 1;
        assert_eq!(PmtSection::judge(&wrong).map(|_| ()), Err(TableError::Crc));
        let other = sealed(vec![0x42, 0, 0, 0, 1, 0xc1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(PmtSection::judge(&other).map(|_| ()), Err(TableError::TableId));
        let beyond = sealed(vec![0, 0, 0, 0, 1, 0xc1, 2, 1]);
        assert_eq!(PatSection::judge(&beyond).map(|_| ()), Err(TableError::Length));
    }

    #[test]
    fn private_data_is_told_apart_by_descriptors() {
        let codec = |descriptors: &[u8]| super::codec(0x06, None, Descriptors(descriptors));
        assert_eq!(codec(b"\x05\x04Opus\x7f\x02\x80\x02"), Codec::Opus);
        assert_eq!(Descriptors(b"\x05\x04Opus\x7f\x02\x80\x02").opus_channel_config(), Some(2));
        assert_eq!(codec(b"\x05\x04KLVA"), Codec::Klv);
        assert_eq!(codec(b"\x05\x04BSSD"), Codec::Smpte302m);
        assert_eq!(codec(b"\x05\x04HEVC"), Codec::Hevc);
        assert_eq!(codec(b"\x52\x01\x09\x6a\x01\x00"), Codec::Ac3);
        assert_eq!(codec(b"\x7a\x01\x00"), Codec::Eac3);
        assert_eq!(codec(b"\x56\x05eng\x0a\x88"), Codec::Teletext);
        assert_eq!(codec(b"\x59\x08eng\x10\x00\x01\x00\x02"), Codec::DvbSubtitle);
        assert_eq!(codec(b""), Codec::PrivateData(0x06));
        assert_eq!(codec(b"\x6a\xff"), Codec::PrivateData(0x06), "a descriptor cut short is none");
    }

    #[test]
    fn stream_type_0x86_is_splice_information_except_on_discs() {
        assert_eq!(codec(0x86, None, Descriptors(&[])), Codec::Scte35);
        assert_eq!(codec(0x86, Some(*b"HDMV"), Descriptors(&[])), Codec::PrivateData(0x86));
        assert_eq!(carriage(0x86, Codec::Scte35), Carriage::Sections);
        assert_eq!(carriage(0x05, Codec::PrivateData(0x05)), Carriage::Sections);
        assert_eq!(carriage(0x1b, Codec::H264), Carriage::Pes);
    }

    #[test]
    fn services_of_teletext_and_subtitles_are_read() {
        let descriptors = Descriptors(b"\x56\x05eng\x11\x88");
        assert_eq!(descriptors.teletext(), Some(Teletext { kind: 2, magazine: 1, page: 0x88 }));
        assert_eq!(descriptors.language(), Some(*b"eng"));
        let descriptors = Descriptors(b"\x52\x01\x2a\x59\x08fra\x10\x00\x01\x00\x02");
        assert_eq!(descriptors.subtitling(), Some(Subtitling { kind: 0x10, composition_page: 1, ancillary_page: 2 }));
        assert_eq!((descriptors.component_tag(), descriptors.language()), (Some(0x2a), Some(*b"fra")));
    }
}
