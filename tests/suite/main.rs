//! The integration tests: the real binary on port 0, spoken to as its users speak to it. A module a
//! promise; most run on a tiny random model, a few on the real one.

#[path = "../zoo/filters.rs"]
mod animals;
#[path = "../support/gguf.rs"]
mod gguf;
#[path = "../support/guests.rs"]
mod guests;
#[path = "../support/mutator.rs"]
mod mutator;
#[path = "../support/worker.rs"]
mod worker;

mod bad_input;
mod canaries;
mod contract;
mod departures;
mod facts;
mod filter_guests;
mod filter_tools;
mod filters;
mod fuzzing;
mod golden;
mod guard;
mod hung;
mod hush;
mod jobs;
mod life;
mod load;
mod metrics;
mod model_files;
mod openai;
mod otlp;
mod playground;
mod pull;
mod real_model;
mod reference;
mod reliability;
mod reload;
mod stream;
mod supply;
mod tidy;
mod zoo;
