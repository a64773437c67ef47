//! What texts at random are put together of, and the dice that do it. Decides nothing: what a text should
//! become, its test says.

use super::secrets;

/// A small generator of numbers that look drawn by chance (SplitMix64), so that a failure can be had again.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// One of the pieces.
    pub fn pick<'p>(&mut self, pieces: &[&'p str]) -> &'p str {
        pieces[self.below(pieces.len())]
    }

    /// A word of so many of these letters.
    pub fn word(&mut self, letters: &str, min: usize, more: usize) -> String {
        let letters: Vec<char> = letters.chars().collect();
        (0..min + self.below(more)).map(|_| letters[self.below(letters.len())]).collect()
    }
}

/// Texts that carry secrets in ways of their own, besides those that are secret as a whole.
pub const CARRIERS: &[&str] = &[
    "Authorization: Bearer 4fK9wQz7TnB2, then",
    "with Basic dXNlcjpwYXNz.",
    "Cookie: sid=1; theme=dark\nnext",
    "password='two words' and",
    "DB_PASSWORD=p@ss,w]rd next",
    "clientSecret := \"a\\\"b\" x",
    "redis://:p/w#x@host/0 up",
    "at pg://ada:sesam@cache:1/x.",
    "read /var/home/ada/m.gguf.",
    "in C:\\Users\\Ada Lovelace\\m.gguf now",
    "your api key: 12ab.",
    "max_tokens=128, eos_token: <|im_end|>",
];

/// Beginnings, ends and middles of secrets, and what may stand between them.
const PIECES: &[&str] = &[
    " ",
    "  ",
    "\n",
    "\"",
    "'",
    "\\",
    ":",
    "=",
    "://",
    "@",
    "/",
    "-",
    "--",
    ".",
    "…",
    "...",
    ",",
    ";",
    "[",
    "]",
    "(",
    "<",
    ">",
    "#",
    "%40",
    "%",
    "&",
    "_",
    "~",
    "a",
    "Z",
    "7",
    "é",
    "🐝",
    "password",
    "token",
    "api key",
    "secret=",
    "password: \"",
    "Authorization: ",
    "Authorization: Digest ",
    "Bearer ",
    "Basic ",
    "Cookie: ",
    "https://",
    "redis://ada:",
    "ada:pw@",
    "example.org",
    "ada",
    "/home/",
    "/home/ada",
    "/Users/",
    "C:\\Users\\",
    "C:",
    "/mnt/c",
    "/var",
    "file://",
    "sk-",
    "ghp_",
    "eyJ",
    "eyJhbGciOi.",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "AKIA",
    "4111",
    "1111",
    "411111111111",
    "[redacted:email]",
    "[redacted:secret]",
    "***",
    "heron",
    "her",
    "[redacted",
    "redacted:email]",
    "one and two",
    "----",
    "..",
    "-- END ",
    "ACME-12",
    "ACME-",
    "3",
];

/// Everything a text at random may be made of; `secrets` are those of [`secrets`].
pub fn pieces(secrets: &[String]) -> Vec<&str> {
    let whole = secrets.iter().map(String::as_str);
    whole.chain(CARRIERS.iter().copied()).chain(PIECES.iter().copied()).collect()
}

/// Every secret, as text alone.
pub fn every_secret() -> Vec<String> {
    secrets().into_iter().map(|(secret, _)| secret).collect()
}
