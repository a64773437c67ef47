//! The scanner for a text that comes in pieces: what comes out, joined, is what the whole would have
//! become. It holds back only what more text could still change, and never more than a bound; what is
//! longer than that and looks like a secret is taken out to the end of its line.

use super::{Find, Kept, Progress, Scan, Verdict, email, pem};
use crate::engine::Family;
use crate::policy::Policy;

/// Most bytes held back for a decision.
pub const HOLD_BYTES_MAX: usize = 8 * 1024;
/// Bytes before a decision that it may look back at.
const CONTEXT_BYTES: usize = 256;
/// Bytes of text that was sent, from which on it is let go.
const DRAIN_BYTES: usize = 1_024;

/// What is left out because a secret began that was too long to be held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swallow {
    /// Up to the end of a private key.
    PrivateKey,
    /// Up to the end of the line.
    Line,
}

/// A text that comes in pieces.
#[derive(Default)]
pub struct Stream {
    /// What was not sent yet, and a little before it.
    text: String,
    /// Where that begins.
    sent: usize,
    progress: Progress,
    floor: usize,
    floor_byte: Option<u8>,
    no_jwt_before: usize,
    swallow: Option<Swallow>,
}

impl Stream {
    /// Takes in a piece; returns what can be said by now.
    pub fn push(&mut self, policy: &Policy, piece: &str) -> String {
        self.text.push_str(piece);
        let mut out = String::new();
        self.read(policy, true, &mut out);
        self.drain();
        out
    }

    /// The rest, when no more comes. A new text may follow.
    pub fn finish(&mut self, policy: &Policy) -> String {
        let mut out = String::new();
        self.read(policy, false, &mut out);
        *self = Self::default();
        out
    }

    fn read(&mut self, policy: &Policy, open: bool, out: &mut String) {
        loop {
            if self.swallow.is_some() && !self.swallowed(policy) {
                return;
            }
            let mut progress = self.progress;
            let mut scan = self.scan(policy, open);
            scan.advance(&mut progress);
            let stop = progress.planned.map_or(progress.at, |find| find.start.min(progress.at));
            let mut swallow = None;
            let forced = open && scan.bytes.len() - stop > HOLD_BYTES_MAX;
            if forced {
                swallow = force(&mut scan, &mut progress);
            }
            let stop = progress.planned.map_or(progress.at, |find| find.start.min(progress.at));
            let hold = if open { word_start(scan.text, stop) } else { scan.text.len() };
            let hold = hold.max(scan.copied);
            out.push_str(&scan.clean);
            out.push_str(&scan.text[scan.copied..hold]);
            let Kept { floor, floor_byte, no_jwt_before, .. } = scan.kept();
            (self.floor, self.floor_byte, self.no_jwt_before) =
                (floor, Some(floor_byte), no_jwt_before);
            (self.sent, self.progress, self.swallow) = (hold, progress, swallow);
            if !forced {
                return;
            }
        }
    }

    /// A scan that goes on where the last one stopped.
    fn scan<'p, 't>(&'t self, policy: &'p Policy, open: bool) -> Scan<'p, 't> {
        let mut scan = Scan::new(policy, &self.text);
        scan.copied = self.sent;
        scan.floor = self.floor;
        scan.floor_byte = self.floor_byte.unwrap_or(b' ');
        scan.no_jwt_before = self.no_jwt_before;
        scan.open = open;
        scan
    }

    /// Leaves out what belongs to a secret that is already replaced; whether its end was found.
    fn swallowed(&mut self, policy: &Policy) -> bool {
        let from = self.progress.at;
        let scan = self.scan(policy, true);
        let end = match self.swallow {
            Some(Swallow::PrivateKey) => pem::closing(&scan, from).filter(|_| !scan.met_end.get()),
            _ => scan.text[from..].find('\n').map(|place| from + place),
        };
        let found = end.is_some();
        if let Some(end) = end {
            self.swallow = None;
            (self.sent, self.floor, self.progress.at) = (end, end, end);
        } else {
            // The mark of a private key's end may have begun.
            let kept = self.text.len().saturating_sub(CONTEXT_BYTES).max(from);
            let kept = self.text.floor_char_boundary(kept);
            (self.sent, self.floor, self.progress.at) = (kept, kept, kept);
        }
        found
    }

    /// Lets go of what was sent and is not looked back at any more.
    fn drain(&mut self) {
        let gone = self.text.floor_char_boundary(self.sent.saturating_sub(CONTEXT_BYTES));
        if gone < DRAIN_BYTES {
            return;
        }
        self.text.drain(..gone);
        self.sent -= gone;
        self.progress.at -= gone;
        if let Some(find) = &mut self.progress.planned {
            find.start -= gone;
            find.end -= gone;
        }
        self.floor = self.floor.saturating_sub(gone);
        self.no_jwt_before = self.no_jwt_before.saturating_sub(gone);
    }
}

/// Decides although more text might change it. What to leave out, where a secret goes on.
fn force(scan: &mut Scan, progress: &mut Progress) -> Option<Swallow> {
    scan.open = false;
    scan.met_end.set(false);
    if progress.planned.is_none_or(|find| find.start > progress.at) {
        scan.decide(progress);
    }
    let Find { start, end, verdict } = progress.planned?;
    progress.at = progress.at.max(start); // what lies before is its name
    let goes_on = end == scan.text.len();
    scan.decide(progress);
    match verdict {
        _ if !goes_on => None,
        Verdict::Take(Family::PrivateKey) => Some(Swallow::PrivateKey),
        _ => Some(Swallow::Line),
    }
}

/// Where the word begins that ends at `stop`: an address or a home folder may begin there.
fn word_start(text: &str, stop: usize) -> usize {
    let mut start = stop;
    for c in text[..stop].chars().rev() {
        if c.is_whitespace() || stop - start + c.len_utf8() > email::LOCAL_BYTES_MAX {
            break;
        }
        start -= c.len_utf8();
    }
    start
}
