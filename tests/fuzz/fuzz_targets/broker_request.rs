#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks_frame_ring::fuzzing::fuzz_broker_request(data));
