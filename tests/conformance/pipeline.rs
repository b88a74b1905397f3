//! One source, from datagrams to frames, in lists instead of rings.

use std::net::SocketAddr;
use std::time::Duration;

use headworks::base::{Datagram, Instant, PacketPool, PoolOptions};
use headworks::media::{RandomAccess, TrackConfiguration, TrackKind};
use headworks::pipeline::frame::{
    self, DiscontinuityCause, FrameSink, FrameTooLarge, SinkIndex, StreamSink, TrackDescription,
};
use headworks::pipeline::ingest::{Ingest, Protocol};
use headworks::protocol::rtp::PayloadTypes;
use headworks::protocol::rtp::raw_ts::{RawOptions, RawTransportStream};

use crate::reference::hashed;
use crate::tap::Frame;

/// The frames of all tracks of a raw transport stream that comes in datagrams of this length, in the order of their publication.
pub fn frames(bytes: &[u8], datagram: usize) -> Vec<Frame> {
    let mut lists = Lists::default();
    write_to(&mut lists, bytes, datagram);
    lists.frames
}

/// Writes the frames of a raw transport stream, and ends its tracks.
pub fn write_to<S: StreamSink>(sink: &mut S, bytes: &[u8], datagram: usize) {
    let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).expect("packet memory");
    let mut ingest = Ingest::new(PayloadTypes::default());
    ingest.attach(Protocol::RawTransport(Box::new(RawTransportStream::new(RawOptions::default()))));
    let mut now = Instant::from_millis(1_000);
    for piece in bytes.chunks(datagram) {
        now += Duration::from_micros(1_316);
        let packet = pool.copy_from(piece).expect("a free slot");
        let peer = SocketAddr::from(([198, 51, 100, 7], 51_000));
        ingest.receive(now, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now });
        ingest.deliver(now, sink);
    }
    ingest.detach(now, sink);
}

#[derive(Default)]
struct Lists {
    tracks: Vec<List>,
    frames: Vec<Frame>,
}

struct List {
    kind: TrackKind,
    name: String,
    open: Vec<u8>,
    count: u64,
}

struct Writer<'a> {
    list: &'a mut List,
    frames: &'a mut Vec<Frame>,
}

impl StreamSink for Lists {
    type Track<'a> = Writer<'a>;

    fn open(&mut self, track: &TrackDescription) -> SinkIndex {
        let kind = track.codec.kind();
        let number = self.tracks.iter().filter(|list| list.kind == kind).count();
        let name = format!("{}{number}", kind.name());
        self.tracks.push(List { kind, name, open: Vec::new(), count: 0 });
        SinkIndex(self.tracks.len() - 1)
    }

    fn is_opening(&self) -> bool {
        false
    }

    fn track(&mut self, index: SinkIndex) -> Writer<'_> {
        Writer { list: &mut self.tracks[index.0], frames: &mut self.frames }
    }

    fn end(&mut self, _: SinkIndex) {}
}

impl FrameSink for Writer<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        self.list.open.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, _: Instant, frame: &frame::Frame) {
        let (len, sha256) = hashed(&std::mem::take(&mut self.list.open));
        let discontinuity = match frame.discontinuity {
            DiscontinuityCause::None => None,
            DiscontinuityCause::Start => Some("start".to_owned()),
            other => Some(format!("{other:?}")),
        };
        let random_access = match frame.info.random_access {
            RandomAccess::None => None,
            RandomAccess::RecoveryPoint { .. } => Some("recovery_point".to_owned()),
            other => Some(format!("{other:?}")),
        };
        self.frames.push(Frame {
            track: self.list.name.clone(),
            seq: self.list.count,
            segment: frame.segment,
            pts: frame.pts,
            dts: frame.dts,
            key: frame.info.is_key(),
            random_access,
            len,
            discontinuity,
            damaged: frame.damage.any(),
            lost: frame.packets_lost,
            lapped: 0,
            sha256,
        });
        self.list.count += 1;
    }

    fn abandon(&mut self) {
        self.list.open.clear();
    }

    fn configure(&mut self, _: &TrackConfiguration) {}
}
