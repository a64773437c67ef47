//! What a template can call, each with a bound. The engine's fuel pays for steps and for the bytes
//! of texts; what it doesn't see is how large a value is once every reference in it is followed, so
//! [`keep`] copies values within bounds wherever the guard has found that one is made or passed on.
//! Texts that live at one time are bounded by the fuel (64 bytes a unit), everything else by
//! [`TEMPLATE_NODES_MAX`] and [`TEMPLATE_OUTPUT_BYTES_MAX`] a value. Never opens, reads or names anything
//! outside of the template.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{DynObject, Kwargs, Tuple, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::guard::{HURRY, KEEP};
use crate::limits::{
    TEMPLATE_DATE_FORMAT_BYTES_MAX, TEMPLATE_DEPTH_MAX, TEMPLATE_FUEL, TEMPLATE_INDENT_MAX,
    TEMPLATE_LEVELS_MAX, TEMPLATE_MS_MAX, TEMPLATE_NODES_MAX, TEMPLATE_OUTPUT_BYTES_MAX,
};

/// Filters which no chat template needs and which multiply, nest or print without a bound.
const REMOVED: [&str; 10] =
    ["batch", "slice", "groupby", "chain", "zip", "pprint", "format", "urlencode", "sum", "indent"];
const TOO_LARGE: &str = "a value is too large";

/// Compares two values.
type Compare = fn(&Value, &Value) -> bool;

/// Tests that compare, which `select` and `reject` call for each item.
const COMPARISONS: [(&[&str], Compare); 6] = [
    (&["eq", "equalto", "=="], |a, b| a == b),
    (&["ne", "!="], |a, b| a != b),
    (&["lt", "lessthan", "<"], |a, b| a < b),
    (&["le", "<="], |a, b| a <= b),
    (&["gt", "greaterthan", ">"], |a, b| a > b),
    (&["ge", ">="], |a, b| a >= b),
];

thread_local! {
    /// When the rendering on this thread has to be over; each has a thread of its own.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts the clock of the rendering on this thread.
pub(super) fn start() {
    DEADLINE.set(Some(Instant::now() + Duration::from_millis(TEMPLATE_MS_MAX)));
}

fn in_time() -> Result<(), Error> {
    match DEADLINE.get() {
        Some(deadline) if Instant::now() > deadline => Err(failed("it takes too long")),
        _ => Ok(()),
    }
}

/// The words with which a template refuses a conversation.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// A bound of this file that a template has met.
#[derive(Debug)]
struct Bound(&'static str);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Bound {}

/// The words of `raise_exception`, if that is what ended the rendering.
pub(super) fn refusal(error: &Error) -> Option<&str> {
    causes(error).find_map(|cause| cause.downcast_ref()).map(|Refusal(words)| words.as_str())
}

/// What sort of failure it was, without words that a message may have brought in.
pub(super) fn reason(error: &Error) -> String {
    let bound = causes(error).find_map(|cause| cause.downcast_ref());
    bound.map_or_else(|| error.kind().to_string(), |Bound(words)| (*words).to_owned())
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
}

/// An environment set up as Hugging Face's, without what has no bound.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the default ones"));
    environment.set_debug(false);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|output, state, value| {
        let copy = keep(state, value, None)?;
        minijinja::escape_formatter(output, state, &copy)
    });
    for name in REMOVED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_filter(KEEP, |state: &State, value: &Value, namespace: Option<Value>| {
        keep(state, value, namespace.as_ref())
    });
    environment.add_filter(HURRY, |value: &Value| in_time().map(|()| value.clone()));
    for (names, compare) in COMPARISONS {
        for name in names {
            environment
                .add_test(*name, move |a: &Value, b: &Value| in_time().map(|()| compare(a, b)));
        }
    }
    // In Jinja, nothing is not iterable.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("in", |state: &State, item: &Value, all: &Value| {
        in_time().and_then(|()| minijinja::tests::is_in(state, item, all))
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("split", |value: &Value, by: Option<&str>, most: Option<i64>| {
        bounded_text(value)?;
        filters::split(value, by.map(Into::into), most)
    });
    environment.add_filter("lines", |value: &Value| {
        bounded_text(value)?;
        filters::lines(value)
    });
    environment.add_function("namespace", |state: &State, fields: Kwargs| {
        let fields = keep(state, &Value::from(fields), None)?;
        minijinja::functions::namespace(Some(fields.into()))
    });
    environment.add_function("dict", |state: &State, fields: Kwargs| {
        keep(state, &Value::from(fields), None)
    });
    environment.add_function(
        "range",
        |state: &State, from: isize, to: Option<isize>, by: Option<isize>| {
            keep(state, &minijinja::functions::range(from, to, by)?, None)
        },
    );
    environment.add_function("raise_exception", |words: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, "the template refuses");
        Err(error.with_source(Refusal(words)))
    });
    environment.add_function("strftime_now", date);
    environment
}

fn failed(problem: &'static str) -> Error {
    Error::from(ErrorKind::InvalidOperation).with_source(Bound(problem))
}

/// A copy of `value` without shared parts, within bounds; scalars as they are.
///
/// A namespace stays itself, as the only thing that can change, but may not be put into anything
/// else: so no value can contain itself. With `namespace`, the value is about to be kept there and
/// counts together with what it holds.
fn keep(state: &State, value: &Value, namespace: Option<&Value>) -> Result<Value, Error> {
    in_time()?;
    let mut budget = Budget { nodes: TEMPLATE_NODES_MAX, bytes: TEMPLATE_OUTPUT_BYTES_MAX };
    if let Some(namespace) = namespace {
        budget.copy_map(namespace, 0)?;
    }
    let object = value.as_object();
    let kept = if object.is_some_and(is_namespace) && namespace.is_none() {
        budget.copy_map(value, 0)?;
        value.clone()
    } else if object.is_some_and(|object| object.type_name().ends_with("::Macro")) {
        value.clone()
    } else {
        budget.copy(value, 0)?
    };
    let nodes = TEMPLATE_NODES_MAX - budget.nodes;
    let bytes = TEMPLATE_OUTPUT_BYTES_MAX - budget.bytes;
    state.consume_fuel((nodes / 8 + bytes / 4_096) as u64)?;
    Ok(kept)
}

fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

/// How much more a value may hold.
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    fn spend(&mut self, nodes: usize, bytes: usize) -> Result<(), Error> {
        self.nodes = self.nodes.checked_sub(nodes).ok_or_else(|| failed(TOO_LARGE))?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| failed(TOO_LARGE))?;
        Ok(())
    }

    fn copy(&mut self, value: &Value, level: usize) -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            self.spend(1, text.len())?;
            return Ok(value.clone());
        }
        self.spend(1, value.as_bytes().map_or(0, <[u8]>::len))?;
        if level > TEMPLATE_LEVELS_MAX {
            return Err(failed("values nest too deep"));
        }
        if value.as_object().is_some_and(is_namespace) {
            return Err(failed("a namespace can't be part of another value"));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    items.push(self.copy(&item?, level + 1)?);
                }
                let tuple = value.is_tuple();
                Ok(if tuple { Value::from(Tuple::new(items)) } else { Value::from(items) })
            }
            ValueKind::Map => self.copy_map(value, level),
            _ => Ok(value.clone()),
        }
    }

    fn copy_map(&mut self, value: &Value, level: usize) -> Result<Value, Error> {
        let mut fields = BTreeMap::new();
        for key in value.try_iter()?.checked() {
            let key = self.copy(&key?, level + 1)?;
            let field = self.copy(&value.get_item(&key)?, level + 1)?;
            fields.insert(key, field);
        }
        Ok(Value::from(fields))
    }
}

/// That a text is no longer than all output may be.
fn bounded_text(value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) if text.len() > TEMPLATE_OUTPUT_BYTES_MAX => Err(failed(TOO_LARGE)),
        _ => Ok(()),
    }
}

/// The methods of Python's values, those that make more than they are given with a bound.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    in_time()?;
    for text in args.iter().chain([value]) {
        bounded_text(text)?;
        state.consume_fuel(text.as_str().map_or(0, |text| text.len() as u64 / 64))?;
    }
    let text = |index: usize| args.get(index).and_then(Value::as_str);
    match (value.as_str(), name) {
        (Some(_), "format") => return Err(Error::from(ErrorKind::UnknownMethod)),
        (Some(whole), "replace") => {
            if let (Some(old), Some(new)) = (text(0), text(1)) {
                let more = new.len().saturating_sub(old.len());
                let most = whole.matches(old).count().saturating_mul(more);
                bounded(whole.len().saturating_add(most))?;
            }
        }
        (Some(between), "join") => {
            let items = match args {
                [items] => keep(state, items, None)?,
                _ => return unknown_method_callback(state, value, name, args),
            };
            bounded(items.len().unwrap_or(0).saturating_mul(between.len()))?;
            return unknown_method_callback(state, value, name, &[items]);
        }
        _ => {}
    }
    unknown_method_callback(state, value, name, args)
}

fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes > TEMPLATE_OUTPUT_BYTES_MAX { Err(failed(TOO_LARGE)) } else { Ok(()) }
}

/// The current date in UTC, as `strftime` writes it.
fn date(format: &str) -> Result<String, Error> {
    if format.len() > TEMPLATE_DATE_FORMAT_BYTES_MAX {
        return Err(failed("the format of a date is too long"));
    }
    jiff::fmt::strtime::format(format, Timestamp::now())
        .map_err(|_| failed("the format of a date is unknown"))
}

/// JSON as Python's `json.dumps` writes it, with `ensure_ascii=False` as Hugging Face sets it: a
/// space after commas and colons, or one item a line with `indent`. Keys come sorted.
fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = indent.or(options.get::<Option<usize>>("indent")?);
    for ignored in ["ensure_ascii", "sort_keys"] {
        options.get::<Option<bool>>(ignored)?;
    }
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > TEMPLATE_INDENT_MAX) {
        return Err(failed("JSON is indented too far"));
    }
    let mut json = Json { text: String::new(), indent };
    json.value(value, 0)?;
    Ok(Value::from(json.text))
}

/// JSON under way.
struct Json {
    text: String,
    indent: Option<usize>,
}

impl Json {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        bounded(self.text.len() + text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        if level > TEMPLATE_DEPTH_MAX {
            return Err(failed("values nest too deep"));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let mut empty = true;
                self.push("[")?;
                for item in value.try_iter()?.checked() {
                    self.item(&mut empty, level + 1)?;
                    self.value(&item?, level + 1)?;
                }
                self.end(empty, level, "]")
            }
            ValueKind::Map => {
                let mut empty = true;
                self.push("{")?;
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    self.item(&mut empty, level + 1)?;
                    self.text(&key.to_string())?;
                    self.push(": ")?;
                    self.value(&value.get_item(&key)?, level + 1)?;
                }
                self.end(empty, level, "}")
            }
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Undefined => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&value.to_string()),
            _ => Err(failed("a value has no form in JSON")),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        bounded(self.text.len() + text.len())?;
        let quoted =
            serde_json::to_string(text).map_err(|_| failed("a text has no form in JSON"))?;
        self.push(&quoted)
    }

    fn item(&mut self, empty: &mut bool, level: usize) -> Result<(), Error> {
        if !std::mem::replace(empty, false) {
            self.push(if self.indent.is_some() { "," } else { ", " })?;
        }
        self.line(level)
    }

    fn end(&mut self, empty: bool, level: usize, bracket: &str) -> Result<(), Error> {
        if !empty {
            self.line(level)?;
        }
        self.push(bracket)
    }

    fn line(&mut self, level: usize) -> Result<(), Error> {
        match self.indent {
            Some(indent) => self.push(&format!("\n{}", " ".repeat(indent * level))),
            None => Ok(()),
        }
    }
}
