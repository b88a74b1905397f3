#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::container::mpegts::fuzzing::fuzz_demux(data));
