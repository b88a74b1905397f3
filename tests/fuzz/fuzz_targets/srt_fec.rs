#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::protocol::srt::fec::fuzzing::fuzz_fec(data));
