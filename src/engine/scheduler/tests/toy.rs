//! A decoder whose logits are a checksum of the tokens in its blocks, and a house around it: pipeline,
//! queue and engine as they are in the worker.

use std::sync::{Condvar, Mutex};

use serde_json::{Value, json};

use super::super::*;
use crate::clock;
use crate::delivery::{JobLog, Pipeline, Stdout};
use crate::engine::gguf::tests::{Scratch, support};
use crate::engine::tokenizer::Tokenizer;
use crate::filter::{Chains, Host};
use crate::job::{Cancel, Grammar, Sampling, Wish};
use crate::limits::PREFILL_CHUNK_TOKENS;
use crate::narration::{Narrator, Scope};

/// A token that makes its step fail, and one that makes it panic.
pub const FAILS: u32 = 250;
pub const PANICS: u32 = 251;

/// What a step took of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub first: u32,
    pub tokens: usize,
}

pub type Steps = Arc<Mutex<Vec<Vec<Taken>>>>;

/// Lets steps through; open until somebody asks for it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    pub fn steps(&self, count: usize) {
        *self.0.0.lock().expect("no panic") = count;
        self.0.1.notify_all();
    }

    pub fn open(&self) {
        self.steps(usize::MAX);
    }

    fn pass(&self) {
        let closed = |left: &mut usize| *left == 0;
        let left = self.0.0.lock().expect("no panic");
        let mut left = self.0.1.wait_while(left, closed).expect("no panic");
        *left -= 1;
    }
}

/// The decoder: a cell a token, holding it and a checksum of all up to it.
pub struct Toy {
    sequences: usize,
    block_tokens: usize,
    blocks: Vec<Vec<Option<(u32, u64)>>>,
    steps: Steps,
    gate: Gate,
    /// Logits of a row beyond the tokenizer's tokens, all likelier than any token.
    padding: usize,
}

fn mix(before: u64, token: u32, at: usize) -> u64 {
    let mut x = before ^ (u64::from(token) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Toy {
    pub fn new(sequences: usize, blocks: usize, block_tokens: usize) -> Toy {
        let gate = Gate::default();
        gate.open();
        let blocks = vec![vec![None; block_tokens]; blocks];
        Toy { sequences, block_tokens, blocks, steps: Steps::default(), gate, padding: 0 }
    }

    /// With rows that are wider than the vocabulary.
    pub fn padded(self, padding: usize) -> Toy {
        Toy { padding, ..self }
    }

    pub fn steps(&self) -> Steps {
        Arc::clone(&self.steps)
    }

    /// Stands before every step from now on.
    pub fn gate(&self) -> Gate {
        self.gate.steps(0);
        self.gate.clone()
    }

    /// The checksum up to `length`, out of every cell before it.
    fn checksum(&self, blocks: &[u32], length: usize) -> Result<u64> {
        let mut sum = 1;
        for at in 0..length {
            let block = &self.blocks[blocks[at / self.block_tokens] as usize];
            let Some((token, stored)) = block[at % self.block_tokens] else {
                return Err(Error::new(Kind::Inference, format!("cell {at} was never written")));
            };
            sum = mix(sum, token, at);
            assert_eq!(sum, stored, "cell {at} is of another sequence");
        }
        Ok(sum)
    }
}

impl Decoder for Toy {
    fn context_length(&self) -> usize {
        10_000
    }

    fn vocabulary(&self) -> usize {
        271 + self.padding
    }

    fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn sequences(&self) -> usize {
        self.sequences
    }

    fn resident_bytes(&self) -> u64 {
        1
    }

    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()> {
        self.gate.pass();
        assert!(chunks.len() <= self.sequences, "more chunks than the decoder takes");
        let taken = chunks.iter().map(|c| Taken { first: c.tokens[0], tokens: c.tokens.len() });
        self.steps.lock().expect("no panic").push(taken.collect());
        logits.clear(self.vocabulary());
        for chunk in chunks {
            let mut sum = self.checksum(chunk.blocks, chunk.position)?;
            for (at, &token) in (chunk.position..).zip(chunk.tokens) {
                match token {
                    FAILS => return Err(Error::new(Kind::Inference, "poison")),
                    PANICS => panic!("poison"),
                    _ => sum = mix(sum, token, at),
                }
                let block = chunk.blocks[at / self.block_tokens] as usize;
                self.blocks[block][at % self.block_tokens] = Some((token, sum));
            }
            if chunk.logits {
                let row = logits.push();
                let score = |token: usize| (mix(sum, token as u32, 0) % 1_000) as f32 / 100.0;
                row.iter_mut().enumerate().for_each(|(token, logit)| *logit = score(token));
                // It says that it is done now and then, never poison, and no bytes beyond ASCII,
                // so that its text says which tokens it chose.
                row[..3].fill(-5.0);
                row[2] = if sum % 50 == 0 { 20.0 } else { -5.0 };
                row[131..].fill(-10.0);
                row[271..].fill(1e6);
            }
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        self.blocks[to as usize] = self.blocks[from as usize].clone();
        Ok(())
    }
}

/// A request as these tests ask.
#[derive(Clone, Default)]
pub struct Asked {
    pub prompt: Vec<u32>,
    pub max_tokens: u32,
    pub temperature: f64,
    pub seed: u64,
    pub repetition_penalty: f64,
    pub logprobs: Option<u32>,
    pub grammar: bool,
    /// Never chooses the token that ends a text.
    pub endless: bool,
}

/// What makes text of the toy's tokens.
pub fn language() -> Arc<Language> {
    let file = Scratch::new(&support::tiny_llama(1));
    let tokenizer = Tokenizer::from_gguf(&file.read().expect("a sound file"));
    Arc::new(Language::new(tokenizer.expect("a known tokenizer"), None))
}

/// An engine with all that it needs.
pub struct House {
    pub pipeline: Arc<Pipeline>,
    pub narrator: Narrator,
    pub language: Arc<Language>,
    pub queue: Arc<Queue>,
    pub pulse: Arc<Pulse>,
}

/// A job that was handed in.
pub struct Pushed {
    pub cancel: Cancel,
    pub log: Arc<JobLog>,
}

impl Pushed {
    /// Everything it was sent, to its end.
    pub async fn frames(self) -> Vec<Value> {
        let mut reader = self.log.reader(0);
        let mut frames = Vec::new();
        while let Some((_, event)) = reader.next().await {
            frames.push(serde_json::from_str(&event.json()).expect("JSON"));
        }
        frames
    }
}

/// The text of all token frames.
pub fn text(frames: &[Value]) -> String {
    frames.iter().filter_map(|frame| frame["t"].as_str()).collect()
}

impl House {
    pub fn new(toy: Toy, slots: usize, prefix_cache: bool) -> House {
        let pipeline = Pipeline::new();
        let narrator = Narrator::new("test".into(), pipeline.clone());
        let chains = Arc::new(Chains::new(Arc::new(Host::new().expect("wasm runs")), None));
        chains.reload(&narrator).expect("the built-in chain is sound");
        let form = crate::delivery::Form::Json;
        let stdout = Stdout::spawn(form, false, std::io::sink()).expect("a thread");
        pipeline.start(&chains, &narrator, &stdout).expect("threads");
        let language = language();
        let (queue, pulse) = (Arc::new(Queue::new(1_000)), Arc::new(Pulse::default()));
        let prefill_tokens_max = PREFILL_CHUNK_TOKENS;
        let serving = Serving { slots, prefix_cache, prefill_tokens_max };
        let (queue_too, pulse_too) = (Arc::clone(&queue), Arc::clone(&pulse));
        spawn(Box::new(toy), Arc::clone(&language), serving, queue_too, pulse_too, |_| {}, || {})
            .expect("a thread");
        House { pipeline, narrator, language, queue, pulse }
    }

    pub fn tokens(&self, text: &str) -> Vec<u32> {
        // A byte a token, as the toy writes them.
        text.bytes().map(|byte| 3 + u32::from(byte)).collect()
    }

    /// A job that is still to be handed in.
    pub fn job(&self, asked: &Asked) -> (Job, Pushed) {
        let (log, cancel) = (JobLog::new(), Cancel::default());
        let scope = Scope {
            job_id: Some("j".into()),
            correlation_id: Some("c".into()),
            ..Scope::default()
        };
        let feed = self.pipeline.feed(self.narrator.clone(), scope, Arc::clone(&log));
        let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}},
            "required": ["a"], "additionalProperties": false});
        let constraint = asked.grammar.then(|| {
            self.language.constrain(Grammar::JsonSchema(schema)).expect("it can be honoured")
        });
        let sampling = Sampling {
            temperature: asked.temperature,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: if asked.repetition_penalty > 0.0 {
                asked.repetition_penalty
            } else {
                1.0
            },
            seed: asked.seed,
        };
        let job = Job {
            feed,
            prompt: asked.prompt.clone(),
            prompt_chars: 0,
            wish: Wish {
                max_tokens: asked.max_tokens,
                sampling,
                stop: Vec::new(),
                progress_every: 0,
                logprobs: asked.logprobs,
                logit_bias: if asked.endless { vec![(2, -100.0)] } else { Vec::new() },
                grammar: None,
            },
            constraint,
            cancel: cancel.clone(),
            deadline: clock::now() + std::time::Duration::from_secs(600),
            wait_until: clock::now() + std::time::Duration::from_secs(600),
            accepted: clock::now(),
            operation: crate::measure::Operation::TextCompletion,
        };
        (job, Pushed { cancel, log })
    }

    pub fn push(&self, asked: &Asked) -> Pushed {
        let (job, pushed) = self.job(asked);
        let tell = |job: &Job, place: Option<crate::job::Place>| {
            if let Some(place) = place {
                job.feed.tell(Fact::RequestQueued(RequestQueued {
                    position: fact::count(place.position),
                    ahead: fact::count(place.ahead),
                }));
            }
        };
        assert!(self.queue.push(job, tell).is_ok(), "the queue takes it");
        pushed
    }

    /// Waits until nothing is held any more; a leak never comes to rest.
    pub async fn comes_to_rest(&self) {
        for _ in 0..20_000 {
            if self.pulse.blocks_held.load(Ordering::Relaxed) == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("blocks are still held: they leak");
    }

    pub async fn run(&self, asked: &Asked) -> Vec<Value> {
        self.push(asked).frames().await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.queue.close();
    }
}
