//! What is done with a stranger's text: called by the fuzz target `redact` (`fuzz/`) and by a seeded
//! test. It panics where a promise is broken; no filter calls it.

use crate::engine::{Stream, redact as whole};
use crate::policy::Policy;

/// The first bytes say where the text is cut; what comes out of the pieces, joined, is what the whole
/// becomes, and what was redacted is not redacted again.
pub fn redact(bytes: &[u8]) {
    let (cuts, text) = bytes.split_at(bytes.len().min(8));
    let text = String::from_utf8_lossy(text);
    let policy = Policy::default();
    let clean = whole(&policy, &text);
    assert_eq!(whole(&policy, &clean), clean, "redacted again");
    let mut stream = Stream::default();
    let (mut joined, mut rest) = (String::new(), &*text);
    for cut in cuts {
        let (piece, left) =
            rest.split_at(rest.floor_char_boundary(usize::from(*cut).min(rest.len())));
        joined.push_str(&stream.push(&policy, piece));
        rest = left;
    }
    joined.push_str(&stream.push(&policy, rest));
    joined.push_str(&stream.finish(&policy));
    assert_eq!(joined, clean, "cut by {cuts:?}");
}
