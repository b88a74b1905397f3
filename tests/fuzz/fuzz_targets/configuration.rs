#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::config::fuzzing::fuzz_configuration(data));
