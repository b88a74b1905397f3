//! Datagrams without a session at the RTP ports: who might they become?

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{Datagram, Instant};
use crate::protocol::rtp::probation::{Probation, Strangers as Probations};
use crate::protocol::rtp::{DatagramKind, RtpHeader, classify};

/// Sources in probation at one time; a flood of random SSRCs turns over within it.
const PROBATIONS_MAX: usize = 64;
/// Transport packets of a datagram that is taken for a transport stream must all begin so.
const SYNC_BYTE: u8 = 0x47;
/// Length of a transport packet in a datagram, and where in it the sync byte is: plain, with a time code before it (M2TS),
/// with Reed-Solomon parity after it (DVB).
const TRANSPORT_PACKETS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
/// A raw transport stream sends its second datagram within this time.
const RAW_PROOF: Duration = Duration::from_secs(2);
/// Peers that may have sent one datagram of a raw transport stream.
const RAW_MAX: usize = 64;
/// A refused source is not heard again for this long: it goes on sending, and each packet would ask again.
pub const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Refused sources that are remembered.
const REFUSED_MAX: usize = 64;

/// What tells a source at the RTP ports from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKey {
    /// An RTP source on the shared port.
    Rtp {
        /// Its SSRC.
        ssrc: u32,
        /// Its address.
        peer: SocketAddr,
    },
    /// A raw transport stream on the shared port.
    Raw {
        /// Its address.
        peer: SocketAddr,
    },
    /// Whoever sends to the port of a configured stream, by the stream's place in the configuration.
    Configured(usize),
    /// Whom a stream is fetched from, by the stream's place in the configuration.
    Called(usize),
}

impl SourceKey {
    /// Where it sends from, if that is part of what it is.
    pub fn peer(self) -> Option<SocketAddr> {
        match self {
            Self::Rtp { peer, .. } | Self::Raw { peer } => Some(peer),
            Self::Configured(_) | Self::Called(_) => None,
        }
    }
}

impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtp { ssrc, peer } => write!(f, "SSRC {ssrc:08x} at {peer}"),
            Self::Raw { peer } => write!(f, "transport stream at {peer}"),
            Self::Configured(index) => write!(f, "port of stream {index}"),
            Self::Called(index) => write!(f, "peer of stream {index}"),
        }
    }
}

/// What a datagram at an RTP port is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// RTP with this header.
    Rtp(RtpHeader),
    /// RTCP.
    Rtcp,
    /// Whole transport packets.
    Transport,
    /// Neither.
    Unknown,
}

/// Judges a datagram at an RTP port.
#[inline]
pub fn judge(bytes: &[u8]) -> Kind {
    match classify(bytes) {
        DatagramKind::Rtp => RtpHeader::parse(bytes).map_or(Kind::Unknown, Kind::Rtp),
        DatagramKind::Rtcp => Kind::Rtcp,
        DatagramKind::TransportStream if is_whole_packets(bytes) => Kind::Transport,
        _ => Kind::Unknown,
    }
}

/// Stricter than the demultiplexer, which resynchronises: a stranger must look like a transport stream throughout.
fn is_whole_packets(bytes: &[u8]) -> bool {
    TRANSPORT_PACKETS.into_iter().any(|(len, sync)| {
        bytes.len() >= len
            && bytes.len().is_multiple_of(len)
            && bytes.chunks_exact(len).all(|packet| packet[sync] == SYNC_BYTE)
    })
}

/// Sources that have yet to prove themselves.
pub struct Strangers {
    probations: Probations,
    /// First datagrams of raw transport streams.
    raw: Vec<(Instant, Datagram)>,
    /// Who was refused, and until when they are not asked about again.
    refused: VecDeque<(SourceKey, Instant)>,
}

impl Strangers {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            probations: Probations::new(PROBATIONS_MAX),
            raw: Vec::new(),
            refused: VecDeque::with_capacity(REFUSED_MAX),
        }
    }

    /// Takes a packet of an unknown source; gives the source, with what it has sent so far, when it has proved itself.
    pub fn receive(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) -> Option<Probation> {
        let index = self.probations.receive(now, header, datagram)?;
        Some(self.probations.take(index))
    }

    /// Remembers for `long` that a source was refused.
    pub fn refuse(&mut self, now: Instant, key: SourceKey, long: Duration) {
        self.forget_refusals(now);
        if self.refused.len() == REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((key, now + long));
    }

    /// Whether a source was refused a moment ago.
    pub fn has_refused(&self, now: Instant, key: &SourceKey) -> bool {
        self.refused.iter().any(|(refused, until)| refused == key && now < *until)
    }

    /// Takes a datagram of whole transport packets from an unknown peer; gives the one before it when it is the peer's second
    /// within 2 s, which one stray datagram never has.
    pub fn receive_raw(&mut self, now: Instant, datagram: Datagram) -> Option<(Datagram, Datagram)> {
        self.raw.retain(|(arrived, _)| now.saturating_since(*arrived) < RAW_PROOF);
        if let Some(place) = self.raw.iter().position(|(_, first)| first.peer == datagram.peer) {
            return Some((self.raw.swap_remove(place).1, datagram));
        }
        if self.raw.len() < RAW_MAX {
            self.raw.push((now, datagram));
        }
        None
    }

    /// Forgets sources that have fallen silent, and refusals that are old.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forget_refusals(now);
        self.probations.handle_timeout(now);
    }

    fn forget_refusals(&mut self, now: Instant) {
        self.refused.retain(|(_, until)| now < *until);
    }

    /// Packets of sources that never proved themselves.
    pub fn dropped(&self) -> u64 {
        self.probations.dropped()
    }
}

impl Default for Strangers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_source_is_not_asked_about_again_for_a_while() {
        let key = SourceKey::Raw { peer: "10.0.0.1:4000".parse().unwrap() };
        let mut strangers = Strangers::new();
        strangers.refuse(Instant::from_millis(0), key, REFUSED_FOR);
        assert!(strangers.has_refused(Instant::from_millis(4_999), &key));
        assert!(!strangers.has_refused(Instant::from_millis(5_000), &key));
        strangers.handle_timeout(Instant::from_millis(5_000));
        assert!(strangers.refused.is_empty());
    }

    #[test]
    fn a_stranger_is_a_transport_stream_only_if_all_of_it_looks_like_one() {
        for (len, sync) in TRANSPORT_PACKETS {
            let mut bytes = vec![0_u8; 7 * len];
            for packet in bytes.chunks_exact_mut(len) {
                packet[sync] = 0x47;
            }
            assert!(matches!(judge(&bytes), Kind::Transport), "{len}");
            assert!(matches!(judge(&bytes[..len]), Kind::Transport), "{len}");
            assert!(matches!(judge(&bytes[..bytes.len() - 1]), Kind::Unknown), "{len}");
            bytes[3 * len + sync] = 0x46;
            assert!(matches!(judge(&bytes), Kind::Unknown), "{len}");
        }
        assert!(matches!(judge(&[]), Kind::Unknown));
    }
}
