#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::codec::mpeg2video::fuzzing::fuzz_mpeg2(data));
