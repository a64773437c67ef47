//! Generated text on its way through the filters that the manifest turns on for it. A job's text stays
//! with the chain and the instances that it began with. What a filter failed on never goes out.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::chain::{Chain, Entry, Fault};
use super::component::{Failure, Instance};
use super::stats::Difference;
use crate::limits::FILTER_TEXT_HELD_BYTES_MAX;
use crate::narration::Fact;
use crate::narration::wire::Withheld;

/// The text of one job, and the instances that it goes through.
pub struct TextRun {
    chain: Arc<Chain>,
    links: Vec<Link>,
}

/// Why nothing more of a text goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which filter had no part in it, and why.
    pub withheld: Withheld,
    /// Whether that was the worker's own fault, so that another try may go better.
    pub ours: bool,
}

/// One filter's part in it.
struct Link {
    /// Its place in the chain.
    place: usize,
    instance: Option<Instance>,
    /// What it took in since it last gave anything, bytes.
    held: usize,
    /// What went in and came out of a shadow.
    copies: Option<Copies>,
}

#[derive(Default)]
struct Copies {
    given: Sha256,
    returned: Sha256,
    failed: bool,
}

impl TextRun {
    /// The way of a new text through `chain`; none where no filter is turned on for text.
    pub fn begin(chain: &Arc<Chain>) -> Option<Self> {
        let links: Vec<Link> = chain
            .entries()
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.text)
            .map(|(place, entry)| Link {
                place,
                instance: None,
                held: 0,
                copies: entry.shadow.then(Copies::default),
            })
            .collect();
        (!links.is_empty()).then(|| TextRun { chain: Arc::clone(chain), links })
    }

    /// The next piece; what may go on by now. After a failure nothing may.
    pub fn push(&mut self, piece: &str, tell: &mut dyn FnMut(Fact)) -> Result<String, Stopped> {
        let mut text = piece.to_owned();
        for link in &mut self.links {
            if text.is_empty() {
                break;
            }
            text = link.push(&self.chain, text, tell)?;
        }
        Ok(text)
    }

    /// The end of the text; the rest of what may go on.
    pub fn finish(mut self, tell: &mut dyn FnMut(Fact)) -> Result<String, Stopped> {
        let mut text = String::new();
        for link in &mut self.links {
            let before = match text.is_empty() {
                true => String::new(),
                false => link.push(&self.chain, text, tell)?,
            };
            text = before + &link.finish(&self.chain, tell)?;
        }
        Ok(text)
    }
}

impl Link {
    fn push(
        &mut self,
        chain: &Chain,
        piece: String,
        tell: &mut dyn FnMut(Fact),
    ) -> Result<String, Stopped> {
        let bytes = piece.len();
        self.step(chain, piece, tell, |link, instance, piece, entry| {
            let text = instance.push_text(piece, entry.timeout)?;
            link.held = if text.is_empty() { link.held + bytes } else { 0 };
            if link.held > FILTER_TEXT_HELD_BYTES_MAX {
                return Err(Failure(format!(
                    "held back more than {FILTER_TEXT_HELD_BYTES_MAX} bytes of text"
                )));
            }
            Ok(text)
        })
    }

    fn finish(&mut self, chain: &Chain, tell: &mut dyn FnMut(Fact)) -> Result<String, Stopped> {
        let text = self.step(chain, String::new(), tell, |_, instance, _, entry| {
            instance.finish_text(entry.timeout)
        })?;
        if let (Some(copies), Some(entry)) = (self.copies.take(), chain.entries().get(self.place))
            && !copies.failed
            && copies.given.finalize() != copies.returned.finalize()
        {
            let (kind, changed) = ("text".to_owned(), vec!["text"]);
            entry.stats.differ(Difference { sequence: 0, kind, changed });
        }
        Ok(text)
    }

    /// One call. A shadow's comes to nothing but a comparison.
    fn step(
        &mut self,
        chain: &Chain,
        piece: String,
        tell: &mut dyn FnMut(Fact),
        call: impl FnOnce(&mut Self, &mut Instance, &str, &Entry) -> Result<String, Failure>,
    ) -> Result<String, Stopped> {
        let entry = &chain.entries()[self.place];
        if self.copies.as_ref().is_some_and(|copies| copies.failed) {
            return Ok(piece);
        }
        let result = self.call(chain, entry, &piece, call);
        if let Err(fault) = &result
            && let Some(fact) = entry.count_fault(fault)
        {
            tell(fact);
        }
        match (result, &mut self.copies) {
            (Ok(text), None) => Ok(text),
            (Err(fault), None) => Err(Stopped {
                ours: fault == Fault::NoRoom,
                withheld: Withheld { filter: entry.name.to_string(), reason: fault.reason() },
            }),
            (Ok(text), Some(copies)) => {
                copies.given.update(&piece);
                copies.returned.update(&text);
                Ok(piece)
            }
            (Err(_), Some(copies)) => {
                copies.failed = true;
                Ok(piece)
            }
        }
    }

    fn call(
        &mut self,
        chain: &Chain,
        entry: &Entry,
        piece: &str,
        call: impl FnOnce(&mut Self, &mut Instance, &str, &Entry) -> Result<String, Failure>,
    ) -> Result<String, Fault> {
        let mut instance = entry.serve(chain.host(), &mut self.instance)?;
        let began = Instant::now();
        let result = call(self, &mut instance, piece, entry);
        entry.stats.call(began.elapsed(), result.is_err());
        if result.is_ok() {
            entry.count_success();
            self.instance = Some(instance);
        }
        Ok(result?)
    }
}
