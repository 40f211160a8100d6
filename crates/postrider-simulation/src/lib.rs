//! Development only: the storage contract in memory, and simulations of the real engine on it.
//!
//! The cast:
//! - [`store`]: the contract in memory, written to be obviously right; it passes the contract's own suite.

pub mod store;
