//! Words for one request, from the door to its last token. It never holds a prompt or an output: the
//! facts have only lengths and counts of them.

use super::Teller;
use crate::contract::rbees::narration::facts::{
    CacheReset, CancelledBy, FailureCode, InferenceCancelled, InferenceCompleted, InferenceFailed,
    InferenceStarted, PrefillProgress, PromptTokenized, RequestAccepted, RequestQueued,
    RequestRejected, StopReason, TokensGenerated,
};

pub(super) fn rejected<'t>(t: &'t mut Teller, f: &RequestRejected) -> &'t mut Teller {
    let wrong = f.violations.len();
    let first = f.violations.first();
    t.human(|l| {
        l.say("Refused a request (").count(f.status).say(")");
        if let Some(first) = first {
            l.say(" over ").name(&first.field).say(": ").reason(&first.constraint);
        }
        match wrong {
            0 | 1 => l.say("."),
            _ => l.say(", and ").count(wrong as u64 - 1).say(" more."),
        }
    })
    .cute(|l| match wrong {
        0 => l.say("This flower came a little crooked; straightened up, it is welcome any time 🌷"),
        _ => {
            l.say("This flower came a little crooked: ");
            l.many(wrong as u64, "petal", "petals").say(" to smooth, and the hive is glad of it 🌷")
        }
    });
    match first {
        Some(first) => t.story(|l| {
            l.say("\"Gladly, once ").name(&first.field);
            l.say(" is mended,\" says http-server to the client that asked.")
        }),
        None => t,
    }
}

pub(super) fn accepted<'t>(t: &'t mut Teller, f: &RequestAccepted) -> &'t mut Teller {
    t.human(|l| {
        l.say("Accepted a request on ").name(&f.endpoint).say(" for up to ").tokens(f.max_tokens);
        l.say(".")
    })
    .cute(|l| {
        l.say("A guest lands at the doorway with a basket for up to ");
        l.many(f.max_tokens, "drop", "drops").say(" of honey 🐝")
    })
    .story(|l| {
        l.say("\"A guest at ").name(&f.endpoint).say(", may she have up to ").tokens(f.max_tokens);
        l.say("?\" asks http-server. \"Send her in,\" answers candle-backend.")
    })
}

pub(super) fn queued<'t>(t: &'t mut Teller, f: &RequestQueued) -> &'t mut Teller {
    t.human(|l| {
        l.say("The request waits at place ").count(f.position).say(" in the queue, ");
        l.count(f.ahead).say(" ahead of it.")
    })
    .cute(|l| {
        l.say("The landing board is busy: a sunny spot at place ").count(f.position).say(", with ");
        l.many(f.ahead, "guest", "guests").say(" to be served before 🌼")
    })
    .story(|l| {
        l.say("\"Here is one more,\" says http-server. \"");
        match f.ahead {
            0 => l.say("It is next, I promise"),
            1 => l.say("Right after the one before it"),
            ahead => l.say("After the ").count(ahead).say(" before it, with pleasure"),
        };
        l.say(",\" answers candle-backend.")
    })
}

pub(super) fn prompt_tokenized<'t>(t: &'t mut Teller, f: &PromptTokenized) -> &'t mut Teller {
    t.human(|l| {
        l.say("Cut the prompt into ").tokens(f.tokens).say(" in ").duration(f.duration_ms).say(".")
    })
    .cute(|l| {
        l.say("Snip, snip: the bouquet became ").many(f.tokens, "tidy petal", "tidy petals");
        l.say(" in ").duration(f.duration_ms).say(" 🌸")
    })
    .story(|l| {
        l.say("\"Could you cut this up for me?\" asks candle-backend. \"");
        l.many(f.tokens, "piece", "pieces").say(", all in order,\" answers tokenizer.")
    })
}

pub(super) fn inference_started<'t>(t: &'t mut Teller, f: &InferenceStarted) -> &'t mut Teller {
    t.human(|l| {
        l.say("Working on a prompt of ").tokens(f.prompt_tokens).say(" (");
        l.many(f.prompt_chars, "character", "characters")
            .say("), up to ")
            .count(f.max_tokens)
            .say(" to generate.")
    })
    .cute(|l| {
        l.say("A bee settles on ").many(f.prompt_tokens, "petal", "petals");
        l.say(" and starts to sip, up to ").many(f.max_tokens, "drop", "drops");
        l.say(" of honey in mind 🐝")
    })
}

pub(super) fn cache_reset<'t>(t: &'t mut Teller, f: &CacheReset) -> &'t mut Teller {
    t.human(|l| {
        l.say("Reset the KV cache: ").many(f.reused_tokens, "prompt token", "prompt tokens");
        l.say(" reused, ").count(f.tokens_to_compute).say(" to compute.")
    })
    .cute(|l| match f.reused_tokens {
        0 => {
            l.say("Fresh wax and clean cells, ready for ");
            l.many(f.tokens_to_compute, "new petal", "new petals").say(" 🍃")
        }
        reused => {
            l.many(reused, "cell", "cells").say(" of honey stayed warm from before; only ");
            l.count(f.tokens_to_compute).say(" to fill 🍯")
        }
    })
}

pub(super) fn prefill_progress<'t>(t: &'t mut Teller, f: &PrefillProgress) -> &'t mut Teller {
    t.human(|l| {
        l.say("Reading the prompt: ").count(f.tokens_done).say(" of ").tokens(f.tokens_total);
        l.percent(f.tokens_done.into(), f.tokens_total.into()).say(".")
    })
    .cute(|l| {
        l.say("Cell by cell the comb fills up: ").count(f.tokens_done).say(" of ");
        l.many(f.tokens_total, "petal", "petals").say(" are pressed into wax 🌼")
    })
}

pub(super) fn tokens_generated<'t>(t: &'t mut Teller, f: &TokensGenerated) -> &'t mut Teller {
    t.human(|l| {
        l.say("Generating: ")
            .tokens(f.tokens)
            .say(" so far, at ")
            .rate(f.tokens_per_second)
            .say(".")
    })
    .cute(|l| match f.tokens / 10 % 3 {
        0 => {
            l.say("The jar fills to a steady hum: ").many(f.tokens, "drop", "drops").say(", ");
            l.number(f.tokens_per_second).say(" a second 🍯")
        }
        1 => {
            l.many(f.tokens, "drop", "drops").say(" of honey in the jar, and more run down the ");
            l.say("spoon at ").number(f.tokens_per_second).say(" a second 🍯")
        }
        _ => {
            l.say("To and fro go the bees: ").many(f.tokens, "drop", "drops");
            l.say(" carried in, ").number(f.tokens_per_second).say(" a second 🐝")
        }
    })
}

pub(super) fn inference_completed<'t>(t: &'t mut Teller, f: &InferenceCompleted) -> &'t mut Teller {
    let (why, cute, emoji) = match f.stop_reason {
        StopReason::MaxTokens => {
            ("the token limit was reached", "The jar is full to its rim: ", " 🍯")
        }
        StopReason::StopSequence => {
            ("a stop string came up", "At the agreed little bell the pouring ends: ", " 🔔")
        }
        StopReason::Eos => ("the model was done", "The last drop falls all by itself: ", " ✨"),
    };
    t.human(|l| {
        l.say("Generated ").tokens(f.tokens_out).say(" in ").duration(f.decode_ms).say(" (");
        l.rate(f.tokens_per_second).say("), first after ").duration(f.time_to_first_token_ms);
        l.say("; ").name(why).say(".")
    })
    .cute(|l| {
        l.say(cute).many(f.tokens_out, "drop", "drops").say(" of honey, poured at ");
        l.number(f.tokens_per_second).say(" a second and sealed with beeswax").say(emoji)
    })
    .story(|l| {
        l.say("\"That was number ").count(f.tokens_out).say(", the last one,\" says ");
        l.say("candle-backend. \"I see it safely to the door,\" answers http-server.")
    })
}

pub(super) fn inference_failed<'t>(t: &'t mut Teller, f: &InferenceFailed) -> &'t mut Teller {
    let (human, cute, confession, answer) = match f.code {
        FailureCode::VramOom => (
            "Ran out of device memory after ",
            "This bouquet was larger than the comb; a smaller one will fit, and the hive stays open 🌷",
            "My comb is too small for this one",
            "Then I ask for a smaller bouquet",
        ),
        FailureCode::InferenceFailed => (
            "The computation failed after ",
            "This jar slipped and spilled; the bees wipe it up, and the jars beside it are safe 🌼",
            "I lost the thread, and I am sorry",
            "I let our guest know, gently",
        ),
    };
    t.human(|l| l.say(human).tokens(f.tokens_out).say(": ").reason(&f.reason).say("."))
        .cute(|l| l.say(cute))
        .story(|l| {
            l.say("\"").say(confession).say(",\" says candle-backend. \"").say(answer);
            l.say(",\" answers http-server.")
        })
}

pub(super) fn inference_cancelled<'t>(t: &'t mut Teller, f: &InferenceCancelled) -> &'t mut Teller {
    let (human, cute, emoji, speech) = match f.by {
        CancelledBy::Client => (
            "the client asked for it",
            "The guest waves that it is enough, and the lid goes on gently after ",
            " 🌼",
            "Our guest has all she wants",
        ),
        CancelledBy::Disconnect => (
            "the last reader of its stream is gone",
            "The guest has flown on, so the spoon rests after ",
            " 🐝",
            "Nobody is listening any more",
        ),
        CancelledBy::Deadline => (
            "its time is over",
            "The sun went down over this jar after ",
            " 🌙",
            "The time for this one is over",
        ),
        CancelledBy::Shutdown => (
            "the worker shuts down",
            "The hive closes for the night, and this jar keeps its ",
            " 🌙",
            "We have to close now",
        ),
    };
    t.human(|l| {
        l.say("Cancelled the request after ").tokens(f.tokens_out).say(": ").say(human).say(".")
    })
    .cute(|l| l.say(cute).many(f.tokens_out, "drop", "drops").say(" of honey").say(emoji))
    .story(|l| {
        l.say("\"").say(speech).say(",\" says http-server. \"Then I rest after ");
        l.tokens(f.tokens_out).say(",\" answers candle-backend.")
    })
}
