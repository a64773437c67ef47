//! Words for the devices that compute. It never names a device that the fact does not name.

use super::Teller;
use crate::contract::rbees::narration::facts::{Accelerator, Cpu};

pub(super) fn cpu_ready<'t>(t: &'t mut Teller, f: &Cpu) -> &'t mut Teller {
    t.human(|l| {
        l.say("The CPU is ready: ").many(f.threads, "thread", "threads");
        l.say(" with ").name(&f.instruction_set).say(".")
    })
    .cute(|l| {
        l.many(f.threads, "worker bee lines", "worker bees line");
        l.say(" up on the comb, wings oiled and humming in ").name(&f.instruction_set).say(" 🐝")
    })
}

pub(super) fn cuda_ready<'t>(t: &'t mut Teller, f: &Accelerator) -> &'t mut Teller {
    t.human(|l| {
        l.say("CUDA device ").count(f.ordinal).say(" is ready: ").name(&f.name);
        l.say(" with ").bytes(f.memory_bytes).say(" of memory.")
    })
    .cute(|l| {
        l.say("A wide sunny meadow opens up: ").name(&f.name);
        l.say(", with room for ").bytes(f.memory_bytes).say(" of nectar 🌻")
    })
}

pub(super) fn metal_ready<'t>(t: &'t mut Teller, f: &Accelerator) -> &'t mut Teller {
    t.human(|l| {
        l.say("Metal device ").count(f.ordinal).say(" is ready: ").name(&f.name);
        l.say(" with ").bytes(f.memory_bytes).say(" of memory.")
    })
    .cute(|l| {
        l.say("An orchard stands in silver bloom: ").name(&f.name);
        l.say(" spreads ").bytes(f.memory_bytes).say(" of blossom to land on 🌸")
    })
}
