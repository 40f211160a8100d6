//! Every secret: keyring, envelope encryption, API key verifiers. Pure but for reading and creating the keyring file.
//!
//! The cast:
//! - [`keyring::Keyring`]: the operator's keys (KEKs), from a file;
//! - [`seal::DataKey`]: an environment's key (DEK), wrapped by a KEK; seals and opens values bound to their row;
//! - [`api_key`]: tokens of API keys, kept only as keyed MACs.

pub mod api_key;
pub mod keyring;
pub mod seal;
