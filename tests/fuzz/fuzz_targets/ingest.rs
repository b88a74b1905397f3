#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::pipeline::fuzzing::fuzz_ingest(data));
