//! Text that has to be JSON of a given form: a schema becomes a constraint that says, token by token,
//! what may come next. Compiled away from the engine's thread, within bounds of size and time; what
//! can't be honoured is refused, never left out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::{Value, json};

use super::Language;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result};
use crate::job::{Constraint, Grammar};
use crate::limits::{
    GRAMMAR_BYTES_MAX, GRAMMAR_COMPILE_FUEL, GRAMMAR_COMPILES_MAX, GRAMMAR_MS_MAX,
    GRAMMAR_STACK_BYTES, GRAMMAR_STATES_MAX, GRAMMAR_STEP_FUEL, GRAMMAR_STEP_ITEMS_MAX,
    GRAMMAR_SYMBOLS_MAX, REASON_CHARS_MAX,
};
use crate::narration::clean;

/// What all constraints of a model share; made when the first one is asked for.
#[derive(Default)]
pub struct Grammars {
    factory: OnceLock<Result<ParserFactory, String>>,
    compiling: AtomicUsize,
}

impl Language {
    /// The constraint that makes a text follow `grammar`. Takes up to [`GRAMMAR_MS_MAX`]: not for the
    /// engine's thread.
    ///
    /// # Errors
    /// [`Kind::Request`] with what can't be honoured, or that it takes too long.
    pub fn constrain(self: &Arc<Self>, grammar: Grammar) -> Result<Box<dyn Constraint>> {
        let schema = schema(grammar)?;
        let compiling = &self.grammars.compiling;
        if compiling.fetch_add(1, Ordering::AcqRel) >= GRAMMAR_COMPILES_MAX {
            compiling.fetch_sub(1, Ordering::AcqRel);
            return Err(refused("can't be compiled now: as many are compiled as may; try again"));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let language = Arc::clone(self);
        let work = move || {
            let compiled = catch_unwind(AssertUnwindSafe(|| language.compile(schema)));
            language.grammars.compiling.fetch_sub(1, Ordering::AcqRel);
            // Nobody may wait for it any more.
            let _ = sender.send(compiled.unwrap_or_else(|_| Err(refused("can't be compiled"))));
        };
        thread::Builder::new()
            .name("grammar".into())
            .stack_size(GRAMMAR_STACK_BYTES)
            .spawn(work)
            .map_err(|e| {
            self.grammars.compiling.fetch_sub(1, Ordering::AcqRel);
            Error::new(Kind::Internal, "a grammar's thread can't start").because(e)
        })?;
        let limit = Duration::from_millis(GRAMMAR_MS_MAX);
        let matcher = receiver.recv_timeout(limit).unwrap_or_else(|_| {
            Err(refused(&format!("took longer than {GRAMMAR_MS_MAX} ms to compile; simplify it")))
        })?;
        Ok(Box::new(Json { matcher, allowed: SimpleVob::new() }))
    }

    fn compile(&self, schema: Value) -> Result<Matcher> {
        let factory = self.grammars.factory.get_or_init(|| factory(&self.tokenizer));
        let factory = factory.as_ref().map_err(|reason| refused(reason))?;
        let grammar = TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(schema));
        let mut parser =
            factory.create_parser(grammar).map_err(|error| unparsed(&error.to_string()))?;
        // A warning says that a part of the schema would be left out.
        if let Some(warning) = parser.grammar_warnings().first() {
            return Err(refused(warning));
        }
        let mut matcher = Matcher::new(Ok(parser));
        // The first look builds most of the lexer, so it belongs to the time allowed here.
        matcher.compute_mask().map_err(|e| refused(&e.to_string()))?;
        Ok(matcher)
    }
}

/// An error about the schema that says why, in one line.
fn refused(reason: &str) -> Error {
    let reason = clean::line(reason.lines().next().unwrap_or(reason), REASON_CHARS_MAX);
    Error::new(Kind::Request, format!("the schema can't be honoured: {reason}"))
}

/// What the library says of a schema; where that names its own options, what the user may do.
fn unparsed(reason: &str) -> Error {
    match reason.contains("coerce_one_of") {
        true => refused(
            "oneOf is taken where its choices exclude each other: by type, or by a required \
             property with another const in each; else write anyOf",
        ),
        false => refused(reason),
    }
}

/// The schema of what was asked for, with the form that the JSON takes: one line, `, ` and `: `. A
/// free choice of white space lets a model write nothing else for ever.
fn schema(grammar: Grammar) -> Result<Value> {
    let mut schema = match grammar {
        Grammar::JsonObject => json!({ "type": "object" }),
        Grammar::JsonSchema(schema) => schema,
    };
    if schema.to_string().len() > GRAMMAR_BYTES_MAX {
        return Err(refused(&format!("it has more than {GRAMMAR_BYTES_MAX} bytes")));
    }
    let Some(fields) = schema.as_object_mut() else {
        return Err(refused("expected an object, found something else"));
    };
    // The library's own door to its options: `lenient` would leave out what it can't do.
    if fields.contains_key("x-guidance") {
        return Err(refused("the keyword x-guidance is not taken"));
    }
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// The vocabulary as the library wants it, and the limits of its work.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let ends = tokenizer.end_tokens();
    let Some(end) = ends.first() else {
        return Err("this model has no token that ends a text".to_owned());
    };
    let words: Vec<Vec<u8>> =
        (0..tokenizer.vocabulary()).map(|token| tokenizer.token_bytes(token).to_vec()).collect();
    let trie = TokTrie::from(&TokRxInfo::new(tokenizer.vocabulary(), *end), &words);
    let trie = trie.with_eos_tokens(ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::json_slices();
    let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
        .map_err(|e| e.to_string())?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        initial_lexer_fuel: GRAMMAR_COMPILE_FUEL,
        step_lexer_fuel: GRAMMAR_STEP_FUEL,
        step_max_items: GRAMMAR_STEP_ITEMS_MAX,
        max_lexer_states: GRAMMAR_STATES_MAX,
        max_grammar_size: GRAMMAR_SYMBOLS_MAX,
        // They would repeat the text generated so far.
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

/// JSON on its way.
struct Json {
    matcher: Matcher,
    allowed: SimpleVob,
}

impl Constraint for Json {
    fn allowed(&mut self) -> Result<&[u32]> {
        self.allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
        Ok(self.allowed.as_slice())
    }

    fn take(&mut self, token: u32) -> Result<bool> {
        self.matcher.consume_token(token).map_err(failed)?;
        Ok(self.matcher.is_stopped())
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    let reason = clean::line(&error.to_string(), REASON_CHARS_MAX).into_owned();
    let what =
        "the next token by the grammar could not be found within bounds; simplify the schema";
    Error::new(Kind::Inference, what).because(std::io::Error::other(reason))
}

#[cfg(test)]
mod tests;
