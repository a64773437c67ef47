//! Words for loading the model and warming it up. It never shows the folders that a file lies in.

use super::Teller;
use crate::contract::rbees::narration::facts::{
    ModelLoadFailed, ModelLoadProgress, ModelLoadStarted, ModelLoaded, WarmupCompleted,
    WarmupStarted,
};

pub(super) fn load_started<'t>(t: &'t mut Teller, f: &ModelLoadStarted) -> &'t mut Teller {
    t.human(|l| l.say("Loading ").file(&f.path).say(" (").bytes(f.file_bytes).say(")."))
        .cute(|l| {
            l.say("The foragers fly out to a field of ").bytes(f.file_bytes);
            l.say(", baskets empty and hearts light 🌼")
        })
        .story(|l| {
            l.say("\"Would you bring us ").file(&f.path).say("?\" asks rbees-workerd. \"All ");
            l.bytes(f.file_bytes).say(" of it, on my way,\" answers model-loader.")
        })
}

pub(super) fn load_progress<'t>(t: &'t mut Teller, f: &ModelLoadProgress) -> &'t mut Teller {
    t.human(|l| {
        l.say("Loading the model: ").bytes(f.bytes_done).say(" of ").bytes(f.bytes_total);
        l.percent(f.bytes_done, f.bytes_total).say(".")
    })
    .cute(|l| {
        l.say("Basket by basket the foragers come home, ").bytes(f.bytes_done).say(" of ");
        l.bytes(f.bytes_total).say(" already in the comb 🧺")
    })
}

pub(super) fn loaded<'t>(t: &'t mut Teller, f: &ModelLoaded) -> &'t mut Teller {
    t.human(|l| {
        l.say("Loaded ").name(&f.name).say(" (").name(&f.quantization).say(", ");
        l.parameters(f.parameters).say(" parameters, ").bytes(f.resident_bytes).say(") in ");
        l.duration(f.duration_ms).say(".")
    })
    .cute(|l| {
        l.say("The comb glows golden: ").bytes(f.resident_bytes).say(" of honey came home in ");
        l.duration(f.duration_ms).say(", and the queen knows ");
        l.many(f.vocabulary, "word", "words").say(" by heart 🍯")
    })
    .story(|l| {
        l.say("\"Every cell is filled, all ").bytes(f.resident_bytes);
        l.say(" of it,\" reports model-loader. \"Then let us see what it can do,\" answers ");
        l.say("candle-backend.")
    })
}

pub(super) fn load_failed<'t>(t: &'t mut Teller, f: &ModelLoadFailed) -> &'t mut Teller {
    t.human(|l| l.say("Could not load ").file(&f.path).say(": ").reason(&f.reason).say("."))
        .cute(|l| {
            l.say("This flower kept its petals closed today; the foragers come home safe and ");
            l.say("leave a note on what to mend 🌷")
        })
        .story(|l| {
            l.say("\"I could not bring home ")
                .file(&f.path)
                .say(", and I wrote down why,\" admits ");
            l.say("model-loader. \"Thank you for trying,\" answers rbees-workerd.")
        })
}

pub(super) fn warmup_started<'t>(t: &'t mut Teller, f: &WarmupStarted) -> &'t mut Teller {
    t.human(|l| {
        l.say("Warming up with ").tokens(f.tokens).say(", so that the first request need not wait.")
    })
    .cute(|l| {
        l.say("The bees shiver their wings to warm the hive, ");
        l.many(f.tokens, "little beat", "little beats").say(" before the first guest 🔥")
    })
}

pub(super) fn warmup_completed<'t>(t: &'t mut Teller, f: &WarmupCompleted) -> &'t mut Teller {
    t.human(|l| {
        l.say("Warmed up with ").tokens(f.tokens).say(" in ").duration(f.duration_ms).say(".")
    })
    .cute(|l| {
        l.say("Cosy at last: after ").many(f.tokens, "wing beat", "wing beats").say(" in ");
        l.duration(f.duration_ms).say(" the whole hive is warm 🌞")
    })
}
