//! Words for what the worker and its pool manager say to each other. It never puts words in the mouth
//! of a pool manager that did not answer.

use super::Teller;
use crate::contract::rbees::narration::facts::{
    CallbackAttempted, CallbackFailed, HeartbeatFailed, ReadyAnnounced,
};

pub(super) fn ready_announced<'t>(t: &'t mut Teller, f: &ReadyAnnounced) -> &'t mut Teller {
    t.human(|l| l.say("Told the pool manager at ").name(&f.url).say(" that this worker is ready."))
        .cute(|l| l.say("The waggle dance was seen: the beekeeper knows that this hive is open 🐝"))
        .story(|l| {
            l.say("\"The comb is warm, send us work,\" says rbees-workerd. \"You are on my ");
            l.say("list,\" answers pool-manager.")
        })
}

pub(super) fn callback_attempted<'t>(t: &'t mut Teller, f: &CallbackAttempted) -> &'t mut Teller {
    t.human(|l| {
        l.say("Calling the pool manager at ").name(&f.url).say(" (try ").count(f.attempt);
        l.say(", ").bytes(f.memory_bytes).say(").")
    })
    .cute(|l| {
        l.say("Waggle dance number ")
            .count(f.attempt)
            .say(": one bee spells out to the beekeeper ");
        l.say("where ").bytes(f.memory_bytes).say(" of honey lie 🎶")
    })
    .story(|l| {
        l.say("\"Hello out there, we keep ").bytes(f.memory_bytes);
        l.say(" of model warm for you,\" calls rbees-workerd to pool-manager.")
    })
}

pub(super) fn callback_failed<'t>(t: &'t mut Teller, f: &CallbackFailed) -> &'t mut Teller {
    t.human(|l| {
        l.say("Call ").count(f.attempt).say(" to the pool manager failed");
        if let Some(status) = f.status {
            l.say(" (").count(status).say(")");
        }
        l.say(": ").reason(&f.reason);
        match f.retry_in_ms {
            Some(ms) => l.say("; next try in ").wait(ms).say("."),
            None => l.say("; gave up."),
        }
    })
    .cute(|l| match f.retry_in_ms {
        Some(ms) => {
            l.say("The wind blew across waggle dance ").count(f.attempt);
            l.say("; the dancer catches her breath and tries again in ").wait(ms).say(" 🍃")
        }
        None => {
            l.many(f.attempt, "dance", "dances");
            l.say(", and the beekeeper was looking elsewhere; the dancer did her best and sits ");
            l.say("down 🌾")
        }
    });
    match f.status {
        Some(status) => t.story(|l| {
            l.say("\"May we come in?\" asks rbees-workerd. \"").count(status);
            l.say(" is all I can say right now,\" answers pool-manager.")
        }),
        None => t,
    }
}

pub(super) fn heartbeat_failed<'t>(t: &'t mut Teller, f: &HeartbeatFailed) -> &'t mut Teller {
    t.human(|l| {
        l.say("The heartbeat to ").name(&f.url).say(" failed: ").reason(&f.reason);
        l.say(". Work goes on.")
    })
    .cute(|l| {
        l.say("One hum to the beekeeper got lost in the breeze; the bees keep working and hum ");
        l.say("again later 🍃")
    })
}
