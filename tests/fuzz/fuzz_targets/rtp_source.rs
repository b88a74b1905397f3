#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::protocol::rtp::fuzzing::fuzz_source(data));
