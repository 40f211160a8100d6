//! Checks on JSON that passes through untouched: the bytes that were published are the bytes that are signed and sent.

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadRefusal {
    /// Not one JSON value in UTF-8.
    Malformed(String),
    /// Valid JSON, but not an object.
    NotAnObject,
    /// Nested deeper than [`JSON_DEPTH`](crate::limits::JSON_DEPTH).
    TooDeep,
    /// Larger than [`PAYLOAD_BYTES`](crate::limits::PAYLOAD_BYTES).
    TooLarge,
}

/// Checks nesting only, iteratively, in one pass over bytes that need not be valid JSON.
pub fn check_depth(_json: &[u8]) -> Result<(), PayloadRefusal> {
    todo!()
}

/// Checks a published payload: size, depth, and that it is one JSON object. Its numbers, spacing, key order and
/// duplicate keys are left as they are.
pub fn check(_json: &[u8]) -> Result<(), PayloadRefusal> {
    todo!()
}
