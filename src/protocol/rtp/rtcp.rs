//! RTCP: what senders report is read, what a receiver reports is written and timed (RFC 3550 §6).

use std::time::Duration;

use thiserror::Error;

use super::sequence::LossReport;
use crate::base::Instant;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
/// The SDES item CNAME (RFC 3550 §6.5.1).
const CANONICAL_NAME: u8 = 1;

/// One thing said in an RTCP compound packet. What is of no use here (feedback, extended reports, APP) is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlItem<'a> {
    /// A sender tells how its media clock stands to wall-clock time.
    SenderReport(SenderReport),
    /// The canonical name of a source: what its tracks have in common (§6.5.1).
    CanonicalName {
        /// Whose.
        ssrc: u32,
        /// The name, meant to be UTF-8.
        name: &'a [u8],
    },
    /// A source leaves (§6.6).
    Bye {
        /// Which.
        ssrc: u32,
    },
}

/// The sender's part of a sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose report.
    pub ssrc: u32,
    /// Wall-clock time, NTP format: seconds since 1900 and 2^-32 fractions.
    pub ntp_timestamp: u64,
    /// The same moment on the media clock.
    pub rtp_timestamp: u32,
    /// Packets sent so far.
    pub packet_count: u32,
    /// Payload octets sent so far.
    pub octet_count: u32,
}

/// Why a datagram is no RTCP compound packet (RFC 3550 A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The lengths of its packets do not add up to the datagram's.
    #[error("RTCP packets do not fill the datagram")]
    Length,
    /// A packet is not of version 2.
    #[error("RTCP version {0}, not 2")]
    Version(u8),
    /// A packet that is not the last one is padded.
    #[error("RTCP padding before the last packet")]
    Padding,
    /// The first packet is none of RTCP.
    #[error("RTCP packet type {0}")]
    PacketType(u8),
}

/// Judges a datagram as an RTCP compound packet and gives what it says.
///
/// Reduced-size packets (RFC 5506), which do not begin with a report, are taken as well.
///
/// # Errors
///
/// What makes it no compound packet; then nothing in it is believed.
pub fn parse(datagram: &[u8]) -> Result<ControlItems<'_>, ControlError> {
    let mut rest = datagram;
    while !rest.is_empty() || datagram.is_empty() {
        let Some((header, _)) = rest.split_first_chunk::<4>() else { return Err(ControlError::Length) };
        if header[0] >> 6 != 2 {
            return Err(ControlError::Version(header[0] >> 6));
        }
        if !(192..=223).contains(&header[1]) {
            return Err(ControlError::PacketType(header[1]));
        }
        let len = packet_len(header);
        rest = rest.get(len..).ok_or(ControlError::Length)?;
        if header[0] & 0x20 != 0 && !rest.is_empty() {
            return Err(ControlError::Padding);
        }
    }
    Ok(ControlItems { packets: datagram, inside: Inside::Nothing })
}

fn packet_len(header: &[u8; 4]) -> usize {
    4 * (1 + usize::from(u16::from_be_bytes([header[2], header[3]])))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let octets = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
}

/// What a compound packet says, one thing after the other.
#[derive(Clone, Debug)]
pub struct ControlItems<'a> {
    packets: &'a [u8],
    inside: Inside<'a>,
}

#[derive(Clone, Debug)]
enum Inside<'a> {
    Nothing,
    /// Chunks left in a source description.
    SourceDescription {
        rest: &'a [u8],
        chunks: u8,
    },
    /// Sources left in a BYE.
    Bye {
        rest: &'a [u8],
        sources: u8,
    },
}

impl<'a> Iterator for ControlItems<'a> {
    type Item = ControlItem<'a>;

    fn next(&mut self) -> Option<ControlItem<'a>> {
        loop {
            match &mut self.inside {
                Inside::Nothing => {}
                Inside::SourceDescription { rest, chunks } => {
                    while *chunks > 0 {
                        *chunks -= 1;
                        let Some(chunk) = take_chunk(rest) else {
                            *chunks = 0;
                            break;
                        };
                        if let (ssrc, Some(name)) = chunk {
                            return Some(ControlItem::CanonicalName { ssrc, name });
                        }
                    }
                }
                Inside::Bye { rest, sources } => {
                    if *sources > 0
                        && let Some(ssrc) = word(rest, 0)
                    {
                        *sources -= 1;
                        *rest = &rest[4..];
                        return Some(ControlItem::Bye { ssrc });
                    }
                }
            }
            self.inside = Inside::Nothing;
            let (header, _) = self.packets.split_first_chunk::<4>()?;
            let (packet, rest) = self.packets.split_at(packet_len(header));
            self.packets = rest;
            let body = &packet[4..];
            let count = header[0] & 0x1f;
            match header[1] {
                SENDER_REPORT if body.len() >= 24 => {
                    let field = |at| word(body, at).expect("the body has 24 octets");
                    return Some(ControlItem::SenderReport(SenderReport {
                        ssrc: field(0),
                        ntp_timestamp: u64::from(field(4)) << 32 | u64::from(field(8)),
                        rtp_timestamp: field(12),
                        packet_count: field(16),
                        octet_count: field(20),
                    }));
                }
                SOURCE_DESCRIPTION => self.inside = Inside::SourceDescription { rest: body, chunks: count },
                BYE => self.inside = Inside::Bye { rest: body, sources: count },
                _ => {}
            }
        }
    }
}

/// Takes one chunk off a source description: whose it is, and its canonical name.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let chunk = *rest;
    let ssrc = word(chunk, 0)?;
    let mut name = None;
    let mut at = 4;
    loop {
        match *chunk.get(at)? {
            0 => break,
            item => {
                let len = usize::from(*chunk.get(at + 1)?);
                let value = chunk.get(at + 2..at + 2 + len)?;
                if item == CANONICAL_NAME && name.is_none() {
                    name = Some(value);
                }
                at += 2 + len;
            }
        }
    }
    // At least one zero ends the list, more fill it up to four octets (§6.5).
    *rest = chunk.get((at + 1).next_multiple_of(4)..)?;
    Some((ssrc, name))
}

/// What a receiver says about one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// About whom.
    pub ssrc: u32,
    /// Losses.
    pub loss: LossReport,
    /// Jitter, in ticks.
    pub jitter_ticks: u32,
    /// The middle 32 bits of the last sender report's NTP time stamp, 0 without one.
    pub last_sender_report: u32,
    /// Time from that report's arrival to now, in 65,536ths of a second.
    pub delay_since_last_sender_report: u32,
}

/// Appends a receiver report, the canonical name and, at the end, a BYE to `buffer`, as one compound packet.
/// Gives the number of octets.
pub fn write_receiver_report(
    buffer: &mut Vec<u8>,
    ssrc: u32,
    block: Option<&ReportBlock>,
    name: &str,
    bye: bool,
) -> usize {
    let start = buffer.len();
    let word = |buffer: &mut Vec<u8>, value: u32| buffer.extend_from_slice(&value.to_be_bytes());
    let head = |buffer: &mut Vec<u8>, count: u8, packet_type: u8, len: usize| {
        buffer.extend_from_slice(&[0x80 | count, packet_type]);
        buffer.extend_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
    };
    head(buffer, u8::from(block.is_some()), RECEIVER_REPORT, if block.is_some() { 32 } else { 8 });
    word(buffer, ssrc);
    if let Some(block) = block {
        word(buffer, block.ssrc);
        word(buffer, u32::from(block.loss.fraction_lost) << 24 | block.loss.cumulative_lost as u32 & 0xff_ffff);
        word(buffer, block.loss.extended_highest_sequence);
        word(buffer, block.jitter_ticks);
        word(buffer, block.last_sender_report);
        word(buffer, block.delay_since_last_sender_report);
    }
    // An SDES item has one octet for its length.
    let name = &name.as_bytes()[..name.len().min(255)];
    let end = (4 + 4 + 2 + name.len() + 1).next_multiple_of(4);
    head(buffer, 1, SOURCE_DESCRIPTION, end);
    word(buffer, ssrc);
    buffer.extend_from_slice(&[CANONICAL_NAME, name.len() as u8]);
    buffer.extend_from_slice(name);
    buffer.resize(buffer.len() + end - (4 + 4 + 2 + name.len()), 0);
    if bye {
        head(buffer, 1, BYE, 8);
        word(buffer, ssrc);
    }
    buffer.len() - start
}

/// Decides when a receiver reports (RFC 3550 §6.2, §6.3).
///
/// The session is taken to have one sender and `receivers` receivers. Members that come and go are not followed one by one:
/// with a handful of them the interval is the least one anyway.
#[derive(Clone, Debug)]
pub struct ReportTimer {
    /// State of the generator that spreads the reports, from the random number given at construction.
    random: u64,
    bandwidth_octets_per_s: f64,
    receivers: u32,
    average_len: f64,
    reported: bool,
    last: Instant,
    next: Instant,
}

/// Least interval between two reports (§6.2), halved before the first.
const LEAST_INTERVAL_S: f64 = 5.0;
/// Octets of IPv4 and UDP headers, which count as RTCP bandwidth (§6.2).
const LOWER_HEADERS_LEN: usize = 28;

impl ReportTimer {
    /// A timer for a session of `session_bandwidth_bps`, 5 % of which RTCP may use; `random` spreads the reports of
    /// receivers that start together.
    pub fn new(now: Instant, session_bandwidth_bps: u64, receivers: u32, random: u64) -> Self {
        let mut timer = Self {
            random,
            bandwidth_octets_per_s: (session_bandwidth_bps.max(1_000) as f64) / 8.0 * 0.05,
            receivers: receivers.max(1),
            average_len: 100.0,
            reported: false,
            last: now,
            next: now,
        };
        timer.next = now + timer.interval();
        timer
    }

    /// When to call [`is_due`](Self::is_due) again.
    pub fn next_timeout(&self) -> Instant {
        self.next
    }

    /// Whether to report now. The interval is drawn anew first, and the report put off when it has become longer
    /// (reconsideration, §6.3.6).
    pub fn is_due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let next = self.last + self.interval();
        if next > now {
            self.next = next;
            return false;
        }
        true
    }

    /// A report of `len` octets has been sent.
    pub fn sent(&mut self, now: Instant, len: usize) {
        self.average_len += ((len + LOWER_HEADERS_LEN) as f64 - self.average_len) / 16.0;
        self.reported = true;
        self.last = now;
        self.next = now + self.interval();
    }

    /// §6.3.1, for a receiver.
    fn interval(&mut self) -> Duration {
        let least = if self.reported { LEAST_INTERVAL_S } else { LEAST_INTERVAL_S / 2.0 };
        let members = f64::from(self.receivers) + 1.0;
        // While senders are at most a quarter of the members, the receivers share three quarters of the bandwidth.
        let share = if 4.0 <= members { f64::from(self.receivers) / 0.75 } else { members };
        let fair = share * self.average_len / self.bandwidth_octets_per_s;
        let spread = 0.5 + self.draw();
        // Makes up for what reconsideration shortens: e - 3/2.
        Duration::from_secs_f64(fair.max(least).min(3_600.0) * spread / 1.218_28)
    }

    /// The next number in 0 … 1 of a SplitMix64 sequence.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtcp_types::prelude::*;
    use rtcp_types::{Compound, Packet};

    use super::*;

    fn sender_compound() -> Vec<u8> {
        let compound = Compound::builder()
            .add_packet(
                rtcp_types::SenderReport::builder(7)
                    .ntp_timestamp(0x1122_3344_5566_7788)
                    .rtp_timestamp(90_000)
                    .packet_count(10)
                    .octet_count(13_160)
                    .add_report_block(rtcp_types::ReportBlock::builder(9)),
            )
            .add_packet(
                rtcp_types::Sdes::builder()
                    .add_chunk(
                        rtcp_types::SdesChunk::builder(7)
                            .add_item(rtcp_types::SdesItem::builder(rtcp_types::SdesItem::TOOL, "tool"))
                            .add_item(rtcp_types::SdesItem::builder(rtcp_types::SdesItem::CNAME, "cam@studio")),
                    )
                    .add_chunk(rtcp_types::SdesChunk::builder(8)),
            )
            .add_packet(rtcp_types::Bye::builder().add_source(7).add_source(8).reason("over"));
        let mut bytes = vec![0; compound.calculate_size().unwrap()];
        compound.write_into(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_senders_compound_is_read_whole() {
        let bytes = sender_compound();
        let items: Vec<_> = parse(&bytes).unwrap().collect();
        assert_eq!(
            items,
            [
                ControlItem::SenderReport(SenderReport {
                    ssrc: 7,
                    ntp_timestamp: 0x1122_3344_5566_7788,
                    rtp_timestamp: 90_000,
                    packet_count: 10,
                    octet_count: 13_160,
                }),
                ControlItem::CanonicalName { ssrc: 7, name: b"cam@studio" },
                ControlItem::Bye { ssrc: 7 },
                ControlItem::Bye { ssrc: 8 },
            ]
        );
    }

    #[test]
    fn a_compound_that_does_not_add_up_is_not_believed() {
        let mut bytes = sender_compound();
        assert_eq!(parse(&bytes[..bytes.len() - 4]).err(), Some(ControlError::Length));
        assert_eq!(parse(&[]).err(), Some(ControlError::Length));
        bytes[0] |= 0x20;
        assert_eq!(parse(&bytes).err(), Some(ControlError::Padding));
        bytes[0] = 0x40;
        assert_eq!(parse(&bytes).err(), Some(ControlError::Version(1)));
        bytes[..2].copy_from_slice(&[0x80, 33]);
        assert_eq!(parse(&bytes).err(), Some(ControlError::PacketType(33)));
    }

    #[test]
    fn a_written_report_is_read_back_by_the_oracle() {
        let loss = LossReport { fraction_lost: 64, cumulative_lost: -2, extended_highest_sequence: 0x0001_0002 };
        let block = ReportBlock {
            ssrc: 7,
            loss,
            jitter_ticks: 180,
            last_sender_report: 0x3344_5566,
            delay_since_last_sender_report: 65_536,
        };
        for name in ["", "a", "ab", "abc", "headworks@10.0.0.1"] {
            let mut buffer = vec![1, 2, 3];
            let len = write_receiver_report(&mut buffer, 9, Some(&block), name, true);
            let bytes = &buffer[buffer.len() - len..];
            let packets: Vec<_> = Compound::parse(bytes).unwrap().map(Result::unwrap).collect();
            let [Packet::Rr(report), Packet::Sdes(description), Packet::Bye(bye)] = packets.as_slice() else {
                panic!("{packets:?}");
            };
            let read = report.report_blocks().next().unwrap();
            assert_eq!((report.ssrc(), report.n_reports(), read.ssrc()), (9, 1, 7));
            assert_eq!((read.fraction_lost(), read.cumulative_lost()), (64, 0xff_fffe));
            assert_eq!((read.extended_sequence_number(), read.interarrival_jitter()), (0x0001_0002, 180));
            assert_eq!(read.last_sender_report_timestamp(), 0x3344_5566);
            assert_eq!(read.delay_since_last_sender_report_timestamp(), 65_536);
            let chunk = description.chunks().next().unwrap();
            assert_eq!(chunk.items().next().unwrap().value(), name.as_bytes());
            assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [9]);
        }
        let mut buffer = Vec::new();
        write_receiver_report(&mut buffer, 9, None, "x", false);
        assert_eq!(Compound::parse(&buffer).unwrap().map(Result::unwrap).count(), 2);
    }

    #[test]
    fn reports_are_about_five_seconds_apart_and_the_first_comes_sooner() {
        let start = Instant::from_millis(1_000);
        let mut firsts = Vec::new();
        for random in 0..200 {
            let mut timer = ReportTimer::new(start, 50_000_000, 1, random);
            let mut sent = Vec::new();
            let mut now = start;
            while sent.len() < 20 {
                now = timer.next_timeout().max(now);
                if timer.is_due(now) {
                    timer.sent(now, 60);
                    sent.push(now);
                }
            }
            firsts.push(sent[0].saturating_since(start).as_secs_f64());
            for pair in sent.windows(2) {
                let interval = pair[1].saturating_since(pair[0]).as_secs_f64();
                assert!((2.0..6.2).contains(&interval), "{interval}");
            }
        }
        assert!(firsts.iter().all(|first| (1.0..3.1).contains(first)));
        let spread = firsts.iter().cloned().fold(0.0, f64::max) - firsts.iter().cloned().fold(9.0, f64::min);
        assert!(spread > 1.0, "receivers that start together report at different times");
    }

    #[test]
    fn many_receivers_on_a_thin_session_report_seldom() {
        let mut timer = ReportTimer::new(Instant::ZERO, 64_000, 1_000, 1);
        // 1000 / 0.75 × 100 octets over 400 octets/s are 333 s, spread from half to one and a half.
        let interval = timer.interval().as_secs_f64();
        assert!((333.0 * 0.5 / 1.22..333.4 * 1.5 / 1.21).contains(&interval), "{interval}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(items) = parse(&bytes) {
                prop_assert!(items.count() <= bytes.len());
            }
        }

        #[test]
        fn altered_compounds_are_read_to_an_end(at in 0_usize..120, value: u8) {
            let mut bytes = sender_compound();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(items) = parse(&bytes) {
                prop_assert!(items.count() <= bytes.len());
            }
            // What the oracle accepts as a compound, we do too, if it is of RTCP's packet types.
            if let Ok(compound) = Compound::parse(&bytes)
                && let Some(Ok(Packet::Sr(report))) = compound.into_iter().next()
                && parse(&bytes).is_ok()
            {
                let Some(ControlItem::SenderReport(ours)) = parse(&bytes).unwrap().next() else { panic!() };
                prop_assert_eq!(ours.ssrc, report.ssrc());
                prop_assert_eq!(ours.ntp_timestamp, report.ntp_timestamp());
            }
        }
    }
}
