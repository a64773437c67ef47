//! A string that can't leak by accident: prompts, generated text, tokens of access.
//! Has neither `Debug` nor `Display` nor `Serialize`, so logging one does not compile.

use std::panic;

/// From now on a panic says where it happened and no more: its message may hold a piece of a prompt, as
/// that of a text cut between two bytes of a character does.
pub fn hush_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "a thread panicked; please report it");
    }));
}

/// Text of a user or of the model. To read it one has to say [`Private::expose`].
///
/// ```compile_fail
/// let prompt = rbees_workerd::private::Private::new("my secret".to_owned());
/// println!("{prompt:?}");
/// ```
#[derive(Clone, Default)]
pub struct Private(String);

impl Private {
    /// Takes the text in.
    pub const fn new(text: String) -> Self {
        Private(text)
    }

    /// The text itself; every use of this is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in Unicode characters, which may be told.
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }
}
