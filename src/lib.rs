//! A worker that loads one language model, serves it over HTTP with server-sent events, and narrates
//! what it does. Facts flow one way: told here, worded by filters, delivered to stdout and streams.
//! A folder uses only what stands before it in this list.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;

pub mod error;

pub mod fault;

pub mod clock;

pub mod private;

pub mod files;

pub mod measure;

pub mod narration;

pub mod filter;

pub mod delivery;

pub mod job;

pub mod engine;

pub mod hub;

pub mod http;

pub mod config;

pub mod worker;

pub mod cli;

#[doc(hidden)]
pub mod fuzzing;
