//! See `fuzzing` in the crate `redact`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| redact::fuzzing::redact(bytes));
