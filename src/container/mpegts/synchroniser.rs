//! Bytes → transport packets: finds packet boundaries and keeps to them, however the bytes are cut.
//!
//! What comes out does not depend on how the bytes were cut into inputs: a candidate is decided on the same bytes always.

use super::packet::{PACKET_LEN, SYNC_BYTE};

/// Distances at which sync bytes are looked for: plain, with a 4-byte time code before each packet (M2TS), with
/// 16 bytes of Reed-Solomon parity after it (DVB).
const STRIDES: [usize; 3] = [188, 192, 204];
/// Sync bytes that must follow the first one at the same distance.
const CONFIRMATIONS: usize = 3;
/// Room for what must be seen at once: a candidate and its confirmations, and some more so that bytes seldom move.
const WINDOW_LEN: usize = 1024;

/// Where packets start in the sequence of bytes.
#[derive(Debug)]
pub(super) struct Synchroniser {
    /// Bytes kept back: a packet's first part, or what is being searched.
    window: Box<[u8; WINDOW_LEN]>,
    start: usize,
    end: usize,
    /// Distance of packets; `None` while it is being looked for.
    stride: Option<usize>,
    /// Bytes between the last packet and the next.
    to_skip: usize,
    pub(super) skipped_bytes: u64,
    pub(super) losses: u64,
}

/// How a search went.
enum Search {
    Found(usize),
    NeedMore,
}

impl Synchroniser {
    pub(super) fn new() -> Self {
        Self {
            window: Box::new([0; WINDOW_LEN]),
            start: 0,
            end: 0,
            stride: None,
            to_skip: 0,
            skipped_bytes: 0,
            losses: 0,
        }
    }

    /// The next byte of input is expected to be a packet's first, and nothing lies between packets: whole packets may be
    /// taken off the input without asking.
    pub(super) fn is_bypassable(&self) -> bool {
        self.stride == Some(PACKET_LEN) && self.start == self.end
    }

    /// Distance of packets in bytes, when known.
    pub(super) fn stride(&self) -> Option<usize> {
        self.stride
    }

    /// The next packet off the front of the input; `None` when there is no whole one (and then all input is taken).
    pub(super) fn take<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<&'s [u8; PACKET_LEN]> {
        loop {
            let Some(stride) = self.stride else {
                self.fill(input, WINDOW_LEN);
                match self.search() {
                    Search::Found(stride) => self.stride = Some(stride),
                    Search::NeedMore if input.is_empty() => return None,
                    Search::NeedMore => {}
                }
                continue;
            };
            if !self.skip_to_packet(input) {
                return None;
            }
            let first = if self.start < self.end { self.window[self.start] } else { *input.first()? };
            if first != SYNC_BYTE {
                self.losses += 1;
                self.stride = None;
                continue;
            }
            if self.start == self.end {
                let bytes: &'i [u8] = input;
                if let Some((packet, rest)) = bytes.split_first_chunk::<PACKET_LEN>() {
                    *input = rest;
                    self.to_skip = stride - PACKET_LEN;
                    return Some(packet);
                }
            }
            self.fill(input, PACKET_LEN);
            if self.end - self.start < PACKET_LEN {
                return None;
            }
            let at = self.start;
            self.start += PACKET_LEN;
            self.to_skip = stride - PACKET_LEN;
            return self.window[at..].first_chunk();
        }
    }

    /// Bytes are missing before the next input. A packet that was cut stays cut, and where the next one starts is
    /// unknown then; packets that lie whole in their datagrams go on as before.
    pub(super) fn gap(&mut self) {
        if self.start < self.end {
            self.skipped_bytes += (self.end - self.start) as u64;
            (self.start, self.end) = (0, 0);
            if self.stride.take().is_some() {
                self.losses += 1;
            }
        }
    }

    /// Passes over what lies between packets; `false` when the input ended first.
    fn skip_to_packet(&mut self, input: &mut &[u8]) -> bool {
        if self.to_skip > 0 {
            let kept = self.to_skip.min(self.end - self.start);
            self.start += kept;
            self.to_skip -= kept;
            let fresh = self.to_skip.min(input.len());
            *input = &input[fresh..];
            self.to_skip -= fresh;
        }
        self.to_skip == 0
    }

    /// Takes input until the window holds `want` bytes.
    fn fill(&mut self, input: &mut &[u8], want: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + want > WINDOW_LEN {
            self.window.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let take = want.saturating_sub(self.end - self.start).min(input.len());
        let (taken, rest) = input.split_at(take);
        self.window[self.end..self.end + take].copy_from_slice(taken);
        self.end += take;
        *input = rest;
    }

    /// Tries candidates one after the other; bytes before the one being tried are given up.
    fn search(&mut self) -> Search {
        loop {
            let bytes = &self.window[self.start..self.end];
            let Some(candidate) = memchr::memchr(SYNC_BYTE, bytes) else {
                self.skipped_bytes += bytes.len() as u64;
                self.start = self.end;
                return Search::NeedMore;
            };
            self.start += candidate;
            self.skipped_bytes += candidate as u64;
            let bytes = &bytes[candidate..];
            for stride in STRIDES {
                let mut confirmations = (1..=CONFIRMATIONS).map(|count| bytes.get(count * stride));
                match confirmations.find(|byte| *byte != Some(&SYNC_BYTE)) {
                    None => {
                        self.to_skip = 0;
                        return Search::Found(stride);
                    }
                    Some(None) => return Search::NeedMore,
                    Some(Some(_)) => {}
                }
            }
            self.start += 1;
            self.skipped_bytes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stride: usize, before: usize, count: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..count {
            bytes.extend(std::iter::repeat_n(0x11, before));
            bytes.push(SYNC_BYTE);
            bytes.extend(std::iter::repeat_n(number, PACKET_LEN - 1));
            bytes.extend(std::iter::repeat_n(0x22, stride - before - PACKET_LEN));
        }
        bytes
    }

    /// Second byte of each packet that comes out when the bytes come in pieces of `cut`.
    fn numbers(synchroniser: &mut Synchroniser, bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut numbers = Vec::new();
        for mut piece in bytes.chunks(cut) {
            while let Some(packet) = synchroniser.take(&mut piece) {
                assert_eq!(packet[0], SYNC_BYTE);
                numbers.push(packet[1]);
            }
            assert!(piece.is_empty());
        }
        numbers
    }

    #[test]
    fn packets_come_whole_from_pieces_of_any_size() {
        for cut in [1, 7, 187, 188, 189, 1316, 10_000] {
            for (stride, before) in [(188, 0), (192, 4), (204, 0)] {
                let mut synchroniser = Synchroniser::new();
                let found = numbers(&mut synchroniser, &stream(stride, before, 30), cut);
                assert_eq!(found, (0..30).collect::<Vec<_>>(), "stride {stride}, cut {cut}");
                assert_eq!(synchroniser.stride(), Some(stride));
                assert_eq!(synchroniser.skipped_bytes, before as u64);
                assert_eq!(synchroniser.losses, 0);
            }
        }
    }

    #[test]
    fn three_sync_bytes_are_too_few_to_begin_with() {
        let mut synchroniser = Synchroniser::new();
        assert_eq!(numbers(&mut synchroniser, &stream(188, 0, 3), 188), [0; 0]);
        assert_eq!(numbers(&mut synchroniser, &stream(188, 0, 1), 188), [0, 1, 2, 0]);
    }

    #[test]
    fn rubbish_before_between_and_inside_is_passed_over_and_counted() {
        for cut in [1, 188, 1316, 100_000] {
            let mut bytes = vec![SYNC_BYTE, 9, 9, SYNC_BYTE, 9];
            bytes.extend(stream(188, 0, 6));
            bytes.extend([SYNC_BYTE - 1; 300]);
            bytes.extend(stream(188, 0, 6));
            let mut synchroniser = Synchroniser::new();
            let found = numbers(&mut synchroniser, &bytes, cut);
            assert_eq!(found, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
            assert_eq!(synchroniser.skipped_bytes, 305);
            assert_eq!(synchroniser.losses, 1);
        }
    }

    #[test]
    fn one_damaged_sync_byte_costs_one_packet() {
        for cut in [1, 188, 1316, 100_000] {
            let mut bytes = stream(188, 0, 12);
            bytes[4 * 188] ^= 0x40;
            let mut synchroniser = Synchroniser::new();
            let found = numbers(&mut synchroniser, &bytes, cut);
            assert_eq!(found, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
            assert_eq!(synchroniser.skipped_bytes, 188);
        }
    }

    #[test]
    fn a_gap_inside_a_packet_gives_it_up_and_one_between_packets_costs_nothing() {
        let mut synchroniser = Synchroniser::new();
        assert_eq!(numbers(&mut synchroniser, &stream(188, 0, 5), 188).len(), 5);
        synchroniser.gap();
        assert_eq!(numbers(&mut synchroniser, &stream(188, 0, 2), 188), [0, 1]);
        assert_eq!(numbers(&mut synchroniser, &[SYNC_BYTE, 1, 2, 3], 188), [0; 0]);
        synchroniser.gap();
        assert_eq!((synchroniser.skipped_bytes, synchroniser.losses), (4, 1));
        assert_eq!(numbers(&mut synchroniser, &stream(188, 0, 4), 188), [0, 1, 2, 3]);
    }

    #[test]
    fn a_search_over_endless_rubbish_stays_within_its_window() {
        let mut synchroniser = Synchroniser::new();
        let rubbish: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let found = numbers(&mut synchroniser, &rubbish, 999);
        assert_eq!(found, [0; 0]);
        assert!(synchroniser.skipped_bytes > 98_000);
    }
}
