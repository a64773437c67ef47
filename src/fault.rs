//! Faults that tests plant: named points at which a build with debug assertions fails, panics, hangs or
//! is slow, as a file says. A release build has none of it, and no point costs anything there.

use crate::error::Result;

/// A step that may fail: here it fails, panics, hangs or takes long if a test says so.
///
/// # Errors
/// [`crate::error::Kind::Internal`] where a test planted a failure.
#[inline]
pub fn step(name: &str) -> Result<()> {
    #[cfg(debug_assertions)]
    return planted::pass(name, true);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        Ok(())
    }
}

/// A place that can't fail, in which there may be a bug nevertheless: here it panics, hangs or takes
/// long if a test says so.
#[inline]
pub fn place(name: &str) {
    #[cfg(debug_assertions)]
    drop(planted::pass(name, false));
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Reads anew what is planted, and begins to count; done at every request.
#[inline]
pub fn renew() {
    #[cfg(debug_assertions)]
    planted::renew();
}

/// What is planted: a line `POINT ACTION N` in the file that `RBEES_FAULT` names. POINT may be `any`
/// step; ACTION is `fail`, `panic`, `hang` or a number, of ms; N says at which pass, 0: at each. A file
/// whose fault was done is deleted, so that a test can tell.
#[cfg(debug_assertions)]
mod planted {
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use crate::error::{Error, Kind, Result};

    struct Plan {
        text: String,
        passed: u64,
    }

    static PLAN: Mutex<Option<Plan>> = Mutex::new(None);

    fn file() -> Option<&'static PathBuf> {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        FILE.get_or_init(|| std::env::var_os("RBEES_FAULT").map(PathBuf::from)).as_ref()
    }

    fn plan() -> std::sync::MutexGuard<'static, Option<Plan>> {
        PLAN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn renew() {
        let Some(file) = file() else { return };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut plan = plan();
        if plan.as_ref().is_none_or(|plan| plan.text != text) {
            *plan = Some(Plan { text, passed: 0 });
        }
    }

    /// What is to be done at this pass, if it is the one.
    fn due(name: &str, fallible: bool) -> Option<String> {
        let mut plan = plan();
        let plan = plan.as_mut()?;
        let mut words = plan.text.split_whitespace();
        let (point, action) = (words.next()?, words.next()?.to_owned());
        let at: u64 = words.next()?.parse().ok()?;
        if point != name && !(point == "any" && fallible) {
            return None;
        }
        plan.passed += 1;
        if at > 0 && plan.passed != at {
            return None;
        }
        if at > 0 {
            plan.text.clear();
            let _ = std::fs::remove_file(file()?); // a test misses it only if it took it away
        }
        Some(action)
    }

    pub fn pass(name: &str, fallible: bool) -> Result<()> {
        if file().is_none() {
            return Ok(());
        }
        match due(name, fallible).as_deref() {
            Some("fail") => Err(Error::new(Kind::Internal, format!("planted at {name}"))),
            Some("panic") => panic!("planted at {name}"),
            Some("hang") => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Some(ms) => {
                std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
