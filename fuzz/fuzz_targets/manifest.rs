//! See `manifest` in `rbees_workerd::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbees_workerd::fuzzing::manifest(bytes));
