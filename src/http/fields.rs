//! A JSON object field by field, each checked by itself, so that all that is wrong is said at once.
//! Never repeats a value.

use std::collections::HashSet;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// One thing that a request did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// The field, or the part of the request.
    #[schema(example = "temperature")]
    pub field: String,
    /// Which rule: `type`, `range`, `length`, `required`, `unknown`, ….
    #[schema(example = "range")]
    pub constraint: String,
    /// What is expected.
    #[schema(example = "is a number from 0 to 2")]
    pub message: String,
}

impl Violation {
    /// `field` breaks `constraint`; `message` says what is expected.
    pub fn new(field: &str, constraint: &str, message: &str) -> Self {
        let (field, constraint) = (clip(field), constraint.to_owned());
        Violation { field, constraint, message: message.to_owned() }
    }
}

/// Names of unknown fields come from outside: short and harmless.
fn clip(field: &str) -> String {
    crate::narration::clean::line(field, 64).into_owned()
}

/// What `null` means in an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// A value like others, and of no field's type.
    Wrong,
    /// The field is not given, as OpenAI's clients mean it.
    Absent,
}

/// The fields of a JSON object, each still as it was written.
pub struct Fields {
    /// Where the object stands, before the names of its fields: `messages[2].`.
    place: String,
    raw: Vec<(String, Box<RawValue>)>,
    taken: HashSet<&'static str>,
    wrong: Vec<Violation>,
}

struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    /// The fields of a request's body.
    pub fn read(body: &[u8], null: Null) -> Result<Self, Vec<Violation>> {
        let pairs = serde_json::from_slice(body).map_err(|e| {
            let place =
                format!("is a JSON object; line {}, column {} is not", e.line(), e.column());
            vec![Violation::new("body", "json", &place)]
        })?;
        Ok(Self::new(String::new(), pairs, null))
    }

    fn new(place: String, Pairs(mut raw): Pairs, null: Null) -> Self {
        if null == Null::Absent {
            raw.retain(|(_, value)| value.get() != "null");
        }
        Fields { place, raw, taken: HashSet::new(), wrong: Vec::new() }
    }

    /// The fields of an object inside this one; what is wrong there comes back by [`Self::absorb`].
    pub fn object(&mut self, name: &'static str, null: Null) -> Option<Fields> {
        let pairs: Pairs = self.take(name, "an object")?;
        Some(Self::new(format!("{}{name}.", self.place), pairs, null))
    }

    /// The objects of a list inside this one, the same way.
    pub fn objects(&mut self, name: &'static str, null: Null) -> Option<Vec<Fields>> {
        let list: Vec<Pairs> = self.take(name, "a list of objects")?;
        let place = |at| format!("{}{name}[{at}].", self.place);
        let objects = list.into_iter().enumerate();
        Some(objects.map(|(at, pairs)| Self::new(place(at), pairs, null)).collect())
    }

    /// Takes over what was wrong inside a part of this object.
    pub fn absorb(&mut self, part: Fields) {
        self.wrong.extend(part.finish());
    }

    /// Says that `field` breaks `constraint`.
    pub fn wrong(&mut self, field: &str, constraint: &str, message: &str) {
        self.wrong.push(Violation::new(&format!("{}{field}", self.place), constraint, message));
    }

    /// Whether the field was given, even if its value is wrong.
    pub fn seen(&self, name: &str) -> bool {
        self.raw.iter().any(|(known, _)| known == name)
    }

    /// Says so where a field that is needed was not given.
    pub fn require(&mut self, name: &'static str) {
        if !self.seen(name) {
            self.wrong(name, "required", "is needed");
        }
    }

    /// The field's value, where it is there and of its type.
    pub fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Option<T> {
        self.taken.insert(name);
        let mut values = self.raw.iter().filter(|(known, _)| known == name).map(|(_, raw)| raw);
        let value = values.next()?;
        if values.next().is_some() {
            self.wrong(name, "unique", "is given once");
            return None;
        }
        match serde_json::from_str(value.get()) {
            Ok(value) => Some(value),
            Err(_) => {
                self.wrong(name, "type", &format!("is {expected}"));
                None
            }
        }
    }

    /// A number within bounds.
    pub fn number(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let expected = format!("a number from {min} to {max}");
        let value: f64 = self.take(name, &expected)?;
        if !(min..=max).contains(&value) {
            self.wrong(name, "range", &format!("is {expected}"));
        }
        Some(value.abs()) // -0 is 0
    }

    /// An integer within bounds.
    pub fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let expected = format!("an integer from {min} to {max}");
        let value: u64 = self.take(name, &expected)?;
        if !(min..=max).contains(&value) {
            self.wrong(name, "range", &format!("is {expected}"));
        }
        Some(value)
    }

    /// Takes these fields as known, whatever they hold.
    pub fn allow<const N: usize>(&mut self, names: [&'static str; N]) {
        self.taken.extend(names);
    }

    /// A field that may only have a value that changes nothing.
    pub fn only(&mut self, name: &'static str, neutral: &[&str]) {
        self.taken.insert(name);
        let mut values = self.raw.iter().filter(|(known, _)| known == name);
        let acts = |value: &RawValue| !neutral.iter().any(|known| same_json(known, value.get()));
        if values.any(|(_, value)| acts(value)) {
            let message = if neutral.is_empty() {
                "is not supported by this worker".to_owned()
            } else {
                format!("is not supported by this worker, but for {}", neutral.join(" or "))
            };
            self.wrong(name, "unsupported", &message);
        }
    }

    /// Everything that was wrong, fields that nobody asked for included.
    pub fn finish(mut self) -> Vec<Violation> {
        for (name, _) in std::mem::take(&mut self.raw) {
            if !self.taken.contains(name.as_str()) {
                self.wrong(&name, "unknown", "is no field of this request");
            }
        }
        self.wrong
    }
}

/// Whether two texts are the same JSON value, however written.
fn same_json(a: &str, b: &str) -> bool {
    use serde_json::Value;
    let read = |text| serde_json::from_str::<Value>(text).ok();
    match (read(a), read(b)) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (a, b) => a.is_some() && a == b,
    }
}
