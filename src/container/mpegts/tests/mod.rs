//! Tests of the demultiplexer as a whole, on crafted packets.

mod build;
mod damage;
mod hostile;
mod pes;
mod roundtrip;
mod tables;
