//! Makes inputs out of a corpus: bits flipped, numbers at their edges, pieces moved, doubled, left out
//! or taken from another file. The same seed makes the same inputs. Knows no format.

use std::path::Path;

/// Numbers at which readers go wrong, as text and as bytes.
const EDGES: [u64; 9] = [0, 1, 7, 0x7f, 0xff, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];
/// Pieces that mean something to one reader or another.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"{{",
    b"%}",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\x1b[",
    b"\xff",
    b"null",
    b"-1",
    b"1e309",
    b"data: ",
    b"content-length: ",
    b"chunked",
    "\u{202e}".as_bytes(),
    "\u{1f41d}".as_bytes(),
    b"GGUF",
];
/// Changes of one input at most, less one.
const CHANGES: u64 = 4;
/// Inputs do not grow beyond this, bytes.
const BYTES_MAX: usize = 64 * 1024;

/// Files to begin with, and the dice.
pub struct Mutator {
    corpus: Vec<Vec<u8>>,
    state: u64,
}

impl Mutator {
    /// Of every file in `folder`, in the order of their names.
    pub fn new(folder: &Path, seed: u64) -> Mutator {
        let entries = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> =
            entries.map(|entry| entry.expect("it can be read").path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> =
            files.iter().map(|file| std::fs::read(file).expect("it can be read")).collect();
        assert!(!corpus.is_empty(), "{} is empty", folder.display());
        Mutator { corpus, state: seed }
    }

    /// The files as they are.
    pub fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.file();
        for _ in 0..=self.below(CHANGES as usize) {
            self.change(&mut bytes);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn file(&mut self) -> Vec<u8> {
        let place = self.below(self.corpus.len());
        self.corpus[place].clone()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.draw() as u8,
            2 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            3 => {
                let word = WORDS[self.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            4 => {
                let number = EDGES[self.below(EDGES.len())].to_string();
                bytes.splice(at..at, number.into_bytes());
            }
            5 => {
                let end = at + self.below(bytes.len() - at + 1).min(64);
                bytes.drain(at..end);
            }
            6 => {
                let end = at + self.below(bytes.len() - at + 1).min(256);
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            7 => {
                let other = self.file();
                let from = self.below(other.len() + 1);
                let end = from + self.below(other.len() - from + 1).min(256);
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ if self.below(8) == 0 => bytes.truncate(at),
            _ => {}
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
