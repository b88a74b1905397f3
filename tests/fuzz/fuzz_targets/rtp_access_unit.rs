#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::codec::rtp_payload::fuzzing::fuzz_rtp_access_unit(data));
