//! The appliance as a whole, beside independent senders (libsrt's tools, ffmpeg, GStreamer) and an independent reader of the
//! same bytes (ffprobe). What may differ, and why, is written down in `NORMALISATION.md`.
//!
//! Needs Debian's packages of ffmpeg, srt-tools, GStreamer, iproute2, Python and libavcodec, and the element `headworkssrc`;
//! `tests/run` installs the ones and builds the other.

mod appliance;
mod bad_input;
mod bit_exact;
#[path = "../conformance/bitstream.rs"]
mod bitstream;
mod calling;
mod clip_table;
mod clips;
#[cfg(feature = "dpdk")]
mod dpdk;
#[path = "../conformance/field_coded.rs"]
mod field_coded;
mod filter;
mod gstreamer;
mod headworkssrc;
mod latm;
mod loss;
mod matrix;
mod moves;
mod multicast;
mod operation;
#[path = "../../sys/frame-ring/tests/common/python.rs"]
mod python;
mod readers;
mod reference;
mod relay;
mod senders;
#[path = "../sim/filter.rs"]
mod sim_filter;
mod tap;
mod version4;
mod xdp;
