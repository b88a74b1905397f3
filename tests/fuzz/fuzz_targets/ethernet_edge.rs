#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks_ethernet::fuzzing::fuzz_edge(data));
