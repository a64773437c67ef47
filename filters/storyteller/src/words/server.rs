//! Words for the worker's own life: start, door, health and rest. It never makes a failure sound like
//! a success.

use super::Teller;
use crate::contract::rbees::narration::facts::{
    BindFailed, HealthChecked, ServerBound, ServerShutdown, ServerStarted, ShutdownCause, Startup,
    WorkerState,
};

pub(super) fn startup<'t>(t: &'t mut Teller, f: &Startup) -> &'t mut Teller {
    t.human(|l| {
        l.say("rbees-workerd ").name(&f.version).say(" starts (pid ").count(f.pid).say("): ");
        l.name(&f.model).say(" on ").name(&f.address).say(".")
    })
    .cute(|l| {
        l.say("The hive stirs: rbees ").name(&f.version);
        l.say(" stretches its wings in the first light and looks for its honey 🐝")
    })
}

pub(super) fn started<'t>(t: &'t mut Teller, f: &ServerStarted) -> &'t mut Teller {
    t.human(|l| l.say("The HTTP server starts on ").name(&f.address).say("."))
        .cute(|l| l.say("The bees clear a little doorway and sweep the landing board clean 🧹"))
}

pub(super) fn bound<'t>(t: &'t mut Teller, f: &ServerBound) -> &'t mut Teller {
    t.human(|l| l.say("The HTTP server listens on ").name(&f.address).say(".")).cute(|l| {
        l.say("The doorway at ").name(&f.address);
        l.say(" stands open, and the landing board lies in the sun 🌞")
    })
}

pub(super) fn bind_failed<'t>(t: &'t mut Teller, f: &BindFailed) -> &'t mut Teller {
    t.human(|l| l.say("Could not listen on ").name(&f.address).say(": ").reason(&f.reason).say("."))
        .cute(|l| {
            l.say("The doorway at ").name(&f.address);
            l.say(" would not open; the swarm stays together and waits for a better branch 🌿")
        })
}

pub(super) fn health_checked<'t>(t: &'t mut Teller, f: &HealthChecked) -> &'t mut Teller {
    let (human, cute, story) = health(f.state);
    t.human(|l| l.say("Asked for its health, the worker says: ").say(human).say("."))
        .cute(|l| l.say(cute))
        .story(|l| {
            l.say("\"How is everyone in there?\" asks http-server. \"").say(story);
            l.say(",\" answers rbees-workerd.")
        })
}

fn health(state: WorkerState) -> (&'static str, &'static str, &'static str) {
    match state {
        WorkerState::Loading => (
            "still loading the model",
            "A guest peeks in while the foragers are still out; the hive asks for a little patience ⏳",
            "Still filling the comb, give us a moment",
        ),
        WorkerState::Ready => (
            "ready for work",
            "A guest peeks in and finds every bee at her place, wings bright and ready 🌻",
            "All at our places, and ready",
        ),
        WorkerState::Draining => (
            "finishing what it has, taking no more",
            "Dusk is near: the door is closed to new guests, and the last ones get their honey in peace 🌙",
            "Seeing off the last guests, then we rest",
        ),
        WorkerState::Stalled => (
            "stalled, and why is not known; its log may tell",
            "The humming has paused and no bee knows why; a kind look under the lid would help 🐌",
            "I lost my rhythm and cannot tell why, please take a look",
        ),
        WorkerState::Failed => (
            "failed and about to end",
            "This hive has given all it could and closes soon; thank you for looking in on it 🥀",
            "I cannot go on, and close the door in a moment",
        ),
    }
}

pub(super) fn shutdown<'t>(t: &'t mut Teller, f: &ServerShutdown) -> &'t mut Teller {
    t.human(|l| {
        l.say("The worker shuts down ").say(cause(f.cause));
        match f.jobs_in_flight {
            0 => l.say("; no request is running."),
            1 => l.say("; 1 request has ").wait(f.grace_ms).say(" to finish."),
            jobs => {
                l.say("; ").count(jobs).say(" requests have ").wait(f.grace_ms).say(" to finish.")
            }
        }
    })
    .cute(|l| match f.jobs_in_flight {
        0 => l.say(
            "Dusk falls on an empty landing board; the hive folds its wings and sleeps well 🌙",
        ),
        jobs => {
            l.say("Dusk falls and the door closes softly; the last ");
            l.many(jobs, "forager has ", "foragers have ").wait(f.grace_ms);
            l.say(" to come home 🌙")
        }
    });
    match f.jobs_in_flight {
        0 => t,
        jobs => t.story(|l| {
            l.say("\"No more guests tonight,\" calls http-server. \"Then I see to the last ");
            l.count(jobs).say(" with care,\" answers candle-backend.")
        }),
    }
}

fn cause(cause: ShutdownCause) -> &'static str {
    match cause {
        ShutdownCause::Signal => "on a signal",
        ShutdownCause::Request => "on request",
        ShutdownCause::ParentGone => "as its parent is gone",
        ShutdownCause::Failure => "after a failure",
    }
}
