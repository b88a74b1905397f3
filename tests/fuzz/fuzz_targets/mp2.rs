#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::codec::fuzzing_audio::fuzz_mp2(data));
