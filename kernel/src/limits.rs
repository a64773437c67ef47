//! Every bound of the kernels, unit last in its name.

/// Threads of a team.
pub const TEAM_THREADS_MAX: usize = 256;
/// Looks of a waiting thread at what it waits for before it yields its core.
pub const TEAM_SPINS_MAX: u32 = 20_000;
/// Yields of a waiting thread before it sleeps.
pub const TEAM_YIELDS_MAX: u32 = 200;
/// Tokens in a block of the KV cache; also those that share one softmax (a power of two).
pub const KV_BLOCK_TOKENS_MAX: usize = 128;
/// Longest head, values.
pub const HEAD_DIM_MAX: usize = 512;
