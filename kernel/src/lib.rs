//! The arithmetic of a step on the CPU: packed weights, products, attention over a paged KV cache, and
//! the thread team that shares them. The only room with `unsafe`; knows no model, no request, no file.
//!
//! A row's result is the same to the bit whatever else is in a call, however a prompt is cut into
//! calls and however many threads work: every sum runs in one fixed order over a row's own values.

mod attention;
mod error;
pub mod kind;
mod kv;
mod layout;
mod limits;
mod matrix;
mod memory;
mod product;
mod rows;
mod simd;
mod team;
#[cfg(test)]
mod tests;
mod tile;

pub use attention::{Attention, Span};
pub use error::{Error, Fault, Result};
pub use kind::Kind;
pub use kv::{KvKind, KvPool};
pub use matrix::{Matrix, Packer};
pub use memory::{Arena, Floats};
pub use product::{Input, Kernel, Product};
pub use rows::{Activation, Norm, Rope, RopeStyle, soft_cap};
