//! RTP (RFC 3550) as a receiver sees it, and media on bare UDP.
//!
//! - [`packet`]: the fixed header, judged once; what kind of datagram this is; the header written for a sender
//! - [`source`]: **the machine** of one stream: validation, loss, jitter, restarts, reports
//! - [`probation`]: packets of a source that has yet to prove itself, held until it does
//! - [`sequence`]: sequence numbers judged (RFC 3550 A.1, A.3) and jitter (A.8)
//! - [`reorder`]: the bounded reorder buffer
//! - [`rtcp`]: control packets read, receiver reports written and timed
//! - [`payload_type`]: what the numbers from 0 to 127 stand for
//! - [`sdp`]: session descriptions, for configured streams and multicast
//! - [`raw_ts`]: MPEG-TS on UDP with no RTP header

pub mod packet;
pub mod payload_type;
pub mod probation;
pub mod raw_ts;
pub mod reorder;
pub mod rtcp;
pub mod sdp;
pub mod sequence;
pub mod source;

#[doc(hidden)]
pub mod fuzzing;

pub use packet::{DatagramKind, HeaderError, RtpHeader, classify, ssrc_of};
pub use payload_type::{Encoding, PayloadFormat, PayloadTypes};
pub use source::{RestartReason, RtpPayload, Source, SourceEvent, SourceOptions, SourceStatistics};
