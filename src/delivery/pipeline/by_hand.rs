//! The lanes without their threads, for tests that say themselves when which item is worked on.

use super::{Chains, Item, LANES, LaneWorker, Narrator, Pipeline, Stdout};
use std::sync::Arc;

/// What works on the lanes.
pub struct Hands(Vec<LaneWorker>);

impl Hands {
    /// Hands for every lane of a pipeline that was not started.
    pub fn new(
        pipeline: &Arc<Pipeline>,
        chains: &Arc<Chains>,
        narrator: &Narrator,
        stdout: &Arc<Stdout>,
    ) -> Hands {
        let hand = |number| LaneWorker::new(pipeline, number, chains, narrator, stdout);
        Hands((0..LANES).map(hand).collect())
    }

    /// Works on the next items of a lane, at most `items_max` of them; how many there were.
    pub fn work(&mut self, lane: usize, items_max: usize) -> usize {
        let worker = &mut self.0[lane % LANES];
        let timed = worker.chains.host().awake();
        let mut worked = 0;
        while worked < items_max
            && let Some(item) = next(&worker.pipeline, worker.number)
        {
            worker.take(item);
            worked += 1;
        }
        drop(timed);
        worked
    }

    /// Loses the next item of a lane: a bug that a harness has to find. Whether there was one.
    pub fn lose(&mut self, lane: usize) -> bool {
        let worker = &self.0[lane % LANES];
        next(&worker.pipeline, worker.number).is_some_and(|item| item.job().is_some())
    }

    /// Jobs that the lanes hold something of.
    pub fn jobs(&self) -> usize {
        self.0.iter().map(|worker| worker.jobs.len()).sum()
    }
}

fn next(pipeline: &Pipeline, lane: usize) -> Option<Item> {
    let mut mailbox = pipeline.lanes[lane].lock();
    let item = mailbox.items.pop_front()?;
    if matches!(item, Item::Told { .. } | Item::Asked { .. }) {
        mailbox.facts -= 1;
    }
    Some(item)
}
