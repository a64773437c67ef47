//! What is told and by whom: cleaning, manifests, facts on their way into a filter and back. Keeps one
//! WebAssembly engine; reads no file.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::error::Result;
use crate::filter::component::{Component, Instance};
use crate::filter::{Chains, Host, Instances, Verdict, builtin, manifest as manifests};
use crate::limits::{FACT_CHARS_MAX, FILTER_CALL_MS_MAX, FILTER_MEMORY_MIB_MAX, HUMAN_CHARS_MAX};
use crate::narration::clean::{self as cleaning, Cleaner};
use crate::narration::{Fact, Narrator, Nowhere, Sinks, Told, recorded, wire};

/// Text made safe: one line, bounded, without controls or what reverses text; cleaned twice it is the
/// same, and so it is in pieces.
pub fn clean(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let whole = cleaning::line(&text, HUMAN_CHARS_MAX);
    assert!(whole.chars().count() <= HUMAN_CHARS_MAX);
    assert!(!whole.contains(is_unsafe), "{whole:?}");
    assert_eq!(cleaning::line(&whole, HUMAN_CHARS_MAX), whole);
    let mut cleaner = Cleaner::default();
    let pieces = text.chars().filter_map(|c| cleaner.pass(c)).take(HUMAN_CHARS_MAX);
    assert_eq!(pieces.collect::<String>(), whole);
}

/// What a terminal or a reader of lines acts on, by Unicode's own classes rather than our list.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// A manifest: filters within their bounds, or a reason in one line.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match manifests::from_text(Path::new("filters"), text) {
        Err(failure) => assert!(!failure.0.is_empty()),
        Ok(specs) => {
            for spec in specs {
                let ms = u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX);
                assert!((1..=FILTER_CALL_MS_MAX).contains(&ms), "{ms} ms");
                assert!((1..=FILTER_MEMORY_MIB_MAX).contains(&spec.memory_mib));
                let config = serde_json::from_str::<serde_json::Value>(&spec.config);
                assert!(config.is_ok_and(|config| config.is_object()), "{}", spec.config);
            }
        }
    }
}

/// A recorded fact: what is read is written and read as the same, goes into a component and comes out
/// as the same, and no built-in filter fails on it.
pub fn wit(bytes: &[u8]) {
    let Some(told) = std::str::from_utf8(bytes).ok().and_then(|line| recorded::read(line).ok())
    else {
        return;
    };
    let again = recorded::read(&recorded::line(&told)).expect("what was written can be read");
    assert_eq!((&again.context, &again.narration), (&told.context, &told.narration));
    let line = wire::line(&told.context, &told.narration);
    assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    assert!(!line.contains(is_unsafe), "{line}");
    FILTERS.with_borrow_mut(|filters| filters.show(told));
}

thread_local! {
    static FILTERS: RefCell<Filters> =
        RefCell::new(Filters::new().expect("the built-in filters can be started"));
}

/// One engine a process: each takes address space for thousands of instances.
static HOST: LazyLock<Arc<Host>> =
    LazyLock::new(|| Arc::new(Host::new().expect("the WebAssembly engine starts")));

/// The default chain, and an instance that gives back what it is given.
struct Filters {
    chains: Chains,
    instances: Instances,
    echo: Option<Instance>,
    component: Arc<Component>,
}

impl Filters {
    fn new() -> Result<Self> {
        let chains = Chains::new(Arc::clone(&HOST), None);
        chains.reload(&Narrator::new("fuzz".into(), Arc::new(Nowhere)))?;
        // It changes no text and no fact, and at most closes the sinks.
        let bytes = builtin::component("throttle").expect("it is built in");
        let component = Component::load(&HOST, bytes, 32).expect("what is built in is sound");
        let (instances, echo) = (Instances::default(), None);
        Ok(Filters { chains, instances, echo, component: Arc::new(component) })
    }

    fn show(&mut self, told: Told) {
        let Told { context, mut narration } = told;
        cleaning::narration(&mut narration);
        let echo = self.echo.get_or_insert_with(|| {
            Instance::start(&HOST, &self.component, &"echo".into(), 32, "{}")
                .expect("what is built in starts")
        });
        let _timed = HOST.awake();
        match echo.narrate(&context, &narration, Duration::from_secs(1)) {
            Ok(mut back) => {
                back.sinks = narration.sinks;
                assert_eq!(back, narration, "it came back as another");
            }
            Err(failure) => {
                // A younger fact's fields have to be an object: the one thing that is asked of them.
                assert!(matches!(narration.fact, Fact::Other(_)), "{}", failure.0);
                self.echo = None;
            }
        }
        narration.sinks = Sinks::STDOUT | Sinks::SSE;
        let other = matches!(narration.fact, Fact::Other(_));
        let chain = self.chains.current();
        let verdict = chain.narrate(&mut self.instances, &context, narration, &mut |_| {});
        if let Verdict::Withheld(withheld) = &verdict {
            assert!(other, "{}: {}", withheld.filter, withheld.reason);
        }
        if let Verdict::Deliver(narration) = verdict {
            let long = |text: &String| text.chars().count() > FACT_CHARS_MAX;
            assert!(!long(&narration.human) && !long(&narration.target));
        }
    }
}
