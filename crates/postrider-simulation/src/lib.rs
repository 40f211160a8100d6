//! Development only: the storage contract in memory, and seeded simulations of the real engine on it.
//!
//! The cast, from the outside in:
//! - [`run()`]: one run of a seed; `plan`: what a seed stands for, all of it drawn from [`random`] before the run begins;
//! - `world`: what the parts share; `trace`: what happened, as a hash and as the last entries;
//! - `node`: the engine with a store of its own, which can die at any await, stand still, and meet a bad database;
//! - `network` and [`receiver`]: model endpoints in the place of sockets; `publisher` and `owner`: who publishes, and
//!   who changes endpoints while messages flow;
//! - `oracle`: what must never happen, checked from outside the engine while it runs and at the end;
//! - [`store`]: the storage contract in memory, which passes the contract's own suite.
//!
//! Time is tokio's paused time, and randomness comes from the seed: the same seed makes the same run, step by step.

mod network;
mod node;
mod oracle;
mod owner;
mod plan;
mod publisher;
pub mod random;
pub mod receiver;
mod run;
pub mod store;
mod trace;
mod world;

pub use oracle::Counts;
pub use plan::Mode;
pub use run::{Report, run};
