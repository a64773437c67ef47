//! What an operator may say about the redactor: what it keeps, what it takes out besides what it knows,
//! and what it puts in its place. It never guesses: what it does not understand is refused by name.

use serde::Deserialize;

use crate::engine::{Family, Triggers};
use crate::pattern::Pattern;

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"allow":{"type":"array","items":{"type":"string","minLength":1,"maxLength":256},"maxItems":256,"description":"texts that are kept where they would be taken out whole"},"deny":{"type":"array","items":{"type":"string","minLength":3,"maxLength":256},"maxItems":256,"description":"texts that are always taken out, upper and lower case told apart"},"patterns":{"type":"array","items":{"type":"string","minLength":1,"maxLength":256},"maxItems":16,"description":"what is taken out besides: characters, classes ([A-Z0-9], \\d, \\w, \\s, .) and repetitions ({n}, {n,m}, ?, *, +); no groups, no alternatives"},"replacement":{"type":"string","minLength":2,"maxLength":64,"default":"[redacted:{family}]","description":"what stands in the place; begins and ends with one of [](){}<>*#|^$; {family} becomes the kind of secret"}}}"#;

/// Entries that `allow` and `deny` may have each.
const ENTRIES_MAX: usize = 256;
/// Longest entry, characters.
const ENTRY_CHARS_MAX: usize = 256;
/// Shortest entry of `deny`, characters: a shorter one would shred every text.
const DENY_CHARS_MIN: usize = 3;
/// Patterns of the operator's.
const PATTERNS_MAX: usize = 16;
/// Longest replacement, characters.
const REPLACEMENT_CHARS_MAX: usize = 64;
/// What a replacement begins and ends with: nothing that can be part of a secret, a name or an address.
const EDGES: &str = "[](){}<>*#|^$";

/// The policy in force.
pub struct Policy {
    allow: Vec<String>,
    deny: Vec<String>,
    /// What stands in the place of a secret, by family.
    replacements: Vec<String>,
    /// What is taken out besides.
    pub patterns: Vec<Pattern>,
    /// Bytes at which the scanner looks closer.
    pub triggers: Triggers,
}

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    patterns: Vec<String>,
    replacement: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), Vec::new(), "[redacted:{family}]")
    }
}

impl Policy {
    fn new(
        allow: Vec<String>,
        deny: Vec<String>,
        patterns: Vec<Pattern>,
        replacement: &str,
    ) -> Self {
        let replacements: Vec<String> = Family::ALL
            .iter()
            .map(|family| replacement.replace("{family}", family.name()))
            .collect();
        let firsts = deny.iter().chain(&replacements).filter_map(|text| text.bytes().next());
        let triggers = Triggers::with(firsts.chain(patterns.iter().flat_map(Pattern::firsts)));
        Self { allow, deny, replacements, patterns, triggers }
    }

    /// The policy that a JSON configuration asks for. The error names what it does not understand.
    pub fn read(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        check_entries("allow", &config.allow, 1)?;
        check_entries("deny", &config.deny, DENY_CHARS_MIN)?;
        let replacement = config.replacement.as_deref().unwrap_or("[redacted:{family}]");
        check_replacement(replacement)?;
        check_entries("patterns", &config.patterns, 1)?;
        if config.patterns.len() > PATTERNS_MAX {
            return Err(format!(
                "patterns: has {} entries, at most {PATTERNS_MAX} fit",
                config.patterns.len()
            ));
        }
        let patterns = config.patterns.iter().enumerate().map(|(place, source)| {
            Pattern::read(source).map_err(|error| format!("patterns[{place}]: {error}"))
        });
        let patterns = patterns.collect::<Result<Vec<_>, String>>()?;
        Ok(Self::new(config.allow, config.deny, patterns, replacement))
    }

    /// Whether a text that would be taken out is to be kept.
    pub fn allows(&self, text: &str) -> bool {
        self.allow.iter().any(|kept| kept == text)
    }

    /// Length of the text from `deny` that stands at the beginning.
    pub fn denied(&self, text: &str) -> Option<usize> {
        self.deny.iter().filter(|denied| text.starts_with(*denied)).map(String::len).max()
    }

    /// Whether a text may be the beginning of one from `deny`, or of a replacement.
    pub fn may_begin(&self, text: &str) -> bool {
        let literals = self.deny.iter().chain(&self.replacements);
        literals.into_iter().any(|whole| whole.len() > text.len() && whole.starts_with(text))
    }

    /// What stands in the place of a secret.
    pub fn replacement(&self, family: Family) -> &str {
        &self.replacements[family as usize]
    }

    /// Length of the replacement that stands at the beginning.
    pub fn replaced(&self, text: &str) -> Option<usize> {
        self.replacements.iter().filter(|mark| text.starts_with(*mark)).map(String::len).max()
    }
}

fn check_entries(key: &str, entries: &[String], chars_min: usize) -> Result<(), String> {
    if entries.len() > ENTRIES_MAX {
        return Err(format!("{key}: has {} entries, at most {ENTRIES_MAX} fit", entries.len()));
    }
    for (place, entry) in entries.iter().enumerate() {
        let chars = entry.chars().count();
        if !(chars_min..=ENTRY_CHARS_MAX).contains(&chars) {
            let range = format!("{chars_min} to {ENTRY_CHARS_MAX}");
            return Err(format!("{key}[{place}]: has {chars} characters, expected {range}"));
        }
    }
    Ok(())
}

fn check_replacement(replacement: &str) -> Result<(), String> {
    let chars = replacement.chars().count();
    if !(2..=REPLACEMENT_CHARS_MAX).contains(&chars) {
        let range = format!("2 to {REPLACEMENT_CHARS_MAX}");
        return Err(format!("replacement: has {chars} characters, expected {range}"));
    }
    // A `{family}` at an edge would put letters there.
    let shown = replacement.replace("{family}", "family");
    if !shown.starts_with(|c| EDGES.contains(c)) || !shown.ends_with(|c| EDGES.contains(c)) {
        return Err(format!("replacement: must begin and end with one of {EDGES}"));
    }
    if replacement.contains(|c: char| c.is_control() || matches!(c, '"' | '\'' | '`' | '\\')) {
        return Err("replacement: must not contain quotes, backslashes or controls".to_owned());
    }
    Ok(())
}
