//! Custom headers of an endpoint: which names and values are allowed, checked by one function at write and at send.

use secrecy::SecretString;
use std::fmt;

/// Custom headers as they are sent: names keep their spelling, in the order given, unique whatever their case.
#[derive(Debug, Clone, Default)]
pub struct CustomHeaders(Vec<CustomHeader>);

/// One custom header.
#[derive(Debug, Clone)]
pub struct CustomHeader {
    /// The name as the user spelled it.
    pub name: String,
    /// The value; held as a secret whatever its kind, so that it cannot be printed by accident.
    pub value: SecretString,
    /// Sealed in the store and never returned by the API.
    pub sensitive: bool,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRefusal {
    /// The header's name as given (shortened, control characters escaped).
    pub name: String,
    /// What is wrong, for the caller. Never contains the value.
    pub reason: String,
}

impl fmt::Display for HeaderRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "header `{}` {}", self.name, self.reason)
    }
}

/// Checks one header, at write and again at send.
pub fn check(_name: &str, _value: &str) -> Result<(), HeaderRefusal> {
    todo!()
}

/// Names whose values are always sensitive, whatever the user says.
pub fn is_sensitive_name(_name: &str) -> bool {
    todo!()
}

impl CustomHeaders {
    /// Checks each header, uniqueness and the totals.
    pub fn new(_entries: Vec<CustomHeader>) -> Result<Self, HeaderRefusal> {
        todo!()
    }

    /// From a store that sealed them: unchecked here, since every header is checked again when it is sent.
    pub fn from_stored(entries: Vec<CustomHeader>) -> Self {
        Self(entries)
    }

    /// The headers in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, CustomHeader> {
        self.0.iter()
    }

    /// The header of this name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&CustomHeader> {
        self.0.iter().find(|header| header.name.eq_ignore_ascii_case(name))
    }
}
