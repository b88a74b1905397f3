#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::codec::hevc::fuzzing::fuzz_hevc(data));
