//! What an operator may say about the storyteller: whether it tells the cute line and the story, and
//! where each kind of fact goes. It never guesses: an unknown key, kind or sink is refused by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::contract::rbees::narration::facts::Fact;
use crate::contract::rbees::narration::types::Sinks;
use crate::routes::{self, KINDS, Route};

/// The policy in force.
pub struct Policy {
    /// Whether the cute line is told.
    pub cute: bool,
    /// Whether the story is told.
    pub story: bool,
    /// Where each kind goes, in the order of [`KINDS`].
    routes: [Route; KINDS.len()],
}

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config<'c> {
    cute: Option<bool>,
    story: Option<bool>,
    #[serde(borrow, default)]
    routes: BTreeMap<Cow<'c, str>, Vec<Cow<'c, str>>>,
}

impl Policy {
    /// All three texts, and the default routing table.
    pub const DEFAULT: Self = Self { cute: true, story: true, routes: default_routes() };

    /// The policy that a JSON configuration asks for. The error names what it does not understand.
    pub fn read(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let mut policy = Self::DEFAULT;
        policy.cute = config.cute.unwrap_or(true);
        policy.story = config.story.unwrap_or(true);
        for (kind, sinks) in &config.routes {
            let place = KINDS
                .iter()
                .position(|(name, _)| name == kind)
                .ok_or_else(|| format!("routes: there is no kind of fact named `{kind}`"))?;
            let names: Vec<&str> = sinks.iter().map(AsRef::as_ref).collect();
            policy.routes[place] = Route::to(&names).map_err(|name| {
                format!("routes.{kind}: there is no sink named `{name}`, only `stdout` and `sse`")
            })?;
        }
        Ok(policy)
    }

    /// The sinks that stay open for a fact.
    pub fn sinks(&self, fact: &Fact) -> Sinks {
        self.routes[routes::index(fact)].sinks()
    }
}

/// JSON Schema of the configuration.
pub fn schema() -> String {
    let kinds: Vec<String> = KINDS.iter().map(|(name, _)| format!("{name:?}")).collect();
    format!(
        r#"{{"type":"object","additionalProperties":false,"properties":{{"cute":{{"type":"boolean","default":true,"description":"tell the cute line"}},"story":{{"type":"boolean","default":true,"description":"tell the story"}},"routes":{{"type":"object","description":"kinds of facts that go elsewhere than by default; an empty list drops a kind","propertyNames":{{"enum":[{}]}},"additionalProperties":{{"type":"array","items":{{"enum":["stdout","sse"]}}}}}}}}}}"#,
        kinds.join(",")
    )
}

const fn default_routes() -> [Route; KINDS.len()] {
    let mut routes = [Route::Nowhere; KINDS.len()];
    let mut place = 0;
    while place < KINDS.len() {
        routes[place] = KINDS[place].1;
        place += 1;
    }
    routes
}
