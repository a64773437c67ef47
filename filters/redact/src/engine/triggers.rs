//! At which bytes the scanner looks closer. Decides nothing.

use super::{auth, card, prefix};

/// What a byte may begin, as bits.
pub struct Triggers(pub(super) [u8; 256]);

/// Looked at wherever it stands.
pub(super) const ANYWHERE: u8 = 1;
/// Looked at where a word begins.
pub(super) const WORD_START: u8 = 2;
/// Begins a replacement, or a text that the operator denies.
pub(super) const LITERAL: u8 = 4;
/// No part of a word, so that one may begin behind it.
pub(super) const BOUNDARY: u8 = WORD_START << 4;

impl Triggers {
    /// The scanner's own triggers, and the first bytes of the policy's literals.
    pub fn with(literals: impl Iterator<Item = u8>) -> Self {
        let mut bits = [0; 256];
        for byte in 0..=u8::MAX {
            if !byte.is_ascii_alphanumeric() {
                bits[usize::from(byte)] |= BOUNDARY;
            }
            if card::may_begin(byte) || prefix::may_begin(byte) || auth::may_begin(byte) {
                bits[usize::from(byte)] |= WORD_START;
            }
        }
        for &byte in b"@%:=/\\-" {
            bits[usize::from(byte)] |= ANYWHERE;
        }
        for byte in literals {
            bits[usize::from(byte)] |= LITERAL;
        }
        Self(bits)
    }
}
