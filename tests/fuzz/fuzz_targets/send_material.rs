#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headworks::cli::send::material::fuzzing::fuzz_material(data));
