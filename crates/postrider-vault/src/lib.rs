//! Every secret: keyring, envelope encryption, API key verifiers. Pure but for randomness and for reading and creating
//! the keyring file.
//!
//! The cast:
//! - [`keyring::Keyring`]: the operator's keys (KEKs), from a file;
//! - [`seal::DataKey`]: an environment's key (DEK), wrapped by a KEK; seals and opens values bound to their row;
//! - [`api_key`]: tokens of API keys, kept only as keyed MACs.
//!
//! Each module's head says its format. Keys are wiped on drop, and no type here prints one.

pub mod api_key;
pub mod keyring;
pub mod seal;

/// Random bytes of the operating system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness nothing can be kept secret; the process must not go on. Not reachable from input.
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Length-prefixed, so that no two lists of fields give the same bytes. Fields are names and ids, bounded by
/// [`NAME_BYTES`](postrider_model::limits::NAME_BYTES), or digests; a longer one would still be written in full.
fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(field);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn first_8(tag: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(tag) {
        *to = *from;
    }
    first
}
