#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::protocol::srt::connection::fuzzing::fuzz_buffer_mode(data));
