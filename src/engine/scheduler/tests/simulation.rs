//! Promise: whatever comes together in whatever order, no job is lost and every stream is in order. One
//! thread plays clients, engine, lanes and readers by a seed, under a clock that stands until it is
//! moved; scheduler, queue, jobs, lanes, filters and logs are those of the worker. `SEED` chooses the
//! first seed, `SEEDS` how many there are.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::super::*;
use super::toy::{Asked, FAILS, House, PANICS, Pushed, Toy, language};
use crate::clock;
use crate::delivery::event::{Event, Started};
use crate::delivery::pipeline::by_hand::Hands;
use crate::delivery::{Pipeline, Reader, Stdout};
use crate::filter::{Chains, Host};
use crate::job::Refused;
use crate::limits::PREFILL_CHUNK_TOKENS_MIN;
use crate::narration::Narrator;

/// A bug that the harness has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Canary {
    /// A running sequence is dropped without an end.
    LostSequence,
    /// A lane loses an item.
    LostItem,
    /// A job that was ended is ended no more: it may run on.
    DeafEngine,
}

/// A decoder that fails and panics now and then.
struct Flaky {
    toy: Toy,
    random: ChaCha8Rng,
    /// Of a thousand steps.
    faults: u32,
}

impl Decoder for Flaky {
    fn context_length(&self) -> usize {
        self.toy.context_length()
    }

    fn vocabulary(&self) -> usize {
        self.toy.vocabulary()
    }

    fn block_tokens(&self) -> usize {
        self.toy.block_tokens()
    }

    fn blocks(&self) -> usize {
        self.toy.blocks()
    }

    fn sequences(&self) -> usize {
        self.toy.sequences()
    }

    fn resident_bytes(&self) -> u64 {
        1
    }

    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()> {
        match self.random.next_u32() % 1_000 {
            n if n < self.faults => Err(Error::new(Kind::Inference, "planted")),
            n if n < self.faults * 2 => panic!("planted"),
            _ => self.toy.step(chunks, logits),
        }
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        self.toy.copy_block(from, to)
    }
}

/// A reader of a job, as a connection is one.
struct Client {
    reader: Reader,
    last: usize,
    next_token: u32,
    /// Name of the last event, once it has come.
    end: Option<&'static str>,
}

impl Client {
    /// Reads some of what is there; says what is wrong with it.
    fn read(&mut self, most: usize) -> Result<(), String> {
        for _ in 0..most {
            let Some(came) = self.reader.next().now_or_never() else { return Ok(()) };
            let Some((id, event)) = came else {
                return self.end.map(|_| ()).ok_or_else(|| "a stream ended without an end".into());
            };
            if id != self.last + 1 {
                return Err(format!("event {id} after {}", self.last));
            }
            if (id == 1) != matches!(*event, Event::Started(_)) {
                return Err(format!("event {id} is {}", event.name()));
            }
            if let Some(end) = self.end {
                return Err(format!("{} after {end}", event.name()));
            }
            if let Event::Token(token) = &*event {
                if token.i < self.next_token {
                    return Err(format!("token {} after {}", token.i, self.next_token));
                }
                self.next_token = token.i + 1;
            }
            self.last = id;
            self.end = event.is_last().then(|| event.name());
        }
        Ok(())
    }
}

/// One job and those who read it.
struct Played {
    pushed: Pushed,
    cancel_on_leave: bool,
    readers: Vec<Client>,
}

/// What a simulation did.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    jobs: u64,
    refused: u64,
    events: u64,
    well: u64,
    badly: u64,
}

/// The parts that every world shares; they keep nothing of it.
struct Shared {
    chains: Arc<Chains>,
    stdout: Arc<Stdout>,
    language: Arc<Language>,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let narrator = Narrator::new("test".into(), Pipeline::new());
        let chains = Arc::new(Chains::new(Arc::new(Host::new().expect("wasm runs")), None));
        chains.reload(&narrator).expect("the built-in chain is sound");
        let form = crate::delivery::Form::Json;
        let stdout = Stdout::spawn(form, false, std::io::sink()).expect("a thread");
        Shared { chains, stdout, language: language() }
    })
}

/// One seed's world.
struct World {
    random: ChaCha8Rng,
    clock: clock::tests::Paused,
    house: House,
    hands: Hands,
    engine: Engine,
    ended: Arc<AtomicU64>,
    played: Vec<Played>,
    tally: Tally,
    canary: Option<Canary>,
}

impl World {
    fn new(seed: u64, canary: Option<Canary>) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: u32| (random.next_u32() % n) as usize;
        let clock = clock::tests::stand();
        let (slots, blocks, size) = (1 + below(5), 6 + below(60), 1 + below(16));
        let toy = Toy::new(slots, blocks, size);
        let faults = [0, 0, 3, 20][below(4)];
        let (queue, prefix_cache) = (1 + below(8), below(2) == 0);
        let flaky = Flaky { toy, random: ChaCha8Rng::seed_from_u64(seed ^ 1), faults };
        let pipeline = Pipeline::new();
        let narrator = Narrator::new("test".into(), pipeline.clone());
        let Shared { chains, stdout, language } = shared();
        let hands = Hands::new(&pipeline, chains, &narrator, stdout);
        let (queue, pulse) = (Arc::new(Queue::new(queue)), Arc::new(Pulse::default()));
        let ended = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&ended);
        let engine = Engine::new(
            Box::new(flaky),
            Arc::clone(language),
            // No more than the least, so that no measured time decides.
            Serving { slots, prefix_cache, prefill_tokens_max: PREFILL_CHUNK_TOKENS_MIN },
            Arc::clone(&queue),
            Arc::clone(&pulse),
            Box::new(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        );
        let house = House { pipeline, narrator, language: Arc::clone(language), queue, pulse };
        let (played, tally) = (Vec::new(), Tally::default());
        World { random, clock, house, hands, engine, ended, played, tally, canary }
    }

    fn below(&mut self, n: u32) -> u32 {
        self.random.next_u32() % n
    }

    /// Somebody asks, of an engine that can bear it or not.
    fn ask(&mut self) {
        let blocks = self.engine.decoder.blocks() * self.engine.decoder.block_tokens();
        let max_tokens = 1 + self.below(40);
        let most = (blocks as u32).saturating_sub(max_tokens).clamp(1, 90);
        let length = 1 + self.below(most);
        let family = self.below(3);
        let mut prompt: Vec<u32> = (0..length).map(|n| 3 + (n * 7 + family) % 200).collect();
        if self.below(12) == 0 {
            let at = self.below(length) as usize;
            prompt[at] = if self.below(2) == 0 { FAILS } else { PANICS };
        }
        let asked = Asked { prompt, max_tokens, temperature: 1.0, ..Asked::default() };
        let (mut job, pushed) = self.house.job(&asked);
        if self.below(6) == 0 {
            job.deadline = clock::now() + Duration::from_millis(u64::from(self.below(4_000)));
        }
        if self.below(6) == 0 {
            job.wait_until = clock::now() + Duration::from_millis(u64::from(self.below(2_000)));
        }
        let started = || {
            Event::Started(Box::new(Started {
                job_id: "j".into(),
                model: "toy".into(),
                started_at: String::new(),
                seed: 0,
            }))
        };
        let log = Arc::clone(&pushed.log);
        let place = |_: &Job, _| assert!(log.append(started()), "a log begins empty");
        match self.house.queue.push(job, place) {
            Ok(()) => {
                self.tally.jobs += 1;
                let cancel_on_leave = self.below(2) == 0;
                let mut played = Played { pushed, cancel_on_leave, readers: Vec::new() };
                played.readers.push(client(&played.pushed));
                self.played.push(played);
            }
            Err(Refused::Full | Refused::Closed) => self.tally.refused += 1,
        }
    }

    /// Somebody joins, leaves or cancels.
    fn meddle(&mut self) {
        if self.played.is_empty() {
            return;
        }
        let at = self.below(self.played.len() as u32) as usize;
        let what = self.below(4);
        let played = &mut self.played[at];
        match what {
            0 => played.pushed.cancel.cancel(CancelledBy::Client),
            1 => {
                played.readers.pop();
                if played.cancel_on_leave && played.pushed.log.unread() {
                    played.pushed.cancel.cancel(CancelledBy::Disconnect);
                }
            }
            _ => played.readers.push(client(&played.pushed)),
        }
    }

    /// One step of the engine, if it would not wait for ever.
    fn step(&mut self) {
        if self.engine.running.is_empty() && self.house.queue.lengths().1 == 0 {
            return;
        }
        if self.engine.admit() {
            if self.canary != Some(Canary::DeafEngine) {
                self.engine.sweep();
            }
            self.engine.step();
            self.engine.leave();
            let counts = self.engine.blocks.counts();
            self.house.pulse.step_ended(1, counts);
        }
        if self.canary == Some(Canary::LostSequence) && self.below(50) == 0 {
            drop(self.engine.running.pop());
        }
    }

    /// Everybody does something, and time passes.
    fn tick(&mut self, asking: bool) -> Result<(), String> {
        if asking && self.below(8) == 0 {
            for _ in 0..=self.below(3) {
                self.ask();
            }
        }
        if self.below(10) == 0 {
            self.meddle();
        }
        for _ in 0..self.below(4) {
            self.step();
        }
        for lane in 0..2 {
            let items = self.below(12) as usize;
            self.hands.work(lane, items);
            if self.canary == Some(Canary::LostItem) && self.below(20) == 0 {
                self.hands.lose(lane);
            }
        }
        for at in 0..self.played.len() {
            let most = self.below(8) as usize;
            for client in &mut self.played[at].readers {
                client.read(most)?;
            }
        }
        let ms = 20 + self.below(160);
        self.clock.advance(Duration::from_millis(u64::from(ms)));
        Ok(())
    }

    /// A drain: what runs may finish, then it is ended; then everything has to be at rest.
    fn drain(mut self) -> Result<Tally, String> {
        self.house.queue.close();
        for _ in 0..self.below(40) {
            self.tick(true)?;
        }
        for played in &self.played {
            played.pushed.cancel.cancel(CancelledBy::Shutdown);
        }
        for round in 0.. {
            if self.engine.running.is_empty() && self.house.queue.lengths().1 == 0 {
                break;
            }
            if round > 2 {
                return Err("a cancelled job does not end".into());
            }
            self.step();
        }
        for lane in 0..2 {
            self.hands.work(lane, usize::MAX);
        }
        self.at_rest()
    }

    fn at_rest(mut self) -> Result<Tally, String> {
        if self.house.queue.lengths() != (0, 0) {
            return Err(format!("the queue counts {:?}", self.house.queue.lengths()));
        }
        if self.engine.blocks.counts().held != 0 {
            return Err("blocks are still held".into());
        }
        let ended = self.ended.load(Ordering::Relaxed);
        if ended != self.tally.jobs {
            return Err(format!("{ended} of {} jobs ended", self.tally.jobs));
        }
        if self.hands.jobs() != 0 {
            return Err(format!("the lanes still hold something of {} jobs", self.hands.jobs()));
        }
        for (at, played) in self.played.iter_mut().enumerate() {
            played.readers.push(client(&played.pushed)); // who comes late reads the same
            let events = played.pushed.log.events();
            for reader in &mut played.readers {
                reader.read(usize::MAX).map_err(|wrong| format!("job {at}: {wrong}"))?;
                if reader.last != events {
                    return Err(format!("job {at}: a reader has {} of {events}", reader.last));
                }
            }
            self.tally.events += events as u64;
            match played.pushed.log.end() {
                Some(Ok(_)) => self.tally.well += 1,
                Some(Err(_)) => self.tally.badly += 1,
                None => return Err(format!("job {at} never ended")),
            }
        }
        Ok(self.tally)
    }
}

fn client(pushed: &Pushed) -> Client {
    Client { reader: pushed.log.reader(0), last: 0, next_token: 0, end: None }
}

/// One world for so many virtual seconds; what is wrong with it.
fn simulate(seed: u64, seconds: u64, canary: Option<Canary>) -> Result<Tally, String> {
    let mut world = World::new(seed, canary);
    let until = clock::now() + Duration::from_secs(seconds);
    while clock::now() < until {
        world.tick(true)?;
    }
    world.drain()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|given| given.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "`make soak` runs it"]
fn no_seed_loses_a_job_or_an_order() {
    let (first, count) = (number("SEED", 1), number("SEEDS", 60));
    let mut all = Tally::default();
    for seed in first..first + count {
        let tally = simulate(seed, 60, None).unwrap_or_else(|wrong| panic!("SEED={seed} {wrong}"));
        all.jobs += tally.jobs;
        all.refused += tally.refused;
        all.events += tally.events;
        all.well += tally.well;
        all.badly += tally.badly;
    }
    eprintln!("FIGURE simulation: {count} seeds x 60 virtual seconds: {all:?}");
    assert!(all.well > 0 && all.badly > 0 && all.refused > 0, "it tries too little: {all:?}");
}

#[test]
#[ignore = "`make soak` runs it"]
fn the_simulation_finds_a_planted_bug() {
    for canary in [Canary::LostSequence, Canary::LostItem, Canary::DeafEngine] {
        let found = (1..20).find_map(|seed| simulate(seed, 60, Some(canary)).err());
        assert!(found.is_some(), "{canary:?} was never found");
    }
}
