#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::codec::h264::fuzzing::fuzz_h264(data));
