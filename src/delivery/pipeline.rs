//! The pipeline: a few threads that lead told facts through the filters and put what comes out, with
//! the tokens between them, where it goes. A job belongs to one thread, which keeps its order.
//! Whoever hands something in never waits: narrations over the bound are counted, tokens are bounded
//! by the jobs that were let in.

#[cfg(test)]
pub mod by_hand;
mod feed;

pub use feed::Feed;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::event::{Code, End, Event, Failure, Metrics, Token, TokenLogprob};
use super::job_log::JobLog;
use super::record::Recorder;
use super::stdout::Stdout;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::filter::{Chains, Instances, Stopped, TextRun, Verdict};
use crate::limits::{FACT_CHARS_MAX, LANE_FACTS_MAX, LANES};
use crate::measure;
use crate::narration::facts::NarrationLost;
use crate::narration::{Fact, Narrator, Outlet, Scope, Sinks, Telling, Told, clean, wire};
use crate::private::Private;

/// What a lane works on, in order.
enum Item {
    /// A fact, of a job or of the worker itself.
    Told { told: Box<Told>, job: Option<Line> },
    /// A fact of a request that became no job; its wording goes back to the asker.
    Asked { told: Box<Told>, reply: oneshot::Sender<Option<String>> },
    /// Generated text.
    Token { job: Line, text: Private, index: u32, logprobs: Vec<TokenLogprob> },
    /// How a job goes.
    Metrics { job: Line, tokens_per_sec: f64, resident_bytes: u64 },
    /// A job's end.
    End { job: Line, end: Result<End, Failure> },
}

impl Item {
    /// The job that it is of.
    const fn job(&self) -> Option<&Line> {
        match self {
            Item::Told { job, .. } => job.as_ref(),
            Item::Asked { .. } => None,
            Item::Token { job, .. } | Item::Metrics { job, .. } | Item::End { job, .. } => {
                Some(job)
            }
        }
    }
}

/// A job as the pipeline knows it: a number for its instances, and its log.
#[derive(Clone)]
struct Line {
    number: u64,
    log: Arc<JobLog>,
}

/// The entrance of every lane. Exists before the filters do, so that nothing told early is lost.
pub struct Pipeline {
    lanes: Vec<Lane>,
    jobs: AtomicU64,
    lost: AtomicU64,
    recorder: OnceLock<Recorder>,
}

#[derive(Default)]
struct Lane {
    mailbox: Mutex<Mailbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Mailbox {
    items: VecDeque<Item>,
    facts: usize,
    working: bool,
}

impl Pipeline {
    /// Lanes without workers yet; what is handed in waits.
    pub fn new() -> Arc<Self> {
        let lanes = (0..LANES).map(|_| Lane::default()).collect();
        Arc::new(Pipeline {
            lanes,
            jobs: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            recorder: OnceLock::new(),
        })
    }

    /// Has every fact recorded from now on, as it is before any filter. To be called once.
    pub fn record_to(&self, recorder: Recorder) {
        drop(self.recorder.set(recorder));
    }

    /// Starts the threads.
    pub fn start(
        self: &Arc<Self>,
        chains: &Arc<Chains>,
        narrator: &Narrator,
        stdout: &Arc<Stdout>,
    ) -> Result<()> {
        for number in 0..LANES {
            let mut worker = LaneWorker::new(self, number, chains, narrator, stdout);
            thread::Builder::new()
                .name(format!("pipeline-{number}"))
                .spawn(move || worker.run())
                .map_err(|e| Error::new(Kind::Internal, "the pipeline can't start").because(e))?;
        }
        Ok(())
    }

    /// A feed for a new job, which belongs to one lane from now on.
    pub fn feed(self: &Arc<Self>, narrator: Narrator, scope: Scope, log: Arc<JobLog>) -> Feed {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed) + 1;
        Feed { pipeline: Arc::clone(self), narrator, scope, line: Line { number, log } }
    }

    /// Words a fact of a request that became no job; what comes back is its JSON for the answer, where
    /// it was routed to the user.
    pub fn ask(&self, telling: Telling<'_>) -> oneshot::Receiver<Option<String>> {
        let (reply, answer) = oneshot::channel();
        let number = self.jobs.fetch_add(1, Ordering::Relaxed) + 1;
        self.push_fact(lane_of(number), telling, |told| Item::Asked { told, reply });
        answer
    }

    /// Waits until all that was handed in is delivered, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        for lane in &self.lanes {
            let left = until.saturating_duration_since(Instant::now());
            let busy = |mailbox: &mut Mailbox| !mailbox.items.is_empty() || mailbox.working;
            drop(lane.changed.wait_timeout_while(lane.lock(), left, busy));
        }
        if let Some(recorder) = self.recorder.get() {
            recorder.flush(until.saturating_duration_since(Instant::now()));
        }
    }

    fn lose(&self, sink: &'static str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        measure::narrations_lost(1, sink);
    }

    fn push(&self, lane: usize, item: Item) {
        let lane = &self.lanes[lane];
        lane.lock().items.push_back(item);
        lane.changed.notify_all();
    }

    /// A fact is numbered and takes its place in one act: nobody's can come between.
    fn push_fact(&self, lane: usize, telling: Telling<'_>, item: impl FnOnce(Box<Told>) -> Item) {
        let lane = &self.lanes[lane];
        let mut mailbox = lane.lock();
        let told = telling.stamp(); // a lost one leaves a gap, by which readers notice
        if mailbox.facts >= LANE_FACTS_MAX {
            self.lose("pipeline");
            return;
        }
        mailbox.facts += 1;
        mailbox.items.push_back(item(Box::new(told)));
        lane.changed.notify_all();
    }
}

impl Outlet for Pipeline {
    fn accept(&self, telling: Telling<'_>) {
        self.push_fact(0, telling, |told| Item::Told { told, job: None });
    }
}

/// The lane of the job with this number.
fn lane_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % LANES
}

impl Lane {
    fn lock(&self) -> std::sync::MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits, as soon as something does.
    fn take(&self) -> VecDeque<Item> {
        let mut mailbox = self.lock();
        mailbox.working = false;
        self.changed.notify_all();
        let idle = |mailbox: &mut Mailbox| mailbox.items.is_empty();
        let mut mailbox =
            self.changed.wait_while(mailbox, idle).unwrap_or_else(PoisonError::into_inner);
        mailbox.working = true;
        mailbox.facts = 0;
        std::mem::take(&mut mailbox.items)
    }
}

/// A token's event after filters, where there is any text by now. How likely the tokens were is left out:
/// it repeats their text.
fn filtered_token(job: &Line, text: String, index: u32) {
    if !text.is_empty() {
        job.log.append(Event::Token(Token { t: text, i: index, logprobs: Vec::new() }));
    }
}

/// Ends a job whose text a filter failed on: what it would have taken out can't be known.
fn fail_text(job: &Line, stopped: &Stopped) {
    let Stopped { withheld, ours } = stopped;
    let message = format!(
        "the filter {} {} the generated text, the rest of which is withheld",
        clean::line(&withheld.filter, FACT_CHARS_MAX),
        if *ours { "had no room for" } else { "failed on" }
    );
    tracing::warn!(filter = %withheld.filter, reason = %withheld.reason, "{message}");
    job.log.append(Event::Error(Failure {
        code: Code::InferenceFailed,
        message,
        retriable: *ours,
    }));
}

/// One thread of the pipeline, with the filter instances of its jobs.
struct LaneWorker {
    pipeline: Arc<Pipeline>,
    number: usize,
    chains: Arc<Chains>,
    narrator: Narrator,
    stdout: Arc<Stdout>,
    jobs: HashMap<u64, Work>,
    own: Instances,
}

/// A job's own instances of the filters.
#[derive(Default)]
struct Work {
    instances: Instances,
    text: Text,
}

/// How the generated text of a job goes.
#[derive(Default)]
enum Text {
    /// There was none yet.
    #[default]
    Ahead,
    /// Straight to the log: no filter is turned on for it.
    Straight,
    /// Through filters; and the index of the last token.
    Filtered(Box<TextRun>, u32),
    /// A filter failed on it: nothing of it goes out any more.
    Withheld,
}

impl LaneWorker {
    fn new(
        pipeline: &Arc<Pipeline>,
        number: usize,
        chains: &Arc<Chains>,
        narrator: &Narrator,
        stdout: &Arc<Stdout>,
    ) -> Self {
        LaneWorker {
            pipeline: Arc::clone(pipeline),
            number,
            chains: Arc::clone(chains),
            narrator: narrator.clone(),
            stdout: Arc::clone(stdout),
            jobs: HashMap::new(),
            own: Instances::default(),
        }
    }

    fn run(&mut self) {
        loop {
            let items = self.pipeline.lanes[self.number].take();
            let timed = self.chains.host().awake();
            items.into_iter().for_each(|item| self.take(item));
            drop(timed);
            self.tell_losses();
        }
    }

    /// One item. A fault in it must not end the thread that others depend on; the job that it is of has
    /// a hole now, so it ends.
    fn take(&mut self, item: Item) {
        let job = item.job().cloned();
        if catch_unwind(AssertUnwindSafe(|| self.handle(item))).is_ok() {
            return;
        }
        tracing::error!("the pipeline failed on an item, which is lost");
        self.pipeline.lose("pipeline");
        if let Some(job) = job {
            self.jobs.remove(&job.number);
            job.log.append(Event::Error(Failure {
                code: Code::InferenceFailed,
                message: "the worker failed on this stream, the rest of which is lost".into(),
                retriable: true,
            }));
        }
    }

    fn handle(&mut self, item: Item) {
        fault::place("lane");
        match item {
            Item::Told { told, job: None } => {
                let mut own = std::mem::take(&mut self.own);
                self.narrate(*told, &mut own);
                self.own = own;
            }
            Item::Told { told, job: Some(job) } => {
                let mut work = self.jobs.remove(&job.number).unwrap_or_default();
                if let Some(json) = self.narrate(*told, &mut work.instances)
                    && !job.log.append(Event::Narration(wire::event(&json).into()))
                {
                    self.pipeline.lose("sse");
                }
                self.jobs.insert(job.number, work);
            }
            Item::Asked { told, reply } => {
                let json = self.narrate(*told, &mut Instances::default());
                let _ = reply.send(json.map(|json| wire::event(&json))); // nobody may wait any more
            }
            Item::Token { job, text, index, logprobs } => {
                self.token(&job, &text, index, logprobs);
            }
            Item::Metrics { job, tokens_per_sec, resident_bytes } => {
                job.log.append(Event::Metrics(Metrics { tokens_per_sec, resident_bytes }));
            }
            Item::End { job, end } => self.end(&job, end),
        }
    }

    /// One piece of generated text, through the filters that are turned on for it.
    fn token(&mut self, job: &Line, text: &Private, index: u32, logprobs: Vec<TokenLogprob>) {
        let work = self.jobs.entry(job.number).or_default();
        if matches!(work.text, Text::Ahead) {
            let run = TextRun::begin(&self.chains.current());
            work.text = run.map_or(Text::Straight, |run| Text::Filtered(Box::new(run), index));
        }
        match &mut work.text {
            Text::Straight => {
                let t = text.expose().to_owned();
                job.log.append(Event::Token(Token { t, i: index, logprobs }));
            }
            Text::Filtered(run, last) => {
                *last = index;
                match run.push(text.expose(), &mut |fact| self.narrator.tell(fact)) {
                    Ok(text) => filtered_token(job, text, index),
                    Err(stopped) => {
                        work.text = Text::Withheld;
                        fail_text(job, &stopped);
                    }
                }
            }
            Text::Ahead | Text::Withheld => {}
        }
    }

    /// The end of a job. Text that a filter held back goes before a good one.
    fn end(&mut self, job: &Line, end: Result<End, Failure>) {
        let work = self.jobs.remove(&job.number).unwrap_or_default();
        if let (Text::Filtered(run, index), Ok(_)) = (work.text, &end) {
            match run.finish(&mut |fact| self.narrator.tell(fact)) {
                Ok(text) => filtered_token(job, text, index),
                Err(stopped) => return fail_text(job, &stopped),
            }
        }
        job.log.append(match end {
            Ok(end) => Event::End(end),
            Err(failure) => Event::Error(failure),
        });
    }

    /// Leads one fact through the chain and writes it to stdout where it goes there; returns its JSON
    /// where it goes to the user.
    fn narrate(&self, told: Told, instances: &mut Instances) -> Option<String> {
        if let Some(recorder) = self.pipeline.recorder.get() {
            recorder.record(&told);
        }
        let Told { context, narration } = told;
        let chain = self.chains.current();
        let kind = narration.fact.place();
        let mut tell = |fact| self.narrator.tell(fact);
        let verdict = chain.narrate(instances, &context, narration, &mut tell);
        self.chains.decisions().count(kind, &verdict);
        match verdict {
            Verdict::Dropped => None,
            Verdict::Withheld(withheld) => {
                self.stdout.withheld(
                    &context,
                    &withheld,
                    &wire::withheld_line(&context, &withheld),
                );
                None
            }
            Verdict::Deliver(narration) => {
                let json = wire::line(&context, &narration);
                if narration.sinks & Sinks::STDOUT == Sinks::STDOUT {
                    self.stdout.narration(&context, &narration, &json);
                    measure::narration(&context.kind, "stdout");
                }
                let to_user = narration.sinks & Sinks::SSE == Sinks::SSE;
                if to_user {
                    measure::narration(&context.kind, "sse");
                }
                to_user.then_some(json)
            }
        }
    }

    /// What was lost is told as soon as there is room for telling it.
    fn tell_losses(&self) {
        let turned_away = self.chains.host().take_turned_away();
        measure::narrations_lost(turned_away, "pipeline");
        let unworded = self.pipeline.lost.swap(0, Ordering::Relaxed) + turned_away;
        let lost = [
            (self.stdout.take_lost(), "stdout"),
            (Some(unworded).filter(|count| *count > 0), "pipeline"),
            (self.pipeline.recorder.get().and_then(Recorder::take_lost), "record"),
        ];
        for (count, sink) in lost {
            if let Some(count) = count {
                let sink = sink.to_owned();
                self.narrator.tell(Fact::NarrationLost(NarrationLost { count, sink }));
            }
        }
    }
}
