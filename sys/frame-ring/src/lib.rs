//! The frame ring: coded frames in shared memory, one writer, any number of untrusted read-only readers.
//!
//! One ring per track: a `ctl` file (header, hot words, configuration blocks, descriptor slots) and a `data` file (payload
//! bytes, mapped twice back to back so that every frame is one slice). Read in this order:
//!
//! - [`layout`]: every offset, and the header judged once;
//! - [`writer`]: append, commit; the four steps that make a frame visible;
//! - [`reader`]: the checks that make a frame believable;
//! - [`builder`]: making a ring, taking up a ring that a dead process left, putting one in another's place;
//! - [`bell`], [`stream_reader`]: what holds the tracks of one stream together, and who reads them in commit order;
//! - [`wake`]: the futex, and the handle a waker thread needs;
//! - [`descriptor`], [`stream_descriptor`]: what is said about a frame and a stream (`schema/headworks.capnp`);
//! - [`directory`]: names on disk;
//! - [`memory`], [`copy`]: mappings and the racing copy;
//! - [`crash`]: where a writer can be made to die, for the tests.
//!
//! The crate knows nothing of media beyond the words of the descriptor.

#[cfg(not(target_endian = "little"))]
compile_error!("the layout of the ring is little-endian");

pub mod bell;
pub mod builder;
pub mod copy;
pub mod crash;
pub mod descriptor;
pub mod directory;
#[doc(hidden)]
pub mod fuzzing;
pub mod layout;
pub mod memory;
pub mod reader;
pub mod stream_descriptor;
pub mod stream_reader;
pub mod wake;
pub mod writer;

#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, unused_qualifications)]
#[rustfmt::skip]
pub mod headworks_capnp;
