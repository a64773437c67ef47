//! Where narrations and tokens go: through the pipeline, in order per job, to stdout and into the
//! job's log. Nobody pushes to a client; a client reads its log. Decides nothing about wording.

pub mod event;
pub mod frame;
#[cfg(test)]
mod hostile;
pub mod job_log;
pub mod pipeline;
pub mod record;
pub mod stdout;

pub use event::Event;
pub use job_log::{JobLog, Reader};
pub use pipeline::{Feed, Pipeline};
pub use record::Recorder;
pub use stdout::{Form, Stdout};
