//! MPEG-2 transport streams (ITU-T H.222.0 | ISO/IEC 13818-1), taken apart and put together.
//!
//! [`Demux`] is the way in: bytes of any cut → PES pieces, sections, PCRs. From the outside in:
//!
//! ```text
//! demux.rs         the one entry: the quick path, and what happens to every other packet
//!   run.rs           several packets at one go
//!   event.rs         what comes out
//!   synchroniser.rs  bytes → packets of 188
//!   packet.rs        header and adaptation field
//!   section.rs       sections out of packets, CRC
//!   tables.rs        PAT, PMT and descriptors as they are written
//!   directory.rs     PAT and PMT as they apply: programmes, tracks and their lives
//!   pids.rs          what each PID is for
//!   pes.rs           PES packet header
//! mux.rs           the way out, for readers of rings, synthetic feeds and tests
//! ```

mod demux;
mod directory;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod mux;

mod packet;
mod pes;
mod pids;
mod section;
mod statistics;
mod synchroniser;
mod tables;
#[cfg(test)]
mod tests;

pub use demux::{Demux, Run};
pub use directory::{Limits, Programme, ProgrammeIndex, Track, TrackIndex, TrackKey};
pub use event::{DiscontinuityCause, Event};
pub use mux::{AccessUnit, Mux, MuxConfiguration, MuxError, MuxTrack};
pub use packet::{NULL_PID, PACKET_LEN, SYNC_BYTE};
pub use section::crc32;
pub use statistics::{Statistics, TrackStatistics};
pub use tables::{Carriage, Subtitling, Teletext};
