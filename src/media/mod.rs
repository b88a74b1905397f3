//! Floor 1: the words that protocols, containers and codecs share.

pub mod access_unit;
pub mod payload;
pub mod timestamp;
pub mod track;

pub use access_unit::{AccessUnitInfo, PictureStructure, PictureType, RandomAccess, Timecode};
pub use payload::Payload;
pub use timestamp::Rational;
pub use track::{AudioFormat, Codec, Format, Scan, TrackConfiguration, TrackKind, TransferFunction, VideoFormat};
