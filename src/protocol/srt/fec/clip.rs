//! Sums of packets: the XOR of their lengths, their key flags, their time stamps, and of their payloads as if zeros followed each.

use super::super::packet::KeyFlag;
use super::FEC_HEADER_LEN;
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, valid};

/// What of a packet goes into a sum.
#[derive(Clone, Copy, Debug)]
pub struct Clipped<'a> {
    /// Length of its payload, in bytes.
    pub length: u16,
    /// Its key flag.
    pub flags: u8,
    /// Its time stamp, in µs.
    pub timestamp_us: u32,
    /// Its payload as it is on the wire, encrypted and with its tag.
    pub payload: &'a [u8],
}

impl<'a> Clipped<'a> {
    /// A data packet.
    #[inline]
    pub fn data(key: KeyFlag, timestamp_us: u32, payload: &'a [u8]) -> Self {
        Self { length: payload.len() as u16, flags: key.bits() as u8, timestamp_us, payload }
    }

    /// A control packet's body, with the index that it begins with; `None` when it is shorter than its head.
    #[inline]
    pub fn control(timestamp_us: u32, body: &'a [u8]) -> Option<(u8, Self)> {
        let (&[index, flags, high, low], payload) = body.split_first_chunk::<FEC_HEADER_LEN>()?;
        Some((index, Self { length: u16::from_be_bytes([high, low]), flags, timestamp_us, payload }))
    }
}

/// A sum, without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Of the lengths.
    pub length: u16,
    /// Of the key flags.
    pub flags: u8,
    /// Of the time stamps.
    pub timestamp_us: u32,
    /// Length of the longest payload in it: all after that is zero.
    pub longest: u16,
}

/// Sums side by side, their payloads in one piece of memory.
#[derive(Debug)]
pub struct Clips {
    sums: Box<[Sum]>,
    bytes: Box<[u8]>,
    stride: usize,
}

impl Clips {
    /// So many sums, all empty, of payloads of up to `payload_max` bytes.
    pub fn new(count: usize, payload_max: usize) -> Self {
        Self {
            sums: vec![Sum::default(); count].into_boxed_slice(),
            bytes: vec![0; count * payload_max].into_boxed_slice(),
            stride: payload_max,
        }
    }

    /// The longest payload that goes into a sum.
    #[inline]
    pub fn payload_max(&self) -> usize {
        self.stride
    }

    /// Empties a sum.
    #[inline]
    pub fn reset(&mut self, at: usize) {
        let longest = usize::from(self.sums[at].longest);
        self.bytes[at * self.stride..][..longest].fill(0);
        self.sums[at] = Sum::default();
    }

    /// Adds a packet, or takes it away, which is the same.
    ///
    /// # Panics
    /// If it is longer than [`payload_max`](Self::payload_max).
    #[inline]
    pub fn add(&mut self, at: usize, packet: Clipped<'_>) {
        let sum = &mut self.sums[at];
        sum.length ^= packet.length;
        sum.flags ^= packet.flags;
        sum.timestamp_us ^= packet.timestamp_us;
        sum.longest = sum.longest.max(packet.payload.len() as u16);
        let room = &mut self.bytes[at * self.stride..][..self.stride];
        assert!(packet.payload.len() <= room.len(), "a payload that does not fit a datagram");
        for (sum, byte) in room.iter_mut().zip(packet.payload) {
            *sum ^= byte;
        }
    }

    pub(super) fn snapshot(&self, at: usize, to: &mut SnapshotWriter<'_>) {
        let (Sum { length, flags, timestamp_us, longest: _ }, payload) = self.get(at);
        to.u16(length);
        to.u8(flags);
        to.u32(timestamp_us);
        to.bytes(payload);
    }

    /// Reads one that is still empty.
    pub(super) fn restore(&mut self, at: usize, from: &mut SnapshotReader<'_>) -> Result<(), RestoreError> {
        let (length, flags, timestamp_us, payload) = (from.u16()?, from.u8()?, from.u32()?, from.bytes()?);
        valid(payload.len() <= self.stride)?;
        self.add(at, Clipped { length, flags, timestamp_us, payload });
        Ok(())
    }

    /// A sum and its payload, as long as the longest in it.
    #[inline]
    pub fn get(&self, at: usize) -> (Sum, &[u8]) {
        let sum = self.sums[at];
        (sum, &self.bytes[at * self.stride..][..usize::from(sum.longest)])
    }
}
