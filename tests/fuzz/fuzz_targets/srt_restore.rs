#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::protocol::srt::fuzzing::restore::fuzz_restore(data));
