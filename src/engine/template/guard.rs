//! Reads a template's source before the parser does: refuses what nests too deep or has no bound,
//! and puts the filter [`KEEP`] around whatever makes or passes on a list, a map or a tuple, so
//! that no value can grow by referring to others again and again, and [`HURRY`] around conditions,
//! so that no loop runs on. Adds to the source only, but for `generation` tags; takes nothing away.

use crate::limits::{TEMPLATE_DEPTH_MAX, TEMPLATE_TAG_ADDITIONS_MAX, TEMPLATE_TAG_TOKENS_MAX};

/// The filter that copies a value within bounds; a name that a template can't spell by accident.
pub(super) const KEEP: &str = "keep_within_bounds";
/// The filter that ends a rendering which has taken too long.
pub(super) const HURRY: &str = "end_when_too_late";

/// Words after which a bracket begins a value rather than a call or a subscript.
const OPERATORS: [&str; 8] = ["in", "not", "and", "or", "if", "elif", "else", "is"];
/// Statements that open a block, with the word that closes it.
const BLOCKS: [(&str, &str); 5] = [
    ("for", "endfor"),
    ("if", "endif"),
    ("macro", "endmacro"),
    ("filter", "endfilter"),
    ("generation", "endgeneration"),
];
/// Statements without a block of their own.
const SINGLES: [&str; 3] = ["else", "break", "continue"];

/// Why a template can't be used, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// What a token is, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Word,
    Literal,
    Operator,
}

#[derive(Clone, Copy)]
struct Token<'a> {
    sort: Sort,
    text: &'a str,
    /// Where it begins in the source.
    at: usize,
}

impl Token<'_> {
    fn is(&self, text: &str) -> bool {
        self.sort != Sort::Literal && self.text == text
    }
}

/// The source made safe to parse and to run.
pub(super) fn guarded(source: &str) -> Result<String, Fault> {
    let mut guard = Guard { source, at: 0, output: String::new(), blocks: Vec::new() };
    guard.output.reserve(source.len() * 2);
    while let Some(start) = guard.next_tag() {
        guard.output.push_str(&source[guard.at..start]);
        guard.at = start;
        match source.as_bytes()[start + 1] {
            b'#' => guard.comment()?,
            b'{' => guard.expression()?,
            _ => guard.statement()?,
        }
    }
    guard.output.push_str(&source[guard.at..]);
    Ok(guard.output)
}

struct Guard<'a> {
    source: &'a str,
    at: usize,
    output: String,
    /// For each open block the word that closes it, and how deep it nests the parser.
    blocks: Vec<(&'static str, usize)>,
}

impl<'a> Guard<'a> {
    fn next_tag(&self) -> Option<usize> {
        let rest = &self.source.as_bytes()[self.at..];
        let found = rest.windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"));
        found.map(|offset| self.at + offset)
    }

    fn fault<T>(&self, at: usize, problem: impl Into<String>) -> Result<T, Fault> {
        let line = 1 + self.source.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        Err(Fault { line, problem: problem.into() })
    }

    fn comment(&mut self) -> Result<(), Fault> {
        let marker = usize::from(self.marker(self.at + 2));
        let Some(end) = self.source[self.at + 2 + marker..].find("#}") else {
            return self.fault(self.at, "a comment has no end");
        };
        let end = self.at + 2 + marker + end + 2;
        self.output.push_str(&self.source[self.at..end]);
        self.at = end;
        Ok(())
    }

    fn expression(&mut self) -> Result<(), Fault> {
        let (tokens, end) = self.tokens("}}")?;
        self.check(&tokens)?;
        let mut insertions = Vec::new();
        wrap_brackets(&tokens, &mut insertions);
        self.copy(end, insertions);
        Ok(())
    }

    fn statement(&mut self) -> Result<(), Fault> {
        let (tokens, end) = self.tokens("%}")?;
        self.check(&tokens)?;
        let Some(word) = tokens.first().filter(|token| token.sort == Sort::Word) else {
            return self.fault(self.at, "a statement has no name");
        };
        self.nest(word, &tokens)?;
        let mut insertions = Vec::new();
        match word.text {
            "set" => wrap_assignment(self.source, &tokens, &mut insertions),
            "for" => self.wrap_loop(&tokens, &mut insertions)?,
            "if" | "elif" => wrap_all(&tokens[1..], HURRY, None, &mut insertions),
            _ => wrap_brackets(&tokens, &mut insertions),
        }
        let closing = &self.source[end - 3..end];
        let closing = if closing.starts_with(['-', '+']) { closing } else { "%}" };
        // Training marks the assistant's words with "generation"; here that means nothing.
        match word.text {
            "generation" | "endgeneration" => {
                let opening = usize::from(self.marker(self.at + 2)) + 2;
                let opening = &self.source[self.at..self.at + opening];
                let same = if word.text == "generation" { "if true" } else { "endif" };
                self.output.push_str(&format!("{opening} {same} {closing}"));
                self.at = end;
            }
            _ => self.copy(end, insertions),
        }
        if word.text == "macro" {
            for name in parameters(&tokens) {
                self.output.push_str(&format!("{{% set {name} = {name}|{KEEP} {closing}"));
            }
        }
        Ok(())
    }

    /// Follows blocks as they open and close; refuses statements that aren't known to be bounded.
    fn nest(&mut self, word: &Token<'_>, tokens: &[Token<'_>]) -> Result<(), Fault> {
        let assigns = top_level(tokens).any(|(_, token)| token.is("="));
        if let Some((_, closing)) = BLOCKS.iter().find(|(opening, _)| *opening == word.text) {
            self.blocks.push((closing, 1));
        } else if word.text == "set" {
            if !assigns {
                self.blocks.push(("endset", 1));
            }
        } else if word.text == "elif" {
            // The parser nests each into the one before.
            match self.blocks.last_mut() {
                Some((_, depth)) => *depth += 1,
                None => return self.fault(word.at, "'elif' stands outside of an 'if'"),
            }
        } else if self.blocks.last().is_some_and(|(closing, _)| *closing == word.text) {
            self.blocks.pop();
        } else if !SINGLES.contains(&word.text) {
            let name = super::shown(word.text);
            return self.fault(word.at, format!("the statement '{name}' isn't supported here"));
        }
        let depth: usize = self.blocks.iter().map(|(_, depth)| depth).sum();
        if depth > TEMPLATE_DEPTH_MAX {
            return self.fault(word.at, format!("blocks nest deeper than {TEMPLATE_DEPTH_MAX}"));
        }
        Ok(())
    }

    /// `for TARGET in EXPRESSION [if CONDITION]`
    fn wrap_loop(
        &self,
        tokens: &[Token<'_>],
        insertions: &mut Vec<(usize, String)>,
    ) -> Result<(), Fault> {
        let Some((from, _)) = top_level(tokens).find(|(_, token)| token.is("in")) else {
            return self.fault(self.at, "a 'for' has no 'in'");
        };
        let rest = &tokens[from + 1..];
        if let Some((_, word)) = top_level(rest).find(|(_, token)| token.is("recursive")) {
            return self.fault(word.at, "recursive loops aren't supported here");
        }
        let until = top_level(rest).find(|(_, token)| token.is("if"));
        let (values, condition) = rest.split_at(until.map_or(rest.len(), |(index, _)| index));
        wrap_all(values, KEEP, None, insertions);
        wrap_all(condition.get(1..).unwrap_or_default(), HURRY, None, insertions);
        Ok(())
    }

    fn marker(&self, at: usize) -> bool {
        matches!(self.source.as_bytes().get(at), Some(b'-' | b'+'))
    }

    /// Copies the tag that ends before `end`, with what is to be put into it.
    fn copy(&mut self, end: usize, mut insertions: Vec<(usize, String)>) {
        insertions.sort_by_key(|(at, _)| *at);
        for (at, text) in insertions {
            self.output.push_str(&self.source[self.at..at]);
            self.output.push_str(&text);
            self.at = at;
        }
        self.output.push_str(&self.source[self.at..end]);
        self.at = end;
    }

    /// The tokens of the tag that begins here, and where it ends. Brackets are paired.
    fn tokens(&self, closing: &str) -> Result<(Vec<Token<'a>>, usize), Fault> {
        let bytes = self.source.as_bytes();
        let mut at = self.at + 2 + usize::from(self.marker(self.at + 2));
        let mut tokens: Vec<Token<'a>> = Vec::new();
        let mut open = Vec::new();
        loop {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            if open.is_empty() {
                let marker = usize::from(self.marker(at));
                if bytes[at..].get(marker..).is_some_and(|b| b.starts_with(closing.as_bytes())) {
                    return Ok((tokens, at + marker + closing.len()));
                }
            }
            let Some((sort, length)) = self.token(at)? else {
                return self.fault(self.at, "a tag has no end");
            };
            let text = &self.source[at..at + length];
            match text {
                "(" | "[" | "{" => open.push(text),
                ")" | "]" | "}" => {
                    let expected = match open.pop() {
                        Some("(") => ")",
                        Some("[") => "]",
                        Some(_) => "}",
                        None => "no bracket",
                    };
                    if text != expected {
                        return self.fault(at, format!("expected '{expected}', found '{text}'"));
                    }
                }
                _ => {}
            }
            if open.len() > TEMPLATE_DEPTH_MAX {
                return self.fault(at, format!("brackets nest deeper than {TEMPLATE_DEPTH_MAX}"));
            }
            tokens.push(Token { sort, text, at });
            if tokens.len() > TEMPLATE_TAG_TOKENS_MAX {
                return self
                    .fault(at, format!("a tag has more than {TEMPLATE_TAG_TOKENS_MAX} words"));
            }
            at += length;
        }
    }

    /// What begins at `at` and how long it is; none at the end.
    fn token(&self, at: usize) -> Result<Option<(Sort, usize)>, Fault> {
        let rest = &self.source.as_bytes()[at..];
        let run = |accept: fn(&u8) -> bool| rest.iter().take_while(|byte| accept(byte)).count();
        let Some(&first) = rest.first() else { return Ok(None) };
        Ok(Some(match first {
            b'\'' | b'"' => {
                let mut end = 1;
                while rest.get(end).is_some_and(|byte| *byte != first) {
                    end += if rest[end] == b'\\' { 2 } else { 1 };
                }
                if end >= rest.len() {
                    return self.fault(at, "a text has no end");
                }
                (Sort::Literal, end + 1)
            }
            b'0'..=b'9' => (Sort::Literal, run(|byte| byte.is_ascii_digit() || *byte == b'_')),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                (Sort::Word, run(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'))
            }
            _ if [b"//", b"**", b"==", b"!=", b">=", b"<="]
                .iter()
                .any(|o| rest.starts_with(*o)) =>
            {
                (Sort::Operator, 2)
            }
            byte if byte.is_ascii_punctuation() => (Sort::Operator, 1),
            _ => return self.fault(at, "expected a word, a number, a text or an operator"),
        }))
    }

    /// Bounds on a tag that the parser or the virtual machine don't have.
    fn check(&self, tokens: &[Token<'_>]) -> Result<(), Fault> {
        let mut unary = 0;
        let mut additions = 0;
        for token in tokens {
            unary = if token.is("not") || token.is("-") { unary + 1 } else { 0 };
            additions += usize::from(token.is("+"));
            if unary > TEMPLATE_DEPTH_MAX {
                return self.fault(token.at, "too many 'not' or '-' in a row");
            }
            if additions > TEMPLATE_TAG_ADDITIONS_MAX {
                let problem = format!("a tag has more than {TEMPLATE_TAG_ADDITIONS_MAX} additions");
                return self.fault(token.at, problem);
            }
            if token.is("*") || token.is("**") {
                return self
                    .fault(token.at, "multiplication isn't supported here: it has no bound");
            }
            if token.is(KEEP) || token.is(HURRY) {
                return self.fault(token.at, "a reserved name is used");
            }
        }
        Ok(())
    }
}

/// The tokens that stand in no bracket, with their places.
fn top_level<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = (usize, &'t Token<'a>)> {
    let mut depth = 0usize;
    tokens.iter().enumerate().filter(move |(_, token)| {
        if token.sort == Sort::Operator {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        depth == 0
    })
}

/// Puts [`KEEP`] around each bracket that makes a value: lists, maps, tuples, groups.
fn wrap_brackets(tokens: &[Token<'_>], insertions: &mut Vec<(usize, String)>) {
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.sort != Sort::Operator {
            continue;
        }
        match token.text {
            "(" | "[" | "{" => {
                let value = begins_value(&tokens[..index], token.text);
                open.push(value);
                if value {
                    insertions.push((token.at, "(".to_owned()));
                }
            }
            ")" | "]" | "}" if open.pop() == Some(true) => {
                insertions.push((token.at + 1, format!("|{KEEP})")));
            }
            _ => {}
        }
    }
}

/// Whether a bracket after `before` begins a value; else it calls or subscripts what is before.
fn begins_value(before: &[Token<'_>], bracket: &str) -> bool {
    let back = |steps: usize| before.len().checked_sub(steps).map(|index| before[index]);
    let is = |steps: usize, text: &str| back(steps).is_some_and(|token| token.is(text));
    let Some(last) = back(1) else { return true };
    match last.sort {
        Sort::Literal => false,
        Sort::Operator => !matches!(last.text, ")" | "]" | "}"),
        Sort::Word if is(2, ".") || is(2, "|") => false,
        Sort::Word if OPERATORS.contains(&last.text) => true,
        // "x is same [1]": the name of a test, then what it is tested against.
        Sort::Word => bracket != "(" && (is(2, "is") || (is(2, "not") && is(3, "is"))),
    }
}

/// Puts a filter around a whole expression, and [`KEEP`] around what it consists of.
fn wrap_all(
    tokens: &[Token<'_>],
    filter: &str,
    argument: Option<&str>,
    insertions: &mut Vec<(usize, String)>,
) {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return };
    let argument = argument.map_or(String::new(), |argument| format!("({argument})"));
    insertions.push((first.at, "(".to_owned()));
    wrap_brackets(tokens, insertions);
    insertions.push((last.at + last.text.len(), format!(")|{filter}{argument}")));
}

/// `set TARGET = EXPRESSION`: what is kept in a namespace counts against the whole namespace.
fn wrap_assignment(source: &str, tokens: &[Token<'_>], insertions: &mut Vec<(usize, String)>) {
    let Some((equals, _)) = top_level(tokens).find(|(_, token)| token.is("=")) else {
        return wrap_brackets(tokens, insertions);
    };
    let target = &tokens[1..equals];
    let dot = target.iter().rposition(|token| token.is("."));
    let namespace = dot.map(|dot| &source[target[0].at..target[dot].at]);
    wrap_all(&tokens[equals + 1..], KEEP, namespace, insertions);
}

/// The names of a macro's parameters: `macro NAME(a, b=EXPRESSION)`.
fn parameters<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut depth = 0;
    let mut names = Vec::new();
    for pair in tokens.windows(2) {
        match pair[0].text {
            _ if pair[0].sort == Sort::Literal => {}
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        let begins = pair[0].is(",") || pair[0].is("(");
        if depth == 1 && begins && pair[1].sort == Sort::Word {
            names.push(pair[1].text);
        }
    }
    names
}
