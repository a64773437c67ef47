//! Words for the filters themselves, for what was lost on the way, and for facts that are younger than
//! this filter. It never hides that something went wrong.

use super::Teller;
use crate::contract::rbees::narration::facts::{
    FilterLoaded, FilterQuarantined, FilterRejected, NarrationLost, Other,
};

/// Digits of a digest that are enough to tell files apart.
const DIGEST_CHARS: usize = 12;

pub(super) fn loaded<'t>(t: &'t mut Teller, f: &FilterLoaded) -> &'t mut Teller {
    let digest = f.digest.get(..DIGEST_CHARS).unwrap_or(&f.digest);
    t.human(|l| {
        l.say("Put filter ").name(&f.name).say(" in service in ").duration(f.duration_ms);
        l.say(" (generation ").count(f.generation).say(", ").name(digest).say(").")
    })
    .cute(|l| {
        l.say("A new guard bee takes her place at the gate: welcome, ").name(&f.name);
        l.say(", in watch ").count(f.generation).say(" 🐝")
    })
}

pub(super) fn rejected<'t>(t: &'t mut Teller, f: &FilterRejected) -> &'t mut Teller {
    t.human(|l| {
        l.say("Refused filter ").name(&f.name).say(": ").reason(&f.reason);
        l.say(". What ran before runs on.")
    })
    .cute(|l| {
        l.say("The papers of guard bee ").name(&f.name);
        l.say(" need another look; meanwhile the old watch stays at the gate 🌿")
    })
}

pub(super) fn quarantined<'t>(t: &'t mut Teller, f: &FilterQuarantined) -> &'t mut Teller {
    t.human(|l| {
        l.say("Set filter ").name(&f.name).say(" aside until the next reload after ");
        l.many(f.failures, "failure", "failures").say(": ").reason(&f.reason).say(".")
    })
    .cute(|l| {
        l.say("Guard bee ").name(&f.name).say(" stumbled ").many(f.failures, "time", "times");
        l.say(" in a row and rests in the shade until the next reload 🍃")
    })
}

pub(super) fn narration_lost<'t>(t: &'t mut Teller, f: &NarrationLost) -> &'t mut Teller {
    t.human(|l| {
        l.say("Lost ").many(f.count, "narration", "narrations").say(" on the way to ");
        l.name(&f.sink).say(".")
    })
    .cute(|l| {
        l.say("The wind took ").many(f.count, "little song", "little songs").say(" on the way to ");
        l.name(&f.sink).say("; the hive counted every one of them 🎶")
    })
}

pub(super) fn other<'t>(t: &'t mut Teller, f: &Other) -> &'t mut Teller {
    t.human(|l| {
        l.say("Something new happened: ")
            .name(&f.name)
            .say(". This storyteller has no words for it.")
    })
    .cute(|l| {
        l.say("A flower that this hive has never met: ").name(&f.name);
        l.say(". It has no song yet, and it smells lovely 🌸")
    })
}
